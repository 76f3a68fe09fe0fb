"""Pastes M x M mask probabilities into boxes as run lengths of the whole image, without making an image.

All rules sample the mask bilinearly at a grid of pixels, with zeros around the mask. Along a column of pixels the
samples form a piecewise linear profile with M + 2 knots. The foreground rows of the column follow from the points at
which the profile crosses the threshold. A column costs M + 2 numbers, whatever the height of the box.

Legend: N masks, M side of a mask, K spans, which are foreground runs within one pixel column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from maskrcnn.ops.rle import encode_many, runs_from_spans

# Number of profile values at a time: a float32 array of 2 MB, which fits in a processor's cache.
_CHUNK_VALUES = 1 << 19
_FAR = 1e9  # pixels; boxes beyond it are clipped before they become integers


@dataclass(frozen=True)
class Grid:
    """The positions at which pixels sample N masks; the first column of each array is for x, the second for y.

    Attributes:
        origin, scale: (N, 2) float64. Pixel i samples at (i + 0.5 - origin) * scale + offset, where the integers
            0..M-1 are the mask's rows or columns.
        offset: see the formula above.
        first, stop: (N, 2) int64, half-open range of the pixels that may be foreground, inside the image.
        inclusive: whether a probability equal to the threshold is foreground.
    """

    origin: np.ndarray
    scale: np.ndarray
    offset: float
    first: np.ndarray
    stop: np.ndarray
    inclusive: bool


def paste_to_runs(
    probs: np.ndarray,
    boxes: np.ndarray,
    image_hw: tuple[int, int],
    threshold: float = 0.5,
    rule: Literal["pixel_centres", "expanded_box", "whole_box"] = "pixel_centres",
) -> list[bytes]:
    """Pastes masks into their boxes and returns COCO compressed strings of the whole image.

    Args:
        probs: (N, M, M) float32 in 0..1; the first axis of a mask is y.
        boxes: (N, 4) float32 x1 y1 x2 y2 in image pixels; they may extend beyond the image.
        image_hw: height and width of the image.
        threshold: above 0 and below 1.
        rule: `pixel_centres` stretches the mask over the float box, samples it at pixel centres and keeps pixels at
            or above the threshold (Detectron2, MMDetection). `expanded_box` pads the mask by one cell, expands the box
            by the same factor, truncates it to whole pixels, resizes the mask to it and keeps pixels above the
            threshold (Detectron, torchvision). `whole_box` rounds the box to whole pixels and keeps the pixels of
            `pixel_centres` inside it, or all of them if the whole mask is at or above the threshold (Matterport, where
            scikit-image clips a resized mask to its range of values).

    Returns:
        N strings. A mask is empty if its box is not finite or, except with `expanded_box`, has no width or height.

    Raises:
        ValueError: the threshold is out of range.
    """
    if not 0 < threshold < 1:  # at 0 everything around the mask would be foreground
        raise ValueError(f"expected a mask threshold above 0 and below 1, found {threshold}")
    threshold = float(np.float32(threshold))  # it is compared with float32 probabilities
    boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
    number, side = len(boxes), probs.shape[-1]
    make_grid = {"pixel_centres": pixel_centres, "expanded_box": expanded_box, "whole_box": whole_box}[rule]
    grid = make_grid(boxes, side, image_hw)
    # Transposed, so that the profile down a pixel column is contiguous.
    padded = np.zeros((number, side + 2, side + 2), dtype=np.float32)
    padded[:, 1:-1, 1:-1] = np.nan_to_num(np.asarray(probs, dtype=np.float32).transpose(0, 2, 1))
    if rule == "whole_box":
        # A pixel in a corner of the box has at least a quarter of its weight in the mask and the rest in zeros.
        padded[(probs >= threshold).all(axis=(1, 2)), 1:-1, 1:-1] = 4
    widths = grid.stop[:, 0] - grid.first[:, 0]
    columns_at_once = max(_CHUNK_VALUES // (side + 2), 1)
    result: list[bytes] = []
    start = 0
    before = np.concatenate([[0], np.cumsum(widths)])
    while start < number:
        stop = max(start + 1, int(np.searchsorted(before, before[start] + columns_at_once, side="right")) - 1)
        chosen = slice(start, stop)
        starts, ends, owners = _spans(padded[chosen], _part(grid, chosen), image_hw[0], threshold)
        runs, sizes = runs_from_spans(starts, ends, owners, stop - start, image_hw[0] * image_hw[1])
        result.extend(encode_many(runs, sizes))
        start = stop
    return result


def pixel_centres(boxes: np.ndarray, side: int, image_hw: tuple[int, int]) -> Grid:
    """The grid of Detectron2's rule: the mask is stretched over the float box and sampled at pixel centres."""
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    image = np.array(image_hw[::-1])
    with np.errstate(invalid="ignore"):  # infinity minus infinity; the next line handles the result
        length = high - low
        good = (np.isfinite(length) & (length > 0)).all(axis=1, keepdims=True)
    low, length = np.where(good, low, 0), np.where(good, length, 1)
    reach = length / (2 * side)  # probabilities fall to zero over half a cell outside the box
    first = np.clip(np.floor(low - reach), 0, image).astype(np.int64)
    stop = np.clip(np.ceil(low + length + reach), 0, image).astype(np.int64)
    stop = np.where(good, np.maximum(stop, first), first)
    return Grid(low, side / length, -0.5, first, stop, inclusive=True)


def whole_box(boxes: np.ndarray, side: int, image_hw: tuple[int, int]) -> Grid:
    """The grid of Matterport's rule: `pixel_centres` of the rounded box, without pixels outside it."""
    boxes = boxes.round()
    grid = pixel_centres(boxes, side, image_hw)
    finite = np.nan_to_num(boxes)
    first = np.clip(finite[:, :2], grid.first, grid.stop).astype(np.int64)
    return replace(grid, first=first, stop=np.clip(finite[:, 2:], first, grid.stop).astype(np.int64))


def expanded_box(boxes: np.ndarray, side: int, image_hw: tuple[int, int]) -> Grid:
    """The grid of Detectron's and torchvision's rule: box and mask grow by a cell on every side, then the box is
    truncated to whole pixels."""
    good = np.isfinite(boxes).all(axis=1, keepdims=True)
    boxes = np.where(good, np.clip(boxes, -_FAR, _FAR), np.float32(0))
    # float32 as in the frameworks, because other rounding could truncate to other pixels.
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * np.float32((side + 2) / side)
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    low, high = np.trunc(centre - half).astype(np.int64), np.trunc(centre + half).astype(np.int64) + 1
    length = np.maximum(high - low, 1)
    image = np.array(image_hw[::-1])
    first = np.clip(low, 0, image)
    stop = np.where(good, np.maximum(np.clip(high, 0, image), first), first)
    # The first cell of the padded mask has the number -1. Resizing repeats the outermost cells, which are zero.
    return Grid(low.astype(np.float64), (side + 2) / length, -1.5, first, stop, inclusive=False)


def _part(grid: Grid, chosen: slice) -> Grid:
    return Grid(
        grid.origin[chosen], grid.scale[chosen], grid.offset, grid.first[chosen], grid.stop[chosen], grid.inclusive
    )


def _spans(padded: np.ndarray, grid: Grid, height: int, threshold: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The foreground spans in every pixel column of N masks.

    Args:
        padded: (N, M + 2, M + 2) float32, masks with zeros around them; the first axis of a mask is x.
        height: height of the image in pixels.

    Returns:
        starts, ends, owners: (K,) int64, flat pixel numbers x * height + y and the mask of each span.
    """
    side = padded.shape[1] - 2
    widths = grid.stop[:, 0] - grid.first[:, 0]
    owner = np.repeat(np.arange(len(widths)), widths)  # the mask of each pixel column
    x = np.arange(len(owner)) + np.repeat(grid.first[:, 0] - (np.cumsum(widths) - widths), widths)
    at = (x + 0.5 - grid.origin[owner, 0]) * grid.scale[owner, 0] + grid.offset
    at = np.clip(at, -1, side) + 1  # in cells of the padded mask
    cell = np.minimum(at.astype(np.int64), side)
    profile = _lerp(padded[owner, cell], padded[owner, cell + 1], (at - cell).astype(np.float32)[:, None])

    inside = profile >= threshold if grid.inclusive else profile > threshold
    # Both ends of a profile are background, so that crossings come in pairs, up and down.
    column, knot = np.nonzero(inside[:, 1:] != inside[:, :-1])
    above, below = profile[column, knot].astype(np.float64), profile[column, knot + 1].astype(np.float64)
    who = owner[column]
    crossing = knot - 1 + (threshold - above) / (below - above)  # mask rows
    row = (crossing - grid.offset) / grid.scale[who, 1] + grid.origin[who, 1] - 0.5  # pixel rows
    # A pixel exactly on the crossing is foreground if the threshold is inclusive.
    if grid.inclusive:
        up, down = np.ceil(row[0::2]), np.floor(row[1::2]) + 1
    else:
        up, down = np.floor(row[0::2]) + 1, np.ceil(row[1::2])
    who, column = who[0::2], column[0::2]
    first, stop = grid.first[who, 1], grid.stop[who, 1]
    up, down = np.clip(up, first, stop).astype(np.int64), np.clip(down, first, stop).astype(np.int64)
    # Rounding may swap two crossings that are very close, but spans must not overlap.
    same = column[1:] == column[:-1]
    up[1:] = np.where(same, np.maximum(up[1:], down[:-1]), up[1:])
    filled = np.flatnonzero(up < down)
    top = x[column[filled]] * height
    return top + up[filled], top + down[filled], who[filled]


def _lerp(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """low * (1 - weight) + high * weight, reusing the memory of `high`."""
    high -= low
    high *= weight
    high += low
    return high
