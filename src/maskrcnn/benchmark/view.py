"""The random choices of large scale jitter, shared by both sides. Legend: S side of the sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from maskrcnn.ops.resize_part import nearest_start
from maskrcnn.structures.frame import Frame, frame_of_size

SCALES = (0.1, 2.0)  # range of the uniform factor on the size that fits into S x S (torchvision's ScaleJitter)


@dataclass(frozen=True)
class View:
    """The part of one image that a sample shows.

    Attributes:
        index: position of the image in the data set.
        side: S.
        factor: scale relative to the size that fits into S x S.
        size_hw: height and width of the scaled image.
        start_xy: top left corner of the window in the scaled image, whole pixels.
        out_hw: height and width of the window; the rest of S x S is padding.
        flipped: whether left and right are exchanged.
        image_hw: height and width of the original image.
    """

    index: int
    side: int
    factor: float
    size_hw: tuple[int, int]
    start_xy: tuple[int, int]
    out_hw: tuple[int, int]
    flipped: bool
    image_hw: tuple[int, int]

    @property
    def frame(self) -> Frame:
        """Our frame for the view. Its window begins up to a pixel before `start_xy`."""
        frame = frame_of_size(self.image_hw, self.size_hw)
        left, top = (nearest_start(at, scale) for at, scale in zip(self.start_xy, frame.scale_xy, strict=True))
        frame = frame.cropped(left, top, self.out_hw)
        return frame.flipped_horizontally() if self.flipped else frame


def draw_view(index: int, image_hw: tuple[int, int], side: int, rng: np.random.Generator) -> View:
    """A random view of an image of this height and width."""
    factor = float(rng.uniform(*SCALES))
    height, width = image_hw
    fitted = min(side / height, side / width) * torch.tensor([factor])  # in float32, as torchvision's transform
    size = max(1, int(height * fitted)), max(1, int(width * fitted))
    out = min(size[0], side), min(size[1], side)
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(size, out, strict=True))
    return View(index, side, factor, size, (left, top), out, bool(rng.random() < 0.5), image_hw)
