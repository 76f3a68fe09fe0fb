"""The settings of an MMDetection model without a config: those of MMDetection's own configs.

The sources are MMDetection 3.3's `configs/_base_/models` and the configs of its model zoo.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maskrcnn.config import ModelConfig, ResNetConfig
from maskrcnn.errors import WeightsError
from maskrcnn.weights.frameworks.settings import DETECTED, Assumed, Settings, proposals_sentence

RGB: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "bgr_to_rgb": True}
BGR_MEAN = [103.53, 116.28, 123.675]
CAFFE: dict[str, Any] = {"mean": BGR_MEAN, "std": [1.0, 1.0, 1.0], "bgr_to_rgb": False}
CAFFE2: dict[str, Any] = {"mean": BGR_MEAN, "std": [57.375, 57.12, 58.395], "bgr_to_rgb": False}  # ResNeXt 32x8d
# The variance after the first convolution, divided by the sum of its squared weights, is about 0.1 for input with a
# standard deviation of 1. Without division by the standard deviation (57) it is 57 squared times as large. This limit
# lies between the two.
CAFFE_VARIANCE = 20.0


def reads_bgr(model: ModelConfig, *, plain: bool) -> bool:
    """Whether MMDetection's own configs read BGR for such a model.

    Args:
        plain: pixels are not divided by a standard deviation.
    """
    return plain or model.resnet.stride_in_1x1 or _is_caffe2(model.resnet)


def _is_caffe2(backbone: ResNetConfig) -> bool:
    return (backbone.groups, backbone.bottleneck_width) == (32, 256)


def assumed_settings(model: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[Settings, Assumed]:
    """The settings that MMDetection's own configs give to a model of this architecture, and the assumptions.

    Args:
        tensors: by our names.
    """
    backbone, pyramid = model.resnet, model.neck == "fpn"
    cascade = bool(model.box_head.cascade_ious)
    caffe, why = _is_caffe(model, tensors)
    pixels = CAFFE if caffe or backbone.norm == "group_norm" else CAFFE2 if _is_caffe2(backbone) else RGB
    before, after = ((2000, 1000), (1000, 1000)) if pyramid else ((12000, 6000), (2000, 1000))
    kind = "GN" if backbone.norm == "group_norm" else "BN"
    loss: dict[str, Any] = {"type": "SmoothL1Loss", "beta": 1.0} if cascade else {"type": "L1Loss"}
    factors = (1, 2, 3) if cascade else (1,)
    stds = [[0.1, 0.1, 0.2, 0.2], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    in_rpn = {"pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "min_pos_iou": 0.3, "match_low_quality": True}
    side = model.box_head.resolution
    settings: dict[str, Any] = {
        "data_preprocessor": {**pixels, "pad_size_divisor": 32},
        "backbone": {
            "style": "caffe" if caffe else "pytorch",
            "frozen_stages": 1,
            "norm_cfg": {"type": kind, "requires_grad": not caffe},
            "dilations": (1, 1, 1, 2 if model.neck == "dc5" else 1),
        },
        "rpn_head": {
            "anchor_generator": {
                "scales": [8] if pyramid else [2, 4, 8, 16, 32],
                "ratios": [0.5, 1.0, 2.0],
                "strides": [4, 8, 16, 32, 64] if pyramid else [16],
            },
            "loss_bbox": {**loss, "beta": 1 / 9} if cascade else loss,
        },
        "roi_head": {
            "bbox_roi_extractor": {"roi_layer": {"output_size": side}},
            "mask_roi_extractor": {"roi_layer": {"output_size": 14}},
            "bbox_head": [{"loss_bbox": loss, "bbox_coder": {"target_stds": stds[i - 1]}} for i in factors],
            "mask_head": {},
            **({"stage_loss_weights": [1, 0.5, 0.25]} if cascade else {}),
        },
        "train_cfg": {
            "rpn": {"assigner": in_rpn, "allowed_border": -1 if pyramid and not cascade else 0},
            "rpn_proposal": {"nms_pre": before[0], "max_per_img": 2000 if cascade else after[0]},
            "rcnn": [
                {
                    "assigner": {
                        "pos_iou_thr": (4 + i) / 10,
                        "min_pos_iou": 0.5,
                        "match_low_quality": pyramid and not cascade and model.mask_head is not None,
                    }
                }
                for i in factors
            ],
        },
        "test_cfg": {"rpn": {"nms_pre": before[1], "max_per_img": after[1]}},
    }
    order = "RGB" if pixels["bgr_to_rgb"] else "BGR"
    assumed = (
        f"the style of the backbone is {settings['backbone']['style']}, {why}",
        f"the input is {order} with mean {pixels['mean']} and standard deviation {pixels['std']} (data_preprocessor)",
        f"anchors have sizes of {'8' if pyramid else '2, 4, 8, 16 and 32'} strides and ratios of 0.5, 1 and 2 "
        "(anchor_generator)",
        "RoIs are pooled by aligned RoIAlign with as many samples as a bin has cells (roi_layer)",
        f"{DETECTED} (test_cfg.rcnn)",
        proposals_sentence(before[1], after[1], "test_cfg.rpn"),
        "losses, IoU thresholds and numbers of samples are those of MMDetection's own configs",
    )
    return {"model": settings}, assumed


def _is_caffe(model: ModelConfig, tensors: Mapping[str, Tensor]) -> tuple[bool, str]:
    """Whether the backbone has the style caffe, and the reason for this assumption.

    In that style the stride is in the first 1x1 convolution and pixels are not divided by a standard deviation. The
    tensors do not show the place of the stride, but the variance after the first convolution shows the range of pixels.
    """
    backbone = model.resnet
    variance = tensors.get("backbone.stem.norm.running_var")
    if backbone.depth < 50 or backbone.groups > 1 or variance is None:
        return False, "as in all such models of MMDetection"
    weights = tensors["backbone.stem.conv.weight"].double().square().sum((1, 2, 3))
    if variance.shape != weights.shape:
        raise WeightsError(
            f"expected a variance for each channel of the first convolution, found {tuple(variance.shape)}"
        )
    caffe = float((variance.double() / weights).median()) > CAFFE_VARIANCE
    pixels = f"the input was {'not ' if caffe else ''}divided by its standard deviation"
    return caffe, f"because the variance after the first convolution shows that {pixels}"
