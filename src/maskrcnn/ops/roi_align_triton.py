"""RoIAlign's averages over all levels of a pyramid as one Triton kernel, forward and backward.

The samples of a bin form a grid, and the rules at the border apply to each axis separately. So a bin (p, q) is
`sum over y and x of Wy[p, y] Wx[q, x] F[y, x]`. The weight of a cell on an axis is the average of the hat functions of
the bin's samples. One program processes a row of bins of a RoI and a block of channels. It walks over the cells under
these bins: forward it adds cells to bins, backward it adds bins to cells. It therefore accesses each cell once per row
of bins, and not once per corner of every sample. It reads the number of cells from memory, so that the host need not
wait for the device.

`ops.roi_align` chooses between this kernel and its lookup. The slow twin is in `ops.reference.rois`. Only torch for
GPUs on Linux installs Triton, so this file is imported inside functions. TRITON_INTERPRET=1 runs the kernel on a CPU.

Legend: B images, C channels, R RoIs, O output side, N cells of all maps; p, q row and column of a bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LEVELS = 5  # the kernel has arguments for this number of pyramid levels
# Values in a tile of bins and channels: 64 registers in each of the 32 threads of a program.
_TILE = 2048


def serves(features: Sequence[Tensor]) -> bool:
    """Whether the kernel can pool from these feature maps. It cannot in float64, because it sums in float32, nor with
    torch's deterministic algorithms, because its gradients differ in their last bits from run to run."""
    return (
        features[0].dtype != torch.float64
        and len(features) <= LEVELS
        and not torch.are_deterministic_algorithms_enabled()
    )


def pool_averages(
    features: Sequence[Tensor],
    low: Tensor,
    length: Tensor,
    image_index: Tensor,
    level: Tensor,
    *,
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    """Divides rectangles into O x O bins and averages bilinear samples of each; only the features have a gradient.

    Sums are float32, whatever the dtype. The order in which gradients are added varies, and with it their last bits. A
    cell that is not finite affects all bins of its row in a RoI.

    Args:
        features: one (B, C, h, w) map per level, at most five, of one dtype; those not channels-last are copied.
        low, length: (R, 2) float32, finite, top left corners and sides of the rectangles, x and y in cells of the
            RoI's own level; integers are cell centres.
        image_index, level: (R,) int64, indices into the batch and into `features`.
        output_size: O.
        sampling_ratio: samples per bin and axis; 0 takes ceil(side in cells / O) for each RoI and axis, at least one.

    Returns:
        (R, C, O, O) in the dtype of `features`, channels-last in memory.
    """
    maps = [feature.permute(0, 2, 3, 1) for feature in features]
    return _pool(maps, low, length, image_index, level, output_size, sampling_ratio).permute(0, 3, 1, 2)


@torch.library.custom_op(
    "maskrcnn::pool_averages",
    mutates_args=(),
    schema="(Tensor[] maps, Tensor low, Tensor length, Tensor image_index, Tensor level, "
    "int output_size, int sampling_ratio) -> Tensor",
)
def _pool(
    maps: list[Tensor],
    low: Tensor,
    length: Tensor,
    image_index: Tensor,
    level: Tensor,
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    """`pool_averages` with channels last as one operator for `torch.compile`: maps (B, h, w, C) -> (R, O, O, C)."""
    pooled = maps[0].new_empty((len(low), output_size, output_size, maps[0].shape[3]))
    _launch(pooled, [m.contiguous() for m in maps], low, length, image_index, level, sampling_ratio, backward=False)
    return pooled


@_pool.register_fake
def _(
    maps: list[Tensor],
    low: Tensor,
    length: Tensor,
    image_index: Tensor,
    level: Tensor,
    output_size: int,
    sampling_ratio: int,
) -> Tensor:
    return maps[0].new_empty((len(low), output_size, output_size, maps[0].shape[3]))


@torch.library.custom_op(
    "maskrcnn::pool_averages_gradient",
    mutates_args=(),
    schema="(Tensor gradient, Tensor low, Tensor length, Tensor image_index, Tensor level, "
    "SymInt images, SymInt[] heights, SymInt[] widths, int sampling_ratio) -> Tensor",
)
def _gradient(
    gradient: Tensor,
    low: Tensor,
    length: Tensor,
    image_index: Tensor,
    level: Tensor,
    images: int,
    heights: Sequence[int],
    widths: Sequence[int],
    sampling_ratio: int,
) -> Tensor:
    """The gradient of the bins (R, O, O, C) -> that of all cells (N, C) float32, level by level, image by image.

    It is one tensor for all levels, because an operator may not return several views of a tensor.
    """
    channels = gradient.shape[3]
    table = gradient.new_zeros((_cells(images, heights, widths), channels), dtype=torch.float32)
    ends = list(accumulate(images * h * w for h, w in zip(heights, widths, strict=True)))
    parts = [
        table[end - images * h * w : end].view(images, h, w, channels)
        for end, h, w in zip(ends, heights, widths, strict=True)
    ]
    _launch(gradient.contiguous(), parts, low, length, image_index, level, sampling_ratio, backward=True)
    return table


@_gradient.register_fake
def _(
    gradient: Tensor,
    low: Tensor,
    length: Tensor,
    image_index: Tensor,
    level: Tensor,
    images: int,
    heights: Sequence[int],
    widths: Sequence[int],
    sampling_ratio: int,
) -> Tensor:
    return gradient.new_empty((_cells(images, heights, widths), gradient.shape[3]), dtype=torch.float32)


def _cells(images: int, heights: Sequence[int], widths: Sequence[int]) -> int:
    return sum(images * h * w for h, w in zip(heights, widths, strict=True))


def _save_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    maps, low, length, image_index, level, _, ctx.sampling_ratio = inputs
    ctx.save_for_backward(low, length, image_index, level)
    ctx.shapes, ctx.dtype = [m.shape for m in maps], maps[0].dtype


def _backward(ctx: Any, gradient: Tensor) -> tuple[list[Tensor] | None, ...]:
    images, heights, widths = ctx.shapes[0][0], [s[1] for s in ctx.shapes], [s[2] for s in ctx.shapes]
    table = _gradient(gradient, *ctx.saved_tensors, images, heights, widths, ctx.sampling_ratio)
    parts = table.split([images * h * w for h, w in zip(heights, widths, strict=True)])
    of_maps = [part.view(shape).to(ctx.dtype) for part, shape in zip(parts, ctx.shapes, strict=True)]
    return of_maps, None, None, None, None, None, None


_pool.register_autograd(_backward, setup_context=_save_for_backward)


def _launch(
    bins: Tensor,
    maps: Sequence[Tensor],
    low: Tensor,
    length: Tensor,
    image_index: Tensor,
    level: Tensor,
    sampling_ratio: int,
    *,
    backward: bool,
) -> None:
    """Computes bins (R, O, O, C) from maps (B, h, w, C), or with `backward` adds bins to maps. All are contiguous."""
    rois, side, _, channels = bins.shape
    if not rois:
        return
    column_block = triton.next_power_of_2(side)
    channel_block = min(128, max(32, _TILE // column_block), triton.next_power_of_2(channels))
    filled = [*maps, *[maps[0]] * (LEVELS - len(maps))]
    with torch.cuda.device_of(bins):
        _walk[(rois * side, triton.cdiv(channels, channel_block))](
            bins,
            low.contiguous(),
            length.contiguous(),
            image_index,
            level,
            *filled,
            *(m.shape[1] for m in filled),
            *(m.shape[2] for m in filled),
            channels,
            side=side,
            ratio=sampling_ratio,
            backward=backward,
            row_block=4,  # two samples per bin and axis reach at most four cells
            column_block=column_block,
            channel_block=channel_block,
            num_warps=1,  # one warp holds the whole tile, so that sums over bins need no other warp
            # Positions must round as in torch, because a sample counts up to exactly one cell outside the map.
            enable_fp_fusion=False,
        )


# The sizes of maps vary between batches. By default Triton would compile again, depending on which of them 16 divides.
@triton.jit(do_not_specialize=[f"{axis}{k}" for axis in "hw" for k in range(LEVELS)])
def _walk(
    bins,
    low,
    length,
    image_index,
    level,
    map0,
    map1,
    map2,
    map3,
    map4,
    h0,
    h1,
    h2,
    h3,
    h4,
    w0,
    w1,
    w2,
    w3,
    w4,
    channels,
    side: tl.constexpr,
    ratio: tl.constexpr,
    backward: tl.constexpr,
    row_block: tl.constexpr,
    column_block: tl.constexpr,
    channel_block: tl.constexpr,
):
    """Walks over the cells under one row of bins, `row_block` rows of cells by one column at a time.

    A program for a whole RoI would access each cell once. This one accesses cells twice that two rows of bins share. In
    return there are enough programs to fill a GPU, and the tile of bins stays in registers.
    """
    program = tl.program_id(0).to(tl.int64)
    roi, p = program // side, (program % side).to(tl.float32)
    at_level = tl.load(level + roi)
    height = _of_level(at_level, h0, h1, h2, h3, h4)
    width = _of_level(at_level, w0, w1, w2, w3, w4)
    # Offsets exceed 2^31 in large batches, so they are int64.
    cells = _of_level(at_level, map0, map1, map2, map3, map4) + tl.load(image_index + roi) * height * width * channels
    x_low, x_size, x_count = _axis(low + 2 * roi, length + 2 * roi, side, ratio)
    y_low, y_size, y_count = _axis(low + 2 * roi + 1, length + 2 * roi + 1, side, ratio)
    left, right = _ends(0.0, side - 1.0, x_low, x_size, x_count, width)
    top, bottom = _ends(p, p, y_low, y_size, y_count, height)

    q = tl.arange(0, column_block)
    c = tl.program_id(1) * channel_block + tl.arange(0, channel_block)
    own = bins + ((program * side + q) * channels)[:, None] + c[None, :]
    real = (q < side)[:, None] & (c < channels)[None, :]
    if backward:
        tile = tl.load(own, mask=real, other=0.0).to(tl.float32)
    else:
        tile = tl.zeros((column_block, channel_block), tl.float32)
    for first_row in range(top, bottom + 1, row_block):
        y = first_row + tl.arange(0, row_block)
        of_rows = _weights(p, y, y_low, y_size, y_count, height, ratio)
        for x in range(left, right + 1):
            of_columns = _weights(q.to(tl.float32), x, x_low, x_size, x_count, width, ratio)
            place = cells + ((y.to(tl.int64) * width + x) * channels)[:, None] + c[None, :]
            # Cells without a weight are skipped. They are between distant samples or outside the map.
            used = (of_rows * tl.sum(of_columns, axis=0) > 0)[:, None] & (c < channels)[None, :]
            if backward:
                column = tl.sum(of_columns[:, None] * tile, axis=0)
                tl.atomic_add(place, of_rows[:, None] * column[None, :], mask=used, sem="relaxed")
            else:
                column = tl.sum(of_rows[:, None] * tl.load(place, mask=used, other=0.0).to(tl.float32), axis=0)
                tile = tl.fma(of_columns[:, None], column[None, :], tile)
    if not backward:
        tl.store(own, tile, mask=real)


@triton.jit
def _of_level(level, of0, of1, of2, of3, of4):
    low = tl.where(level == 0, of0, tl.where(level == 1, of1, of2))
    return tl.where(level < 3, low, tl.where(level == 3, of3, of4))


@triton.jit
def _axis(low, length, side: tl.constexpr, ratio: tl.constexpr):
    """The start of the first bin on an axis, the side of a bin in cells, and the samples per bin. The division rounds
    as in torch, so that 14 cells in 7 bins give 2 samples per bin and not 3."""
    size = tl.div_rn(tl.load(length), side * 1.0)
    count = tl.full((), ratio, tl.float32) if ratio > 0 else tl.maximum(tl.ceil(size), 1.0)
    return tl.load(low), size, count


@triton.jit
def _position(bin, sample, low, size, count):
    """The position of a sample on an axis in cells, rounded as in the lookup of `ops.roi_align`."""
    return low + bin * size + tl.div_rn((sample + 0.5) * size, count)


@triton.jit
def _ends(first_bin, last_bin, low, size, count, cells):
    """The first and last cell of the map under these bins. A negative side reverses the order of the bins."""
    start = _position(first_bin, 0.0, low, size, count)
    end = _position(last_bin, count - 1, low, size, count)
    first = tl.floor(_inside(tl.minimum(start, end), cells)).to(tl.int32)
    last = tl.floor(_inside(tl.maximum(start, end), cells)).to(tl.int32) + 1
    return first, tl.minimum(last, cells - 1)


@triton.jit
def _inside(position, cells):
    return tl.minimum(tl.maximum(position, 0.0), cells - 1.0)


@triton.jit
def _weights(bin, cell, low, size, count, cells, ratio: tl.constexpr):
    """The weights of cells in bins on an axis; `bin` and `cell` are numbers or tiles that broadcast."""
    if ratio > 0:
        first = 0.0
    else:
        # A bin of n samples is more than n - 1 cells long, so at most three samples are within one cell of this cell.
        # Five are visited, because the first may be one too early and one more allows for rounding. Visiting all
        # samples would take too long: a RoI of a million cells has a million.
        spacing = tl.maximum(size / count, 0.5)
        first = tl.floor((cell - 1 - low - bin * size) / spacing - 0.5)
        first = tl.minimum(tl.maximum(first, 0.0), count - 1)
    total = _hat(_position(bin, first, low, size, count), cell, cells)
    for k in tl.static_range(1, ratio if ratio > 0 else 5):
        sample = first + k
        total += tl.where(sample < count, _hat(_position(bin, sample, low, size, count), cell, cells), 0.0)
    return total * (1.0 / count)


@triton.jit
def _hat(position, cell, cells):
    """The weight of a cell in a sample. It is zero if the sample is more than a cell outside the map; a nearer sample
    is moved to the border."""
    near = (position >= -1.0) & (position <= cells)
    return tl.where(near, tl.maximum(1 - tl.abs(_inside(position, cells) - cell), 0.0), 0.0)
