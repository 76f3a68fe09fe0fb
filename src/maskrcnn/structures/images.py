"""The batch of images as the network takes it. Legend: B images, H and W of the padded batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ImageBatch:
    """Images of one padded size.

    Attributes:
        pixels: (B, 3, H, W) uint8 or float32, RGB in 0..255, zero beyond each image's true size.
        sizes_hw: (B, 2) int64, true height and width of each image inside the padding.
    """

    pixels: Tensor
    sizes_hw: Tensor

    def to(self, device: torch.device | str) -> ImageBatch:
        return ImageBatch(self.pixels.to(device, non_blocking=True), self.sizes_hw.to(device, non_blocking=True))

    def __len__(self) -> int:
        return self.pixels.shape[0]


def pad_size(height: int, width: int, divisor: int) -> tuple[int, int]:
    """The smallest multiples of `divisor` that hold height and width."""
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


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
