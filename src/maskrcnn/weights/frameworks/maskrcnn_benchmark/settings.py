"""A config of ours from the settings of maskrcnn-benchmark, by whose names Detectron's are read too.

The sources are maskrcnn-benchmark's `config/defaults.py`, `configs/*.yaml` and `modeling/`. Its boxes are pixels from
first to last, one shorter than their edges; in ours all that it does with "+ 1" is done without, and what is left of
the rule is `BoxRules.end`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.config import (
    AnchorConfig,
    AugmentConfig,
    BoxHeadConfig,
    Config,
    DetectConfig,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import MASKRCNN_BENCHMARK, Conventions
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.weights.frameworks.settings import Settings, read_yaml

# What maskrcnn-benchmark takes where a config is silent, of the settings that are read here.
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
# What its own configs set otherwise where there is a pyramid.
WITH_PYRAMID: dict[str, Any] = {
    "DATALOADER.SIZE_DIVISIBILITY": 32,
    "MODEL.RPN.PRE_NMS_TOP_N_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOP_N_TEST": 1000,
    "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 1000,
    **{f"MODEL.ROI_{head}_HEAD.POOLER_SAMPLING_RATIO": 2 for head in ("BOX", "MASK", "KEYPOINT")},
}
# Values that have no counterpart here if they are others.
ONLY: dict[str, Any] = {
    "MODEL.FPN.USE_RELU": False,
    "MODEL.GROUP_NORM.DIM_PER_GP": -1,
    "MODEL.GROUP_NORM.NUM_GROUPS": 32,
    "MODEL.GROUP_NORM.EPSILON": 1e-5,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.ROI_MASK_HEAD.DILATION": 1,
}
ASSUMED = (
    "the image is resized to a short side of 800 and a long side of at most 1333 pixels",
    "the input is BGR with mean 102.9801, 115.9465, 122.7717 and standard deviation 1",
    "anchors of 32, 64, 128, 256 and 512 pixels and ratios 0.5, 1 and 2",
    "scores above 0.05, suppression at 0.5 and 100 detections an image",
    "losses, overlaps, samples and numbers of proposals are those of its own configs",
)


def read_settings(path: Path | str) -> Settings:
    """The YAML config, by names such as MODEL.RPN.NMS_THRESH; raises ConfigError."""
    return read_yaml(path, "maskrcnn-benchmark")


def settings_of(model: ModelConfig, given: Mapping[str, Any] | None) -> tuple[Settings, tuple[str, ...]]:
    """Every setting of a model of these shapes, and the sentences on what was assumed."""
    return usual(model) if given is None else (DEFAULTS | dict(given), ())


def usual(model: ModelConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that its own configs give a model of this shape, and the sentences that say so."""
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    in_1x1 = backbone.groups == 1 and backbone.norm != "group_norm"
    said = DEFAULTS | (WITH_PYRAMID if model.neck == "fpn" else {}) | {"MODEL.RESNETS.STRIDE_IN_1X1": in_1x1}
    if model.box_head.layers:
        said["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"] = model.box_head.resolution
    stride = f"a bottleneck's stride is in its {'first 1x1' if in_1x1 else '3x3'} convolution"
    samples = said["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"] or "as many as a bin has cells"
    return said, (*ASSUMED, stride, f"RoIAlign takes {samples} samples a bin and axis")


def our_config(model: ModelConfig, said: Mapping[str, Any], conventions: Conventions = MASKRCNN_BENCHMARK) -> Config:
    """The config of a model whose shapes are known, as maskrcnn-benchmark uses it.

    Args:
        conventions: of the framework that the settings are from.
        said: every setting of `DEFAULTS`.

    Raises:
        ConfigError: a setting asks for what this package has not, or is of another kind.
        WeightsError: a setting does not fit the shapes.
    """
    _check(model, said)
    try:
        return Config(
            model=_model(model, said),
            image=_image(said),
            augment=_augment(said),
            conventions=_with_rpn_rules(conventions, model, said),
        )
    except (TypeError, ValueError, IndexError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"a setting of the config has a value of an unexpected kind: {error}") from None


def _check(model: ModelConfig, said: Mapping[str, Any]) -> None:
    unlike = [name for name, value in ONLY.items() if said[name] != value]
    if unlike:
        raise ConfigError(f"{unlike[0]} {said[unlike[0]]!r} has no counterpart here: expected {ONLY[unlike[0]]!r}")
    if said["MODEL.ROI_HEADS.BG_IOU_THRESHOLD"] != said["MODEL.ROI_HEADS.FG_IOU_THRESHOLD"]:
        raise ConfigError(
            "MODEL.ROI_HEADS.BG_IOU_THRESHOLD and FG_IOU_THRESHOLD are one threshold here, found "
            f"{said['MODEL.ROI_HEADS.BG_IOU_THRESHOLD']} and {said['MODEL.ROI_HEADS.FG_IOU_THRESHOLD']}"
        )
    heads = [("BOX", model.box_head), ("MASK", model.mask_head), ("KEYPOINT", model.keypoint_head)]
    ratios = {
        said[f"MODEL.ROI_{name}_HEAD.POOLER_SAMPLING_RATIO"]
        for name, head in heads
        if head is not None and (name == "BOX" or model.neck != "c4")
    }
    if len(ratios) > 1:
        raise ConfigError(f"POOLER_SAMPLING_RATIO is the same for all branches here, found {sorted(ratios)}")
    known = {
        "MODEL.ROI_BOX_HEAD.NUM_CLASSES": model.num_classes + 1,
        "MODEL.MASK_ON": model.mask_head is not None,
        "MODEL.KEYPOINT_ON": model.keypoint_head is not None,
    }
    for name, found in known.items():
        if name in said and said[name] != found:
            raise WeightsError(
                f"{name} is {said[name]!r} in the config, and {found!r} in the file: is it the config of this file?"
            )


def _image(said: Mapping[str, Any]) -> ImageConfig:
    mean, std = ([float(value) for value in said[f"INPUT.PIXEL_{name}"]] for name in ("MEAN", "STD"))
    if said["INPUT.TO_BGR255"]:
        mean, std = mean[::-1], std[::-1]
    else:  # of values in 0..1
        mean, std = [255 * value for value in mean], [255 * value for value in std]
    return ImageConfig(
        short_side=said["INPUT.MIN_SIZE_TEST"],
        long_side=said["INPUT.MAX_SIZE_TEST"],
        divisor=said["DATALOADER.SIZE_DIVISIBILITY"] or 1,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _augment(said: Mapping[str, Any]) -> AugmentConfig:
    train = said["INPUT.MIN_SIZE_TRAIN"]
    train = [train] if isinstance(train, int) else train
    short = said["INPUT.MIN_SIZE_TEST"]
    return AugmentConfig(
        scale_jitter=(min(train) / short, max(train) / short),
        flip_horizontal=float(said["INPUT.HORIZONTAL_FLIP_PROB_TRAIN"]),
        flip_vertical=float(said["INPUT.VERTICAL_FLIP_PROB_TRAIN"]),
    )


def _model(model: ModelConfig, said: Mapping[str, Any]) -> ModelConfig:
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    backbone = replace(
        backbone,
        stride_in_1x1=backbone.depth >= 50 and bool(said["MODEL.RESNETS.STRIDE_IN_1X1"]),
        norm_eps=1e-5 if backbone.norm == "group_norm" else 0.0,  # its frozen batch norm has no epsilon
        frozen_stages=max(0, int(said["MODEL.BACKBONE.FREEZE_CONV_BODY_AT"])),
    )
    sizes = tuple(float(size) for size in said["MODEL.RPN.ANCHOR_SIZES"])
    positives = int(said["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"] * said["MODEL.ROI_HEADS.POSITIVE_FRACTION"])
    return replace(
        model,
        neck="c5" if model.neck == "dc5" else model.neck,
        backbone=backbone,
        anchors=AnchorConfig(
            sizes=tuple((size,) for size in sizes) if model.neck == "fpn" else (sizes,),
            ratios=tuple(float(ratio) for ratio in said["MODEL.RPN.ASPECT_RATIOS"]),
        ),
        rpn=_rpn(model, said),
        rois=RoIConfig(sampling_ratio=said["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]),
        box_head=_box_head(model.box_head, said),
        mask_head=None if model.mask_head is None else _mask_head(model.mask_head, positives, said),
        keypoint_head=None if model.keypoint_head is None else _keypoint_head(model.keypoint_head, positives, said),
        detect=DetectConfig(
            score_threshold=float(said["MODEL.ROI_HEADS.SCORE_THRESH"]),
            nms_iou=float(said["MODEL.ROI_HEADS.NMS"]),
            max_detections=said["MODEL.ROI_HEADS.DETECTIONS_PER_IMG"],
            mask_threshold=float(said["MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD"]),
        ),
    )


def _with_rpn_rules(conventions: Conventions, model: ModelConfig, said: Mapping[str, Any]) -> Conventions:
    """The conventions with those rules of the RPN that are settings of the framework."""
    straddle = float(said["MODEL.RPN.STRADDLE_THRESH"])
    per_batch = model.neck == "fpn" and said["MODEL.RPN.FPN_POST_NMS_PER_BATCH"]
    return replace(
        conventions,
        matching=replace(conventions.matching, allowed_border=(straddle, straddle + 1.0) if straddle >= 0 else None),
        proposals=replace(
            conventions.proposals,
            post_nms_per="batch" if per_batch else "image",
            min_size=float(said["MODEL.RPN.MIN_SIZE"]),
        ),
    )


def _rpn(model: ModelConfig, said: Mapping[str, Any]) -> RPNConfig:
    rpn = {name.removeprefix("MODEL.RPN."): value for name, value in said.items() if name.startswith("MODEL.RPN.")}
    after = "FPN_POST_NMS_TOP_N" if model.neck == "fpn" else "POST_NMS_TOP_N"
    for phase in ("TRAIN", "TEST"):
        if rpn[f"POST_NMS_TOP_N_{phase}"] < min(rpn[f"PRE_NMS_TOP_N_{phase}"], rpn[f"{after}_{phase}"]):
            raise ConfigError(
                f"MODEL.RPN.POST_NMS_TOP_N_{phase} {rpn[f'POST_NMS_TOP_N_{phase}']} limits the proposals of a level "
                f"after suppression, which has no counterpart here: expected at least {after}_{phase} or "
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


def _box_head(box: BoxHeadConfig, said: Mapping[str, Any]) -> BoxHeadConfig:
    x, y, width, height = (float(weight) for weight in said["MODEL.ROI_HEADS.BBOX_REG_WEIGHTS"])
    return replace(
        box,
        positive_iou=float(said["MODEL.ROI_HEADS.FG_IOU_THRESHOLD"]),
        samples=said["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
        positive_fraction=float(said["MODEL.ROI_HEADS.POSITIVE_FRACTION"]),
        resolution=box.resolution if box.layers else said["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"],
        box_weights=(x, y, width, height),
        smooth_l1_beta=1.0,
    )


def _mask_head(mask: MaskHeadConfig, positives: int, said: Mapping[str, Any]) -> MaskHeadConfig:
    return replace(
        mask,
        resolution=said["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"],
        samples=positives,
    )


def _keypoint_head(keypoint: KeypointHeadConfig, positives: int, said: Mapping[str, Any]) -> KeypointHeadConfig:
    resolution = said["MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION"]
    return replace(keypoint, resolution=resolution, samples=positives)
