"""A config of ours from tensorpack's settings, those of `examples/FasterRCNN/config.py`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from maskrcnn.config import (
    AnchorConfig,
    Config,
    DetectConfig,
    ImageConfig,
    ModelConfig,
    ResNetConfig,
    RoIConfig,
)
from maskrcnn.config.conventions import TENSORPACK, AnchorRules, Conventions
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.weights.frameworks.settings import Settings, read_yaml

# What tensorpack takes where nothing is said, of the settings that are read here; LEGACY_ANCHORS is a name of ours.
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
    "CASCADE.IOUS": [0.5, 0.6, 0.7],
    "CASCADE.BBOX_REG_WEIGHTS": [[10.0 * i, 10.0 * i, 5.0 * i, 5.0 * i] for i in (1, 2, 3)],
    "MRCNN.ACCURATE_PASTE": True,
    "TEST.FRCNN_NMS_THRESH": 0.5,
    "TEST.RESULT_SCORE_THRESH": 0.05,
    "TEST.RESULTS_PER_IM": 100,
}
NORMS = {"FreezeBN": "frozen_batch_norm", "SyncBN": "sync_batch_norm", "GN": "group_norm"}
ASSUMED = (
    "the image is resized to a short side of 800 and a long side of at most {} pixels (PREPROC)",
    "the input is BGR with the mean and standard deviation of ImageNet (PREPROC.PIXEL_MEAN, PIXEL_STD)",
    "a bottleneck's stride is in its 3x3 convolution (BACKBONE.STRIDE_1X1)",
    "convolutions are padded as in PyTorch (BACKBONE.TF_PAD_MODE)",
    "anchors of 32, 64, 128, 256 and 512 pixels and ratios 0.5, 1 and 2, centred on the corner of a cell and not "
    "rounded, as in tensorpack's last versions (LEGACY_ANCHORS)",
    "scores above 0.05, suppression at 0.5 and 100 detections an image (TEST)",
    "losses, overlaps, samples and numbers of proposals are its defaults (RPN, FRCNN)",
)


def read_settings(path: Path | str) -> Settings:
    """Settings in YAML or JSON by tensorpack's names, such as BACKBONE.STRIDE_1X1; raises ConfigError."""
    settings = read_yaml(path, "tensorpack", section=None)
    if "PREPROC.SHORT_EDGE_SIZE" in settings:  # before training had several
        settings.setdefault("PREPROC.TEST_SHORT_EDGE_SIZE", settings["PREPROC.SHORT_EDGE_SIZE"])
    return settings


def settings_of(model: ModelConfig, given: Mapping[str, Any] | None) -> tuple[Settings, tuple[str, ...]]:
    """Every setting of a model of these shapes, and the sentences on what was assumed."""
    return usual(model) if given is None else (DEFAULTS | dict(given), ())


def usual(model: ModelConfig) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings of a model of this shape when nothing is said, and the sentences that say so."""
    first, *others = ASSUMED
    return dict(DEFAULTS), (first.format(_long_side(model, DEFAULTS)), *others)


def our_config(model: ModelConfig, said: Mapping[str, Any]) -> Config:
    """The config of a model of which the shapes are known, as tensorpack uses it.

    Args:
        said: every setting of `DEFAULTS`.

    Raises:
        ConfigError: a setting asks for what this package has not, or is of another kind.
        WeightsError: a setting does not fit the shapes.
    """
    _check(model, said)
    try:
        return Config(model=_model(model, said), image=_image(model, said), conventions=_conventions(said))
    except (TypeError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"a setting has a value of an unexpected kind: {error}") from None


def _check(model: ModelConfig, said: Mapping[str, Any]) -> None:
    unlike: dict[str, Any] = {"BACKBONE.TF_PAD_MODE": False, "RPN.MIN_SIZE": 0}
    if model.neck == "fpn":
        unlike["FPN.PROPOSAL_MODE"] = "Level"
    for name, value in unlike.items():
        if said[name] != value:
            raise ConfigError(f"{name} {said[name]!r} has no counterpart here: expected {value!r}")
    known = {"DATA.NUM_CATEGORY": model.num_classes, "MODE_MASK": model.mask_head is not None}
    for name, found in known.items():
        if name in said and said[name] != found:
            raise WeightsError(
                f"{name} is {said[name]!r} in the settings, and {found!r} in the file: are they those of this file?"
            )


def _long_side(model: ModelConfig, said: Mapping[str, Any]) -> int:
    """`finalize_configs` rounds the limit up to the stride of the pyramid, and images grow up to that."""
    return math.ceil(said["PREPROC.MAX_SIZE"] / 32) * 32 if model.neck == "fpn" else said["PREPROC.MAX_SIZE"]


def _image(model: ModelConfig, said: Mapping[str, Any]) -> ImageConfig:
    mean, std = ([float(value) for value in said[f"PREPROC.PIXEL_{name}"]] for name in ("MEAN", "STD"))
    return ImageConfig(
        short_side=said["PREPROC.TEST_SHORT_EDGE_SIZE"],
        long_side=_long_side(model, said),
        divisor=32 if model.neck == "fpn" else 1,
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )


def _conventions(said: Mapping[str, Any]) -> Conventions:
    """tensorpack's rules, with those of its older versions that the settings ask for."""
    legacy, accurate = bool(said["LEGACY_ANCHORS"]), said["MRCNN.ACCURATE_PASTE"]
    return replace(
        TENSORPACK,
        anchors=AnchorRules(rounding="base", offset=0.5) if legacy else TENSORPACK.anchors,
        masks=TENSORPACK.masks if accurate else replace(TENSORPACK.masks, paste="expanded_box"),
    )


def _four(values: Any) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in values)
    return x, y, width, height


def _model(model: ModelConfig, said: Mapping[str, Any]) -> ModelConfig:
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    pyramid = model.neck == "fpn"
    sizes = tuple(float(size) for size in said["RPN.ANCHOR_SIZES"])
    weights, ious = [said["FRCNN.BBOX_REG_WEIGHTS"]], [said["FRCNN.FG_THRESH"]]
    if model.box_head.cascade_ious:
        weights, ious = said["CASCADE.BBOX_REG_WEIGHTS"], said["CASCADE.IOUS"]
    first, *later = (_four(stage) for stage in weights)
    before, after = ("PER_LEVEL_NMS_TOPK",) * 2 if pyramid else ("PRE_NMS_TOPK", "POST_NMS_TOPK")
    norm: Any = backbone.norm if backbone.norm == "group_norm" else NORMS[said["BACKBONE.NORM"]]
    return replace(
        model,
        backbone=replace(
            backbone,
            norm=norm,
            stride_in_1x1=bool(said["BACKBONE.STRIDE_1X1"]),
            frozen_stages=said["BACKBONE.FREEZE_AT"],
        ),
        anchors=AnchorConfig(
            sizes=tuple((size,) for size in sizes) if pyramid else (sizes,),
            ratios=tuple(float(ratio) for ratio in said["RPN.ANCHOR_RATIOS"]),
        ),
        rpn=replace(
            model.rpn,
            positive_iou=said["RPN.POSITIVE_ANCHOR_THRESH"],
            negative_iou=said["RPN.NEGATIVE_ANCHOR_THRESH"],
            samples=said["RPN.BATCH_PER_IM"],
            positive_fraction=said["RPN.FG_RATIO"],
            pre_nms_train=said[f"RPN.TRAIN_{before}"],
            pre_nms_test=said[f"RPN.TEST_{before}"],
            post_nms_train=said[f"RPN.TRAIN_{after}"],
            post_nms_test=said[f"RPN.TEST_{after}"],
            nms_iou=said["RPN.PROPOSAL_NMS_THRESH"],
        ),
        # Two by two samples a bin at their places (`model_box.roi_align`).
        rois=RoIConfig(sampling_ratio=2),
        box_head=replace(
            model.box_head,
            positive_iou=ious[0],
            samples=said["FRCNN.BATCH_PER_IM"],
            positive_fraction=said["FRCNN.FG_RATIO"],
            box_weights=first,
            smooth_l1_beta=0.0,
            cascade_ious=tuple(ious[1:]),
            cascade_weights=tuple(later),
        ),
        mask_head=model.mask_head
        and replace(
            model.mask_head,
            samples=int(said["FRCNN.BATCH_PER_IM"] * said["FRCNN.FG_RATIO"]),
        ),
        detect=DetectConfig(
            score_threshold=said["TEST.RESULT_SCORE_THRESH"],
            nms_iou=said["TEST.FRCNN_NMS_THRESH"],
            max_detections=said["TEST.RESULTS_PER_IM"],
        ),
    )
