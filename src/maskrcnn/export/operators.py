"""The operators of an exported network that torch has in one form and ONNX in another.

Each is one operator of torch here, so that a trace keeps it whole, and has a translation to the operators of ONNX. NMS
is such an operator already (`ops.nms`). A translation is called once and records what it computes.

Legend: L lists, N boxes per list, K classes, R RoIs, C channels, O side of the RoI features, B images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from onnxscript import opset18
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from maskrcnn.export.dense import dense_masks, onnx_dense_masks
from maskrcnn.export.keypoints import decode_keypoints, onnx_decode_keypoints
from maskrcnn.export.runs import mask_runs, onnx_mask_runs
from maskrcnn.models.anchors import Anchors
from maskrcnn.models.branches.keypoint import KeypointBranch
from maskrcnn.models.fpn import FPN
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.norm import ConvNorm, FrozenBatchNorm
from maskrcnn.ops import roi_align as torch_roi_align

op: Any = opset18  # without types: it takes Python numbers too
INT64 = 7  # numbers of types in ONNX
FLOAT = 1
BOOL = 9


class UncachedAnchors:
    """The anchors of a network, computed anew in each call, because the sizes of a traced batch are symbols."""

    def __init__(self, anchors: Anchors) -> None:
        self.strides = anchors.strides
        self._anchors = anchors

    def __call__(self, *args: Any) -> list[Tensor]:
        return self._anchors.levels(*args)


def use_operators(network: MaskRCNN) -> None:
    """Gives a network, in place, the operators that have a translation, and folds its norms into its convolutions."""
    for module in network.modules():
        if isinstance(module, ConvNorm):
            fold_norm(module)
    network.rpn.anchors = UncachedAnchors(network.rpn.anchors)  # type: ignore[assignment]
    network.roi_heads.pooler.align = roi_align
    if isinstance(network.roi_heads.keypoint, KeypointBranch):
        network.roi_heads.keypoint.decode = decode_keypoints
    if isinstance(network.neck, FPN):
        network.neck.merge = add_resized


def fold_norm(layer: ConvNorm) -> None:
    """Folds a norm with fixed statistics into the convolution before it, in place."""
    if isinstance(layer.norm, FrozenBatchNorm):
        weight, bias = layer.norm.fold(layer.conv.weight)
    elif isinstance(layer.norm, nn.BatchNorm2d | nn.SyncBatchNorm):
        norm = layer.norm
        assert norm.running_mean is not None and norm.running_var is not None
        weight, bias = fuse_conv_bn_weights(
            layer.conv.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
    else:
        return
    layer.conv.weight, layer.conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    layer.norm = nn.Identity()


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Operators of torch, each with its translation."""
    return {
        torch.ops.maskrcnn.nms.default: onnx_nms,
        torch.ops.maskrcnn.roi_align.default: onnx_roi_align,
        decode_keypoints: onnx_decode_keypoints,
        mask_runs: onnx_mask_runs,
        dense_masks: onnx_dense_masks,
        torch.ops.aten.group_norm.default: onnx_group_norm,
    }


def onnx_group_norm(
    x: Any, num_groups: int, weight: Any, bias: Any, eps: float = 1e-5, cudnn_enabled: bool = True
) -> Any:
    """`torch.nn.functional.group_norm` of (R, C, H, W), also for no RoI, where torch's own translation fails.

    Args: as torch's operator has them; the last one is of no use here.
    """
    shape, groups = op.Shape(x), op.Constant(value_ints=[num_groups])
    count, rest = op.Slice(shape, [0], [1], [0]), op.Slice(shape, [1], op.Constant(value_ints=[1 << 30]), [0])
    values = op.Div(op.ReduceProd(rest), groups)
    # allowzero: a side of 0 is no RoI, and not the side of the input.
    grouped = op.Reshape(x, op.Concat(count, groups, values, axis=0), allowzero=1)
    ones, zeros = (op.Constant(value_floats=[value] * num_groups) for value in (1.0, 0.0))
    normal = op.Reshape(op.InstanceNormalization(grouped, ones, zeros, epsilon=eps), shape, allowzero=1)
    return op.Add(op.Mul(normal, op.Unsqueeze(weight, [1, 2])), op.Unsqueeze(bias, [1, 2]))


def add_resized(fine: Tensor, coarse: Tensor) -> None:
    """`models.fpn.add_upsampled` for maps (B, C, h, w) and (B, C, 2 h, 2 w), as an operator that engines know."""
    fine.add_(F.interpolate(coarse, scale_factor=2, mode="nearest"))


def roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    *,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    reduce: str,
) -> Tensor:
    """`ops.roi_align.roi_align` as one operator. It has the average only."""
    scales = [float(stride) for stride in strides]
    pooled: Tensor = _roi_align(list(features), boxes, image_index, level, scales, output_size, sampling_ratio, aligned)
    return pooled


@torch.library.custom_op(
    "maskrcnn::roi_align",
    mutates_args=(),
    schema="(Tensor[] features, Tensor boxes, Tensor image_index, Tensor level, float[] strides, int output_size, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
def _roi_align(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    strides: list[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings: dict[str, Any] = {"output_size": output_size, "sampling_ratio": sampling_ratio, "aligned": aligned}
    return torch_roi_align.roi_align(features, boxes, image_index, level, strides=strides, **settings)


@_roi_align.register_fake
def _(
    features: list[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    strides: list[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    return features[0].new_empty((boxes.shape[0], features[0].shape[1], output_size, output_size))


def onnx_roi_align(
    features: Sequence[Any],
    boxes: Any,
    image_index: Any,
    level: Any,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """RoiAlign for the RoIs of each level, put back into the order of the boxes."""
    pooled, order = [], []
    for number, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        here = op.Squeeze(op.NonZero(op.Equal(level, number)), [0])
        order.append(here)
        pooled.append(
            op.RoiAlign(
                feature,
                op.Reshape(op.Gather(boxes, here), op.Constant(value_ints=[-1, 4])),
                op.Gather(image_index, here),
                coordinate_transformation_mode="half_pixel" if aligned else "output_half_pixel",
                mode="avg",
                output_height=output_size,
                output_width=output_size,
                sampling_ratio=sampling_ratio,
                spatial_scale=1 / stride,
            )
        )
    if len(pooled) == 1:
        return pooled[0]
    joined = op.Concat(*order, axis=0)
    position = op.ScatterElements(joined, joined, op.Range(0, op.Squeeze(op.Shape(joined), [0]), 1))
    return op.Gather(op.Concat(*pooled, axis=0), position)


def onnx_nms(boxes: Any, valid: Any, iou_threshold: float, labels: Any = None) -> Any:
    """NonMaxSuppression. Its batches are the lists, its classes the labels, and its scores the order of the boxes."""
    count = op.Gather(op.Shape(boxes), 1)
    rank = op.Cast(op.Range(count, 0, -1), to=FLOAT)
    scores = op.Unsqueeze(op.Where(valid, rank, op.Constant(value_float=0.0)), [1])  # (L, 1, N)
    if labels is not None:
        classes = op.Range(0, op.Add(op.ReduceMax(labels, keepdims=0), 1), 1)
        own = op.Equal(op.Unsqueeze(labels, [1]), op.Unsqueeze(classes, [0, 2]))
        scores = op.Where(own, scores, op.Constant(value_float=0.0))  # (L, K, N)
    kept = op.NonMaxSuppression(
        op.Reshape(boxes, op.Constant(value_ints=[0, 0, 4])),  # OpenVINO loses the 4 behind layers in int8
        scores,
        op.Unsqueeze(count, [0]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[0.5]),
    )
    place = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)  # list and box of each survivor
    nothing = op.Cast(op.Mul(op.Cast(valid, to=INT64), 0), to=INT64)
    ones = op.Expand(op.Constant(value_ints=[1]), op.Slice(op.Shape(kept), [0], [1]))
    return op.Cast(op.ScatterND(nothing, place, ones), to=BOOL)
