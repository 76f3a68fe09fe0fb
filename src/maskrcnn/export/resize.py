"""`predict.images.prepare` in the operators of ONNX: an image of any size becomes the input of the network.

The engines' own Resize operators differ from each other and from torch. The filter of `ops.resize` is therefore two
matrix products, one for each axis, with the weights that torch and PIL compute. Their weights are integers, as are the
pixels, so that the products are exact.

Legend: H x W pixels of the image, h x w of the network input, N blocks of T output pixels, L inputs of a block.
"""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18
from torch import Tensor, nn

from maskrcnn.config import Config
from maskrcnn.export.paste import DOUBLE, INT64, double

op: Any = opset18  # without types: it takes Python numbers too
FLOAT, UINT8, INT32 = 1, 2, 6  # numbers of types in ONNX
BLOCK = 32  # output pixels of a product. All of them would be one with a matrix of nearly nothing but zeros.
PIL_BITS, TORCH_BITS = 22, 15  # of a weight: always in PIL; of the largest weight in torch
LOW = float(1 << 11)  # weights have up to 22 bits. float32 sums both halves of them exactly.


# Only an exported graph computes it; torch has `predict.images.prepare`. So it has a schema and shapes, and no code.
torch.library.define("maskrcnn::network_input", "(Tensor image, bool floats) -> (Tensor, Tensor, Tensor, Tensor)")


@torch.library.register_fake("maskrcnn::network_input")
def _(image: Tensor, floats: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    height, width = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    sizes = image.new_empty((1, 2), dtype=torch.int64)
    pixels = image.new_empty((1, 3, height, width), dtype=torch.float32 if floats else torch.uint8)
    return pixels, sizes, sizes.clone(), image.new_empty((1, 2), dtype=torch.float32)


network_input = torch.ops.maskrcnn.network_input.default


class Resizing(nn.Module):
    """An image (H, W, 3) uint8 to the inputs of an exported network: a batch of one image."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.floats = config.float_pixels

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor, Tensor] = network_input(image, self.floats)
        return found


def onnx_network_input(image: Any, config: Config) -> tuple[Any, Any, Any, Any]:
    """`pixels` (1, 3, h, w), `sizes_hw`, `original_hw` and `scale_xy` of an image (H, W, 3) uint8.

    They are those that `predict` gives to a network for one image.
    """
    original = op.Slice(op.Shape(image), [0], [2], [0])
    size, factor = network_size(original, config)
    if config.conventions.pixels.exact_scale:
        scale = op.Expand(op.Div(double(1.0), factor), op.Constant(value_ints=[2]))
    else:
        scale = op.Div(op.Cast(original, to=DOUBLE), op.Cast(size, to=DOUBLE))
    scale = op.Cast(scale, to=FLOAT)
    match config.conventions.pixels.kernel:
        case "bilinear":
            resized = _bilinear(image, size, scale)
        case "opencv":
            resized = _opencv(image, size)
        case kernel:
            resized = _filtered(image, size, PIL_BITS if kernel == "pil" else None)
    if config.image.fixed_size is not None:
        padded = op.Constant(value_ints=list(config.image.fixed_size))
    else:
        divisor = config.image.divisor
        padded = op.Mul(op.Div(op.Add(size, divisor - 1), divisor), divisor)
    pixels = op.Pad(resized, op.Concat(op.Constant(value_ints=[0, 0, 0, 0]), op.Sub(padded, size), axis=0))
    scale_xy = op.Gather(scale, op.Constant(value_ints=[1, 0]))
    pixels, size, original, scale_xy = (op.Unsqueeze(part, [0]) for part in (pixels, size, original, scale_xy))
    return pixels, size, original, scale_xy


def network_size(original: Any, config: Config) -> tuple[Any, Any]:
    """`ops.resize.network_size` and `network_scale` of the sizes (2,) int64: (2,) int64, and a float64 factor."""
    image, rules = config.image, config.conventions.pixels
    sides = op.Cast(original, to=DOUBLE)
    short, long = op.ReduceMin(sides, keepdims=0), op.ReduceMax(sides, keepdims=0)
    if image.fixed_size is not None:
        fixed = op.Cast(op.Constant(value_ints=list(image.fixed_size)), to=DOUBLE)
        factor = op.ReduceMin(op.Div(fixed, sides), keepdims=0)
    else:
        wanted = (double(1.0), double(image.scale)) if image.scale else (short, double(image.short_side))
        # One division, of what a comparison of products chooses: OpenVINO 2026.4 confuses the minimum of two quotients.
        limited = op.Greater(op.Mul(wanted[1], long), op.Mul(double(image.long_side), wanted[0]))
        side, goal = op.Where(limited, long, wanted[0]), op.Where(limited, double(image.long_side), wanted[1])
        factor = op.Div(goal, side)
    if rules.rounding == "short_side":
        side = op.Max(op.Round(op.Mul(short, factor)), double(1.0))
        size = op.Where(op.Equal(sides, short), side, op.Floor(op.Div(op.Mul(side, long), short)))
    else:
        size = op.Floor(op.Add(op.Mul(sides, factor), double(0.5 if rules.rounding == "round" else 0.0)))
    return op.Cast(op.Max(size, double(1.0)), to=INT64), factor


def _filtered(image: Any, size: Any, bits: int | None) -> Any:
    """The widening triangle filter of torch, or of PIL with its number of `bits`: (H, W, 3) to (3, *size) uint8."""
    turned = _filter_axis(op.Transpose(image, perm=[2, 1, 0]), op.Gather(size, 1), bits)  # (3, w, H)
    return _filter_axis(op.Transpose(turned, perm=[0, 2, 1]), op.Gather(size, 0), bits)


def _filter_axis(pixels: Any, after: Any, bits: int | None) -> Any:
    """(3, n, K) uint8 to (3, after, K): a product for each block of output pixels, with the inputs that it needs."""
    before = op.Gather(op.Shape(pixels), 1)
    longest = op.Max(before, after)
    blocks = op.Div(op.Add(after, BLOCK - 1), BLOCK)
    output = op.Add(op.Mul(op.Unsqueeze(op.Range(0, blocks, 1), [1]), BLOCK), op.Unsqueeze(op.Range(0, BLOCK, 1), [0]))
    # Centres of output and input pixels in units of 1 / (2 * before * after), so that all positions are whole.
    centre = op.Mul(op.Add(op.Mul(output, 2), 1), before)  # (N, T)
    reach = op.Mul(longest, 2)
    twice = op.Mul(after, 2)
    start = op.Div(op.Max(op.Sub(op.Slice(centre, [0], [1], [1]), reach), 0), twice)  # (N, 1)
    span = op.Add(op.Div(op.Add(op.Mul(before, 2 * BLOCK - 2), op.Mul(reach, 2)), twice), 2)
    source = op.Add(start, op.Unsqueeze(op.Range(0, span, 1), [0]))  # (N, L)
    place = op.Mul(op.Add(op.Mul(source, 2), 1), after)
    distance = op.Abs(op.Sub(op.Unsqueeze(place, [1]), op.Unsqueeze(centre, [2])))  # (N, T, L)
    share = op.Sub(double(1.0), op.Div(op.Cast(distance, to=DOUBLE), op.Cast(reach, to=DOUBLE)))
    inside = op.And(op.Unsqueeze(op.Less(source, before), [1]), op.Unsqueeze(op.Less(output, after), [2]))
    weights = op.Where(inside, op.Max(share, double(0.0)), double(0.0))
    weights = op.Div(weights, op.Max(op.ReduceSum(weights, [2], keepdims=1), double(1e-9)))
    unit = double(float(1 << bits)) if bits else _torch_unit(weights)
    weights = op.Floor(op.Add(op.Mul(weights, unit), double(0.5)))
    high = op.Floor(op.Div(weights, double(LOW)))
    low = op.Sub(weights, op.Mul(high, double(LOW)))

    inputs = op.Gather(pixels, op.Min(source, op.Sub(before, 1)), axis=1)  # (3, N, L, K)
    halves = op.MatMul(op.Cast(op.Concat(high, low, axis=1), to=FLOAT), op.Cast(inputs, to=FLOAT))  # (3, N, 2 T, K)
    unit = op.Cast(unit, to=FLOAT)
    carried = op.Floor(op.Div(op.Add(op.Slice(halves, [BLOCK], [2 * BLOCK], [2]), op.Mul(unit, 0.5)), LOW))
    values = op.Floor(op.Div(op.Add(op.Slice(halves, [0], [BLOCK], [2]), carried), op.Div(unit, LOW)))
    values = op.Cast(op.Min(values, 255.0), to=UINT8)
    shape = op.Concat(op.Constant(value_ints=[0, -1]), op.Slice(op.Shape(pixels), [2], [3], [0]), axis=0)
    return op.Slice(op.Reshape(values, shape), [0], op.Unsqueeze(after, [0]), [1])


def _torch_unit(weights: Any) -> Any:
    """The power of two with which torch multiplies its weights: the largest for which they fit into 16 bits."""
    powers = op.Cast(op.Constant(value_floats=[2.0**power for power in range(1, PIL_BITS + 1)]), to=DOUBLE)
    fits = op.Less(op.Floor(op.Add(op.Mul(op.ReduceMax(weights, keepdims=0), powers), double(0.5))), double(1 << 15))
    return op.Pow(double(2.0), op.ReduceSum(op.Cast(fits, to=DOUBLE), keepdims=0))


def _bilinear(image: Any, size: Any, scale: Any) -> Any:
    """torch's bilinear interpolation in float32: (H, W, 3) uint8 to (3, *size) float32."""
    values = op.Cast(op.Transpose(image, perm=[2, 0, 1]), to=FLOAT)
    for axis in (2, 1):
        number = op.Cast(op.Range(0, op.Gather(size, axis - 1), 1), to=FLOAT)
        at = op.Max(op.Sub(op.Mul(op.Add(number, 0.5), op.Gather(scale, axis - 1)), 0.5), 0.0)
        near, far, share = _between(values, at, axis)
        values = op.Add(op.Mul(near, op.Sub(1.0, share)), op.Mul(far, share))
    return values


def _opencv(image: Any, size: Any) -> Any:
    """`ops.resize._opencv`: (H, W, 3) uint8 to (3, *size) uint8, in whole numbers."""
    values = op.Cast(op.Transpose(image, perm=[2, 0, 1]), to=INT32)
    left, right = _opencv_parts(values, size, 2)
    upper, lower = (
        op.Div(part, _whole(1 << 16)) for part in _opencv_parts(op.Div(op.Add(left, right), _whole(16)), size, 1)
    )
    return op.Cast(op.Div(op.Add(op.Add(upper, lower), _whole(2)), _whole(4)), to=UINT8)


def _opencv_parts(values: Any, size: Any, axis: int) -> tuple[Any, Any]:
    """The two neighbours of each output pixel along an axis, times their weights * 2048."""
    before, after = op.Gather(op.Shape(values), axis), op.Gather(size, axis - 1)
    number = op.Cast(op.Range(0, after, 1), to=DOUBLE)
    scale = op.Div(double(1.0), op.Div(op.Cast(after, to=DOUBLE), op.Cast(before, to=DOUBLE)))
    at = op.Cast(op.Sub(op.Mul(op.Add(number, double(0.5)), scale), double(0.5)), to=FLOAT)
    near, far, share = _between(values, at, axis)
    weights = (op.Cast(op.Round(op.Mul(part, 2048.0)), to=INT32) for part in (op.Sub(1.0, share), share))
    first, second = (op.Mul(part, weight) for part, weight in zip((near, far), weights, strict=True))
    return first, second


def _between(values: Any, at: Any, axis: int) -> tuple[Any, Any, Any]:
    """The values (3, H, W) on both sides of positions along an axis, and the share of the second one, which varies
    along that axis only."""
    first = op.Floor(at)
    last = op.Sub(op.Gather(op.Shape(values), axis), 1)
    places = (op.Max(op.Min(op.Cast(part, to=INT64), last), 0) for part in (first, op.Add(first, 1.0)))
    near, far = (op.Gather(values, place, axis=axis) for place in places)
    return near, far, op.Unsqueeze(op.Sub(at, first), [1] if axis == 1 else [0])


def _whole(value: int) -> Any:
    return op.Cast(op.Constant(value_int=value), to=INT32)
