"""Converts Matterport's `Config` and the shapes of the tensors to our config.

The source of every rule is `mrcnn/config.py`, `mrcnn/model.py` and `mrcnn/utils.py` of matterport/Mask_RCNN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from maskrcnn.config import Config, DetectConfig, ImageConfig, ModelConfig, RPNConfig, TrainConfig
from maskrcnn.config.conventions import MATTERPORT, Conventions
from maskrcnn.weights.frameworks.matterport.layout import EPS, YXHW
from maskrcnn.weights.frameworks.settings import (
    Assumed,
    anchors_of,
    check_fits,
    check_supported,
    four,
    kinds_checked,
    pixel_statistics,
)

# The defaults of the settings that are read here (`mrcnn/config.py`).
DEFAULTS: dict[str, Any] = {
    "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "IMAGE_RESIZE_MODE": "square",
    "IMAGE_MIN_DIM": 800,
    "IMAGE_MAX_DIM": 1024,
    "IMAGE_MIN_SCALE": 0,
    "MEAN_PIXEL": [123.7, 116.8, 103.9],
    "RPN_ANCHOR_SCALES": [32, 64, 128, 256, 512],
    "RPN_ANCHOR_RATIOS": [0.5, 1, 2],
    "RPN_ANCHOR_STRIDE": 1,
    "RPN_NMS_THRESHOLD": 0.7,
    "RPN_TRAIN_ANCHORS_PER_IMAGE": 256,
    "RPN_BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "PRE_NMS_LIMIT": 6000,
    "POST_NMS_ROIS_TRAINING": 2000,
    "POST_NMS_ROIS_INFERENCE": 1000,
    "TRAIN_ROIS_PER_IMAGE": 200,
    "ROI_POSITIVE_RATIO": 0.33,
    "MASK_POOL_SIZE": 14,
    "BBOX_STD_DEV": [0.1, 0.1, 0.2, 0.2],
    "DETECTION_MAX_INSTANCES": 100,
    "DETECTION_MIN_CONFIDENCE": 0.7,
    "DETECTION_NMS_THRESHOLD": 0.3,
    "LEARNING_RATE": 0.001,
    "LEARNING_MOMENTUM": 0.9,
    "WEIGHT_DECAY": 0.0001,
    "GRADIENT_CLIP_NORM": 5.0,
    "TRAIN_BN": False,
}
# No image is that long. IMAGE_MAX_DIM limits the long side only in the mode "square".
NO_LIMIT = 1_000_000
# The only supported values.
SUPPORTED: dict[str, Any] = {
    "RPN_ANCHOR_STRIDE": 1,
    "BACKBONE_STRIDES": [4, 8, 16, 32, 64],
    "IMAGE_PADDING": True,  # before IMAGE_RESIZE_MODE, and in the port
}


def our_config(model: ModelConfig, settings: Mapping[str, Any] | None) -> tuple[Config, Assumed]:
    """The config of a model with this architecture, and the assumptions about it.

    Args:
        settings: the attributes of its Config by name. Missing attributes take Matterport's defaults.

    Raises:
        ConfigError, WeightsError: as in `Importer.import_checkpoint`.
    """
    given = settings or {}
    check_fits(given, {"NUM_CLASSES": model.num_classes + 1})
    use = DEFAULTS | dict(given)
    assumed = {name: value for name, value in DEFAULTS.items() if name not in given}
    with kinds_checked("Matterport"):
        supported = SUPPORTED | {"IMAGE_CHANNEL_COUNT": len(use["MEAN_PIXEL"])}
        check_supported({**use, "BACKBONE_STRIDES": list(use["BACKBONE_STRIDES"])}, supported)
        return _config(model, use), _assumptions(use, assumed)


def _config(shapes: ModelConfig, use: Mapping[str, Any]) -> Config:
    model = ModelConfig(
        num_classes=shapes.num_classes,
        backbone=replace(shapes.resnet, stride_in_1x1=True, norm_eps=EPS, frozen_stages=0),
        fpn_channels=shapes.fpn_channels,
        # Matterport's ratios are width / height.
        anchors=anchors_of(shapes, use["RPN_ANCHOR_SCALES"], [1 / ratio for ratio in use["RPN_ANCHOR_RATIOS"]]),
        rpn=_rpn_config(shapes.rpn, use),
        box_head=replace(
            shapes.box_head,
            samples=use["TRAIN_ROIS_PER_IMAGE"],
            positive_fraction=use["ROI_POSITIVE_RATIO"],
            box_weights=_box_weights(use["BBOX_STD_DEV"]),
            smooth_l1_beta=1.0,
        ),
        mask_head=shapes.mask_head
        and replace(shapes.mask_head, resolution=use["MASK_POOL_SIZE"], samples=use["TRAIN_ROIS_PER_IMAGE"]),
        detect=DetectConfig(
            score_threshold=use["DETECTION_MIN_CONFIDENCE"] or 0.0,
            nms_iou=use["DETECTION_NMS_THRESHOLD"],
            max_detections=use["DETECTION_MAX_INSTANCES"],
        ),
    )
    train = TrainConfig(
        learning_rate=use["LEARNING_RATE"],
        momentum=use["LEARNING_MOMENTUM"],
        weight_decay=use["WEIGHT_DECAY"],
        clip_norm=use["GRADIENT_CLIP_NORM"],
    )
    return Config(model=model, image=_image_config(use), train=train, conventions=_conventions(use))


def _rpn_config(rpn: RPNConfig, use: Mapping[str, Any]) -> RPNConfig:
    return replace(
        rpn,
        samples=use["RPN_TRAIN_ANCHORS_PER_IMAGE"],
        pre_nms_train=use["PRE_NMS_LIMIT"],
        pre_nms_test=use["PRE_NMS_LIMIT"],
        post_nms_train=use["POST_NMS_ROIS_TRAINING"],
        post_nms_test=use["POST_NMS_ROIS_INFERENCE"],
        nms_iou=use["RPN_NMS_THRESHOLD"],
        box_weights=_box_weights(use["RPN_BBOX_STD_DEV"]),
        smooth_l1_beta=1.0,
    )


def _image_config(use: Mapping[str, Any]) -> ImageConfig:
    """The rules of `utils.resize_image`.

    The mode "none" expects sides that are multiples of 64. The mode "pad64" does not change such images either.
    """
    square, resized = use["IMAGE_RESIZE_MODE"] == "square", use["IMAGE_RESIZE_MODE"] != "none"
    long_side = use["IMAGE_MAX_DIM"] if square else NO_LIMIT
    return ImageConfig(
        short_side=min((use["IMAGE_MIN_DIM"] if resized else None) or 1, long_side),
        long_side=long_side,
        divisor=64,
        **pixel_statistics(use["MEAN_PIXEL"], [1.0] * len(use["MEAN_PIXEL"])),
    )


def _conventions(use: Mapping[str, Any]) -> Conventions:
    square, resized = use["IMAGE_RESIZE_MODE"] == "square", use["IMAGE_RESIZE_MODE"] != "none"
    pixels = replace(
        MATTERPORT.pixels,
        letterbox="square" if square else "divisor",
        min_scale=max(1.0, (use["IMAGE_MIN_SCALE"] if resized else None) or 0.0),
    )
    return replace(MATTERPORT, pixels=pixels)


def _box_weights(std_dev: Sequence[float]) -> tuple[float, float, float, float]:
    return four(1 / std_dev[i] for i in YXHW)


def _assumptions(use: Mapping[str, Any], defaults: Mapping[str, Any]) -> Assumed:
    assumed = []
    if defaults:
        shown = ", ".join(f"{name} {value}" for name, value in defaults.items())
        assumed.append(f"these settings have Matterport's defaults, because no config sets them: {shown}")
    if use["TRAIN_BN"] is not False:
        assumed.append(f"TRAIN_BN {use['TRAIN_BN']} is ignored: batch norms stay frozen in continued training")
    if use["IMAGE_RESIZE_MODE"] == "crop":
        assumed.append("IMAGE_RESIZE_MODE crop changes only training: images are resized as in pad64")
    if any(weight != 1 for weight in use.get("LOSS_WEIGHTS", {}).values()):
        assumed.append(f"LOSS_WEIGHTS {use['LOSS_WEIGHTS']} are ignored: every loss has the weight 1")
    return tuple(assumed)
