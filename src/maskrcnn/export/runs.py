"""`ops.paste.paste_to_runs` in the operators of ONNX: M x M probabilities to runs of the whole image, in the graph.

The steps and the names are those of `ops.paste`, which explains them. A run is a row of four integers: the image of the
batch, the detection in it, and the half-open range of pixels, counted down the columns of the image.

Legend: B images, D detections per image, R filled slots, M side of a mask, C pixel columns of all masks, K runs.
"""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor

from maskrcnn.export.paste import DOUBLE, INT64, GraphGrid, double, found_masks, limited

op: Any = opset18  # without types: it takes Python numbers too
FLOAT = 1  # number of a type in ONNX


# Only an exported graph computes it; torch has `ops.paste`. So it has a schema and shapes, and no code.
torch.library.define(
    "maskrcnn::mask_runs",
    "(Tensor probs, Tensor boxes, Tensor valid, Tensor image_hw, float threshold, bool expanded) -> Tensor",
)


@torch.library.register_fake("maskrcnn::mask_runs")
def _(probs: Tensor, boxes: Tensor, valid: Tensor, image_hw: Tensor, threshold: float, expanded: bool) -> Tensor:
    runs = torch.library.get_ctx().new_dynamic_size()
    return image_hw.new_empty((runs, 4))


mask_runs = torch.ops.maskrcnn.mask_runs.default


def onnx_mask_runs(probs: Any, boxes: Any, valid: Any, image_hw: Any, threshold: float, expanded: bool) -> Any:
    """The runs (K, 4) int64 of all masks, ordered by image, detection and pixel.

    Args: as for `found_masks`, and the probability from which on a pixel is foreground.
    """
    side = int(probs.shape[-1])
    slots, masks, size_hw, grid = found_masks(probs, boxes, valid, image_hw, expanded)
    # Transposed, so that the profile down a pixel column is contiguous.
    padded = op.Pad(op.Transpose(masks, perm=[0, 2, 1]), op.Constant(value_ints=[0, 1, 1, 0, 1, 1]))

    owner, x = _columns(grid)
    profile = _profiles(padded, grid, owner, x, side)
    start, end, column = _spans(profile, grid, owner, side, threshold)
    who = _taken(owner, column)
    top = op.Mul(_taken(x, column), _taken(op.Gather(size_hw, 0, axis=1), who))
    runs = op.Concat(
        op.Gather(slots, who),
        op.Unsqueeze(op.Add(top, start), [1]),
        op.Unsqueeze(op.Add(top, end), [1]),
        axis=1,
    )
    return op.Compress(runs, op.Less(start, end), axis=0)


def _columns(grid: GraphGrid) -> tuple[Any, Any]:
    """The mask and the pixel x of each column, (C,) int64 each."""
    first, stop = (op.Gather(part, 0, axis=1) for part in (grid.first, grid.stop))
    width = op.Sub(stop, first)
    end = op.CumSum(width, 0)
    count = op.ReduceSum(width, [0], keepdims=1)
    # A column belongs to the mask whose number is that of the masks that end before it.
    zeros, ones = op.Expand(0, op.Add(count, 1)), op.Expand(1, op.Shape(end))
    ends = op.ScatterElements(zeros, end, ones, axis=0, reduction="add")
    owner = op.Slice(op.CumSum(ends, 0), [0], [-1], [0])
    number = op.Range(0, op.Squeeze(count, [0]), 1)
    return owner, op.Add(number, _taken(op.Sub(op.Add(first, width), end), owner))


def _profiles(padded: Any, grid: GraphGrid, owner: Any, x: Any, side: int) -> Any:
    """The values (C, M + 2) down each pixel column at the knots, which are the rows of the padded mask."""
    origin, scale = (_taken(op.Gather(part, 0, axis=1), owner) for part in (grid.origin, grid.scale))
    at = op.Sub(op.Add(op.Cast(x, to=DOUBLE), double(0.5)), origin)
    at = op.Add(op.Mul(at, scale), double(grid.offset))
    at = op.Add(limited(at, double(-1.0), double(side)), double(1.0))  # in cells of the padded mask
    cell = op.Min(op.Cast(at, to=INT64), side)
    weight = op.Cast(op.Sub(at, op.Cast(cell, to=DOUBLE)), to=FLOAT)
    # The differences of neighbouring cells, of which there are fewer than columns.
    end = op.Constant(value_ints=[1 << 30])
    steps = op.Pad(op.Sub(op.Slice(padded, [1], end, [1]), op.Slice(padded, [0], [-1], [1])), [0, 0, 0, 0, 1, 0])
    row, flat = op.Add(op.Mul(owner, side + 2), cell), op.Constant(value_ints=[-1, side + 2])
    before, step = (op.Gather(op.Reshape(part, flat), row) for part in (padded, steps))
    return op.Add(op.Mul(step, op.Unsqueeze(weight, [1])), before)


def _spans(profile: Any, grid: GraphGrid, owner: Any, side: int, threshold: float) -> tuple[Any, Any, Any]:
    """First row, stop row and pixel column of each span, (K,) int64 each. Some spans are empty."""
    compare = op.GreaterOrEqual if grid.inclusive else op.Greater
    flat = op.Reshape(profile, op.Constant(value_ints=[-1]))
    inside, end = compare(flat, op.Constant(value_float=threshold)), op.Constant(value_ints=[1 << 30])
    # Both ends of a profile are background: no crossing lies between two profiles, and they come in pairs, up and down.
    place = op.Squeeze(op.NonZero(op.Xor(op.Slice(inside, [1], end, [0]), op.Slice(inside, [0], [-1], [0]))), [0])
    places = [op.Slice(place, [number], end, [0], [2]) for number in (0, 1)]
    column = op.Div(places[0], side + 2)
    who, top = _taken(owner, column), op.Mul(column, side + 2)
    origin, scale = (_taken(op.Gather(part, 1, axis=1), who) for part in (grid.origin, grid.scale))
    limit = op.Cast(op.Constant(value_float=threshold), to=DOUBLE)

    def pixel_rows(at: Any) -> Any:
        above, below = (op.Cast(_taken(flat, row), to=DOUBLE) for row in (at, op.Add(at, 1)))
        share = op.Div(op.Sub(limit, above), op.Sub(below, above))
        crossing = op.Add(op.Sub(op.Cast(op.Sub(at, top), to=DOUBLE), double(1.0)), share)  # mask rows
        return op.Add(op.Div(op.Sub(crossing, double(grid.offset)), scale), op.Sub(origin, double(0.5)))

    upward, downward = map(pixel_rows, places)
    # A pixel exactly on the crossing is foreground if the threshold is inclusive.
    if grid.inclusive:
        up, down = op.Ceil(upward), op.Add(op.Floor(downward), double(1.0))
    else:
        up, down = op.Add(op.Floor(upward), double(1.0)), op.Ceil(downward)
    first, stop = (_taken(op.Gather(part, 1, axis=1), who) for part in (grid.first, grid.stop))
    up, down = (limited(op.Cast(part, to=INT64), first, stop) for part in (up, down))
    # Rounding may swap two crossings that are very close, but spans must not overlap.
    same = op.Equal(column, _shifted(column))
    return op.Where(same, op.Max(up, _shifted(down)), up), down, column


def _taken(values: Any, at: Any) -> Any:
    """values[at] of one axis. ONNX Runtime's Gather, which copies rows of any size, takes twice as long for numbers."""
    return op.GatherElements(values, at, axis=0)


def _shifted(values: Any) -> Any:
    """(K,) values, moved back by one place; -1 comes first."""
    return op.Slice(op.Concat(op.Constant(value_ints=[-1]), values, axis=0), [0], [-1], [0])
