"""Sizes of resized images, and the resampling kernels that the field uses."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def network_size(
    height: int,
    width: int,
    *,
    short_side: int,
    long_side: int,
    scale: float | None = None,
    fixed_size: tuple[int, int] | None = None,
    rounding: Literal["round", "floor"] = "round",
) -> tuple[int, int]:
    """Height and width of an image once resized for the network, before padding; at least 1 pixel each.

    Args:
        height, width: pixels of the original image.
        short_side, long_side: the short side is brought to `short_side` unless the long one would pass
            `long_side` (paper section 3.1).
        scale: the same factor for every image instead, still capped by `long_side`.
        fixed_size: (height, width) to fit inside instead.
        rounding: `round` half up, as Detectron2 does; `floor`, as torchvision does, whose product of a
            side and the scale can fall just below the whole number and lose a pixel.
    """
    if fixed_size is not None:
        factor = min(fixed_size[0] / height, fixed_size[1] / width)
    elif scale is not None:
        factor = min(scale, long_side / max(height, width))
    else:
        factor = min(short_side / min(height, width), long_side / max(height, width))
    shift = 0.5 if rounding == "round" else 0.0
    return max(1, math.floor(height * factor + shift)), max(1, math.floor(width * factor + shift))


def resize_image(image: Tensor, size_hw: tuple[int, int], kernel: Literal["antialias", "pil", "bilinear"]) -> Tensor:
    """Resizes a (3, H, W) uint8 image to (3, *size_hw).

    `antialias` gives uint8 and widens the triangle filter when the image shrinks, as PIL does; `pil` is PIL's own
    filter to the last grey level (Detectron2); `bilinear` gives float32 in 0..255 from the four nearest pixels, as
    torchvision's detection models do.
    """
    if kernel == "bilinear":
        return F.interpolate(image[None].to(torch.float32), size=size_hw, mode="bilinear", align_corners=False)[0]
    if tuple(image.shape[1:]) == tuple(size_hw):
        return image
    if kernel == "pil":
        picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
        resized = np.array(picture.resize(size_hw[::-1], Image.Resampling.BILINEAR))
        return torch.from_numpy(resized).permute(2, 0, 1)
    return F.interpolate(image[None], size=size_hw, mode="bilinear", antialias=True, align_corners=False)[0]
