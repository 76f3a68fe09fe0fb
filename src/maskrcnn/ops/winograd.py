"""3x3 convolutions by Winograd's minimal filtering (Lavin and Gray 2016), with a quarter of the multiplications.

A direct convolution takes 144 multiplications for a 4x4 tile of the output, and this one 36. It evaluates the tile's
6x6 input and the 3x3 filter as polynomials at 36 points, at which a convolution is one product per point. For all tiles
and channels these are 36 matrix products. In float32 results differ from the direct sum by about 1e-6 of the largest.

Legend: B images, C input channels, O output channels, T tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 4
_POINTS = (TILE + 2) ** 2
_TILES_AT_ONCE = 128  # few enough that intermediate results stay in the cache
_REGISTER = 16  # numbers of float32
_MIN_CHANNELS, _MIN_TILES = 128, 64  # for smaller convolutions oneDNN's direct algorithm was as fast

# The finite points on one axis; infinity is one more. The common choice 0, 1, -1, 2, -2 doubles the rounding error.
_AT = np.array([0, 2 / 3, -2 / 3, 3 / 2, -3 / 2])


def _transforms() -> list[Tensor]:
    """The float64 matrices that evaluate an input (36, 36) and a filter (36, 9) at the points, and that turn products
    at the points into an output (16, 36).

    On one axis this is the transposed algorithm of Toom and Cook. The rows of the filter's matrix and the columns of
    the output's are powers of the points. A row of the input's matrix has the coefficients of the polynomial that is
    zero at all other points.
    """
    others = [np.delete(_AT, i) for i in range(len(_AT))]
    input_rows = [np.append(np.poly(other)[::-1], 0) for other in others]
    scale = np.array([np.prod(at - other) for at, other in zip(_AT, others, strict=True)])
    one_axis = (
        np.vstack([*input_rows, np.poly(_AT)[::-1]]),
        np.vstack([np.vander(_AT, 3, increasing=True) / scale[:, None], [0, 0, 1]]),
        np.vstack([np.vander(_AT, TILE, increasing=True), np.eye(TILE)[-1]]).T,
    )
    return [torch.from_numpy(np.kron(axis, axis)) for axis in one_axis]


_INPUT, _FILTER, _OUTPUT = _transforms()


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """`F.conv2d`, or the faster `conv3x3` for large 3x3 convolutions in float32 on a CPU in training.

    Prediction does not use `conv3x3`, because its rounding changes scores by up to 1.3e-4, and scores must agree with
    torchvision's within 1e-4. In training the random sampling has a far larger effect.
    """
    plain = weight.shape[2:] == (3, 3) and stride == padding == dilation == (1, 1) and groups == 1
    trained = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    if plain and trained and _is_large(x, weight) and _is_float32_on_cpu(x):
        return conv3x3(x, weight, bias)
    if trained and x.device.type == "cpu" and _is_strided_point(x, weight, stride, padding):
        return F.conv2d(x[:, :, :: stride[0], :: stride[1]], weight, bias, groups=groups)
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _is_strided_point(x: Tensor, weight: Tensor, stride: tuple[int, ...], padding: tuple[int, ...]) -> bool:
    """Whether this is a 1x1 convolution with a stride, of fewer channels than a register of AVX-512 has numbers.

    The gradient of its weight destroys memory there in oneDNN (torch 2.15), as seen with 8 channels and 3 images in two
    threads. With the stride taken before, the same sums are computed by another kernel.
    """
    return weight.shape[2:] == (1, 1) and max(stride) > 1 and max(padding) == 0 and x.shape[1] < _REGISTER


def _is_float32_on_cpu(x: Tensor) -> bool:
    autocast = torch.is_autocast_enabled("cpu")
    return x.device.type == "cpu" and x.dtype == torch.float32 and not autocast and not torch.compiler.is_compiling()


def _is_large(x: Tensor, weight: Tensor) -> bool:
    tiles = x.shape[0] * -(-x.shape[2] // TILE) * -(-x.shape[3] // TILE)
    return min(weight.shape[:2]) >= _MIN_CHANNELS and tiles >= _MIN_TILES


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3x3 convolution with stride 1 and zero padding of 1.

    Args:
        x: (B, C, H, W), channels-last for speed.
        weight: (O, C, 3, 3).
        bias: (O,).

    Returns:
        (B, O, H, W), channels-last in memory.
    """
    y: Tensor = _Conv3x3.apply(x, weight, bias)
    return y


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _filtered(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad
        return (
            _filtered(gradient, weight.flip(2, 3).transpose(0, 1), None) if of_x else None,
            _weight_gradient(x, gradient) if of_weight else None,
            gradient.sum((0, 2, 3)) if of_bias else None,
        )


def _filtered(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolves x (B, C, H, W) with weight (O, C, 3, 3) and adds bias (O,) -> (B, O, H, W)."""
    images, channels, height, width = x.shape
    out = torch.empty((images, len(weight), height, width), dtype=x.dtype, memory_format=torch.channels_last)
    by_row = out.permute(0, 2, 3, 1)
    by_point = (_FILTER @ weight.permute(2, 3, 1, 0).reshape(9, -1).double()).to(x.dtype)
    filters = by_point.view(_POINTS, channels, len(weight))
    to_points, to_pixels = _INPUT.to(x), _OUTPUT.to(x)
    for part in _parts(images, height, width):
        points = (to_points @ _gather(x, part, TILE + 2, 1)).view(_POINTS, -1, channels)
        pixels = (to_pixels @ torch.bmm(points, filters).view(_POINTS, -1)).view(-1, len(weight))
        if bias is not None:
            pixels += bias
        area = by_row[part.images, part.top : part.top + TILE * part.rows]
        tiled = pixels.view(TILE, TILE, len(area), part.rows, part.columns, -1).permute(2, 3, 0, 4, 1, 5)
        area.copy_(tiled.reshape(len(area), TILE * part.rows, TILE * part.columns, -1)[:, : area.shape[1], :width])
    return out


def _weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the weight (O, C, 3, 3) from x (B, C, H, W) and the gradient of the output (B, O, H, W)."""
    images, channels, height, width = x.shape
    out_channels = gradient.shape[1]
    total = x.new_zeros((_POINTS, channels, out_channels))
    to_points, from_pixels = _INPUT.to(x), _OUTPUT.to(x).t()
    for part in _parts(images, height, width):
        points = (to_points @ _gather(x, part, TILE + 2, 1)).view(_POINTS, -1, channels)
        goal = (from_pixels @ _gather(gradient, part, TILE, 0)).view(_POINTS, -1, out_channels)
        total.baddbmm_(points.transpose(1, 2), goal)
    by_cell = _FILTER.to(x).t() @ total.view(_POINTS, -1)
    return by_cell.view(3, 3, channels, out_channels).permute(3, 2, 0, 1)


class _Part(NamedTuple):
    """Rows of tiles in some images; `top` is their first pixel row."""

    images: slice
    top: int
    rows: int
    columns: int


def _parts(images: int, height: int, width: int) -> Iterator[_Part]:
    """Divides all tiles into parts of about `_TILES_AT_ONCE`: several small images, or some rows of a large one."""
    rows, columns = -(-height // TILE), -(-width // TILE)
    images_at_once = max(1, _TILES_AT_ONCE // (rows * columns))
    rows_at_once = min(rows, max(1, _TILES_AT_ONCE // columns))
    for image in range(0, images, images_at_once):
        for row in range(0, rows, rows_at_once):
            yield _Part(slice(image, image + images_at_once), TILE * row, min(rows_at_once, rows - row), columns)


def _gather(x: Tensor, part: _Part, side: int, border: int) -> Tensor:
    """The side x side pixels of every tile, starting `border` pixels before it and zero outside the image, as a tensor
    (side * side, T * C)."""
    some = x[part.images].permute(0, 2, 3, 1)
    height, width = x.shape[2:]
    first, last = part.top - border, part.top - border + TILE * (part.rows - 1) + side
    right = TILE * (part.columns - 1) + side - border - width
    rows = some[:, max(first, 0) : min(last, height)]
    padded = F.pad(rows, (0, 0, border, right, max(-first, 0), max(last - height, 0)))
    tiles = padded.unfold(1, side, TILE).unfold(2, side, TILE)  # (B, rows, columns, C, side, side)
    return tiles.permute(4, 5, 0, 1, 2, 3).reshape(side * side, -1)
