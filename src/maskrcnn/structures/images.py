"""The input of the network: images are resized one by one, then padded to the size of their batch.

Legend: B images, H and W of the padded batch, h and w of one network input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.config import Channel, ImageConfig
from maskrcnn.config.conventions import PixelRules
from maskrcnn.config.ranges import LARGEST
from maskrcnn.errors import ImageError
from maskrcnn.ops.resize import resize_image
from maskrcnn.ops.resize_part import resize_part
from maskrcnn.structures.frame import Frame, pad_size, transform_boxes


@dataclass(frozen=True)
class ImageBatch:
    """A batch of images, padded to one size.

    Attributes:
        pixels: (B, C, H, W) uint8 or float32, RGB in 0..255 or the channels as `stretched`; zero in the padding.
        sizes_hw: (B, 2) int64, height and width of each network input, including its letterbox padding.
        windows: (B, 4) int64 x1 y1 x2 y2, the part of each network input that the image itself covers.
        frames: one per image. The network does not read them.
    """

    pixels: Tensor
    sizes_hw: Tensor
    windows: Tensor
    frames: tuple[Frame, ...]

    def __len__(self) -> int:
        return self.pixels.shape[0]


def stretched(image: np.ndarray, channels: Sequence[Channel]) -> np.ndarray:
    """Stored values as the values from 0 to 255 that are resized, as each `Channel` says; RGB without channels.

    What is not a number becomes 0. Integers of 32 bits are computed in float64.

    Args:
        image: (H, W, C) of any dtype, or (H, W, 3) uint8 RGB.

    Returns:
        (H, W, C) float32, or the RGB image.

    Raises:
        ImageError: the image has another number of channels, or no 8 bits without `channels`.
    """
    expected, dtype = (len(channels), "any") if channels else (3, "uint8")
    if image.ndim != 3 or image.shape[2] != expected or (not channels and image.dtype != np.uint8):
        raise ImageError(
            f"expected an image of shape (H, W, {expected}) and dtype {dtype}, found shape {image.shape} and dtype "
            f"{image.dtype}"
        )
    if not channels:
        return image
    result = np.empty(image.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that are clipped below
        for place, channel in enumerate(channels):
            values = image[..., place].astype(np.result_type(image.dtype, np.float32))
            if channel.stretch != "none" and channel.low is not None and channel.high is not None:
                values -= channel.low
                values *= 255 / (channel.high - channel.low)
                np.fmax(values, 0, out=values)  # also of what is not a number
                np.fmin(values, 255, out=result[..., place], casting="same_kind")
            else:
                result[..., place] = np.nan_to_num(np.clip(values, -LARGEST, LARGEST))
    return result


def resize_to_network(image: np.ndarray, frame: Frame, rules: PixelRules) -> Tensor:
    """Makes the network input that `frame` describes: resizes the image with the kernel of `rules`, then crops, flips,
    turns and pads it with zeros. The antialiasing kernel resizes only the visible part, unless the image is rotated.

    Args:
        image: (H, W, C), a result of `stretched`.
        frame: a crop must start at a whole pixel of the resized image or, with the antialiasing kernel, at a position
            that `maskrcnn.ops.resize_part.nearest_start` returns.

    Returns:
        (C, *frame.input_hw), float32 with the bilinear kernel and otherwise of the dtype of the image.

    Raises:
        ValueError: the frame shows no part of the image, or a crop for the antialiasing kernel starts elsewhere.
    """
    x1, y1, x2, y2 = frame.window
    if x1 >= x2 or y1 >= y2:
        raise ValueError(f"expected a frame that shows a part of the image, found the matrix {frame.matrix.tolist()}")
    if not frame.is_upright:
        return rotated_image(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1), frame, rules)
    visible = transform_boxes(np.array([[x1, y1, x2, y2]], dtype=np.float64), np.linalg.inv(frame.motion))[0]
    pixels = _resized(torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1), visible, frame, rules)
    linear = frame.motion[:2, :2]
    if linear[0, 0] == 0:  # a quarter turn
        pixels = pixels.transpose(1, 2)
    flipped = [axis for axis, sign in ((1, linear[1].sum()), (2, linear[0].sum())) if sign < 0]
    if flipped:
        pixels = pixels.flip(flipped)
    height, width = frame.input_hw
    padding = x1, width - x2, y1, height - y2
    return F.pad(pixels, padding) if any(padding) else pixels


def rotated_image(pixels: Tensor, frame: Frame, rules: PixelRules) -> Tensor:
    """Makes a network input of an image (C, H, W) that the frame rotates by an angle, with zeros outside of the image.

    An image that shrinks is first resized by the kernel of `rules`, so that none of its pixels is left out. Then the
    network input is sampled bilinearly at the centres of its pixels.

    Returns:
        (C, *frame.input_hw), as `resize_to_network`.
    """
    matrix = frame.matrix
    if (frame.scale_xy < 1).any():
        scale = float(frame.scale_xy[0]) if rules.exact_scale else None
        pixels, matrix = resize_image(pixels, frame.resized_hw, rules.kernel, scale), frame.motion
    height, width = frame.input_hw
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    inverse = torch.from_numpy(np.linalg.inv(matrix)[:2]).to(torch.float32)
    centres = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ inverse.T
    grid = centres / torch.tensor([pixels.shape[2] / 2, pixels.shape[1] / 2]) - 1  # from -1 to 1 over the image
    found = F.grid_sample(pixels[None].to(torch.float32), grid[None], mode="bilinear", align_corners=False)[0]
    if rules.kernel == "bilinear" or pixels.is_floating_point():
        return found
    return found.round_().clamp_(0, 255).to(pixels.dtype)


def _resized(pixels: Tensor, visible: np.ndarray, frame: Frame, rules: PixelRules) -> Tensor:
    """Resizes (C, H, W) pixels; `visible` is the part to return, (4,) x1 y1 x2 y2 in the resized image."""
    left, top = visible[:2].tolist()
    width, height = (round(side) for side in (visible[2:] - visible[:2]).tolist())
    scale_x, scale_y = frame.scale_xy.tolist()
    if rules.kernel == "antialias" and (height, width) != frame.resized_hw:
        return resize_part(pixels, (scale_y, scale_x), (top, left), (height, width))
    whole = resize_image(pixels, frame.resized_hw, rules.kernel, scale_x if rules.exact_scale else None)
    row, column = round(top), round(left)
    return whole[:, row : row + height, column : column + width]


def static_input_size(height: int, width: int, config: ImageConfig) -> tuple[int, int]:
    """Height and width of a batch with static shapes, where every new size costs a compilation.

    There are six sizes: for each orientation, a long side of 80, 90 and 100 percent of `config.long_side`. The smallest
    one that holds the given height and width is chosen. Images that fit none are padded as without static shapes.
    """
    short = pad_size(config.short_side, config.short_side, config.divisor)[0]
    if config.scale is None:
        for share in (0.8, 0.9, 1.0):
            long = max(short, pad_size(1, round(config.long_side * share), config.divisor)[1])
            if min(height, width) <= short and max(height, width) <= long:
                return (short, long) if width >= height else (long, short)
    return pad_size(height, width, config.divisor)


def batch_size_hw(
    sizes_hw: Sequence[tuple[int, int]], config: ImageConfig, *, static_shapes: bool = False
) -> tuple[int, int]:
    """Height and width to which `config` pads a batch of network inputs of these sizes.

    Args:
        static_shapes: choose one of the sizes of `static_input_size`.
    """
    if config.fixed_size is not None:
        return config.fixed_size
    height, width = max(h for h, _ in sizes_hw), max(w for _, w in sizes_hw)
    return static_input_size(height, width, config) if static_shapes else pad_size(height, width, config.divisor)


def collate_images(images: Sequence[Tensor], frames: Sequence[Frame], size_hw: tuple[int, int]) -> ImageBatch:
    """Pads network inputs with zeros at the bottom and right to one size, and stacks them.

    Args:
        images: (C, h, w) each, of one dtype.
        frames: one per image.
        size_hw: height and width of the batch; every image must fit.
    """
    pixels = images[0].new_zeros((len(images), len(images[0]), *size_hw))
    for row, image in zip(pixels, images, strict=True):
        row[:, : image.shape[1], : image.shape[2]] = image
    sizes = torch.tensor([frame.input_hw for frame in frames], dtype=torch.int64)
    windows = torch.tensor([frame.window for frame in frames], dtype=torch.int64)
    return ImageBatch(pixels, sizes, windows, tuple(frames))
