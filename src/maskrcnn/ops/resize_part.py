"""Antialiased resizing of a part of an image, equal to that part of the whole resized image.

torch aligns the resized pixels with the first pixel of its input. A part is therefore on the pixel grid of the whole
resized image only if it starts where a pixel edge of the original and one of the resized image nearly coincide.
`nearest_start` finds such positions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

_ROUNDING = 1e-6  # pixels


def nearest_start(start: int, scale: float) -> float:
    """The nearest position at or before `start`, less than a pixel away, at which `resize_part` can begin.

    Args:
        start: desired start of the part on one axis, pixels of the resized image.
        scale: pixels of the resized image per pixel of the original.
    """
    # The position is up to a pixel before `start`, and the margin counts from it.
    first = max(0, math.floor(start / scale) - _margin(scale) - math.ceil(1 / scale))
    return first * scale + math.floor(start - first * scale)


def resize_part(
    image: Tensor, scale_yx: tuple[float, float], start_yx: tuple[float, float], size_hw: tuple[int, int]
) -> Tensor:
    """A part of the resized image. It equals PIL's bilinear filter, which widens when the image shrinks, to two grey
    levels.

    Args:
        image: (C, H, W) uint8 or float32, the whole original.
        scale_yx: pixels of the resized image per pixel of the original.
        start_yx: start of the part, pixels of the resized image: an integer or a result of `nearest_start`.
        size_hw: height and width of the part in pixels.

    Returns:
        (C, *size_hw), of the same dtype.

    Raises:
        ValueError: the part begins at another position.
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
    """The input and the output of resizing on one axis.

    Attributes:
        source: the pixels of the original to resize.
        repeated: the number of copies of the last pixel to append.
        scale: pixels of the resized image per pixel of the original.
        visible: the pixels of the result that belong to the part.
    """

    source: slice
    repeated: int
    scale: float
    visible: slice


def _axis(side: int, scale: float, start: float, length: int) -> _Axis:
    """Finds the pixels of the original that the part needs on one axis.

    Args:
        side: pixels of the original.
        scale: pixels of the resized image per pixel of the original.
        start, length: start and length of the part, pixels of the resized image.
    """
    nearest = math.floor(start / scale) - _margin(scale)
    # `nearest_start` chose one of these, but rounding may have moved `start` over an edge of an original pixel.
    for first in (*range(nearest + 1, nearest - math.ceil(1 / scale) - 1, -1), 0):
        skipped = start - first * scale
        if first >= 0 and abs(skipped - round(skipped)) < _ROUNDING:
            visible = slice(round(skipped), round(skipped) + length)
            needed = math.ceil(visible.stop / scale) + _margin(scale)
            if scale > 1 + _ROUNDING:  # torch does not resize an axis whose rounded length stays the same
                needed = max(needed, math.ceil(1 / (scale - 1)) + 1)
            end = min(side, first + needed)
            # When an image grows, repeating the border does not change the result.
            repeated = first + needed - end if math.floor((end - first) * scale) == end - first and scale > 1 else 0
            # torch rounds side * scale down, so the product must not fall just below an integer.
            return _Axis(slice(first, end), repeated, scale * (1 + 1e-12), visible)
    raise ValueError(f"expected a part that begins at a whole pixel or at `nearest_start`, found {start}")


def _margin(scale: float) -> int:
    """The radius of the filter in pixels of the original, and one more pixel for rounding."""
    return 1 + math.ceil(max(1.0, 1 / scale))
