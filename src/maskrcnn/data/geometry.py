"""Geometry of augmentation as one 3x3 matrix from original to network-input pixels.

Coordinates are continuous: pixel i covers [i, i + 1). Matrices act on column vectors (x, y, 1).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_ROUNDING = 1e-6  # pixels


def scaling(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def translation(x: float, y: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = x, y
    return matrix


def horizontal_flip(width: float) -> np.ndarray:
    """x becomes width - x."""
    return translation(width, 0) @ scaling(-1, 1)


def vertical_flip(height: float) -> np.ndarray:
    """y becomes height - y."""
    return translation(0, height) @ scaling(1, -1)


def quarter_turn(height: float) -> np.ndarray:
    """A turn to the right by 90 degrees: (x, y) becomes (height - y, x)."""
    return np.array([[0.0, -1.0, height], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points through an affine matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 4) boxes x1 y1 x2 y2 through a matrix of scales, flips, quarter turns and shifts: exact."""
    corners = transform_points(boxes.reshape(-1, 2, 2), matrix)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def window_start(start: int, scale: float) -> float:
    """The nearest place before `start` at which `warp_image` can cut a scaled image, less than a pixel away.

    The resize begins at a whole pixel of the original, and the window at a whole pixel of what comes out of it: only
    the part that is seen is resized, with all the pixels that its border needs.

    Args:
        start: where a window should begin on one axis, pixels of the scaled image.
        scale: pixels of the scaled image for one of the original.
    """
    # The place is up to a pixel before `start`, and the margin counts from it.
    first = max(0, math.floor(start / scale) - _margin(scale) - math.ceil(1 / scale))
    return first * scale + math.floor(start - first * scale)


def warp_image(image: np.ndarray, matrix: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
    """Resamples an image once through a matrix of scales, flips, quarter turns and shifts.

    The triangle filter widens where the image shrinks (no aliasing), as PIL's, to two grey levels. Where the
    output lies outside the image it is zero.

    Args:
        image: (H, W, 3) uint8.
        matrix: original to output pixels; windows begin at whole pixels of the scaled image or at `window_start`.
        size_hw: height and width of the output.

    Returns:
        (3, h, w) uint8.

    Raises:
        ValueError: a matrix with rotation other than quarter turns, or another place of the window.
    """
    linear = matrix[:2, :2]
    turned = bool(abs(linear[0, 0]) < abs(linear[0, 1]))
    off_axis = (linear[0, 0], linear[1, 1]) if turned else (linear[0, 1], linear[1, 0])
    if max(map(abs, off_axis)) > 1e-9 * np.abs(linear).max():
        raise ValueError(f"expected a matrix of scales, flips, quarter turns and shifts, found {matrix.tolist()}")
    # The whole output pixels that the image covers.
    x1, y1, x2, y2 = transform_boxes(np.array([[0.0, 0.0, image.shape[1], image.shape[0]]]), matrix)[0]
    left, top = max(0, math.ceil(x1 - _ROUNDING)), max(0, math.ceil(y1 - _ROUNDING))
    right, bottom = min(size_hw[1], math.floor(x2 + _ROUNDING)), min(size_hw[0], math.floor(y2 + _ROUNDING))
    output = torch.zeros((3, *size_hw), dtype=torch.uint8)
    if right <= left or bottom <= top:
        return output
    if turned:
        image = image.transpose(1, 0, 2)
    by_x, by_y = linear[0, int(turned)], linear[1, 1 - int(turned)]
    x = _part(image.shape[1], abs(by_x), x2 - right if by_x < 0 else left - x1, right - left)
    y = _part(image.shape[0], abs(by_y), y2 - bottom if by_y < 0 else top - y1, bottom - top)
    pixels = image[y.source, x.source]
    if y.more or x.more:
        pixels = np.pad(pixels, ((0, y.more), (0, x.more), (0, 0)), mode="edge")
    source = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    resized = F.interpolate(source, scale_factor=(y.scale, x.scale), mode="bilinear", antialias=True)[0]
    flipped = [axis for axis, by in ((1, by_y), (2, by_x)) if by < 0]
    output[:, top:bottom, left:right] = resized[:, y.window, x.window].flip(flipped)
    return output


class _Part(NamedTuple):
    """What of one axis is resized, its last pixel how often more, by how much, and what of the result is seen."""

    source: slice
    more: int
    scale: float
    window: slice


def _part(side: int, scale: float, start: float, length: int) -> _Part:
    """
    Args:
        side: pixels of the original.
        scale: pixels of the scaled image for one of the original.
        start, length: of the window, pixels of the scaled image.

    Raises:
        ValueError: the window does not begin where it can.
    """
    nearest = math.floor(start / scale) - _margin(scale)
    # `window_start` took one of these; rounding may since have moved `start` over a pixel of the original.
    for first in (*range(nearest + 1, nearest - math.ceil(1 / scale) - 1, -1), 0):
        skipped = start - first * scale
        if first >= 0 and abs(skipped - round(skipped)) < _ROUNDING:
            window = slice(round(skipped), round(skipped) + length)
            needed = math.ceil(window.stop / scale) + _margin(scale)
            if scale > 1 + _ROUNDING:  # torch leaves an axis as it is if its length, rounded down, stays the same
                needed = max(needed, math.ceil(1 / (scale - 1)) + 1)
            end = min(side, first + needed)
            # A border again changes nothing where an image grows: beyond it the filter sees the border anyway.
            more = first + needed - end if math.floor((end - first) * scale) == end - first and scale > 1 else 0
            # The product of side and scale, which gives the size, must not fall below the whole number.
            return _Part(slice(first, end), more, scale * (1 + 1e-12), window)
    raise ValueError(f"expected a window that begins at a whole pixel or at `window_start`, found {start}")


def _margin(scale: float) -> int:
    """Pixels of the original on which the filter's value at the border of a window depends, and one for rounding."""
    return 1 + math.ceil(max(1.0, 1 / scale))


def visible_box(bitmap: np.ndarray, origin_xy: tuple[int, int], window: np.ndarray) -> np.ndarray | None:
    """The tight box of the part of a cropped instance that lies in a window, or None when nothing does.

    Args:
        bitmap: (h, w) uint8 crop; origin_xy: the original pixel of its top left corner.
        window: (4,) x1 y1 x2 y2, original pixels.

    Returns:
        (4,) float64, original pixels, clipped to the window.
    """
    x0, y0 = origin_xy
    low = np.maximum(np.floor(window[:2]).astype(int) - (x0, y0), 0)
    high = np.maximum(np.ceil(window[2:]).astype(int) - (x0, y0), 0)
    part = bitmap[low[1] : high[1], low[0] : high[0]]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if len(rows) == 0:
        return None
    start = np.array([x0, y0]) + low
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + np.tile(start, 2)
    box = np.concatenate([np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])])
    return box if (box[2:] > box[:2]).all() else None
