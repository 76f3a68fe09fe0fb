"""`ops.paste.paste_to_runs` in the operators of ONNX: M x M probabilities to runs of the whole image, in the graph.

The steps and the names are those of `ops.paste`, which explains them. A run is a row of four integers: the image of the
batch, the detection in it, and the half-open range of pixels, counted down the columns of the image.

Legend: B images, D detections per image, R filled slots, M side of a mask, C pixel columns of all masks, K runs.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from onnxscript import opset18
from torch import Tensor

op: Any = opset18  # without types: it takes Python numbers too
INT64 = 7  # numbers of types in ONNX
FLOAT = 1
DOUBLE = 11


@torch.library.custom_op(
    "maskrcnn::mask_runs",
    mutates_args=(),
    schema="(Tensor probs, Tensor boxes, Tensor valid, Tensor image_hw, float threshold, bool expanded) -> Tensor",
)
def _mask_runs(
    probs: Tensor, boxes: Tensor, valid: Tensor, image_hw: Tensor, threshold: float, expanded: bool
) -> Tensor:
    raise NotImplementedError("runs are computed in an exported graph; torch uses ops.paste")


@_mask_runs.register_fake
def _(probs: Tensor, boxes: Tensor, valid: Tensor, image_hw: Tensor, threshold: float, expanded: bool) -> Tensor:
    runs = torch.library.get_ctx().new_dynamic_size()
    return image_hw.new_empty((runs, 4))


mask_runs = torch.ops.maskrcnn.mask_runs.default


class _Grid(NamedTuple):
    """`ops.paste.Grid` of R masks; the first column of each array is for x, the second for y."""

    origin: Any  # (R, 2) float64
    scale: Any  # (R, 2) float64
    offset: float
    first: Any  # (R, 2) int64
    stop: Any  # (R, 2) int64
    inclusive: bool


def onnx_mask_runs(probs: Any, boxes: Any, valid: Any, image_hw: Any, threshold: float, expanded: bool) -> Any:
    """The runs (K, 4) int64 of all masks, ordered by image, detection and pixel.

    Args:
        probs: (B, D, M, M) float32.
        boxes: (B, D, 4) float32, pixels of the original image, as `ops.paste.paste_to_runs` takes them.
        valid: (B, D) bool.
        image_hw: (B, 2) int64, sizes of the original images.
        expanded: whether masks are pasted by the rule `expanded_box`, otherwise by `pixel_centres`.
    """
    side = int(probs.shape[-1])
    slots = op.Transpose(op.NonZero(valid), perm=[1, 0])  # (R, 2) image and detection
    image = op.Gather(slots, 0, axis=1)
    size_hw = op.Gather(image_hw, image)
    size_xy = op.Gather(size_hw, op.Constant(value_ints=[1, 0]), axis=1)
    make_grid = _expanded_box if expanded else _pixel_centres
    grid = make_grid(op.GatherND(boxes, slots), side, size_xy)
    # Transposed, so that the profile down a pixel column is contiguous.
    masks = op.Transpose(op.GatherND(probs, slots), perm=[0, 2, 1])
    padded = op.Pad(masks, op.Constant(value_ints=[0, 1, 1, 0, 1, 1]))

    width = op.ReduceMax(op.Gather(image_hw, 1, axis=1), keepdims=0)
    pixels = op.Range(0, width, 1)
    first, stop = op.Slice(grid.first, [0], [1], [1]), op.Slice(grid.stop, [0], [1], [1])
    inside = op.And(op.GreaterOrEqual(pixels, first), op.Less(pixels, stop))  # (R, W)
    columns = op.NonZero(inside)
    owner, x = op.Gather(columns, 0), op.Gather(columns, 1)  # (C,)
    profile = _profiles(padded, grid, owner, x, side)
    start, end, column = _spans(profile, grid, owner, threshold)
    top = op.Mul(op.Gather(x, column), op.Gather(op.Gather(size_hw, 0, axis=1), op.Gather(owner, column)))
    runs = op.Concat(
        op.Gather(slots, op.Gather(owner, column)),
        op.Unsqueeze(op.Add(top, start), [1]),
        op.Unsqueeze(op.Add(top, end), [1]),
        axis=1,
    )
    return op.Compress(runs, op.Less(start, end), axis=0)


def _double(value: float) -> Any:
    return op.Cast(op.Constant(value_float=value), to=DOUBLE)


def _limited(values: Any, low: Any, high: Any) -> Any:
    return op.Min(op.Max(values, low), high)


def _pixel_centres(boxes: Any, side: int, size_xy: Any) -> _Grid:
    """The grid of `ops.paste.pixel_centres`."""
    edges = op.Cast(boxes, to=DOUBLE)
    low, high = op.Slice(edges, [0], [2], [1]), op.Slice(edges, [2], [4], [1])
    length = op.Sub(high, low)
    good = op.Greater(op.ReduceMin(length, [1], keepdims=1), _double(0.0))  # (R, 1)
    low, length = op.Where(good, low, _double(0.0)), op.Where(good, length, _double(1.0))
    reach = op.Div(length, _double(2.0 * side))
    image = op.Cast(size_xy, to=DOUBLE)
    first = op.Cast(_limited(op.Floor(op.Sub(low, reach)), _double(0.0), image), to=INT64)
    stop = op.Cast(_limited(op.Ceil(op.Add(op.Add(low, length), reach)), _double(0.0), image), to=INT64)
    stop = op.Where(good, op.Max(stop, first), first)
    return _Grid(low, op.Div(_double(side), length), -0.5, first, stop, inclusive=True)


def _expanded_box(boxes: Any, side: int, size_xy: Any) -> _Grid:
    """The grid of `ops.paste.expanded_box`."""
    low_edge, high_edge = op.Slice(boxes, [0], [2], [1]), op.Slice(boxes, [2], [4], [1])
    growth = op.Constant(value_float=(side + 2) / side)
    half = op.Mul(op.Mul(op.Sub(high_edge, low_edge), op.Constant(value_float=0.5)), growth)
    centre = op.Mul(op.Add(high_edge, low_edge), op.Constant(value_float=0.5))
    low = op.Cast(op.Sub(centre, half), to=INT64)
    high = op.Add(op.Cast(op.Add(centre, half), to=INT64), 1)
    length = op.Max(op.Sub(high, low), 1)
    first = _limited(low, 0, size_xy)
    stop = op.Max(_limited(high, 0, size_xy), first)
    scale = op.Div(_double(side + 2), op.Cast(length, to=DOUBLE))
    return _Grid(op.Cast(low, to=DOUBLE), scale, -1.5, first, stop, inclusive=False)


def _profiles(padded: Any, grid: _Grid, owner: Any, x: Any, side: int) -> Any:
    """The values (C, M + 2) down each pixel column at the knots, which are the rows of the padded mask."""
    origin, scale = (op.Gather(op.Gather(part, 0, axis=1), owner) for part in (grid.origin, grid.scale))
    at = op.Sub(op.Add(op.Cast(x, to=DOUBLE), _double(0.5)), origin)
    at = op.Add(op.Mul(at, scale), _double(grid.offset))
    at = op.Add(_limited(at, _double(-1.0), _double(side)), _double(1.0))  # in cells of the padded mask
    cell = op.Min(op.Cast(at, to=INT64), side)
    weight = op.Cast(op.Sub(at, op.Cast(cell, to=DOUBLE)), to=FLOAT)
    before, after = (
        op.GatherND(padded, op.Concat(op.Unsqueeze(owner, [1]), op.Unsqueeze(place, [1]), axis=1))
        for place in (cell, op.Add(cell, 1))
    )
    return op.Add(op.Mul(op.Sub(after, before), op.Unsqueeze(weight, [1])), before)


def _spans(profile: Any, grid: _Grid, owner: Any, threshold: float) -> tuple[Any, Any, Any]:
    """First row, stop row and pixel column of each span, (K,) int64 each. Some spans are empty."""
    compare = op.GreaterOrEqual if grid.inclusive else op.Greater
    inside = compare(profile, op.Constant(value_float=threshold))
    end = op.Constant(value_ints=[1 << 30])
    # Both ends of a profile are background, so that crossings come in pairs, up and down.
    crossings = op.Transpose(op.NonZero(op.Xor(op.Slice(inside, [1], end, [1]), op.Slice(inside, [0], [-1], [1]))))
    column, knot = op.Gather(crossings, 0, axis=1), op.Gather(crossings, 1, axis=1)
    above = op.Cast(op.GatherND(profile, crossings), to=DOUBLE)
    below = op.Cast(op.GatherND(profile, op.Add(crossings, op.Constant(value_ints=[0, 1]))), to=DOUBLE)
    who = op.Gather(owner, column)
    limit = op.Cast(op.Constant(value_float=threshold), to=DOUBLE)
    share = op.Div(op.Sub(limit, above), op.Sub(below, above))
    crossing = op.Add(op.Sub(op.Cast(knot, to=DOUBLE), _double(1.0)), share)  # mask rows
    origin, scale = (op.Gather(op.Gather(part, 1, axis=1), who) for part in (grid.origin, grid.scale))
    row = op.Add(op.Div(op.Sub(crossing, _double(grid.offset)), scale), op.Sub(origin, _double(0.5)))  # pixel rows
    upward, downward = op.Slice(row, [0], end, [0], [2]), op.Slice(row, [1], end, [0], [2])
    # A pixel exactly on the crossing is foreground if the threshold is inclusive.
    if grid.inclusive:
        up, down = op.Ceil(upward), op.Add(op.Floor(downward), _double(1.0))
    else:
        up, down = op.Add(op.Floor(upward), _double(1.0)), op.Ceil(downward)
    who, column = op.Slice(who, [0], end, [0], [2]), op.Slice(column, [0], end, [0], [2])
    first, stop = (op.Gather(op.Gather(part, 1, axis=1), who) for part in (grid.first, grid.stop))
    up, down = (_limited(op.Cast(part, to=INT64), first, stop) for part in (up, down))
    # Rounding may swap two crossings that are very close, but spans must not overlap.
    same = op.Equal(column, _shifted(column))
    return op.Where(same, op.Max(up, _shifted(down)), up), down, column


def _shifted(values: Any) -> Any:
    """(K,) values, moved back by one place; -1 comes first."""
    return op.Slice(op.Concat(op.Constant(value_ints=[-1]), values, axis=0), [0], [-1], [0])
