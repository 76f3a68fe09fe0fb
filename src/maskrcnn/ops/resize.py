"""Sizes of resized images, and the resampling kernels of the frameworks."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

_BILINEAR = Image.Resampling.BILINEAR
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
    """The scale factor that resizes an image for the network.

    Args:
        height, width: pixels of the original image.
        short_side, long_side: the short side becomes `short_side`, or less if the long side would exceed `long_side`
            (paper section 3.1).
        min_scale: lower bound of the factor for `short_side`.
        scale: one factor for all images instead of `short_side`, still capped by `long_side`.
        fixed_size: (height, width) into which the image must fit, instead of all other limits.
        rounding: `half_even` applies `long_side` only if the long side rounds to more than it.
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
    """Height and width of the resized image before padding, at least 1 network-input pixel each.

    Args:
        height, width: pixels of the original image.
        limits: arguments of `network_scale`.
        rounding: `round` rounds halves up (Detectron2). `floor` rounds down, so that a product just below an integer
            loses a pixel (torchvision). `half_even` rounds halves to even (Matterport). `short_side` rounds the short
            side and multiplies it by the aspect ratio to get the long side, rounded down (maskrcnn-benchmark).
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
    """Resizes a (C, H, W) image, uint8 or float32, to (C, *size_hw): float32 with `bilinear`, otherwise its own dtype.

    Args:
        kernel: `antialias` is a triangle filter that widens when the image shrinks. `pil` is the same filter computed
            by PIL, which rounds differently (Detectron2). The others interpolate between the four nearest pixels:
            `bilinear` without rounding (torchvision), `opencv` with OpenCV's rounding of uint8 (MMDetection), and
            `truncated` with black beyond the border and the fraction of uint8 cut off, as scikit-image's order 1
            (Matterport).
        factor: scale factor of the pixel positions with `bilinear`, as `fx` and `fy` of OpenCV's `resize` (Detectron);
            None takes the ratios of the sizes.
    """
    if kernel == "bilinear" and factor is not None:
        floats = image[None].to(torch.float32)
        return torch.ops.aten.upsample_bilinear2d(floats, list(size_hw), False, factor, factor)[0]
    if kernel == "bilinear" or (kernel == "opencv" and image.is_floating_point()):
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
    if image.is_floating_point():
        planes = (Image.fromarray(plane.numpy()) for plane in image.contiguous())
        return torch.stack([torch.from_numpy(np.array(plane.resize(size_hw[::-1], _BILINEAR))) for plane in planes])
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    resized = np.array(picture.resize(size_hw[::-1], _BILINEAR))
    return torch.from_numpy(resized).permute(2, 0, 1)


def _truncated(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """`skimage.transform.resize(order=1, mode="constant", preserve_range=True)` without antialiasing, cast to dtype.

    The order of operations is that of scipy's `zoom`, because the last bit decides whether a value falls below an
    integer when its fraction is cut off.
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
    return result.clamp(min=float(image.min())).to(image.dtype)


def _neighbours(have: int, want: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """The first of the two pixels around each of `want` output pixels, (want,) int64, and the weights of both, (want,)
    float64 each. Pixel 0 is the one before the image."""
    at = (torch.arange(want, dtype=torch.float64) + 0.5) * (have / want) - 0.5
    first = at.floor()
    fraction = at - first
    return first.to(torch.int64) + 1, (1 - fraction, fraction)


def _opencv(image: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """`cv2.resize` with INTER_LINEAR (OpenCV 4, `imgproc/src/resize.cpp`): (3, H, W) uint8 -> (3, *size_hw) uint8.

    Weights are multiples of 1/2048. The sums along a row lose four bits before the columns are summed.
    """
    left, right, left_weight, right_weight = _opencv_axis(image.shape[2], size_hw[1])
    top, bottom, top_weight, bottom_weight = _opencv_axis(image.shape[1], size_hw[0])
    # Beyond the outermost centres both neighbours are the same pixel. As in OpenCV the two rows are then still rounded
    # separately.
    values = image.to(torch.int32)
    rows = values[:, :, left] * left_weight + values[:, :, right] * right_weight >> 4
    upper, lower = (rows[:, at] * weight[:, None] >> 16 for at, weight in ((top, top_weight), (bottom, bottom_weight)))
    return (upper + lower + 2 >> 2).to(torch.uint8)


def _opencv_axis(before: int, after: int) -> list[Tensor]:
    """For each of `after` pixels, its two neighbours among `before` pixels (int64) and their weights * 2048 (int32)."""
    at = ((np.arange(after) + 0.5) * (1 / (after / before)) - 0.5).astype(np.float32)
    first = np.floor(at)
    fraction = at - first
    weights = (np.rint(weight * np.float32(2048)).astype(np.int32) for weight in (1 - fraction, fraction))
    ends = ((first + step).clip(0, before - 1).astype(np.int64) for step in (0, 1))
    return [torch.from_numpy(part) for part in (*ends, *weights)]
