"""A config of ours from Detectron2's settings and the shapes of the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from maskrcnn.config import (
    AnchorConfig,
    AugmentConfig,
    BoxHeadConfig,
    BoxLoss,
    Config,
    DetectConfig,
    HeadNorm,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    Norm,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import DETECTRON2
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.weights.frameworks.detectron2.defaults import DEFAULTS, usual

NORMS: dict[str, Norm] = {
    "FrozenBN": "frozen_batch_norm",
    "BN": "batch_norm",
    "SyncBN": "sync_batch_norm",
    "naiveSyncBN": "sync_batch_norm",
    "nnSyncBN": "sync_batch_norm",
    "GN": "group_norm",
}


def our_config(
    model: ModelConfig, tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None
) -> tuple[Config, tuple[str, ...]]:
    """The config of a model of which the shapes are known.

    Args:
        model: what the shapes tell; a norm with counts of batches is batch norm here.
        tensors: of the file, by its names.
        settings: what `read_settings` gives, or None.

    Returns:
        The config, and what was assumed.

    Raises:
        ConfigError: a setting asks for what this package has not, or cannot be read.
        WeightsError: a setting does not fit the shapes.
    """
    if settings is None:
        said, assumed = usual(model, tensors)
    else:
        said, assumed = DEFAULTS | dict(settings), ()
        _check_fit(model, settings)
    _check_supported(model, said)
    try:
        return _config(model, said), assumed
    except (TypeError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"a setting of the config.yaml has a value of another kind than Detectron2's: {error}"
        ) from None


def _check_fit(model: ModelConfig, given: Mapping[str, Any]) -> None:
    """Whether a config is of this file: what it says and the shapes know as well must be the same."""
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    known: dict[str, Any] = {
        "MODEL.ROI_HEADS.NUM_CLASSES": model.num_classes,
        "MODEL.RESNETS.DEPTH": backbone.depth,
        "MODEL.MASK_ON": model.mask_head is not None,
        "MODEL.KEYPOINT_ON": model.keypoint_head is not None,
    }
    if backbone.norm == "group_norm" or given.get("MODEL.RESNETS.NORM") == "GN":
        known["MODEL.RESNETS.NORM"] = "GN" if backbone.norm == "group_norm" else "batch norm"
    # Of these names only a part is known from the shapes: whether there are several stages, or a pyramid.
    for name, part, there, usual_name in (
        ("MODEL.ROI_HEADS.NAME", "Cascade", bool(model.box_head.cascade_ious), "StandardROIHeads"),
        ("MODEL.BACKBONE.NAME", "fpn", model.neck == "fpn", "build_resnet_backbone"),
    ):
        if name in given and (part in str(given[name])) != there:
            known[name] = f"a name with {part}" if there else usual_name
    for name, found in known.items():
        if name in given and given[name] != found:
            raise WeightsError(
                f"{name} is {given[name]!r} in the config, and {found!r} in the file: is it the config of this file?"
            )


def _check_supported(model: ModelConfig, said: Mapping[str, Any]) -> None:
    """Refuses what would change the results and has no counterpart here."""
    sampling = {
        (said[f"MODEL.ROI_{head}_HEAD.POOLER_TYPE"], said[f"MODEL.ROI_{head}_HEAD.POOLER_SAMPLING_RATIO"])
        for head, part in (("BOX", model.box_head), ("MASK", model.mask_head), ("KEYPOINT", model.keypoint_head))
        if part is not None and (head == "BOX" or model.neck != "c4") and not _point_rend(part)
    }
    unlike = {
        "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
        "MODEL.FPN.FUSE_TYPE": "sum",
        "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
        "MODEL.RESNETS.DEFORM_NUM_GROUPS": 1,
    }
    for name, value in unlike.items():
        if said[name] != value:
            raise ConfigError(f"{name} {said[name]!r} has no counterpart here: expected {value!r}")
    if len(sampling) > 1:
        raise ConfigError(
            "POOLER_TYPE and POOLER_SAMPLING_RATIO are the same for all branches here, "
            f"found {sorted(sampling, key=str)}"
        )
    if len({tuple(ratios) for ratios in said["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"]}) > 1:
        raise ConfigError(
            "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS are the same on every level here, "
            f"found {said['MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS']}"
        )


def _point_rend(part: object) -> bool:
    return isinstance(part, MaskHeadConfig) and part.point_rend is not None


def _config(model: ModelConfig, said: Mapping[str, Any]) -> Config:
    bgr = said["INPUT.FORMAT"] == "BGR"
    mean, std = (_three(said[name], bgr) for name in ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD"))
    short, long = said["INPUT.MIN_SIZE_TEST"], said["INPUT.MAX_SIZE_TEST"]
    train = said["INPUT.MIN_SIZE_TRAIN"]
    train = [train] if isinstance(train, int) else train
    flip = said["INPUT.RANDOM_FLIP"]
    return Config(
        model=_model(model, said),
        image=ImageConfig(
            short_side=short,
            long_side=long,
            divisor=32 if model.neck == "fpn" else 1,
            mean=mean,
            std=std,
        ),
        augment=AugmentConfig(
            scale_jitter=(min(train) / short, max(train) / short),
            flip_horizontal=0.5 if flip == "horizontal" else 0.0,
            flip_vertical=0.5 if flip == "vertical" else 0.0,
        ),
        conventions=replace(
            DETECTRON2,
            anchors=replace(DETECTRON2.anchors, offset=float(said["MODEL.ANCHOR_GENERATOR.OFFSET"])),
            features=replace(DETECTRON2.features, aligned=said["MODEL.ROI_BOX_HEAD.POOLER_TYPE"] != "ROIAlign"),
            proposals=replace(DETECTRON2.proposals, min_size=float(said["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"])),
        ),
    )


def _three(values: Any, bgr: bool) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return (third, second, first) if bgr else (first, second, third)


def _four(values: Any) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in values)
    return x, y, width, height


def _model(model: ModelConfig, said: Mapping[str, Any]) -> ModelConfig:
    return replace(
        model,
        neck="c5" if model.neck == "dc5" and said["MODEL.RESNETS.RES5_DILATION"] == 1 else model.neck,
        backbone=_backbone(model, said),
        fpn_norm=_head_norm(model.fpn_norm, said),
        anchors=_anchors(model, said),
        rpn=_rpn(model.rpn, said),
        rois=_rois(said),
        box_head=_box_head(model, said),
        mask_head=None if model.mask_head is None else _mask_head(model.mask_head, said),
        keypoint_head=None if model.keypoint_head is None else _keypoint_head(model.keypoint_head, said),
        detect=DetectConfig(
            score_threshold=said["MODEL.ROI_HEADS.SCORE_THRESH_TEST"],
            nms_iou=said["MODEL.ROI_HEADS.NMS_THRESH_TEST"],
            max_detections=said["TEST.DETECTIONS_PER_IMAGE"],
        ),
    )


def _backbone(model: ModelConfig, said: Mapping[str, Any]) -> ResNetConfig:
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    return replace(
        backbone,
        stride_in_1x1=backbone.depth >= 50 and bool(said["MODEL.RESNETS.STRIDE_IN_1X1"]),
        norm=NORMS[said["MODEL.RESNETS.NORM"]] if "MODEL.RESNETS.NORM" in said else backbone.norm,
        frozen_stages=max(0, int(said["MODEL.BACKBONE.FREEZE_AT"])),
    )


def _head_norm(norm: HeadNorm, said: Mapping[str, Any]) -> HeadNorm:
    """Batch norm of the heads is synchronised where that of the backbone is; no shape tells."""
    synchronised = NORMS.get(said.get("MODEL.RESNETS.NORM", "")) == "sync_batch_norm"
    return "sync_batch_norm" if norm == "batch_norm" and synchronised else norm


def _anchors(model: ModelConfig, said: Mapping[str, Any]) -> AnchorConfig:
    sizes = tuple(tuple(float(size) for size in level) for level in said["MODEL.ANCHOR_GENERATOR.SIZES"])
    levels = 5 if model.neck == "fpn" else 1
    return AnchorConfig(
        sizes=sizes * levels if len(sizes) == 1 else sizes,
        ratios=tuple(float(ratio) for ratio in said["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"][0]),
    )


def _rpn(rpn: RPNConfig, said: Mapping[str, Any]) -> RPNConfig:
    low, high = said["MODEL.RPN.IOU_THRESHOLDS"]
    return replace(
        rpn,
        positive_iou=high,
        negative_iou=low,
        samples=said["MODEL.RPN.BATCH_SIZE_PER_IMAGE"],
        positive_fraction=said["MODEL.RPN.POSITIVE_FRACTION"],
        pre_nms_train=said["MODEL.RPN.PRE_NMS_TOPK_TRAIN"],
        pre_nms_test=said["MODEL.RPN.PRE_NMS_TOPK_TEST"],
        post_nms_train=said["MODEL.RPN.POST_NMS_TOPK_TRAIN"],
        post_nms_test=said["MODEL.RPN.POST_NMS_TOPK_TEST"],
        nms_iou=said["MODEL.RPN.NMS_THRESH"],
        box_weights=_four(said["MODEL.RPN.BBOX_REG_WEIGHTS"]),
        box_loss=_box_loss("MODEL.RPN", said),
        smooth_l1_beta=said["MODEL.RPN.SMOOTH_L1_BETA"],
    )


def _rois(said: Mapping[str, Any]) -> RoIConfig:
    kind, ratio = said["MODEL.ROI_BOX_HEAD.POOLER_TYPE"], said["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]
    if kind in ("ROIAlign", "ROIAlignV2"):
        return RoIConfig(sampling_ratio=ratio)
    if kind == "ROIPool":
        return RoIConfig(op="pool", reduce="max")
    raise ConfigError(f"MODEL.ROI_BOX_HEAD.POOLER_TYPE is ROIAlignV2, ROIAlign or ROIPool here, found {kind!r}")


def _box_head(model: ModelConfig, said: Mapping[str, Any]) -> BoxHeadConfig:
    box = model.box_head
    stages = len(box.cascade_ious) + 1
    first = said["MODEL.ROI_HEADS.IOU_THRESHOLDS"][0]
    weights, ious = [said["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]], [first]
    if stages > 1:
        weights, ious = (said[f"MODEL.ROI_BOX_CASCADE_HEAD.{name}"] for name in ("BBOX_REG_WEIGHTS", "IOUS"))
    if len(weights) != stages or len(ious) != stages:
        raise WeightsError(
            f"the file has {stages} stages of boxes, and MODEL.ROI_BOX_CASCADE_HEAD has {len(ious)} IOUS and "
            f"{len(weights)} BBOX_REG_WEIGHTS: is it the config of this file?"
        )
    return replace(
        box,
        positive_iou=ious[0],
        samples=said["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
        positive_fraction=said["MODEL.ROI_HEADS.POSITIVE_FRACTION"],
        resolution=box.resolution if box.layers else said["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"],
        box_weights=_four(weights[0]),
        norm=_head_norm(box.norm, said),
        box_loss=_box_loss("MODEL.ROI_BOX_HEAD", said),
        smooth_l1_beta=said["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"],
        cascade_ious=tuple(ious[1:]),
        cascade_weights=tuple(_four(stage) for stage in weights[1:]),
    )


def _box_loss(part: str, said: Mapping[str, Any]) -> BoxLoss:
    kind = said[f"{part}.BBOX_REG_LOSS_TYPE"]
    if kind == "smooth_l1":
        return "smooth_l1"
    if kind == "giou":
        return "giou"
    raise ConfigError(f"{part}.BBOX_REG_LOSS_TYPE is smooth_l1 or giou here, found {kind!r}")


def _mask_head(mask: MaskHeadConfig, said: Mapping[str, Any]) -> MaskHeadConfig:
    points = mask.point_rend and replace(
        mask.point_rend,
        train_points=said["MODEL.POINT_HEAD.TRAIN_NUM_POINTS"],
        oversample=float(said["MODEL.POINT_HEAD.OVERSAMPLE_RATIO"]),
        important=said["MODEL.POINT_HEAD.IMPORTANCE_SAMPLE_RATIO"],
        subdivision_steps=said["MODEL.POINT_HEAD.SUBDIVISION_STEPS"],
        subdivision_points=said["MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS"],
    )
    return replace(
        mask,
        resolution=mask.resolution if points else said["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"],
        norm=_head_norm(mask.norm, said),
        point_rend=points,
        samples=_most_positive(said),
    )


def _keypoint_head(keypoint: KeypointHeadConfig, said: Mapping[str, Any]) -> KeypointHeadConfig:
    return replace(
        keypoint,
        resolution=said["MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION"],
        samples=_most_positive(said),
    )


def _most_positive(said: Mapping[str, Any]) -> int:
    """Positive RoIs an image, all of which the mask and keypoint branches learn from."""
    return int(said["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"] * said["MODEL.ROI_HEADS.POSITIVE_FRACTION"])
