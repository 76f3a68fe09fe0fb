"""The settings of a Detectron2 model without a config.yaml: Detectron2's defaults, and those of its own configs.

The sources are Detectron2's `config/defaults.py`, `configs/Base-*.yaml` and `projects/PointRend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskrcnn.config import ModelConfig
from maskrcnn.errors import WeightsError
from maskrcnn.weights.frameworks.settings import (
    DETECTED,
    RESIZED,
    Assumed,
    Settings,
    proposals_sentence,
    stride_sentence,
    strided_in_1x1,
)

# Buffers of older files that hold settings.
STORED_SETTINGS = ("pixel_mean", "pixel_std")
CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors."

# The defaults of the settings that are read here (`config/defaults.py`).
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
# Settings that Detectron2's own configs change, by the kind of model.
WITH_PYRAMID: dict[str, Any] = {
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
}
WITH_CASCADE: dict[str, Any] = {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000}
WITH_KEYPOINTS: dict[str, Any] = {"MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500, "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5}


def assumed_settings(model: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[Settings, Assumed]:
    """The settings that Detectron2's own configs give to a model of this architecture, and the assumptions.

    Args:
        tensors: the tensors of the file, by its names. Older files hold the mean and standard deviation of pixels and
            the anchors.
    """
    norm = model.resnet.norm
    in_1x1 = model.resnet.depth >= 50 and strided_in_1x1(model)
    settings = DEFAULTS | (WITH_PYRAMID if model.neck == "fpn" else {})
    settings |= WITH_CASCADE if model.box_head.cascade_ious else {}
    settings |= WITH_KEYPOINTS if model.keypoint_head is not None else {}
    settings |= {
        "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
        "MODEL.RESNETS.RES5_DILATION": 2 if model.neck == "dc5" else 1,
        "MODEL.RESNETS.STRIDE_IN_1X1": in_1x1,
        "MODEL.BACKBONE.FREEZE_AT": _frozen(tensors) if norm == "batch_norm" else 2,
    }
    if model.neck != "c4":
        settings["MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"] = model.box_head.resolution
    if model.resnet.groups > 1:
        settings["MODEL.PIXEL_STD"] = [57.375, 57.12, 58.395]
    before, after = settings["MODEL.RPN.PRE_NMS_TOPK_TEST"], settings["MODEL.RPN.POST_NMS_TOPK_TEST"]
    assumed = [
        f"{RESIZED} (INPUT)",
        stride_sentence(in_1x1, "MODEL.RESNETS.STRIDE_IN_1X1"),
        "RoIs are pooled by ROIAlignV2 with as many samples as a bin has cells (POOLER_TYPE, POOLER_SAMPLING_RATIO)",
        f"{DETECTED} (MODEL.ROI_HEADS, TEST)",
        proposals_sentence(before, after, "MODEL.RPN"),
        "losses, IoU thresholds and numbers of samples are those of Detectron2's own configs",
    ]
    mean, std, cells = (tensors.get(name) for name in (*STORED_SETTINGS, f"{CELL_ANCHORS}0"))
    if mean is not None and std is not None:
        # The settings were decimal numbers. Rounding removes the error of float32.
        for name, values in (("MODEL.PIXEL_MEAN", mean), ("MODEL.PIXEL_STD", std)):
            settings[name] = [round(value, 4) for value in values.flatten().tolist()]
        rgb = mean.numel() == 3
        assumed.append("the input is BGR (INPUT.FORMAT)" if rgb else "the channels have the order of the file")
    else:
        pixels = f"mean {settings['MODEL.PIXEL_MEAN']} and standard deviation {settings['MODEL.PIXEL_STD']}"
        assumed.append(f"the input is BGR with {pixels}")
    if cells is not None:
        settings |= _stored_anchors(tensors)
    else:
        sizes = settings["MODEL.ANCHOR_GENERATOR.SIZES"]
        assumed.append(f"anchors have sizes of {sizes} pixels and ratios of 0.5, 1 and 2")
    if norm == "batch_norm":
        settings["MODEL.RESNETS.NORM"] = "SyncBN"
        assumed.append("training synchronises batch norm between processes (MODEL.RESNETS.NORM)")
    return settings, tuple(assumed)


def _frozen(tensors: Mapping[str, Tensor]) -> int:
    """FREEZE_AT of a model with batch norm. The norms of frozen stages have no count of batches."""
    trunk = "backbone.bottom_up." if any(name.startswith("backbone.bottom_up.") for name in tensors) else "backbone."
    first = ["stem.conv1", *(f"res{stage}.0.conv1" for stage in range(2, 5))]
    counting = [f"{trunk}{conv}.norm.num_batches_tracked" in tensors for conv in first]
    return counting.index(True)


def _stored_anchors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of the anchors that an older file stores for every level, ordered by size and then by ratio.

    Raises:
        WeightsError: a level holds no boxes.
    """
    names = [name for name in sorted(tensors) if name.startswith(CELL_ANCHORS)]
    for name in names:
        if tensors[name].dim() != 2 or tensors[name].shape[1] != 4 or not len(tensors[name]):
            raise WeightsError(
                f"expected the boxes (N, 4) of anchors, found {name} of shape {tuple(tensors[name].shape)}"
            )
    levels = [tensors[name] for name in names]
    sides = [(level[:, 2:] - level[:, :2]).double() for level in levels]
    ratios = list(dict.fromkeys((sides[0][:, 1] / sides[0][:, 0]).mul(1e3).round().div(1e3).tolist()))
    sizes = [level.prod(-1).sqrt().mul(1e3).round().div(1e3).tolist()[:: len(ratios)] for level in sides]
    return {"MODEL.ANCHOR_GENERATOR.SIZES": sizes, "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [ratios]}
