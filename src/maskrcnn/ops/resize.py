"""Sizes of resized images, and the resampling kernels that the field uses."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

Rounding = Literal["round", "floor", "half_even", "short_side"]


def network_scale(
    height: int,
    width: int,
    *,
    short_side: int,
    long_side: int,
    min_scale: float = 0.0,
    scale: float | None = None,
    fixed_size: tuple[int, int] | None = None,
    rounding: Rounding = "round",
) -> float:
    """The factor that an image is resized by for the network.

    Args:
        height, width: pixels of the original image.
        short_side, long_side: the short side becomes `short_side`, or less if the long side would exceed `long_side`
            (paper section 3.1).
        min_scale: lower bound of the factor that brings the short side to `short_side`.
        scale: one factor for all images instead, still capped by `long_side`.
        fixed_size: (height, width) to fit inside instead.
        rounding: with `half_even`, `long_side` caps only long sides that round to more than it.
    """
    if fixed_size is not None:
        return min(fixed_size[0] / height, fixed_size[1] / width)
    if scale is not None:
        return min(scale, long_side / max(height, width))
    factor = max(short_side / min(height, width), min_scale)
    if rounding != "half_even" or round(max(height, width) * factor) > long_side:
        factor = min(factor, long_side / max(height, width))
    return factor


def network_size(height: int, width: int, *, rounding: Rounding = "round", **limits: Any) -> tuple[int, int]:
    """Height and width of an image once resized for the network, before padding; at least 1 pixel each.

    Args:
        height, width: pixels of the original image.
        limits: arguments of `network_scale`.
        rounding: `round` half up, as Detectron2 does; `floor`, as torchvision does, whose product of a
            side and the scale can fall just below the whole number and lose a pixel; `half_even` as Python and
            Matterport do; `short_side` rounds the short side and takes the long one as its multiple, rounded down
            (maskrcnn-benchmark).
    """
    factor = network_scale(height, width, rounding=rounding, **limits)
    if rounding == "short_side":
        short = max(1, round(min(height, width) * factor))
        long = int(short * max(height, width) / min(height, width))
        return (short, long) if height <= width else (long, short)
    if rounding == "half_even":
        return max(1, round(height * factor)), max(1, round(width * factor))
    shift = 0.5 if rounding == "round" else 0.0
    return max(1, math.floor(height * factor + shift)), max(1, math.floor(width * factor + shift))


def resize_image(
    image: Tensor,
    size_hw: tuple[int, int],
    kernel: Literal["antialias", "pil", "bilinear", "opencv", "truncated"],
    factor: float | None = None,
) -> Tensor:
    """Resizes a (3, H, W) uint8 image to (3, *size_hw).

    `antialias` gives uint8 and widens the triangle filter when the image shrinks, as PIL does; `pil` is PIL's own
    filter to the last grey level (Detectron2); `bilinear` gives float32 in 0..255 from the four nearest pixels, as
    torchvision's detection models do; `opencv` the same four in uint8, with OpenCV's own rounding (MMDetection);
    `truncated` does that with black beyond the border and cuts the fraction off, as scikit-image's order 1 does in
    Matterport's model.

    Args:
        factor: with `bilinear`, by which pixels move; None: the ratios of the sizes. OpenCV's `resize` with `fx` and
            `fy` (Detectron).
    """
    if kernel == "bilinear" and factor is not None:
        return torch.ops.aten.upsample_bilinear2d(image[None].to(torch.float32), list(size_hw), False, factor, factor)[
            0
        ]
    if kernel == "bilinear":
        return F.interpolate(image[None].to(torch.float32), size=size_hw, mode="bilinear", align_corners=False)[0]
    if tuple(image.shape[1:]) == tuple(size_hw):
        return image
    match kernel:
        case "pil":
            return _by_pil(image, size_hw)
        case "opencv":
            return _opencv(image, size_hw)
        case "truncated":
            return _truncated(image, size_hw)
    return F.interpolate(image[None], size=size_hw, mode="bilinear", antialias=True, align_corners=False)[0]


def _by_pil(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    resized = np.array(picture.resize(size_hw[::-1], Image.Resampling.BILINEAR))
    return torch.from_numpy(resized).permute(2, 0, 1)


def _truncated(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Scikit-image's `resize(order=1, mode="constant", preserve_range=True)` without antialiasing, then as uint8.

    Products and sums in the order of scipy's `zoom`: the fraction of a whole number is cut off or not by its last bit.
    """
    values = F.pad(image.to(torch.float64), (1, 1, 1, 1))
    (y, y_weights), (x, x_weights) = (
        _neighbours(have, want) for have, want in zip(image.shape[1:], size_hw, strict=True)
    )
    result = torch.zeros(len(image), *size_hw, dtype=torch.float64)
    for row, row_weight in enumerate(y_weights):
        for column, column_weight in enumerate(x_weights):
            corner = values[:, y + row][:, :, x + column]
            result += corner.mul_(row_weight[:, None]).mul_(column_weight)
    return result.clamp(min=float(image.min())).to(torch.uint8)


def _neighbours(have: int, want: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The first of the two pixels that each of `want` output pixels reads, counted from one before the image, and the
    weights of both."""
    at = (torch.arange(want, dtype=torch.float64) + 0.5) * (have / want) - 0.5
    first = at.floor()
    fraction = at - first
    return first.to(torch.int64) + 1, (1 - fraction, fraction)


def _opencv(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(3, H, W) uint8 -> (3, *size_hw) as `cv2.resize` with INTER_LINEAR: weights in steps of 1/2048, sums of a row in
    32 bits, of which four are dropped before the columns (OpenCV 4, `imgproc/src/resize.cpp`)."""
    left, right, left_weight, right_weight = _opencv_axis(image.shape[2], size_hw[1])
    top, bottom, top_weight, bottom_weight = _opencv_axis(image.shape[1], size_hw[0])
    # Beyond the outermost centres both columns are the same one, with all the weight; for rows it stays divided, and
    # is rounded twice.
    values = image.to(torch.int32)
    rows = values[:, :, left] * left_weight + values[:, :, right] * right_weight >> 4
    upper, lower = (rows[:, at] * weight[:, None] >> 16 for at, weight in ((top, top_weight), (bottom, bottom_weight)))
    return (upper + lower + 2 >> 2).to(torch.uint8)


def _opencv_axis(before: int, after: int) -> list[Tensor]:
    """For each of `after` pixels the two of `before` around it, int64, and their weights times 2048, int32."""
    at = ((np.arange(after) + 0.5) * (1 / (after / before)) - 0.5).astype(np.float32)
    first = np.floor(at)
    behind = at - first
    weights = (np.rint(share * np.float32(2048)).astype(np.int32) for share in (1 - behind, behind))
    ends = ((first + step).clip(0, before - 1).astype(np.int64) for step in (0, 1))
    return [torch.from_numpy(part) for part in (*ends, *weights)]
