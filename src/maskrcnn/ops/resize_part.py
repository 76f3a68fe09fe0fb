"""Antialiased resizing of the visible part of an image alone, equal to what the whole resized image would show there.

torch resizes from the first pixel that it is given. So that a part comes out on the pixel grid of the whole resized
image, the part of the original that is resized must begin where a whole pixel of the original and one of the resized
image nearly meet: `nearest_start` finds such places.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

_ROUNDING = 1e-6  # pixels


def nearest_start(start: int, scale: float) -> float:
    """The nearest place at or before `start`, less than a pixel away, from which `resize_part` can resize.

    Args:
        start: where the part should begin on one axis, pixels of the resized image.
        scale: pixels of the resized image for one of the original.
    """
    # The place is up to a pixel before `start`, and the margin counts from it.
    first = max(0, math.floor(start / scale) - _margin(scale) - math.ceil(1 / scale))
    return first * scale + math.floor(start - first * scale)


def resize_part(
    image: Tensor, scale_yx: tuple[float, float], start_yx: tuple[float, float], size_hw: tuple[int, int]
) -> Tensor:
    """A part of the resized image. The triangle filter widens where the image shrinks, as PIL's, to two grey levels.

    Args:
        image: (3, H, W) uint8, the whole original.
        scale_yx: pixels of the resized image for one of the original.
        start_yx: where the part begins in the resized image, a whole pixel or a place of `nearest_start`.
        size_hw: height and width of the part.

    Returns:
        (3, *size_hw) uint8.

    Raises:
        ValueError: the part begins elsewhere.
    """
    y, x = (
        _axis(side, scale, start, length)
        for side, scale, start, length in zip(image.shape[1:], scale_yx, start_yx, size_hw, strict=True)
    )
    pixels = image[:, y.source, x.source][None]
    if y.repeated or x.repeated:
        pixels = F.pad(pixels.float(), (0, x.repeated, 0, y.repeated), mode="replicate").to(image.dtype)
    resized = F.interpolate(pixels, scale_factor=(y.scale, x.scale), mode="bilinear", antialias=True)[0]
    return resized[:, y.visible, x.visible]


class _Axis(NamedTuple):
    """What is resized on one axis.

    Attributes:
        source: the pixels of the original.
        repeated: how often the last one of them is appended.
        scale: pixels of the resized image for one of the original.
        visible: the pixels of the result that are wanted.
    """

    source: slice
    repeated: int
    scale: float
    visible: slice


def _axis(side: int, scale: float, start: float, length: int) -> _Axis:
    """
    Args:
        side: pixels of the original.
        scale: pixels of the resized image for one of the original.
        start, length: of the wanted part, pixels of the resized image.
    """
    nearest = math.floor(start / scale) - _margin(scale)
    # `nearest_start` took one of these; rounding may since have moved `start` over a pixel of the original.
    for first in (*range(nearest + 1, nearest - math.ceil(1 / scale) - 1, -1), 0):
        skipped = start - first * scale
        if first >= 0 and abs(skipped - round(skipped)) < _ROUNDING:
            visible = slice(round(skipped), round(skipped) + length)
            needed = math.ceil(visible.stop / scale) + _margin(scale)
            if scale > 1 + _ROUNDING:  # torch leaves an axis as it is if its length, rounded down, stays the same
                needed = max(needed, math.ceil(1 / (scale - 1)) + 1)
            end = min(side, first + needed)
            # Repeating the border changes nothing where an image grows: beyond it the filter sees the border anyway.
            repeated = first + needed - end if math.floor((end - first) * scale) == end - first and scale > 1 else 0
            # The product of side and scale, which gives the size, must not fall below the whole number.
            return _Axis(slice(first, end), repeated, scale * (1 + 1e-12), visible)
    raise ValueError(f"expected a part that begins at a whole pixel or at `nearest_start`, found {start}")


def _margin(scale: float) -> int:
    """Pixels of the original on which the filter's value at the border of a part depends, and one for rounding."""
    return 1 + math.ceil(max(1.0, 1 / scale))
