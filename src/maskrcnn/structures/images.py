"""The batch of images as the network takes it. Legend: B images, H and W of the padded batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.config import ImageConfig
from maskrcnn.config.conventions import PixelRules
from maskrcnn.ops.boxes import whole_images
from maskrcnn.ops.resize import network_scale, network_size


@dataclass(frozen=True)
class ImageBatch:
    """Images of one padded size.

    Attributes:
        pixels: (B, 3, H, W) uint8 or float32, RGB in 0..255, zero beyond each image's true size.
        sizes_hw: (B, 2) int64, true height and width of each image inside the padding, with its black bars.
        unbarred: (B, 4) int64 x1 y1 x2 y2, where the images lie between their black bars; None: there are none.
    """

    pixels: Tensor
    sizes_hw: Tensor
    unbarred: Tensor | None = None

    @property
    def windows(self) -> Tensor:
        """(B, 4) int64 x1 y1 x2 y2, where each image itself lies in the batch."""
        return whole_images(self.sizes_hw) if self.unbarred is None else self.unbarred

    def __len__(self) -> int:
        return self.pixels.shape[0]


@dataclass(frozen=True)
class Placement:
    """Where an image comes to lie in its network input.

    Attributes:
        size_hw: of the image once resized.
        input_hw: of the network input: the same, or with black bars around.
    """

    size_hw: tuple[int, int]
    input_hw: tuple[int, int]

    @property
    def origin_xy(self) -> tuple[int, int]:
        """The pixel of the network input at which the image begins; of an odd number of black rows the lower bar has
        one more."""
        return (self.input_hw[1] - self.size_hw[1]) // 2, (self.input_hw[0] - self.size_hw[0]) // 2

    @property
    def window(self) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2 of the image in the network input."""
        x, y = self.origin_xy
        return x, y, x + self.size_hw[1], y + self.size_hw[0]


def with_bars(image: Tensor, placed: Placement) -> Tensor:
    """A resized (3, h, w) image between its black bars."""
    left, top = placed.origin_xy
    (height, width), (rows, columns) = placed.size_hw, placed.input_hw
    return F.pad(image, (left, columns - width - left, top, rows - height - top))


def place(height: int, width: int, config: ImageConfig, rules: PixelRules) -> Placement:
    """The size and place that an image of these sides gets."""
    size = network_size(height, width, **_limits(config, rules))
    return Placement(size, size_with_bars(size, config, rules))


def exact_scale(height: int, width: int, config: ImageConfig, rules: PixelRules) -> float | None:
    """The factor by which pixels and boxes of an image of these sides are scaled where `rules.exact_scale` says so;
    None: they are scaled by the ratio of the sizes."""
    return network_scale(height, width, **_limits(config, rules)) if rules.exact_scale else None


def _limits(config: ImageConfig, rules: PixelRules) -> dict[str, Any]:
    """The arguments of `network_scale`."""
    limits = {name: getattr(config, name) for name in ("short_side", "long_side", "scale", "fixed_size")}
    return limits | {"min_scale": rules.min_scale, "rounding": rules.rounding}


def size_with_bars(size_hw: tuple[int, int], config: ImageConfig, rules: PixelRules) -> tuple[int, int]:
    """Height and width of a resized image with its black bars, before the padding of the batch."""
    match rules.letterbox:
        case "none":
            return size_hw
        case "square":
            return config.long_side, config.long_side
        case "divisor":
            return pad_size(*size_hw, config.divisor)


def pad_size(height: int, width: int, divisor: int) -> tuple[int, int]:
    """The smallest multiples of `divisor` that hold height and width."""
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def canvas_of(height: int, width: int, config: ImageConfig) -> tuple[int, int]:
    """The size to which a batch is padded where every new size has its price: one of few that hold these sides.

    Of each orientation there are three, with the long side at 100, 90 and 80 percent of the most; images whose sides
    `config` does not bound are padded as elsewhere.
    """
    short = pad_size(config.short_side, config.short_side, config.divisor)[0]
    if config.scale is None:
        for share in (0.8, 0.9, 1.0):
            long = max(short, pad_size(1, round(config.long_side * share), config.divisor)[1])
            if min(height, width) <= short and max(height, width) <= long:
                return (short, long) if width >= height else (long, short)
    return pad_size(height, width, config.divisor)


def stack_images(images: list[Tensor], divisor: int, size: tuple[int, int] | None = None) -> ImageBatch:
    """Pads (3, h, w) images at bottom and right with zeros to one size and stacks them.

    Args:
        images: same dtype, RGB in 0..255.
        divisor: the padded sides are multiples of it.
        size: (height, width) of the batch where it is fixed; every image must fit.
    """
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    height, width = size or pad_size(max(h for h, _ in sizes), max(w for _, w in sizes), divisor)
    pixels = images[0].new_zeros((len(images), 3, height, width))
    for row, image, (h, w) in zip(pixels, images, sizes, strict=True):
        row[:, :h, :w] = image
    return ImageBatch(pixels, torch.tensor(sizes, dtype=torch.int64).reshape(-1, 2))
