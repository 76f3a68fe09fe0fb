"""`ops.keypoints.decode_keypoints` in the operators of ONNX.

A Scan decodes one box after the other, because each is upsampled to its own size. So memory holds the maps of one box.

Legend: R RoIs, K keypoints, M side of a map, h x w pixels of a box.
"""

from __future__ import annotations

from typing import Any

import onnxscript
import torch
from onnxscript import opset18, script
from torch import Tensor

from maskrcnn.ops.keypoints import CUBIC_A
from maskrcnn.ops.keypoints import decode_keypoints as decode_in_torch

op: Any = opset18  # without types: it takes Python numbers too
FLOAT, INT64 = 1, 7  # numbers of types in ONNX
_TYPES: Any = onnxscript
MAPS, PIXELS, PEAKS = _TYPES.FLOAT["K", "P", "P"], _TYPES.INT64[2], _TYPES.FLOAT["K", 3]


@torch.library.custom_op(
    "maskrcnn::decode_keypoints", mutates_args=(), schema="(Tensor maps, Tensor boxes) -> (Tensor, Tensor, Tensor)"
)
def _decode(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return decode_in_torch(maps, boxes)


@_decode.register_fake
def _(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count, kinds = maps.shape[:2]
    return maps.new_empty((count, kinds, 2)), maps.new_empty((count, kinds)), maps.new_empty((count, kinds))


decode_keypoints = torch.ops.maskrcnn.decode_keypoints.default


def onnx_decode_keypoints(maps: Any, boxes: Any) -> tuple[Any, Any, Any]:
    """Points (R, K, 2), their upsampled logits (R, K) and their probabilities (R, K), all float32."""
    low, high = op.Slice(boxes, [0], [2], [1]), op.Slice(boxes, [2], [4], [1])
    sides = op.Max(op.Sub(high, low), op.Constant(value_float=1.0))
    pixels = op.Ceil(sides)
    # The cells beyond the border repeat it: two on each side are within reach of the kernel.
    padded = op.Pad(maps, op.Constant(value_ints=[0, 0, 2, 2, 0, 0, 2, 2]), mode="edge")
    # A box of one pixel comes last, because ONNX Runtime cannot scan nothing.
    padded = op.Pad(padded, op.Constant(value_ints=[0, 0, 0, 0, 1, 0, 0, 0]))
    lengths = op.Pad(op.Cast(pixels, to=INT64), op.Constant(value_ints=[0, 0, 1, 0]), op.Constant(value_int=1))
    body = _highest.to_model_proto(input_types=[MAPS, PIXELS], output_types=[PEAKS])
    found = op.Slice(op.Scan(padded, lengths, body=body.graph, num_scan_inputs=2), [0], [-1], [0])
    best = op.Squeeze(op.Slice(found, [0], [1], [2]), [2])
    centre = op.Add(op.Slice(found, [1], [3], [2]), op.Constant(value_float=0.5))
    scale, shift = op.Unsqueeze(op.Div(sides, pixels), [1]), op.Unsqueeze(low, [1])
    whole = op.ReduceLogSumExp(maps, op.Constant(value_ints=[2, 3]), keepdims=0)
    return op.Add(op.Mul(centre, scale), shift), best, op.Exp(op.Sub(best, whole))


@script(default_opset=opset18)
def _highest(maps, pixels):  # type: ignore[no-untyped-def]
    """(K, 3) float32: the highest logit of each map of a box after bicubic upsampling, and its pixel x and y.

    P is M + 4, the side of a map with two repeated cells at each end.
    """
    longest = op.ReduceMax(pixels, keepdims=0)
    side = op.Sub(op.Squeeze(op.Shape(maps, start=1, end=2)), 4)
    # The two axes together: (2, n, P) weights of the cells in each pixel, by the formulas of `ops.keypoints`.
    scale = op.Div(op.Cast(side, to=FLOAT), op.Cast(pixels, to=FLOAT))
    number = op.Cast(op.Range(0, longest, 1), to=FLOAT)
    at = op.Sub(op.Mul(op.Unsqueeze(scale, [1]), op.Unsqueeze(op.Add(number, 0.5), [0])), 0.5)
    cell = op.Sub(op.Cast(op.Range(0, op.Add(side, 4), 1), to=FLOAT), 2.0)
    distance = op.Abs(op.Sub(op.Unsqueeze(at, [2]), cell))
    near = op.Mul(op.Sub(op.Mul(distance, CUBIC_A + 2.0), CUBIC_A + 3.0), op.Mul(distance, distance))
    far = op.Mul(op.Sub(op.Mul(op.Add(op.Mul(op.Sub(distance, 5.0), distance), 8.0), distance), 4.0), CUBIC_A)
    weights = op.Where(op.LessOrEqual(distance, 1.0), op.Add(near, 1.0), op.Where(op.Less(distance, 2.0), far, 0.0))
    width, height = op.Slice(pixels, [0], [1]), op.Slice(pixels, [1], [2])
    columns = op.Slice(op.Gather(weights, 0), [0], width, [0])
    rows = op.Slice(op.Gather(weights, 1), [0], height, [0])
    full = op.MatMul(op.MatMul(rows, maps), op.Transpose(columns, perm=[1, 0]))  # (K, h, w)
    flat = op.Flatten(full, axis=1)
    place = op.ArgMax(flat, axis=1)
    xy = op.Cast(op.Concat(op.Mod(place, width), op.Div(place, width), axis=1), to=FLOAT)
    return op.Concat(op.GatherElements(flat, place, axis=1), xy, axis=1)
