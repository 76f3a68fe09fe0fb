"""torchvision's settings as our config, and the arguments of its constructors that change them.

The sources are torchvision/models/detection (`mask_rcnn.py`, `faster_rcnn.py`, `keypoint_rcnn.py`, `rpn.py`,
`roi_heads.py`, `transform.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from maskrcnn.config import (
    AnchorConfig,
    BoxHeadConfig,
    Category,
    Config,
    HeadNorm,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import TORCHVISION
from maskrcnn.config.plain import with_settings
from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.coco_categories import COCO, COCO_PERSON, LAST_ID
from maskrcnn.weights.frameworks.settings import pixel_statistics

Version = Literal[1, 2]

# Arguments of torchvision's constructors -> our settings.
ARGUMENTS = {
    "min_size": "image.short_side",
    "max_size": "image.long_side",
    "rpn_pre_nms_top_n_train": "model.rpn.pre_nms_train",
    "rpn_pre_nms_top_n_test": "model.rpn.pre_nms_test",
    "rpn_post_nms_top_n_train": "model.rpn.post_nms_train",
    "rpn_post_nms_top_n_test": "model.rpn.post_nms_test",
    "rpn_nms_thresh": "model.rpn.nms_iou",
    "rpn_fg_iou_thresh": "model.rpn.positive_iou",
    "rpn_bg_iou_thresh": "model.rpn.negative_iou",
    "rpn_batch_size_per_image": "model.rpn.samples",
    "rpn_positive_fraction": "model.rpn.positive_fraction",
    "box_score_thresh": "model.detect.score_threshold",
    "box_nms_thresh": "model.detect.nms_iou",
    "box_detections_per_img": "model.detect.max_detections",
    "box_fg_iou_thresh": "model.box_head.positive_iou",
    "box_batch_size_per_image": "model.box_head.samples",
    "box_positive_fraction": "model.box_head.positive_fraction",
    "bbox_reg_weights": "model.box_head.box_weights",
    "image_mean": "image.mean",
    "image_std": "image.std",
    "size_divisible": "image.divisor",
    # Arguments of MultiScaleRoIAlign, the last two those of the mask and keypoint branches.
    "sampling_ratio": "model.rois.sampling_ratio",
    "canonical_scale": "model.rois.canonical_size",
    "canonical_level": "model.rois.canonical_level",
    "mask_output_size": "model.mask_head.resolution",
    "keypoint_output_size": "model.keypoint_head.resolution",
    # Arguments of AnchorGenerator, and the eps of FrozenBatchNorm2d.
    "sizes": "model.anchors.sizes",
    "aspect_ratios": "model.anchors.ratios",
    "norm_eps": "model.backbone.norm_eps",
}


def our_config(model: ModelConfig, settings: Mapping[str, Any] | None) -> tuple[Config, tuple[str, ...]]:
    """The config of a model with this architecture, and the assumptions about it.

    Args:
        model: the architecture, with a class for every row but that of the background.
        settings: `ARGUMENTS` and `categories`. With None torchvision's defaults are used.

    Raises:
        ConfigError: a setting is not known, or contradicts the file.
    """
    given = dict(settings or {})
    rows = model.num_classes + 1
    categories, assumed = _categories(rows, model.keypoint_head, given)
    unused = model.num_classes - len(categories) if categories else 0
    model = replace(model, num_classes=model.num_classes - unused)
    model, sentences = _norms(model, rows, given)
    assumed += sentences
    if not given:
        assumed.append("sizes, anchors and thresholds are torchvision's defaults, because no settings were given")
    config = replace(with_rules(model, unused), categories=categories)
    return _with_arguments(config, given), tuple(assumed)


def _categories(
    rows: int, keypoint_head: KeypointHeadConfig | None, given: Mapping[str, Any]
) -> tuple[tuple[Category, ...], list[str]]:
    """The categories, and the assumptions about them. There are none if neither settings nor shapes determine them."""
    if "categories" in given:
        return _given_categories(given["categories"], rows), []
    if keypoint_head is not None and rows == 2 and keypoint_head.num_keypoints == len(COCO_PERSON.keypoints):
        return (COCO_PERSON,), ["the class is COCO's person, with its 17 keypoints"]
    if keypoint_head is None and rows == LAST_ID + 1:
        return COCO, ["the 91 rows of classes are COCO's ids, and 80 of them have a category"]
    return (), []


def _given_categories(entries: Any, rows: int) -> tuple[Category, ...]:
    try:
        if not isinstance(entries, list):
            raise TypeError
        categories = tuple(
            Category(int(entry["id"]), str(entry["name"])) if isinstance(entry, dict) else Category(number, str(entry))
            for number, entry in enumerate(entries, start=1)
        )
    except (TypeError, KeyError, ValueError):
        raise ConfigError(
            f"settings: `categories` must be a list of names, or objects with id and name, found {entries!r}"
        ) from None
    if len(categories) != rows - 1:
        raise ConfigError(
            f"settings: `categories` has {len(categories)} entries, and the file has {rows - 1} classes without the "
            "background: list each class, but not the background"
        )
    return categories


def _norms(model: ModelConfig, rows: int, given: Mapping[str, Any]) -> tuple[ModelConfig, list[str]]:
    """The model with the rules of its backbone's batch norm, and the assumptions about them."""
    backbone = model.resnet
    keypoints = 0 if model.keypoint_head is None else model.keypoint_head.num_keypoints
    if backbone.norm == "batch_norm" and model.fpn_norm == "none":
        # torchvision's constructors freeze the norms of V1, except in training from scratch.
        return replace(model, backbone=replace(backbone, frozen_stages=0)), []
    if backbone.norm != "frozen_batch_norm" or "norm_eps" in given:
        return model, []
    # Weights of COCO are published for ResNet-50 with 256 channels, and loading them sets an epsilon of 0. Training
    # keeps it, also with other classes. Before version 0.8.2 the epsilon was 0 in all networks.
    published = (rows, keypoints) in ((LAST_ID + 1, 0), (2, len(COCO_PERSON.keypoints)))
    plain = (backbone.depth, backbone.groups, backbone.width, backbone.bottleneck_width) == (50, 1, 64, None)
    eps, why, other = 1e-5, "a network that began from an ImageNet backbone", 0.0
    if published or (plain and model.fpn_channels == 256):
        eps, why, other = 0.0, "torchvision's weights of COCO and a network tuned from them", 1e-5
    sentence = (
        f"the epsilon of the frozen batch norm is {eps:g}, as in {why}; to choose the other one: "
        f"--config norm_eps={other:g} (--weights-config in train)"
    )
    return replace(model, backbone=replace(backbone, norm_eps=eps)), [sentence]


def with_rules(model: ModelConfig, unused_classes: int = 0) -> Config:
    """The config of a model with this architecture and torchvision's settings."""
    detections = replace(TORCHVISION.detections, unused_classes=unused_classes)
    return Config(
        model=replace(model, anchors=AnchorConfig(), rpn=replace(model.rpn, post_nms_train=2000)),
        conventions=replace(TORCHVISION, detections=detections),
        image=ImageConfig(
            mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
            std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
        ),
    )


def torchvision_config(version: Version, num_classes: int, num_keypoints: int | None = None) -> Config:
    """The config of torchvision's `maskrcnn_resnet50_fpn` (or `_v2`) or `keypointrcnn_resnet50_fpn` without weights.

    Args:
        num_classes: without the background.
        num_keypoints: makes the model a Keypoint R-CNN without masks. None for Mask R-CNN.
    """
    norm: HeadNorm = "batch_norm" if version == 2 else "none"
    return with_rules(
        ModelConfig(
            num_classes=num_classes,
            backbone=ResNetConfig(norm="frozen_batch_norm" if version == 1 else "batch_norm"),
            fpn_norm=norm,
            rpn=RPNConfig(convs=version),
            box_head=BoxHeadConfig(convs=4 if version == 2 else 0, layers=1 if version == 2 else 2, norm=norm),
            mask_head=MaskHeadConfig(norm=norm) if num_keypoints is None else None,
            keypoint_head=None if num_keypoints is None else KeypointHeadConfig(num_keypoints),
        )
    )


def _with_arguments(config: Config, given: Mapping[str, Any]) -> Config:
    """The config with the given arguments of torchvision's constructors."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name == "categories":
            continue
        if name not in ARGUMENTS:
            raise ConfigError(f"settings: {name!r} is not supported: expected {', '.join(ARGUMENTS)} or categories")
        values[ARGUMENTS[name]] = _ours(name, value)
    pixels = (values.pop(f"image.{name}", getattr(config.image, name)) for name in ("mean", "std"))
    config = replace(config, image=replace(config.image, **pixel_statistics(*pixels)))
    return with_settings(config, values)


def _ours(name: str, value: Any) -> Any:
    """The value of an argument as our setting has it. A value of another kind is returned as it is."""
    if not isinstance(value, list | tuple) or not value:
        return value
    if name in ("image_mean", "image_std") and all(isinstance(channel, int | float) for channel in value):
        return [255 * channel for channel in value]  # torchvision's pixels are in 0..1
    if name == "min_size":  # training samples one of them, prediction takes the last
        return value[-1]
    if name == "aspect_ratios" and isinstance(value[0], list | tuple):  # one entry for each level
        if any(level != value[0] for level in value):
            raise ConfigError(
                f"settings: aspect_ratios {value} differ between levels, which is not supported: expected the same ones"
            )
        return value[0]
    return value
