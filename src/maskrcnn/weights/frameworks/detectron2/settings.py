"""Converts Detectron2's settings and the shapes of the tensors to our config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

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
from maskrcnn.weights.frameworks.detectron2.defaults import DEFAULTS, assumed_settings
from maskrcnn.weights.frameworks.settings import (
    Assumed,
    check_fits,
    check_numbers,
    check_one_pooler,
    check_supported,
    four,
    jitter_of,
    kinds_checked,
    pixel_statistics,
    unsupported,
)

NORMS: dict[str, Norm] = {
    "FrozenBN": "frozen_batch_norm",
    "BN": "batch_norm",
    "SyncBN": "sync_batch_norm",
    "naiveSyncBN": "sync_batch_norm",
    "nnSyncBN": "sync_batch_norm",
    "GN": "group_norm",
}
# Detectron2's architectures without RoI heads.
ONE_STAGE = ("RetinaNet", "FCOS", "ProposalNetwork", "SemanticSegmentor", "PanopticDeepLab")
# The only supported values.
SUPPORTED = {
    "MODEL.PROPOSAL_GENERATOR.NAME": "RPN",
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": 1,
}


def our_config(
    model: ModelConfig, tensors: Mapping[str, Tensor], given: Mapping[str, Any] | None
) -> tuple[Config, Assumed]:
    """The config of a model with this architecture, and the assumptions about it.

    Args:
        tensors: the tensors of the file, by its names.
        given: settings by names such as MODEL.RPN.NMS_THRESH, or None.

    Raises:
        ConfigError, WeightsError: as in `Importer.import_checkpoint`.
    """
    settings, assumed = assumed_settings(model, tensors) if given is None else (DEFAULTS | dict(given), ())
    with kinds_checked("Detectron2"):
        check_fits(given or {}, _known_settings(model, given or {}))
        check_supported(settings, SUPPORTED)
        check_numbers(settings, DEFAULTS)
        check_one_pooler(model, settings, "POOLER_TYPE", "POOLER_SAMPLING_RATIO")
        return _config(model, settings), assumed


def _known_settings(model: ModelConfig, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of settings that the shapes determine."""
    norm = model.resnet.norm
    known: dict[str, Any] = {
        "MODEL.ROI_HEADS.NUM_CLASSES": model.num_classes,
        "MODEL.RESNETS.DEPTH": model.resnet.depth,
        "MODEL.MASK_ON": model.mask_head is not None,
        "MODEL.KEYPOINT_ON": model.keypoint_head is not None,
    }
    if norm == "group_norm" or given.get("MODEL.RESNETS.NORM") == "GN":
        known["MODEL.RESNETS.NORM"] = "GN" if norm == "group_norm" else "batch norm"
    # The shapes determine only a part of these names: whether the model has a cascade, and whether it has a pyramid.
    for name, part, has_part, default in (
        ("MODEL.ROI_HEADS.NAME", "Cascade", bool(model.box_head.cascade_ious), "StandardROIHeads"),
        ("MODEL.BACKBONE.NAME", "fpn", model.neck == "fpn", "build_resnet_backbone"),
    ):
        if name in given and (part in str(given[name])) != has_part:
            known[name] = f"a name with {part}" if has_part else default
    if given.get("MODEL.META_ARCHITECTURE") in ONE_STAGE:
        known["MODEL.META_ARCHITECTURE"] = "GeneralizedRCNN"
    return known


def _config(model: ModelConfig, settings: Mapping[str, Any]) -> Config:
    bgr, short = settings["INPUT.FORMAT"] == "BGR", settings["INPUT.MIN_SIZE_TEST"]
    flip = settings["INPUT.RANDOM_FLIP"]
    return Config(
        model=_model(model, settings),
        image=ImageConfig(
            short_side=short,
            long_side=settings["INPUT.MAX_SIZE_TEST"],
            divisor=32 if model.neck == "fpn" else 1,
            **pixel_statistics(settings["MODEL.PIXEL_MEAN"], settings["MODEL.PIXEL_STD"], bgr=bgr),
        ),
        augment=AugmentConfig(
            scale_jitter=jitter_of(settings["INPUT.MIN_SIZE_TRAIN"], short),
            flip_horizontal=0.5 if flip == "horizontal" else 0.0,
            flip_vertical=0.5 if flip == "vertical" else 0.0,
        ),
        conventions=replace(
            DETECTRON2,
            anchors=replace(DETECTRON2.anchors, offset=float(settings["MODEL.ANCHOR_GENERATOR.OFFSET"])),
            features=replace(DETECTRON2.features, aligned=settings["MODEL.ROI_BOX_HEAD.POOLER_TYPE"] != "ROIAlign"),
            proposals=replace(DETECTRON2.proposals, min_size=float(settings["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"])),
        ),
    )


def _model(model: ModelConfig, settings: Mapping[str, Any]) -> ModelConfig:
    return replace(
        model,
        neck="c5" if model.neck == "dc5" and settings["MODEL.RESNETS.RES5_DILATION"] == 1 else model.neck,
        backbone=_backbone(model, settings),
        fpn_norm=_head_norm(model.fpn_norm, settings),
        anchors=_anchors(model, settings),
        rpn=_rpn(model.rpn, settings),
        rois=_rois(settings),
        box_head=_box_head(model, settings),
        mask_head=None if model.mask_head is None else _mask_head(model.mask_head, settings),
        keypoint_head=None if model.keypoint_head is None else _keypoint_head(model.keypoint_head, settings),
        detect=DetectConfig(
            score_threshold=settings["MODEL.ROI_HEADS.SCORE_THRESH_TEST"],
            nms_iou=settings["MODEL.ROI_HEADS.NMS_THRESH_TEST"],
            max_detections=settings["TEST.DETECTIONS_PER_IMAGE"],
        ),
    )


def _backbone(model: ModelConfig, settings: Mapping[str, Any]) -> ResNetConfig:
    backbone = model.resnet
    return replace(
        backbone,
        stride_in_1x1=backbone.depth >= 50 and bool(settings["MODEL.RESNETS.STRIDE_IN_1X1"]),
        norm=NORMS[settings["MODEL.RESNETS.NORM"]] if "MODEL.RESNETS.NORM" in settings else backbone.norm,
        frozen_stages=max(0, int(settings["MODEL.BACKBONE.FREEZE_AT"])),
    )


def _head_norm(norm: HeadNorm, settings: Mapping[str, Any]) -> HeadNorm:
    """The norm of a head. Its batch norm is synchronised if that of the backbone is."""
    synchronised = NORMS.get(settings.get("MODEL.RESNETS.NORM", "")) == "sync_batch_norm"
    return "sync_batch_norm" if norm == "batch_norm" and synchronised else norm


def _anchors(model: ModelConfig, settings: Mapping[str, Any]) -> AnchorConfig:
    sizes = tuple(tuple(map(float, level)) for level in settings["MODEL.ANCHOR_GENERATOR.SIZES"])
    ratios = [tuple(map(float, level)) for level in settings["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"]]
    if len(set(ratios)) > 1:
        raise ConfigError(f"MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS must be the same on every level, found {ratios}")
    levels = 5 if model.neck == "fpn" else 1
    return AnchorConfig(sizes=sizes * levels if len(sizes) == 1 else sizes, ratios=ratios[0])


def _rpn(rpn: RPNConfig, settings: Mapping[str, Any]) -> RPNConfig:
    low, high = settings["MODEL.RPN.IOU_THRESHOLDS"]
    return replace(
        rpn,
        positive_iou=high,
        negative_iou=low,
        samples=settings["MODEL.RPN.BATCH_SIZE_PER_IMAGE"],
        positive_fraction=settings["MODEL.RPN.POSITIVE_FRACTION"],
        pre_nms_train=settings["MODEL.RPN.PRE_NMS_TOPK_TRAIN"],
        pre_nms_test=settings["MODEL.RPN.PRE_NMS_TOPK_TEST"],
        post_nms_train=settings["MODEL.RPN.POST_NMS_TOPK_TRAIN"],
        post_nms_test=settings["MODEL.RPN.POST_NMS_TOPK_TEST"],
        nms_iou=settings["MODEL.RPN.NMS_THRESH"],
        box_weights=four(settings["MODEL.RPN.BBOX_REG_WEIGHTS"]),
        box_loss=_box_loss("MODEL.RPN", settings),
        smooth_l1_beta=settings["MODEL.RPN.SMOOTH_L1_BETA"],
    )


def _rois(settings: Mapping[str, Any]) -> RoIConfig:
    kind, ratio = settings["MODEL.ROI_BOX_HEAD.POOLER_TYPE"], settings["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]
    if kind in ("ROIAlign", "ROIAlignV2"):
        return RoIConfig(sampling_ratio=ratio)
    if kind == "ROIPool":
        return RoIConfig(op="pool", reduce="max")
    raise unsupported("MODEL.ROI_BOX_HEAD.POOLER_TYPE", kind, ["ROIAlignV2", "ROIAlign", "ROIPool"])


def _box_head(model: ModelConfig, settings: Mapping[str, Any]) -> BoxHeadConfig:
    box = model.box_head
    stages = len(box.cascade_ious) + 1
    first = settings["MODEL.ROI_HEADS.IOU_THRESHOLDS"][0]
    weights, ious = [settings["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]], [first]
    if stages > 1:
        weights, ious = (settings[f"MODEL.ROI_BOX_CASCADE_HEAD.{name}"] for name in ("BBOX_REG_WEIGHTS", "IOUS"))
    if len(weights) != stages or len(ious) != stages:
        raise WeightsError(
            f"the file has {stages} box stages, and MODEL.ROI_BOX_CASCADE_HEAD has {len(ious)} IOUS and "
            f"{len(weights)} BBOX_REG_WEIGHTS: do the settings belong to this file?"
        )
    return replace(
        box,
        positive_iou=ious[0],
        samples=settings["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"],
        positive_fraction=settings["MODEL.ROI_HEADS.POSITIVE_FRACTION"],
        resolution=box.resolution if box.layers else settings["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"],
        box_weights=four(weights[0]),
        norm=_head_norm(box.norm, settings),
        box_loss=_box_loss("MODEL.ROI_BOX_HEAD", settings),
        smooth_l1_beta=settings["MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA"],
        cascade_ious=tuple(ious[1:]),
        cascade_weights=tuple(four(stage) for stage in weights[1:]),
    )


def _box_loss(part: str, settings: Mapping[str, Any]) -> BoxLoss:
    kind: Any = settings[f"{part}.BBOX_REG_LOSS_TYPE"]
    if kind not in get_args(BoxLoss):
        raise unsupported(f"{part}.BBOX_REG_LOSS_TYPE", kind, get_args(BoxLoss))
    loss: BoxLoss = kind
    return loss


def _mask_head(mask: MaskHeadConfig, settings: Mapping[str, Any]) -> MaskHeadConfig:
    points = mask.point_rend and replace(
        mask.point_rend,
        train_points=settings["MODEL.POINT_HEAD.TRAIN_NUM_POINTS"],
        oversample=float(settings["MODEL.POINT_HEAD.OVERSAMPLE_RATIO"]),
        important=settings["MODEL.POINT_HEAD.IMPORTANCE_SAMPLE_RATIO"],
        subdivision_steps=settings["MODEL.POINT_HEAD.SUBDIVISION_STEPS"],
        subdivision_points=settings["MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS"],
    )
    return replace(
        mask,
        resolution=mask.resolution if points else settings["MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION"],
        norm=_head_norm(mask.norm, settings),
        point_rend=points,
        samples=_positive_rois(settings),
    )


def _keypoint_head(keypoint: KeypointHeadConfig, settings: Mapping[str, Any]) -> KeypointHeadConfig:
    return replace(
        keypoint,
        resolution=settings["MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION"],
        samples=_positive_rois(settings),
    )


def _positive_rois(settings: Mapping[str, Any]) -> int:
    """The most positive RoIs per image. The mask and keypoint branches learn from all of them."""
    return int(settings["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"] * settings["MODEL.ROI_HEADS.POSITIVE_FRACTION"])
