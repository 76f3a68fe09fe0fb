"""Converts tensorpack's settings (`examples/FasterRCNN/config.py`) to our config."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.config import Config, DetectConfig, ImageConfig, ModelConfig, RoIConfig
from maskrcnn.config.conventions import TENSORPACK, AnchorRules, Conventions
from maskrcnn.errors import ConfigError
from maskrcnn.weights.frameworks.settings import (
    DETECTED,
    FIVE_ANCHORS,
    RESIZED,
    Assumed,
    Settings,
    anchors_of,
    check_fits,
    check_supported,
    four,
    kinds_checked,
    pixel_statistics,
    read_yaml,
    stride_sentence,
)

# The defaults of the settings that are read here; the name LEGACY_ANCHORS is ours.
DEFAULTS: dict[str, Any] = {
    "LEGACY_ANCHORS": False,
    "BACKBONE.FREEZE_AT": 2,
    "BACKBONE.NORM": "FreezeBN",
    "BACKBONE.STRIDE_1X1": False,
    "BACKBONE.TF_PAD_MODE": False,
    "PREPROC.TEST_SHORT_EDGE_SIZE": 800,
    "PREPROC.MAX_SIZE": 1333,
    "PREPROC.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "PREPROC.PIXEL_STD": [58.395, 57.12, 57.375],
    "RPN.ANCHOR_SIZES": [32, 64, 128, 256, 512],
    "RPN.ANCHOR_RATIOS": [0.5, 1.0, 2.0],
    "RPN.POSITIVE_ANCHOR_THRESH": 0.7,
    "RPN.NEGATIVE_ANCHOR_THRESH": 0.3,
    "RPN.FG_RATIO": 0.5,
    "RPN.BATCH_PER_IM": 256,
    "RPN.MIN_SIZE": 0,
    "RPN.PROPOSAL_NMS_THRESH": 0.7,
    "RPN.TRAIN_PRE_NMS_TOPK": 12000,
    "RPN.TRAIN_POST_NMS_TOPK": 2000,
    "RPN.TEST_PRE_NMS_TOPK": 6000,
    "RPN.TEST_POST_NMS_TOPK": 1000,
    "RPN.TRAIN_PER_LEVEL_NMS_TOPK": 2000,
    "RPN.TEST_PER_LEVEL_NMS_TOPK": 1000,
    "FRCNN.BATCH_PER_IM": 512,
    "FRCNN.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "FRCNN.FG_THRESH": 0.5,
    "FRCNN.FG_RATIO": 0.25,
    "FPN.PROPOSAL_MODE": "Level",
    "MRCNN.ACCURATE_PASTE": True,
    "TEST.FRCNN_NMS_THRESH": 0.5,
    "TEST.RESULT_SCORE_THRESH": 0.05,
    "TEST.RESULTS_PER_IM": 100,
}
# The only supported values.
SUPPORTED: dict[str, Any] = {"BACKBONE.TF_PAD_MODE": False, "RPN.MIN_SIZE": 0}
NORMS = {"FreezeBN": "frozen_batch_norm", "SyncBN": "sync_batch_norm", "GN": "group_norm"}
ASSUMED = (
    "the input is BGR with the mean and standard deviation of ImageNet (PREPROC.PIXEL_MEAN, PIXEL_STD)",
    stride_sentence(False, "BACKBONE.STRIDE_1X1"),
    "convolutions are padded as in PyTorch (BACKBONE.TF_PAD_MODE)",
    f"{FIVE_ANCHORS}; they are centred on the corner of a cell and not rounded, as in tensorpack's last versions "
    "(LEGACY_ANCHORS)",
    f"{DETECTED} (TEST)",
    "losses, IoU thresholds, numbers of samples and numbers of proposals are its defaults (RPN, FRCNN)",
)


def read_settings(path: Path | str) -> Settings:
    """The settings of a YAML or JSON file, by names such as BACKBONE.STRIDE_1X1.

    Raises:
        ConfigError: the file cannot be read, or holds no settings.
    """
    settings = read_yaml(path, "tensorpack", section=None)
    if "PREPROC.SHORT_EDGE_SIZE" in settings:  # in older versions training and prediction share one size
        settings.setdefault("PREPROC.TEST_SHORT_EDGE_SIZE", settings["PREPROC.SHORT_EDGE_SIZE"])
    return settings


def our_config(model: ModelConfig, given: Mapping[str, Any] | None) -> tuple[Config, Assumed]:
    """The config of a model with this architecture, and the assumptions about it.

    Args:
        given: the result of `read_settings`, or None.

    Raises:
        ConfigError, WeightsError: as in `Importer.import_checkpoint`.
    """
    settings = DEFAULTS | _cascade(model) | dict(given or {})
    with kinds_checked("tensorpack"):
        check_fits(settings, {"DATA.NUM_CATEGORY": model.num_classes, "MODE_MASK": model.mask_head is not None})
        check_supported(settings, SUPPORTED | ({"FPN.PROPOSAL_MODE": "Level"} if model.neck == "fpn" else {}))
        config = Config(
            model=_model(model, settings), image=_image(model, settings), conventions=_conventions(settings)
        )
    size = RESIZED.replace("1333", str(config.image.long_side))
    return config, () if given is not None else (f"{size} (PREPROC)", *ASSUMED)


def _cascade(model: ModelConfig) -> Settings:
    """The usual settings of a cascade with the stages of the file. Those of three stages are tensorpack's defaults."""
    stages = range(1, len(model.box_head.cascade_ious) + 2)
    return {
        "CASCADE.IOUS": [round(0.4 + 0.1 * stage, 9) for stage in stages],
        "CASCADE.BBOX_REG_WEIGHTS": [[10.0 * stage, 10.0 * stage, 5.0 * stage, 5.0 * stage] for stage in stages],
    }


def _long_side(model: ModelConfig, settings: Mapping[str, Any]) -> int:
    """The limit of the long side. With a pyramid `finalize_configs` rounds it up to a multiple of 32."""
    return math.ceil(settings["PREPROC.MAX_SIZE"] / 32) * 32 if model.neck == "fpn" else settings["PREPROC.MAX_SIZE"]


def _image(model: ModelConfig, settings: Mapping[str, Any]) -> ImageConfig:
    return ImageConfig(
        short_side=settings["PREPROC.TEST_SHORT_EDGE_SIZE"],
        long_side=_long_side(model, settings),
        divisor=32 if model.neck == "fpn" else 1,
        **pixel_statistics(settings["PREPROC.PIXEL_MEAN"], settings["PREPROC.PIXEL_STD"]),
    )


def _conventions(settings: Mapping[str, Any]) -> Conventions:
    """tensorpack's conventions, with the rules of older versions if the settings name them."""
    legacy, accurate = bool(settings["LEGACY_ANCHORS"]), settings["MRCNN.ACCURATE_PASTE"]
    return replace(
        TENSORPACK,
        anchors=AnchorRules(rounding="base", offset=0.5) if legacy else TENSORPACK.anchors,
        masks=TENSORPACK.masks if accurate else replace(TENSORPACK.masks, paste="expanded_box"),
    )


def _model(model: ModelConfig, settings: Mapping[str, Any]) -> ModelConfig:
    backbone, pyramid = model.resnet, model.neck == "fpn"
    weights, ious = [settings["FRCNN.BBOX_REG_WEIGHTS"]], [settings["FRCNN.FG_THRESH"]]
    if model.box_head.cascade_ious:
        weights, ious = settings["CASCADE.BBOX_REG_WEIGHTS"], settings["CASCADE.IOUS"]
        stages = len(model.box_head.cascade_ious) + 1
        if (len(weights), len(ious)) != (stages, stages):
            raise ConfigError(
                f"the cascade in the file has {stages} stages: give so many CASCADE.IOUS and CASCADE.BBOX_REG_WEIGHTS, "
                f"found {len(ious)} and {len(weights)}"
            )
    first, *later = (four(stage) for stage in weights)
    before, after = ("PER_LEVEL_NMS_TOPK",) * 2 if pyramid else ("PRE_NMS_TOPK", "POST_NMS_TOPK")
    norm: Any = backbone.norm if backbone.norm == "group_norm" else NORMS[settings["BACKBONE.NORM"]]
    return replace(
        model,
        backbone=replace(
            backbone,
            norm=norm,
            stride_in_1x1=bool(settings["BACKBONE.STRIDE_1X1"]),
            frozen_stages=settings["BACKBONE.FREEZE_AT"],
        ),
        anchors=anchors_of(model, settings["RPN.ANCHOR_SIZES"], settings["RPN.ANCHOR_RATIOS"]),
        rpn=replace(
            model.rpn,
            positive_iou=settings["RPN.POSITIVE_ANCHOR_THRESH"],
            negative_iou=settings["RPN.NEGATIVE_ANCHOR_THRESH"],
            samples=settings["RPN.BATCH_PER_IM"],
            positive_fraction=settings["RPN.FG_RATIO"],
            pre_nms_train=settings[f"RPN.TRAIN_{before}"],
            pre_nms_test=settings[f"RPN.TEST_{before}"],
            post_nms_train=settings[f"RPN.TRAIN_{after}"],
            post_nms_test=settings[f"RPN.TEST_{after}"],
            nms_iou=settings["RPN.PROPOSAL_NMS_THRESH"],
        ),
        rois=RoIConfig(sampling_ratio=2),  # `model_box.roi_align`
        box_head=replace(
            model.box_head,
            positive_iou=ious[0],
            samples=settings["FRCNN.BATCH_PER_IM"],
            positive_fraction=settings["FRCNN.FG_RATIO"],
            box_weights=first,
            smooth_l1_beta=0.0,
            cascade_ious=tuple(ious[1:]),
            cascade_weights=tuple(later),
        ),
        mask_head=model.mask_head
        and replace(model.mask_head, samples=int(settings["FRCNN.BATCH_PER_IM"] * settings["FRCNN.FG_RATIO"])),
        detect=DetectConfig(
            score_threshold=settings["TEST.RESULT_SCORE_THRESH"],
            nms_iou=settings["TEST.FRCNN_NMS_THRESH"],
            max_detections=settings["TEST.RESULTS_PER_IM"],
        ),
    )
