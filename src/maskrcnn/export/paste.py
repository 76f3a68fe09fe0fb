"""Where the pixels of the original images sample M x M masks: the grids of `ops.paste` in the operators of ONNX.

Legend: B images, D detections per image, R filled slots, M side of a mask.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from onnx.helper import make_tensor
from onnxscript import opset18

op: Any = opset18  # without types: it takes Python numbers too
INT64 = 7  # numbers of types in ONNX
DOUBLE = 11


class GraphGrid(NamedTuple):
    """`ops.paste.Grid` of R masks; the first column of each array is for x, the second for y."""

    origin: Any  # (R, 2) float64
    scale: Any  # (R, 2) float64
    offset: float
    first: Any  # (R, 2) int64
    stop: Any  # (R, 2) int64
    inclusive: bool


class FoundMasks(NamedTuple):
    """The masks in the filled slots of a batch.

    Attributes:
        slots: (R, 2) int64, image and detection.
        probs: (R, M, M) float32.
        size_hw: (R, 2) int64, sizes of the original images.
        grid: of the R masks.
    """

    slots: Any
    probs: Any
    size_hw: Any
    grid: GraphGrid


def found_masks(probs: Any, boxes: Any, valid: Any, image_hw: Any, expanded: bool) -> FoundMasks:
    """The masks that are there.

    Args:
        probs: (B, D, M, M) float32.
        boxes: (B, D, 4) float32, pixels of the original image, as `ops.paste.paste_to_runs` takes them.
        valid: (B, D) bool.
        image_hw: (B, 2) int64, sizes of the original images.
        expanded: whether masks are pasted by the rule `expanded_box`, otherwise by `pixel_centres`.
    """
    slots = op.Transpose(op.NonZero(valid), perm=[1, 0])
    size_hw = op.Gather(image_hw, op.Gather(slots, 0, axis=1))
    size_xy = op.Gather(size_hw, op.Constant(value_ints=[1, 0]), axis=1)
    make_grid = _expanded_box if expanded else _pixel_centres
    grid = make_grid(op.GatherND(boxes, slots), int(probs.shape[-1]), size_xy)
    return FoundMasks(slots, op.GatherND(probs, slots), size_hw, grid)


def double(value: float) -> Any:
    return op.Constant(value=make_tensor("value", DOUBLE, [], [value]))


def limited(values: Any, low: Any, high: Any) -> Any:
    return op.Min(op.Max(values, low), high)


def _pixel_centres(boxes: Any, side: int, size_xy: Any) -> GraphGrid:
    """The grid of `ops.paste.pixel_centres`."""
    edges = op.Cast(boxes, to=DOUBLE)
    low, high = op.Slice(edges, [0], [2], [1]), op.Slice(edges, [2], [4], [1])
    length = op.Sub(high, low)
    good = op.Greater(op.ReduceMin(length, [1], keepdims=1), double(0.0))  # (R, 1)
    low, length = op.Where(good, low, double(0.0)), op.Where(good, length, double(1.0))
    reach = op.Div(length, double(2.0 * side))
    image = op.Cast(size_xy, to=DOUBLE)
    first = op.Cast(limited(op.Floor(op.Sub(low, reach)), double(0.0), image), to=INT64)
    stop = op.Cast(limited(op.Ceil(op.Add(op.Add(low, length), reach)), double(0.0), image), to=INT64)
    stop = op.Where(good, op.Max(stop, first), first)
    return GraphGrid(low, op.Div(double(side), length), -0.5, first, stop, inclusive=True)


def _expanded_box(boxes: Any, side: int, size_xy: Any) -> GraphGrid:
    """The grid of `ops.paste.expanded_box`."""
    low_edge, high_edge = op.Slice(boxes, [0], [2], [1]), op.Slice(boxes, [2], [4], [1])
    growth = op.Constant(value_float=(side + 2) / side)
    half = op.Mul(op.Mul(op.Sub(high_edge, low_edge), op.Constant(value_float=0.5)), growth)
    centre = op.Mul(op.Add(high_edge, low_edge), op.Constant(value_float=0.5))
    low = op.Cast(op.Sub(centre, half), to=INT64)
    high = op.Add(op.Cast(op.Add(centre, half), to=INT64), 1)
    length = op.Max(op.Sub(high, low), 1)
    first = limited(low, 0, size_xy)
    stop = op.Max(limited(high, 0, size_xy), first)
    scale = op.Div(double(side + 2), op.Cast(length, to=DOUBLE))
    return GraphGrid(op.Cast(low, to=DOUBLE), scale, -1.5, first, stop, inclusive=False)
