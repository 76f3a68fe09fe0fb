"""All settings as frozen dataclasses, validated when they are built. Imports neither torch nor any file.

Names follow the paper and the field. Lengths are pixels, of the network input unless a field says
otherwise. Rules in which frameworks differ are fields, so that the model code never asks where a
model came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from maskrcnn.config.backbone import ResNetConfig, TimmConfig
from maskrcnn.config.data import AugmentConfig, Category, ImageConfig
from maskrcnn.config.heads import BoxHeadConfig, KeypointHeadConfig, MaskHeadConfig, PointRendConfig, RoIConfig
from maskrcnn.config.model import DetectConfig, ModelConfig
from maskrcnn.config.proposals import AnchorConfig, RPNConfig
from maskrcnn.config.rules import NORM_GROUPS, BoxLoss, BoxMean, GrowthBound, HeadNorm, Norm, require
from maskrcnn.config.training import Precision, TrainConfig
from maskrcnn.errors import ConfigError

__all__ = [
    "NORM_GROUPS",
    "AnchorConfig",
    "AugmentConfig",
    "BoxHeadConfig",
    "BoxLoss",
    "BoxMean",
    "Category",
    "Config",
    "DetectConfig",
    "GrowthBound",
    "HeadNorm",
    "ImageConfig",
    "KeypointHeadConfig",
    "MaskHeadConfig",
    "ModelConfig",
    "Norm",
    "PointRendConfig",
    "Precision",
    "RPNConfig",
    "ResNetConfig",
    "RoIConfig",
    "TimmConfig",
    "TrainConfig",
    "config_from_dict",
    "config_to_dict",
    "differing_settings",
]


@dataclass(frozen=True)
class Config:
    """Everything that makes a model what it is; stored whole in the model file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    categories: tuple[Category, ...] = ()  # filled from the data set when training starts

    def __post_init__(self) -> None:
        require(
            not self.categories or len(self.categories) == self.model.num_classes,
            f"config.categories has {len(self.categories)} entries, model.num_classes is {self.model.num_classes}",
        )
        require(
            self.model.neck != "fpn" or self.image.divisor % 32 == 0,
            f"image.divisor must be a multiple of 32, the top stride of model.neck fpn, found {self.image.divisor}",
        )


def config_to_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON types (tuples become lists when written)."""
    return asdict(config)


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """The inverse of `config_to_dict`. Missing fields take their defaults.

    Raises:
        ConfigError: an unknown field or a value of the wrong type, with its path.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        config = TypeAdapter(Config).validate_python(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"config field {path or '(root)'}: {first['msg']}, found {first['input']!r}; "
            "was the file written by a newer version?"
        ) from None
    unknown = next(_unknown_fields(data, config_to_dict(config)), None)
    require(
        unknown is None, f"config field {unknown}: there is no such field; was the file written by a newer version?"
    )
    return config


def differing_settings(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Values that differ, by the name of the setting (`image.kernel`): of the first and of the second."""

    def flat(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {path: value}
        return {
            name: leaf
            for key, item in value.items()
            for name, leaf in flat(item, f"{path}.{key}" if path else key).items()
        }

    first, second = flat(config_to_dict(one), ""), flat(config_to_dict(other), "")
    return {
        name: (first.get(name), second.get(name))
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    }


def _unknown_fields(given: Any, known: Any, path: str = "") -> Iterator[str]:
    """The paths of all keys in `given` that `known` has not."""
    if isinstance(given, Mapping) and isinstance(known, Mapping):
        for key, value in given.items():
            if key in known:
                yield from _unknown_fields(value, known[key], f"{path}{key}.")
            else:
                yield f"{path}{key}"
