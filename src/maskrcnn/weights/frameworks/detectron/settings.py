"""Converts Detectron's settings to those of maskrcnn-benchmark, and these to our config.

The sources are Detectron's `core/config.py` and `configs/12_2017_baselines`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.config import Config, ModelConfig
from maskrcnn.config.conventions import DETECTRON
from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.maskrcnn_benchmark.settings import DEFAULTS as BENCHMARK_DEFAULTS
from maskrcnn.weights.frameworks.maskrcnn_benchmark.settings import config_of
from maskrcnn.weights.frameworks.settings import (
    CAFFE_PIXELS,
    DETECTED,
    FIVE_ANCHORS,
    RESIZED,
    Assumed,
    Settings,
    check_supported,
    flat,
    kinds_checked,
    parse_yaml,
    read_yaml,
    samples_sentence,
    stride_sentence,
    strided_in_1x1,
    three,
)

# The defaults of the settings that are read here.
DEFAULTS: dict[str, Any] = {
    "PIXEL_MEANS": [102.9801, 115.9465, 122.7717],
    "MODEL.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "TRAIN.SCALES": [600],
    "TRAIN.USE_FLIPPED": True,
    "TRAIN.FREEZE_AT": 2,
    "TRAIN.BATCH_SIZE_PER_IM": 64,
    "TRAIN.FG_FRACTION": 0.25,
    "TRAIN.FG_THRESH": 0.5,
    "TRAIN.BG_THRESH_HI": 0.5,
    "TRAIN.BG_THRESH_LO": 0.0,
    "TRAIN.RPN_POSITIVE_OVERLAP": 0.7,
    "TRAIN.RPN_NEGATIVE_OVERLAP": 0.3,
    "TRAIN.RPN_FG_FRACTION": 0.5,
    "TRAIN.RPN_BATCH_SIZE_PER_IM": 256,
    "TRAIN.RPN_NMS_THRESH": 0.7,
    "TRAIN.RPN_PRE_NMS_TOP_N": 12000,
    "TRAIN.RPN_POST_NMS_TOP_N": 2000,
    "TRAIN.RPN_STRADDLE_THRESH": 0,
    "TRAIN.RPN_MIN_SIZE": 0,
    "TEST.SCALE": 600,
    "TEST.MAX_SIZE": 1000,
    "TEST.NMS": 0.3,
    "TEST.RPN_NMS_THRESH": 0.7,
    "TEST.RPN_PRE_NMS_TOP_N": 12000,
    "TEST.RPN_POST_NMS_TOP_N": 2000,
    "TEST.RPN_MIN_SIZE": 0,
    "TEST.DETECTIONS_PER_IM": 100,
    "TEST.SCORE_THRESH": 0.05,
    "TEST.SOFT_NMS.ENABLED": False,
    "TEST.BBOX_VOTE.ENABLED": False,
    "TEST.BBOX_AUG.ENABLED": False,
    "TEST.MASK_AUG.ENABLED": False,
    "TEST.KPS_AUG.ENABLED": False,
    "FAST_RCNN.ROI_XFORM_METHOD": "RoIPoolF",
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": 0,
    "FAST_RCNN.ROI_XFORM_RESOLUTION": 14,
    "RPN.SIZES": [64, 128, 256, 512],
    "RPN.ASPECT_RATIOS": [0.5, 1, 2],
    "FPN.COARSEST_STRIDE": 32,
    "FPN.ROI_CANONICAL_SCALE": 224,
    "FPN.ROI_CANONICAL_LEVEL": 4,
    "FPN.RPN_ASPECT_RATIOS": [0.5, 1, 2],
    "FPN.RPN_ANCHOR_START_SIZE": 32,
    "FPN.EXTRA_CONV_LEVELS": False,
    "FPN.RPN_MIN_LEVEL": 2,
    "FPN.RPN_MAX_LEVEL": 6,
    "FPN.ROI_MIN_LEVEL": 2,
    "FPN.ROI_MAX_LEVEL": 5,
    "MRCNN.ROI_XFORM_METHOD": "RoIAlign",
    "MRCNN.ROI_XFORM_SAMPLING_RATIO": 0,
    "MRCNN.ROI_XFORM_RESOLUTION": 7,
    "MRCNN.DILATION": 2,
    "MRCNN.UPSAMPLE_RATIO": 1,
    "MRCNN.USE_FC_OUTPUT": False,
    "MRCNN.THRESH_BINARIZE": 0.5,
    "KRCNN.ROI_XFORM_METHOD": "RoIAlign",
    "KRCNN.ROI_XFORM_SAMPLING_RATIO": 0,
    "KRCNN.ROI_XFORM_RESOLUTION": 7,
    "KRCNN.UP_SCALE": -1,
    "KRCNN.USE_DECONV": False,
    "KRCNN.USE_DECONV_OUTPUT": False,
    "KRCNN.INFERENCE_MIN_SIZE": 0,
    "RESNETS.STRIDE_1X1": True,
    "RESNETS.RES5_DILATION": 1,
    "GROUP_NORM.DIM_PER_GP": -1,
    "GROUP_NORM.NUM_GROUPS": 32,
    "GROUP_NORM.EPSILON": 1e-5,
}
# Settings that all its baselines change, and those that its baselines with a pyramid change.
BASELINES: dict[str, Any] = {
    "TRAIN.SCALES": [800],
    "TRAIN.BATCH_SIZE_PER_IM": 512,
    "TEST.SCALE": 800,
    "TEST.MAX_SIZE": 1333,
    "TEST.NMS": 0.5,
    "TEST.RPN_PRE_NMS_TOP_N": 6000,
    "TEST.RPN_POST_NMS_TOP_N": 1000,
    "RPN.SIZES": [32, 64, 128, 256, 512],
    "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
    "MRCNN.DILATION": 1,
    "MRCNN.ROI_XFORM_RESOLUTION": 14,
    "KRCNN.ROI_XFORM_RESOLUTION": 14,
    "KRCNN.UP_SCALE": 2,
    "KRCNN.USE_DECONV_OUTPUT": True,
}
WITH_PYRAMID: dict[str, Any] = {
    "TRAIN.RPN_PRE_NMS_TOP_N": 2000,
    "TEST.RPN_PRE_NMS_TOP_N": 1000,
    **{f"{head}.ROI_XFORM_SAMPLING_RATIO": 2 for head in ("FAST_RCNN", "MRCNN", "KRCNN")},
}
# Detectron's name -> maskrcnn-benchmark's.
NAMES = {
    "TRAIN.SCALES": "INPUT.MIN_SIZE_TRAIN",
    "TEST.SCALE": "INPUT.MIN_SIZE_TEST",
    "TEST.MAX_SIZE": "INPUT.MAX_SIZE_TEST",
    "TRAIN.FREEZE_AT": "MODEL.BACKBONE.FREEZE_CONV_BODY_AT",
    "GROUP_NORM.DIM_PER_GP": "MODEL.GROUP_NORM.DIM_PER_GP",
    "GROUP_NORM.NUM_GROUPS": "MODEL.GROUP_NORM.NUM_GROUPS",
    "GROUP_NORM.EPSILON": "MODEL.GROUP_NORM.EPSILON",
    "RESNETS.STRIDE_1X1": "MODEL.RESNETS.STRIDE_IN_1X1",
    "RESNETS.RES5_DILATION": "MODEL.RESNETS.RES5_DILATION",
    "TRAIN.RPN_STRADDLE_THRESH": "MODEL.RPN.STRADDLE_THRESH",
    "TRAIN.RPN_POSITIVE_OVERLAP": "MODEL.RPN.FG_IOU_THRESHOLD",
    "TRAIN.RPN_NEGATIVE_OVERLAP": "MODEL.RPN.BG_IOU_THRESHOLD",
    "TRAIN.RPN_BATCH_SIZE_PER_IM": "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "TRAIN.RPN_FG_FRACTION": "MODEL.RPN.POSITIVE_FRACTION",
    "TRAIN.RPN_PRE_NMS_TOP_N": "MODEL.RPN.PRE_NMS_TOP_N_TRAIN",
    "TEST.RPN_PRE_NMS_TOP_N": "MODEL.RPN.PRE_NMS_TOP_N_TEST",
    "TRAIN.RPN_POST_NMS_TOP_N": "MODEL.RPN.POST_NMS_TOP_N_TRAIN",
    "TEST.RPN_POST_NMS_TOP_N": "MODEL.RPN.POST_NMS_TOP_N_TEST",
    "TEST.RPN_NMS_THRESH": "MODEL.RPN.NMS_THRESH",
    "TRAIN.FG_THRESH": "MODEL.ROI_HEADS.FG_IOU_THRESHOLD",
    "TRAIN.BG_THRESH_HI": "MODEL.ROI_HEADS.BG_IOU_THRESHOLD",
    "MODEL.BBOX_REG_WEIGHTS": "MODEL.ROI_HEADS.BBOX_REG_WEIGHTS",
    "TRAIN.BATCH_SIZE_PER_IM": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "TRAIN.FG_FRACTION": "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "TEST.SCORE_THRESH": "MODEL.ROI_HEADS.SCORE_THRESH",
    "TEST.NMS": "MODEL.ROI_HEADS.NMS",
    "TEST.DETECTIONS_PER_IM": "MODEL.ROI_HEADS.DETECTIONS_PER_IMG",
    "FAST_RCNN.ROI_XFORM_RESOLUTION": "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION",
    "FAST_RCNN.ROI_XFORM_SAMPLING_RATIO": "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
    "MRCNN.ROI_XFORM_RESOLUTION": "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION",
    "MRCNN.ROI_XFORM_SAMPLING_RATIO": "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO",
    "MRCNN.THRESH_BINARIZE": "MODEL.ROI_MASK_HEAD.POSTPROCESS_MASKS_THRESHOLD",
    "KRCNN.ROI_XFORM_RESOLUTION": "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION",
    "KRCNN.ROI_XFORM_SAMPLING_RATIO": "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO",
    "MODEL.NUM_CLASSES": "MODEL.ROI_BOX_HEAD.NUM_CLASSES",
    "MODEL.MASK_ON": "MODEL.MASK_ON",
    "MODEL.KEYPOINTS_ON": "MODEL.KEYPOINT_ON",
}
# The only supported values: in every model, in models with a pyramid, and in models with a mask or keypoint head.
SUPPORTED: dict[str, dict[str, Any]] = {
    "all": {
        "TRAIN.BG_THRESH_LO": 0.0,
        "TRAIN.RPN_MIN_SIZE": 0,  # pixels of the original image
        "TEST.RPN_MIN_SIZE": 0,
        "TEST.SOFT_NMS.ENABLED": False,
        "TEST.BBOX_VOTE.ENABLED": False,
        "TEST.BBOX_AUG.ENABLED": False,
        "TEST.MASK_AUG.ENABLED": False,
        "TEST.KPS_AUG.ENABLED": False,
        "FAST_RCNN.ROI_XFORM_METHOD": "RoIAlign",
    },
    "FPN": {
        "FPN.EXTRA_CONV_LEVELS": False,
        "FPN.RPN_MIN_LEVEL": 2,
        "FPN.RPN_MAX_LEVEL": 6,
        "FPN.ROI_MIN_LEVEL": 2,
        "FPN.ROI_MAX_LEVEL": 5,
    },
    "mask": {
        "MRCNN.ROI_XFORM_METHOD": "RoIAlign",
        "MRCNN.DILATION": 1,
        "MRCNN.UPSAMPLE_RATIO": 1,
        "MRCNN.USE_FC_OUTPUT": False,
    },
    "keypoint": {
        "KRCNN.ROI_XFORM_METHOD": "RoIAlign",
        "KRCNN.UP_SCALE": 2,
        "KRCNN.USE_DECONV": False,
        "KRCNN.USE_DECONV_OUTPUT": True,
        "KRCNN.INFERENCE_MIN_SIZE": 0,
    },
}
ASSUMED = (
    f"{RESIZED} (TEST.SCALE, TEST.MAX_SIZE)",
    f"{CAFFE_PIXELS} (PIXEL_MEANS)",
    f"{FIVE_ANCHORS} (RPN, FPN)",
    f"{DETECTED} (TEST)",
    "losses, IoU thresholds, numbers of samples and numbers of proposals are those of its baselines (TRAIN)",
)


def read_settings(path: Path | str) -> Settings:
    """The settings of a YAML config, by names such as TEST.NMS.

    Raises:
        ConfigError: the file cannot be read, or is no config of a model.
    """
    return _named(read_yaml(path, "Detectron"))


def settings_in(text: Any) -> Settings | None:
    """The settings in the YAML text of a checkpoint. None if there are none, or if they cannot be read.

    A mean of pixels that is stored as a numpy object is left at its default.
    """
    if not isinstance(text, str):
        return None
    try:
        settings = _named(flat(parse_yaml(text, "the cfg in the file", "Detectron")))
    except ConfigError:
        return None
    return {name: value for name, value in settings.items() if name != "PIXEL_MEANS" or _is_numbers(value)}


def _named(settings: Settings) -> Settings:
    """Renames TEST.SCALES of older configs to TEST.SCALE."""
    scales = settings.pop("TEST.SCALES", None)
    if isinstance(scales, list) and len(scales) == 1:
        settings.setdefault("TEST.SCALE", scales[0])
    return settings


def _is_numbers(value: Any) -> bool:
    try:
        three(value)
    except (TypeError, ValueError):
        return False
    return True


def our_config(model: ModelConfig, given: Mapping[str, Any] | None) -> tuple[Config, Assumed]:
    """The config of a model with this architecture, and the assumptions about it.

    Args:
        given: the result of `read_settings` or `settings_in`.

    Raises:
        ConfigError, WeightsError: as in `Importer.import_checkpoint`.
    """
    settings, assumed = _assumed_settings(model) if given is None else (DEFAULTS | dict(given), ())
    with kinds_checked("Detectron"):
        config = config_of(model, BENCHMARK_DEFAULTS | _as_benchmark(model, settings), DETECTRON)
        rois = replace(  # maskrcnn-benchmark has no settings for the level of a RoI
            config.model.rois,
            canonical_size=float(settings["FPN.ROI_CANONICAL_SCALE"]),
            canonical_level=settings["FPN.ROI_CANONICAL_LEVEL"],
        )
        return replace(config, model=replace(config.model, rois=rois)), assumed


def _assumed_settings(model: ModelConfig) -> tuple[Settings, Assumed]:
    """The settings that its baselines give to a model of this architecture."""
    settings = DEFAULTS | BASELINES | (WITH_PYRAMID if model.neck == "fpn" else {})
    settings["RESNETS.STRIDE_1X1"] = strided_in_1x1(model)
    if model.keypoint_head is not None:
        settings["TRAIN.SCALES"] = [640, 672, 704, 736, 768, 800]
    return settings, (
        *ASSUMED,
        stride_sentence(strided_in_1x1(model), "RESNETS.STRIDE_1X1"),
        f"{samples_sentence(settings['FAST_RCNN.ROI_XFORM_SAMPLING_RATIO'])} (ROI_XFORM_SAMPLING_RATIO)",
    )


def _as_benchmark(model: ModelConfig, settings: Settings) -> Settings:
    """Detectron's settings under the names of maskrcnn-benchmark.

    Args:
        settings: all settings of `DEFAULTS`.

    Raises:
        ConfigError: a setting is not supported.
    """
    parts = {
        "all": True,
        "FPN": model.neck == "fpn",
        "mask": model.mask_head is not None,
        "keypoint": model.keypoint_head is not None,
    }
    for part, has_part in parts.items():
        check_supported(settings, SUPPORTED[part] if has_part else {})
    train, test = settings["TRAIN.RPN_NMS_THRESH"], settings["TEST.RPN_NMS_THRESH"]
    if train != test:
        raise ConfigError(f"TRAIN.RPN_NMS_THRESH and TEST.RPN_NMS_THRESH must be equal, found {train} and {test}")
    result = {NAMES[name]: value for name, value in settings.items() if name in NAMES}
    for phase in ("TRAIN", "TEST"):
        result[f"MODEL.RPN.FPN_POST_NMS_TOP_N_{phase}"] = settings[f"{phase}.RPN_POST_NMS_TOP_N"]
    result["INPUT.PIXEL_MEAN"] = list(three(settings["PIXEL_MEANS"]))
    result["INPUT.HORIZONTAL_FLIP_PROB_TRAIN"] = 0.5 if settings["TRAIN.USE_FLIPPED"] else 0.0
    if model.neck == "fpn":
        result["DATALOADER.SIZE_DIVISIBILITY"] = settings["FPN.COARSEST_STRIDE"]
        result["MODEL.RPN.ANCHOR_SIZES"] = [settings["FPN.RPN_ANCHOR_START_SIZE"] * 2**level for level in range(5)]
        result["MODEL.RPN.ASPECT_RATIOS"] = settings["FPN.RPN_ASPECT_RATIOS"]
    else:
        result["MODEL.RPN.ANCHOR_SIZES"] = settings["RPN.SIZES"]
        result["MODEL.RPN.ASPECT_RATIOS"] = settings["RPN.ASPECT_RATIOS"]
    return result
