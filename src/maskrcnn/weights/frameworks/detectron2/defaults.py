"""The settings of a Detectron2 model: those of its config.yaml, or those that are usual for its kind.

The sources are Detectron2's `config/defaults.py`, `configs/Base-*.yaml` and `projects/PointRend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrcnn.config import ModelConfig, ResNetConfig
from maskrcnn.weights.frameworks.settings import Settings, read_yaml

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
# What Detectron2's own configs set otherwise, by the kind of model.
WITH_PYRAMID: dict[str, Any] = {
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
}
WITH_CASCADE: dict[str, Any] = {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000}
WITH_KEYPOINTS: dict[str, Any] = {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500, "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5}


def read_settings(path: Path | str) -> Settings:
    """A config.yaml of Detectron2, by names such as MODEL.RPN.NMS_THRESH; one in the form of LazyConfig is not read.

    Raises:
        ConfigError: missing, no YAML, or not the config of a model.
    """
    return read_yaml(path, "Detectron2")


def usual(model: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], tuple[str, ...]]:
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
