"""Converts maskrcnn-benchmark's settings to our config. Detectron's importer uses it too.

The sources are maskrcnn-benchmark's `config/defaults.py`, `configs/*.yaml` and `modeling/`. Its boxes end at their last
pixel, so that it computes widths with "+ 1". Our boxes end at the far edge of that pixel and need no "+ 1".
`BoxRules.end` holds the remaining differences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from maskrcnn.config import (
    AugmentConfig,
    BoxHeadConfig,
    Config,
    DetectConfig,
    ImageConfig,
    ModelConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import MASKRCNN_BENCHMARK, Conventions
from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.settings import (
    CAFFE_PIXELS,
    DETECTED,
    FIVE_ANCHORS,
    RESIZED,
    Assumed,
    Settings,
    anchors_of,
    check_fits,
    check_one_pooler,
    check_supported,
    four,
    jitter_of,
    kinds_checked,
    pixel_statistics,
    samples_sentence,
    stride_sentence,
    strided_in_1x1,
)

# The defaults of the settings that are read here.
DEFAULTS: dict[str, Any] = {
    "INPUT.MIN_SIZE_TRAIN": 800,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.PIXEL_MEAN": [102.9801, 115.9465, 122.7717],
    "INPUT.PIXEL_STD": [1.0, 1.0, 1.0],
    "INPUT.TO_BGR255": True,
    "INPUT.HORIZONTAL_FLIP_PROB_TRAIN": 0.5,
    "INPUT.VERTICAL_FLIP_PROB_TRAIN": 0.0,
    "DATALOADER.SIZE_DIVISIBILITY": 0,
    "MODEL.CLS_AGNOSTIC_BBOX_REG": False,
    "MODEL.BACKBONE.FREEZE_CONV_BODY_AT": 2,
    "MODEL.FPN.USE_RELU": False,
    "MODEL.GROUP_NORM.DIM_PER_GP": -1,
    "MODEL.GROUP_NORM.NUM_GROUPS": 32,
    "MODEL.GROUP_NORM.EPSILON": 1e-5,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RPN.ANCHOR_SIZES": [32, 64, 128, 256, 512],
    "MODEL.RPN.ASPECT_RATIOS": [0.5, 1.0, 2.0],
    "MODEL.RPN.STRADDLE_THRESH": 0,
    "MODEL.RPN.FG_IOU_THRESHOLD": 0.7,
    "MODEL.RPN.BG_IOU_THRESHOLD": 0.3,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 12000,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOP_N_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOP_N_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.MIN_SIZE": 0,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TRAIN": 2000,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 2000,
    "MODEL.RPN.FPN_POST_NMS_PER_BATCH": True,
    "MODEL.ROI_HEADS.FG_IOU_THRESHOLD": 0.5,
    "MODEL.ROI_HEADS.BG_IOU_THRESHOLD": 0.5,
    "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.SCORE_THRESH": 0.05,
    "MODEL.ROI_HEADS.NMS": 0.5,
    "MODEL.ROI_HEADS.DETECTIONS_PER_IMG": 100,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD": 0.5,
    "MODEL.ROI_MASK_HEAD.DILATION": 1,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 0,
}
# Settings that its own configs change in models with a pyramid.
WITH_PYRAMID: dict[str, Any] = {
    "DATALOADER.SIZE_DIVISIBILITY": 32,
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 1000,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 1000,
    **{f"MODEL.ROI_{head}_HEAD.POOLER_SAMPLING_RATIO": 2 for head in ("BOX", "MASK", "KEYPOINT")},
}
# The only supported values.
SUPPORTED: dict[str, Any] = {
    "MODEL.FPN.USE_RELU": False,
    "MODEL.GROUP_NORM.DIM_PER_GP": -1,
    "MODEL.GROUP_NORM.NUM_GROUPS": 32,
    "MODEL.GROUP_NORM.EPSILON": 1e-5,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.ROI_MASK_HEAD.DILATION": 1,
}
ASSUMED = (
    RESIZED,
    f"{CAFFE_PIXELS} and standard deviation 1",
    FIVE_ANCHORS,
    DETECTED,
    "losses, IoU thresholds, numbers of samples and numbers of proposals are those of its own configs",
)


def our_config(model: ModelConfig, given: Mapping[str, Any] | None) -> tuple[Config, Assumed]:
    """The config of a model with this architecture, and the assumptions about it.

    Args:
        given: settings by names such as MODEL.RPN.NMS_THRESH, or None.

    Raises:
        ConfigError, WeightsError: as in `Importer.import_checkpoint`.
    """
    settings, assumed = _assumed_settings(model) if given is None else (DEFAULTS | dict(given), ())
    return config_of(model, settings, MASKRCNN_BENCHMARK), assumed


def _assumed_settings(model: ModelConfig) -> tuple[Settings, Assumed]:
    """The settings that its own configs give to a model of this architecture."""
    in_1x1 = strided_in_1x1(model)
    settings = DEFAULTS | (WITH_PYRAMID if model.neck == "fpn" else {}) | {"MODEL.RESNETS.STRIDE_IN_1X1": in_1x1}
    if model.box_head.layers:
        settings["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"] = model.box_head.resolution
    samples = samples_sentence(settings["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"])
    return settings, (*ASSUMED, stride_sentence(in_1x1, "MODEL.RESNETS.STRIDE_IN_1X1"), samples)


def config_of(model: ModelConfig, settings: Mapping[str, Any], conventions: Conventions) -> Config:
    """The config of a model with this architecture.

    Args:
        settings: all settings of `DEFAULTS`.
        conventions: those of the framework that the settings come from.

    Raises:
        ConfigError, WeightsError: as in `Importer.import_checkpoint`.
    """
    with kinds_checked("maskrcnn-benchmark or Detectron"):
        _check(model, settings)
        return Config(
            model=_model(model, settings),
            image=_image(settings),
            augment=_augment(settings),
            conventions=_with_rpn_rules(conventions, model, settings),
        )


def _check(model: ModelConfig, settings: Mapping[str, Any]) -> None:
    known = {
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": model.num_classes + 1,
        "MODEL.MASK_ON": model.mask_head is not None,
        "MODEL.KEYPOINT_ON": model.keypoint_head is not None,
    }
    check_fits(settings, known)
    check_supported(settings, SUPPORTED)
    check_one_pooler(model, settings, "POOLER_SAMPLING_RATIO")
    low, high = (settings[f"MODEL.ROI_HEADS.{name}_IOU_THRESHOLD"] for name in ("BG", "FG"))
    if low != high:
        raise ConfigError(
            f"MODEL.ROI_HEADS.BG_IOU_THRESHOLD and FG_IOU_THRESHOLD must be equal, found {low} and {high}"
        )


def _image(settings: Mapping[str, Any]) -> ImageConfig:
    mean, std = settings["INPUT.PIXEL_MEAN"], settings["INPUT.PIXEL_STD"]
    bgr = bool(settings["INPUT.TO_BGR255"])
    if not bgr:  # values in 0..1
        mean, std = [255 * value for value in mean], [255 * value for value in std]
    return ImageConfig(
        short_side=settings["INPUT.MIN_SIZE_TEST"],
        long_side=settings["INPUT.MAX_SIZE_TEST"],
        divisor=settings["DATALOADER.SIZE_DIVISIBILITY"] or 1,
        **pixel_statistics(mean, std, bgr=bgr),
    )


def _augment(settings: Mapping[str, Any]) -> AugmentConfig:
    return AugmentConfig(
        scale_jitter=jitter_of(settings["INPUT.MIN_SIZE_TRAIN"], settings["INPUT.MIN_SIZE_TEST"]),
        flip_horizontal=float(settings["INPUT.HORIZONTAL_FLIP_PROB_TRAIN"]),
        flip_vertical=float(settings["INPUT.VERTICAL_FLIP_PROB_TRAIN"]),
    )


def _model(model: ModelConfig, settings: Mapping[str, Any]) -> ModelConfig:
    backbone = model.resnet
    backbone = replace(
        backbone,
        stride_in_1x1=backbone.depth >= 50 and bool(settings["MODEL.RESNETS.STRIDE_IN_1X1"]),
        norm_eps=1e-5 if backbone.norm == "group_norm" else 0.0,  # its frozen batch norm has no epsilon
        frozen_stages=max(0, int(settings["MODEL.BACKBONE.FREEZE_CONV_BODY_AT"])),
    )
    positives = int(settings["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"] * settings["MODEL.ROI_HEADS.POSITIVE_FRACTION"])
    return replace(
        model,
        neck="c5" if model.neck == "dc5" else model.neck,
        backbone=backbone,
        anchors=anchors_of(model, settings["MODEL.RPN.ANCHOR_SIZES"], settings["MODEL.RPN.ASPECT_RATIOS"]),
        rpn=_rpn(model, settings),
        rois=RoIConfig(sampling_ratio=settings["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]),
        box_head=_box_head(model.box_head, settings),
        mask_head=model.mask_head
        and replace(model.mask_head, resolution=settings["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"], samples=positives),
        keypoint_head=model.keypoint_head
        and replace(
            model.keypoint_head, resolution=settings["MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION"], samples=positives
        ),
        detect=DetectConfig(
            score_threshold=float(settings["MODEL.ROI_HEADS.SCORE_THRESH"]),
            nms_iou=float(settings["MODEL.ROI_HEADS.NMS"]),
            max_detections=settings["MODEL.ROI_HEADS.DETECTIONS_PER_IMG"],
            mask_threshold=float(settings["MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD"]),
        ),
    )


def _with_rpn_rules(conventions: Conventions, model: ModelConfig, settings: Mapping[str, Any]) -> Conventions:
    """The conventions, with the rules of the RPN that the settings determine."""
    straddle = float(settings["MODEL.RPN.STRADDLE_THRESH"])
    per_batch = model.neck == "fpn" and settings["MODEL.RPN.FPN_POST_NMS_PER_BATCH"]
    return replace(
        conventions,
        matching=replace(conventions.matching, allowed_border=(straddle, straddle + 1.0) if straddle >= 0 else None),
        proposals=replace(
            conventions.proposals,
            post_nms_per="batch" if per_batch else "image",
            min_size=float(settings["MODEL.RPN.MIN_SIZE"]),
        ),
    )


def _rpn(model: ModelConfig, settings: Mapping[str, Any]) -> RPNConfig:
    rpn = {name.removeprefix("MODEL.RPN."): value for name, value in settings.items() if name.startswith("MODEL.RPN.")}
    after = "FPN_POST_NMS_TOP_N" if model.neck == "fpn" else "POST_NMS_TOP_N"
    for phase in ("TRAIN", "TEST"):
        if rpn[f"POST_NMS_TOP_N_{phase}"] < min(rpn[f"PRE_NMS_TOP_N_{phase}"], rpn[f"{after}_{phase}"]):
            raise ConfigError(
                f"MODEL.RPN.POST_NMS_TOP_N_{phase} {rpn[f'POST_NMS_TOP_N_{phase}']} limits the proposals of a level "
                f"after non-maximum suppression, which is not supported: expected at least {after}_{phase} or "
                f"PRE_NMS_TOP_N_{phase}"
            )
    return replace(
        model.rpn,
        positive_iou=float(rpn["FG_IOU_THRESHOLD"]),
        negative_iou=float(rpn["BG_IOU_THRESHOLD"]),
        samples=rpn["BATCH_SIZE_PER_IMAGE"],
        positive_fraction=float(rpn["POSITIVE_FRACTION"]),
        pre_nms_train=rpn["PRE_NMS_TOP_N_TRAIN"],
        pre_nms_test=rpn["PRE_NMS_TOP_N_TEST"],
        post_nms_train=rpn[f"{after}_TRAIN"],
        post_nms_test=rpn[f"{after}_TEST"],
        nms_iou=float(rpn["NMS_THRESH"]),
        smooth_l1_beta=1 / 9,
    )


def _box_head(box: BoxHeadConfig, settings: Mapping[str, Any]) -> BoxHeadConfig:
    return replace(
        box,
        positive_iou=float(settings["MODEL.ROI_HEADS.FG_IOU_THRESHOLD"]),
        samples=settings["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
        positive_fraction=float(settings["MODEL.ROI_HEADS.POSITIVE_FRACTION"]),
        resolution=box.resolution if box.layers else settings["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"],
        box_weights=four(settings["MODEL.ROI_HEADS.BBOX_REG_WEIGHTS"]),
        smooth_l1_beta=1.0,
    )
