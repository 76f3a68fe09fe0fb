"""All settings as frozen dataclasses, validated when they are built. Nothing here imports torch or reads a file.

Names follow the paper. Lengths are in pixels of the network input unless a field says otherwise. `Conventions` holds
the rules in which frameworks differ, so that the model code never asks which framework a model comes from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from maskrcnn.config.backbone import ResNetConfig, TimmConfig
from maskrcnn.config.channels import Channel
from maskrcnn.config.conventions import Conventions
from maskrcnn.config.data import AugmentConfig, Category, ImageConfig
from maskrcnn.config.heads import BoxHeadConfig, KeypointHeadConfig, MaskHeadConfig, PointRendConfig, RoIConfig
from maskrcnn.config.model import DetectConfig, ModelConfig
from maskrcnn.config.plain import with_settings
from maskrcnn.config.proposals import AnchorConfig, RPNConfig
from maskrcnn.config.rules import NORM_GROUPS, BoxLoss, HeadNorm, Norm, require
from maskrcnn.config.training import Precision, RecipeName, TrainConfig

__all__ = [
    "NORM_GROUPS",
    "AnchorConfig",
    "AugmentConfig",
    "BoxHeadConfig",
    "BoxLoss",
    "Category",
    "Channel",
    "Config",
    "Conventions",
    "DetectConfig",
    "HeadNorm",
    "ImageConfig",
    "KeypointHeadConfig",
    "MaskHeadConfig",
    "ModelConfig",
    "Norm",
    "PointRendConfig",
    "Precision",
    "RPNConfig",
    "RecipeName",
    "ResNetConfig",
    "RoIConfig",
    "TimmConfig",
    "TrainConfig",
    "config_from_dict",
    "config_to_dict",
    "differing_settings",
    "flat_settings",
    "with_settings",
]


@dataclass(frozen=True)
class Config:
    """Everything that makes a model what it is; stored whole in the model file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    conventions: Conventions = field(default_factory=Conventions)  # rules of the framework that a model comes from
    categories: tuple[Category, ...] = ()  # filled from the data set when training starts

    def __post_init__(self) -> None:
        require(
            not self.categories or len(self.categories) == self.model.num_classes,
            f"config.categories has {len(self.categories)} entries, model.num_classes is {self.model.num_classes}",
        )
        require(
            not self.train.activation_checkpointing or isinstance(self.model.backbone, ResNetConfig),
            "train.activation_checkpointing is for the blocks of a ResNet: leave it False with a backbone of timm",
        )
        weights = self.train.class_weights
        require(
            not (weights and self.categories) or len(weights) == len(self.categories),
            f"train.class_weights needs one number for each of the {len(self.categories)} categories "
            f"({', '.join(category.name for category in self.categories[:10])}), found {len(weights)}",
        )
        require(
            self.model.neck != "fpn" or self.image.divisor % 32 == 0,
            f"image.divisor must be a multiple of 32, the top stride of model.neck fpn, found {self.image.divisor}",
        )
        _check_conventions(self.conventions, self.model, self.image)

    @property
    def float_pixels(self) -> bool:
        """Whether resized images are float32; otherwise they are uint8."""
        return bool(self.image.channels) or self.conventions.pixels.kernel == "bilinear"


def _check_conventions(rules: Conventions, model: ModelConfig, image: ImageConfig) -> None:
    """Raises ConfigError where settings and conventions exclude each other."""
    letterbox, stages = rules.pixels.letterbox, 1 + len(model.box_head.cascade_ious)
    points = model.mask_head is not None and model.mask_head.point_rend is not None
    require(
        letterbox == "none" or image.fixed_size is None,
        "conventions.pixels.letterbox and image.fixed_size both set the size of the network input: set letterbox none "
        "or fixed_size None",
    )
    require(
        letterbox != "square" or image.long_side % image.divisor == 0,
        "conventions.pixels.letterbox square makes every network input long_side x long_side: image.long_side must be "
        f"a multiple of image.divisor {image.divisor}, found {image.long_side}",
    )
    require(
        not rules.features.crop_and_resize or model.rois.op == "align",
        f"conventions.features.crop_and_resize replaces RoIAlign: set rois.op align, found {model.rois.op}",
    )
    require(
        rules.boxes.end != "last_pixel" or not (points or model.keypoint_head is not None),
        "model.keypoint_head and mask_head.point_rend read points between the edges of a box: "
        "set conventions.boxes.end edge, found last_pixel",
    )
    require(
        stages == 1 or len(rules.cascade.loss_weights) in (0, stages),
        f"conventions.cascade.loss_weights needs one number for each of the {stages} box stages "
        f"(box_head.cascade_ious and the first), found {len(rules.cascade.loss_weights)}",
    )
    require(
        stages == 1 or not (points and rules.cascade.mask_head_per_stage),
        "mask_head.point_rend has one head for all stages: set conventions.cascade.mask_head_per_stage False",
    )


def config_to_dict(config: Config) -> dict[str, Any]:
    """The config as nested dicts of plain JSON types. JSON writes its tuples as lists."""
    return asdict(config)


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """The inverse of `config_to_dict`. Missing fields take their defaults.

    Raises:
        ConfigError: an unknown field or a value of the wrong type, with its path.
    """
    return with_settings(Config(), data)


def flat_settings(settings: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested settings by their whole names, such as `image.scale`.

    Args:
        path: the name in front of theirs.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{path}.{key}" if path else key
        flat |= flat_settings(value, name) if isinstance(value, dict) else {name: value}
    return flat


def differing_settings(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """The settings that differ, by name (`image.scale`), each with its value in `one` and in `other`."""

    first, second = flat_settings(config_to_dict(one)), flat_settings(config_to_dict(other))
    return {
        name: (first.get(name), second.get(name))
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    }
