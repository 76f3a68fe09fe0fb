"""Detectron2's settings as a config of ours: from its config.yaml, or what is usual for the kind of model.

The sources are Detectron2's `config/defaults.py`, `configs/Base-*.yaml` and `projects/PointRend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from maskrcnn.config import (
    AnchorConfig,
    AugmentConfig,
    BoxHeadConfig,
    BoxLoss,
    Config,
    DetectConfig,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    Norm,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.weights.imported import listed

# Buffers of older files that say what a config says.
STORED_SETTINGS = ("pixel_mean", "pixel_std")
CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors."

# What Detectron2 takes where a config is silent, of the settings that are read here (`config/defaults.py`).
DEFAULTS: dict[str, Any] = {
    "INPUT.FORMAT": "BGR",
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.MIN_SIZE_TRAIN": [800],
    "INPUT.RANDOM_FLIP": "horizontal",
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": 1,
    "MODEL.FPN.FUSE_TYPE": "sum",
    "MODEL.ANCHOR_GENERATOR.NAME": "DefaultAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.OFFSET": 0.0,
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": 0,
    "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.7],
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.BBOX_REG_WEIGHTS": [1.0, 1.0, 1.0, 1.0],
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": "smooth_l1",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE": False,
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [[10.0 * i, 10.0 * i, 5.0 * i, 5.0 * i] for i in (1, 2, 3)],
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 0.7],
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.POINT_HEAD.TRAIN_NUM_POINTS": 196,
    "MODEL.POINT_HEAD.OVERSAMPLE_RATIO": 3,
    "MODEL.POINT_HEAD.IMPORTANCE_SAMPLE_RATIO": 0.75,
    "MODEL.POINT_HEAD.SUBDIVISION_STEPS": 5,
    "MODEL.POINT_HEAD.SUBDIVISION_NUM_POINTS": 784,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}
NORMS: dict[str, Norm] = {
    "FrozenBN": "frozen_batch_norm",
    "BN": "batch_norm",
    "SyncBN": "sync_batch_norm",
    "naiveSyncBN": "sync_batch_norm",
    "nnSyncBN": "sync_batch_norm",
    "GN": "group_norm",
}


# What Detectron2's own configs set otherwise, by the kind of model.
WITH_PYRAMID: dict[str, Any] = {
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
}
WITH_CASCADE: dict[str, Any] = {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000}
WITH_KEYPOINTS: dict[str, Any] = {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500, "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5}


def read_config(path: Path | str) -> dict[str, Any]:
    """A config.yaml of Detectron2, with those it names under `_BASE_` beneath it. Read as data: nothing is run.

    Raises:
        ConfigError: missing, no YAML, or not the config of a model; one in the form of LazyConfig is not read.
    """
    import yaml

    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: expected a config.yaml of Detectron2, cannot be read: {str(error).splitlines()[0]}"
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get("MODEL", {}), dict) or "model" in content:
        raise ConfigError(
            f"{path}: expected a config.yaml of Detectron2 with settings under MODEL, found "
            f"{listed(map(str, content)) if isinstance(content, dict) else type(content).__name__}; "
            "a LazyConfig is not read: leave the config out"
        )
    base = content.pop("_BASE_", None)
    if base is None:
        return content
    if not isinstance(base, str) or (path.parent / base).resolve() == path.resolve():
        raise ConfigError(f"{path}: _BASE_ should name another file, found {base!r}")
    return _merged(read_config(path.parent / base), content)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for name, value in above.items():
        old = result.get(name)
        result[name] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def our_config(
    model: ModelConfig, tensors: Mapping[str, Tensor], settings: Mapping[str, Any] | None
) -> tuple[Config, tuple[str, ...]]:
    """The config of a model of which the shapes are known.

    Args:
        model: what the shapes tell; a norm with counts of batches is batch norm here.
        tensors: of the file, by its names.
        settings: what `read_config` gives, or None.

    Returns:
        The config, and what was assumed.

    Raises:
        ConfigError: a setting asks for what this package has not, or cannot be read.
        WeightsError: a setting does not fit the shapes.
    """
    if settings is None:
        said, assumed = _usual(model, tensors)
    else:
        given = _flat(settings)
        said, assumed = DEFAULTS | given, ()
        _check_fit(model, given)
    _check_supported(model, said)
    try:
        return _config(model, said), assumed
    except (TypeError, ValueError, IndexError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(
            f"a setting of the config.yaml has a value of another kind than Detectron2's: {error}"
        ) from None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"MODEL": {"MASK_ON": True}} -> {"MODEL.MASK_ON": True}."""
    result: dict[str, Any] = {}
    for name, value in settings.items():
        result |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return result


def _usual(model: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The settings that Detectron2's own configs give a model of this shape, and the sentences that say so."""
    said = dict(DEFAULTS)
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    if model.neck == "fpn":
        said |= WITH_PYRAMID
    if model.box_head.cascade_ious:
        said |= WITH_CASCADE
    if model.keypoint_head is not None:
        said |= WITH_KEYPOINTS
    said["INPUT.MIN_SIZE_TRAIN"] = [640, 672, 704, 736, 768, 800]
    said["MODEL.RESNETS.RES5_DILATION"] = 2 if model.neck == "dc5" else 1
    said["MODEL.RESNETS.STRIDE_IN_1X1"] = (
        backbone.depth >= 50 and backbone.groups == 1 and backbone.norm != "group_norm"
    )
    if model.neck != "c4":
        said["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"] = model.box_head.resolution
    if backbone.groups > 1:
        said["MODEL.PIXEL_STD"] = [57.375, 57.12, 58.395]
    said["MODEL.BACKBONE.FREEZE_AT"] = _frozen(tensors) if backbone.norm == "batch_norm" else 2
    mean, std, cells = (tensors.get(name) for name in (*STORED_SETTINGS, f"{CELL_ANCHORS}0"))
    pixels = "the input is BGR with mean {} and standard deviation {}"
    assumed = [
        "the image is resized to a short side of 800 and a long side of at most 1333 pixels (INPUT)",
        "a bottleneck's stride is in its {} convolution (MODEL.RESNETS.STRIDE_IN_1X1)".format(
            "first 1x1" if said["MODEL.RESNETS.STRIDE_IN_1X1"] else "3x3"
        ),
        "RoIs are read by ROIAlignV2 with as many samples as a bin has cells (POOLER_TYPE, POOLER_SAMPLING_RATIO)",
        "scores above 0.05, suppression at 0.5 and 100 detections an image (MODEL.ROI_HEADS, TEST)",
        f"{said['MODEL.RPN.PRE_NMS_TOPK_TEST']} proposals before and {said['MODEL.RPN.POST_NMS_TOPK_TEST']} after "
        "suppression at 0.7 (MODEL.RPN)",
        "losses, overlaps and samples of training are those of Detectron2's own configs",
    ]
    if mean is not None and std is not None:
        # float32 keeps seven digits of what was a decimal number.
        said["MODEL.PIXEL_MEAN"], said["MODEL.PIXEL_STD"] = (
            [round(value, 4) for value in values.flatten().tolist()] for values in (mean, std)
        )
        assumed.append("the input is BGR (INPUT.FORMAT)")
    else:
        assumed.append(pixels.format(said["MODEL.PIXEL_MEAN"], said["MODEL.PIXEL_STD"]))
    if cells is not None:
        said |= _stored_anchors(tensors)
    else:
        assumed.append(f"anchors of {said['MODEL.ANCHOR_GENERATOR.SIZES']} pixels and ratios 0.5, 1 and 2")
    if backbone.norm == "batch_norm":
        said["MODEL.RESNETS.NORM"] = "SyncBN"
        assumed.append("batch norm is synchronised between processes in training (MODEL.RESNETS.NORM)")
    return said, tuple(assumed)


def _frozen(tensors: Mapping[str, Tensor]) -> int:
    """FREEZE_AT of a model with batch norm: a frozen norm counts no batches."""
    trunk = "backbone.bottom_up." if any(name.startswith("backbone.bottom_up.") for name in tensors) else "backbone."
    first = ["stem.conv1", *(f"res{stage}.0.conv1" for stage in range(2, 5))]
    counting = [f"{trunk}{conv}.norm.num_batches_tracked" in tensors for conv in first]
    return counting.index(True)


def _stored_anchors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Sizes and ratios of the anchors of every level that an older file holds, ordered by size and then ratio."""
    levels = [tensors[name] for name in sorted(tensors) if name.startswith(CELL_ANCHORS)]
    sides = [(level[:, 2:] - level[:, :2]).double() for level in levels]
    ratios = list(dict.fromkeys((sides[0][:, 1] / sides[0][:, 0]).mul(1e3).round().div(1e3).tolist()))
    sizes = [level.prod(-1).sqrt().mul(1e3).round().div(1e3).tolist()[:: len(ratios)] for level in sides]
    return {"MODEL.ANCHOR_GENERATOR.SIZES": sizes, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [ratios]}


def _check_fit(model: ModelConfig, given: Mapping[str, Any]) -> None:
    """Whether a config is of this file: what it says and the shapes know as well must be the same."""
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    norm = backbone.norm.replace("sync_", "")
    facts: dict[str, tuple[Any, bool]] = {
        "MODEL.ROI_HEADS.NUM_CLASSES": (model.num_classes, True),
        "MODEL.RESNETS.DEPTH": (backbone.depth, True),
        "MODEL.MASK_ON": (model.mask_head is not None, True),
        "MODEL.KEYPOINT_ON": (model.keypoint_head is not None, True),
        "MODEL.RESNETS.NORM": (given.get("MODEL.RESNETS.NORM"), _same_norm(given.get("MODEL.RESNETS.NORM"), norm)),
    }
    for name, (found, fits) in facts.items():
        if name in given and (given[name] != found or not fits):
            raise WeightsError(
                f"{name} is {given[name]!r} in the config, and the file has "
                f"{norm if name.endswith('NORM') else repr(found)}: is it the config of this file?"
            )


def _same_norm(name: Any, norm: str) -> bool:
    return name in NORMS and NORMS[name].replace("sync_", "") == norm


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
            kernel="pil",
            rounding="round",
        ),
        augment=AugmentConfig(
            scale_jitter=(min(train) / short, max(train) / short),
            flip_horizontal=0.5 if flip == "horizontal" else 0.0,
            flip_vertical=0.5 if flip == "vertical" else 0.0,
        ),
    )


def _three(values: Any, bgr: bool) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return (third, second, first) if bgr else (first, second, third)


def _four(values: Any) -> tuple[float, float, float, float]:
    x, y, width, height = (float(value) for value in values)
    return x, y, width, height


def _model(model: ModelConfig, said: Mapping[str, Any]) -> ModelConfig:
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    sizes = tuple(tuple(float(size) for size in level) for level in said["MODEL.ANCHOR_GENERATOR.SIZES"])
    levels = 5 if model.neck == "fpn" else 1
    single: Literal["dc5", "c5"] = "dc5" if said["MODEL.RESNETS.RES5_DILATION"] == 2 else "c5"
    return replace(
        model,
        neck=single if model.neck == "dc5" else model.neck,
        backbone=replace(
            backbone,
            stride_in_1x1=backbone.depth >= 50 and bool(said["MODEL.RESNETS.STRIDE_IN_1X1"]),
            norm=NORMS[said["MODEL.RESNETS.NORM"]] if "MODEL.RESNETS.NORM" in said else backbone.norm,
            frozen_stages=max(0, int(said["MODEL.BACKBONE.FREEZE_AT"])),
        ),
        anchors=AnchorConfig(
            sizes=sizes * levels if len(sizes) == 1 else sizes,
            ratios=tuple(float(ratio) for ratio in said["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"][0]),
            offset=float(said["MODEL.ANCHOR_GENERATOR.OFFSET"]),
        ),
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
        min_size=float(said["MODEL.PROPOSAL_GENERATOR.MIN_SIZE"]),
        box_weights=_four(said["MODEL.RPN.BBOX_REG_WEIGHTS"]),
        box_loss=_box_loss("MODEL.RPN", said),
        smooth_l1_beta=said["MODEL.RPN.SMOOTH_L1_BETA"],
        normaliser="samples",
    )


def _rois(said: Mapping[str, Any]) -> RoIConfig:
    kind, ratio = said["MODEL.ROI_BOX_HEAD.POOLER_TYPE"], said["MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO"]
    level: dict[str, Any] = {"level_epsilon": 0.0, "size_epsilon": 1e-8}
    if kind in ("ROIAlign", "ROIAlignV2"):
        return RoIConfig(sampling_ratio=ratio, aligned=kind == "ROIAlignV2", **level)
    if kind == "ROIPool":
        return RoIConfig(op="pool", reduce="max", **level)
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
        point_rend=points,
        samples=_most_positive(said),
        # Targets of bit masks: RoIAlign of the instance's own, then at least one half (`BitMasks.crop_and_resize`).
        target_sampling_ratio=0,
        target_aligned=True,
        target_threshold=0.5,
        target_pixels="network",
        paste="pixel_centres",
    )


def _keypoint_head(keypoint: KeypointHeadConfig, said: Mapping[str, Any]) -> KeypointHeadConfig:
    return replace(
        keypoint,
        resolution=said["MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION"],
        samples=_most_positive(said),
        score="probability",
    )


def _most_positive(said: Mapping[str, Any]) -> int:
    """Positive RoIs an image, all of which the mask and keypoint branches learn from."""
    return int(said["MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE"] * said["MODEL.ROI_HEADS.POSITIVE_FRACTION"])
