"""The masks of whole images in the graph: for each mask two matrix products with the weights of `ops.paste`.

A Scan pastes one mask after the other. The product covers the box alone, and the rest of the image is zero.

Legend: B images, D detections per image, R filled slots, M side of a mask, H x W of the largest original image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxscript
import torch
from onnxscript import opset18, script
from torch import Tensor

from maskrcnn.export.paste import DOUBLE, double, found_masks

op: Any = opset18  # without types: it takes Python numbers too
FLOAT, UINT8 = 1, 2  # numbers of types in ONNX
_TYPES: Any = onnxscript
INPUTS = [_TYPES.FLOAT["M", "M"], _TYPES.DOUBLE[5], _TYPES.INT64[6]]
MASK = _TYPES.UINT8["H", "W"]


# Only an exported graph computes it; torch has `ops.paste`. So it has a schema and shapes, and no code.
torch.library.define(
    "maskrcnn::dense_masks",
    "(Tensor probs, Tensor boxes, Tensor valid, Tensor image_hw, float threshold, bool expanded) -> Tensor",
)


@torch.library.register_fake("maskrcnn::dense_masks")
def _(probs: Tensor, boxes: Tensor, valid: Tensor, image_hw: Tensor, threshold: float, expanded: bool) -> Tensor:
    masks, height, width = (torch.library.get_ctx().new_dynamic_size() for _ in range(3))
    return probs.new_empty((masks, height, width), dtype=torch.uint8)


dense_masks = torch.ops.maskrcnn.dense_masks.default


def onnx_dense_masks(probs: Any, boxes: Any, valid: Any, image_hw: Any, threshold: float, expanded: bool) -> Any:
    """The masks (R, H, W) uint8, 0 or 1, ordered by image and detection.

    Args: as for `found_masks`, and the probability from which on a pixel is foreground.
    """
    slots, masks, _, grid = found_masks(probs, boxes, valid, image_hw, expanded)
    lowest = np.float32(threshold) if grid.inclusive else np.nextafter(np.float32(threshold), np.float32(1))
    start = op.Add(op.Mul(op.Sub(double(0.5), grid.origin), grid.scale), double(grid.offset))
    limit = op.Add(op.Mul(op.Slice(start, [0], [1], [1]), double(0.0)), double(float(lowest)))  # (R, 1)
    canvas = op.ReduceMax(image_hw, [0], keepdims=0)
    count = op.Slice(op.Shape(slots), [0], [1])
    canvases = op.Expand(canvas, op.Concat(count, op.Constant(value_ints=[2]), axis=0))
    # ONNX Runtime cannot scan nothing. Then there is one mask without pixels, which the last step drops without a copy.
    missing = op.Max(op.Sub(1, count), 0)
    inputs = masks, op.Concat(start, grid.scale, limit, axis=1), op.Concat(grid.first, grid.stop, canvases, axis=1)
    padded = [_padded(part, missing, axes) for part, axes in zip(inputs, (3, 2, 2), strict=True)]
    body = _pasted.to_model_proto(input_types=INPUTS, output_types=[MASK])
    pasted = op.Scan(*padded, body=body.graph, num_scan_inputs=3)
    return op.Reshape(pasted, op.Concat(count, canvas, axis=0), allowzero=1)


def _padded(values: Any, missing: Any, axes: int) -> Any:
    """(R, ...) values with zeros after them."""
    zeros = op.Constant(value_ints=[0] * axes)
    return op.Pad(values, op.Concat(zeros, missing, op.Constant(value_ints=[0] * (axes - 1)), axis=0))


@script(default_opset=opset18)
def _pasted(mask, place, pixels):  # type: ignore[no-untyped-def]
    """One mask in its image (H, W) uint8.

    The six `pixels` are first x, y and stop x, y of the box, and H and W. `place` has for x and y the position of pixel
    0 in the mask, then the distance of two pixels, and the lowest value of the foreground.
    """
    first, stop, canvas = op.Slice(pixels, [0], [2]), op.Slice(pixels, [2], [4]), op.Slice(pixels, [4], [6])
    size = op.Sub(stop, first)
    number = op.Range(0, op.ReduceMax(size, keepdims=0), 1)
    pixel = op.Cast(op.Add(op.Unsqueeze(first, [1]), number), to=DOUBLE)  # (2, n)
    scale, start = op.Unsqueeze(op.Slice(place, [2], [4]), [1]), op.Unsqueeze(op.Slice(place, [0], [2]), [1])
    at = op.Unsqueeze(op.Add(op.Mul(pixel, scale), start), [2])
    cell = op.Cast(op.Range(0, op.Squeeze(op.Shape(mask, start=0, end=1)), 1), to=DOUBLE)
    weights = op.Cast(op.Max(op.Sub(1.0, op.Abs(op.Sub(at, cell))), 0.0), to=FLOAT)  # (2, n, M)
    width, height = op.Slice(size, [0], [1]), op.Slice(size, [1], [2])
    columns = op.Slice(op.Gather(weights, 0), [0], width, [0])
    rows = op.Slice(op.Gather(weights, 1), [0], height, [0])
    values = op.MatMul(op.MatMul(rows, mask), op.Transpose(columns, perm=[1, 0]))
    inside = op.Cast(op.GreaterOrEqual(values, op.Cast(op.Slice(place, [4], [5]), to=FLOAT)), to=UINT8)
    first_yx, stop_yx = op.Gather(first, [1, 0]), op.Gather(stop, [1, 0])
    return op.Pad(inside, op.Concat(first_yx, op.Sub(canvas, stop_yx), axis=0))
