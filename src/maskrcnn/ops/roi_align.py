"""RoIAlign over all levels of a pyramid in one call, as a weighted embedding-bag lookup.

The cells of all feature maps form one table (N, C), and every output bin is a weighted sum of its rows. A bilinear
weight is the product of one weight per axis, so that each axis is computed once per RoI. Forward and backward are one
`embedding_bag` each, on any device and in bfloat16. On a GPU the Triton kernel of `ops.roi_align_triton` computes
averages. The slow twin is in `ops.reference.rois`. RoIPool and RoIWarp are in `ops.roi_pool`.

Legend: B images, C channels, R RoIs, O output side, S samples per bin and axis, N cells of all maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.errors import ConfigError
from maskrcnn.ops.device import has_kernels
from maskrcnn.ops.weighted_rows import weighted_rows

Reduce = Literal["average", "max"]

# Number of sample values that `max` keeps in memory at a time: 256 MB of float32.
_CHUNK_VALUES = 1 << 26
_FAR = 1e6  # cells; up to here float32 resolves half cells, and sums and products are finite


def level_of(
    boxes: Tensor,
    levels: int,
    canonical_level: int,
    canonical_size: float,
    lowest: int = 2,
    *,
    rounding: Literal["floor", "round"] = "floor",
    level_epsilon: float = 1e-6,
    size_epsilon: float = 0.0,
) -> Tensor:
    """Pyramid level of each box, k = floor(k0 + log2(sqrt(wh) / 224)) (FPN, equation 1).

    Args:
        boxes: (R, 4), network-input pixels.
        levels, lowest: number of levels, and the number k of the first one, P2.
        canonical_level, canonical_size: k0 and 224 in the equation.
        rounding: `floor` of equation 1, or `round` to the nearest level (Matterport).
        level_epsilon: added to k so that rounding errors do not lower exact powers of two (torchvision's LevelMapper).
        size_epsilon: added to sqrt(wh) / 224 for the same purpose (Detectron2, MMDetection).

    Returns:
        (R,) int64 in 0..levels-1, k - lowest.
    """
    wh = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    size = torch.sqrt(wh[:, 0] * wh[:, 1])
    level = canonical_level + torch.log2(size / canonical_size + size_epsilon)
    level = torch.floor(level + level_epsilon) if rounding == "floor" else torch.round(level)
    return level.clamp(lowest, lowest + levels - 1).nan_to_num(lowest).to(torch.int64) - lowest


def in_cells(boxes: Tensor, level: Tensor, strides: Sequence[float]) -> Tensor:
    """Edges of boxes in cells of their level, (R, 4) float32, finite. The arguments are those of `roi_align`."""
    with torch.no_grad():
        # Each stride is written on the device, because copying a tensor to it would make the host wait.
        stride = torch.stack([boxes.new_full((), float(s)) for s in strides])[level]
        edges = boxes / stride[:, None]
        # A diverging network predicts boxes that are not finite. They are moved far outside the map, where RoIs are 0.
        return edges.masked_fill(~edges.isfinite().all(1, keepdim=True), -_FAR).clamp(-_FAR, _FAR)


@dataclass(frozen=True)
class RoIMaps:
    """The cells of all feature maps as one table, and the map of each RoI in it.

    Attributes:
        table: (N, C), level by level, image by image, row by row.
        start: (R,) int64, the row of `table` that holds cell (0, 0) of the RoI's map.
        height, width: (R,) int64, size of this map in cells.
    """

    table: Tensor
    start: Tensor
    height: Tensor
    width: Tensor


def roi_maps(features: Sequence[Tensor], image_index: Tensor, level: Tensor) -> RoIMaps:
    """The table of the features, and the map of each RoI in it. The arguments are those of `roi_align`."""
    channels = features[0].shape[1]
    tables = [feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in features]
    table = torch.cat(tables) if len(tables) > 1 else tables[0]  # a single channels-last map is already a table
    with torch.no_grad():
        per_level = [(f.shape[0] * f.shape[2] * f.shape[3], f.shape[2], f.shape[3]) for f in features]
        shape = torch.tensor(per_level, device=level.device)
        starts = torch.cumsum(shape[:, 0], 0) - shape[:, 0]
        height, width = shape[level, 1:].unbind(-1)
        return RoIMaps(table, starts[level] + image_index * height * width, height, width)


def roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    *,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int = 2,
    aligned: bool = True,
    reduce: Reduce = "average",
) -> Tensor:
    """RoIAlign: the average or maximum of regularly spaced bilinear samples in each bin (paper section 3).

    Args:
        features: one (B, C, h, w) map per level, channels-last for speed.
        boxes: (R, 4) float32, network-input pixels; not differentiated. A box that is not finite gives zeros.
        image_index: (R,) int64, the image of the batch that each box belongs to.
        level: (R,) int64, index into `features`.
        strides: network-input pixels per cell of each level.
        output_size: O.
        sampling_ratio: samples per bin and axis; 0 takes ceil(RoI side in cells / O) for each RoI and axis, at least
            one, as torchvision and Detectron2 do. Without the kernel the host then waits for the device.
        aligned: whether cell centres are at i + 0.5. False is the older rule: they are at i, and a RoI is at least one
            cell wide.
        reduce: how the samples of a bin are reduced. With "max" the first of equal maxima gets the gradient, and the
            host waits for the device.

    Returns:
        (R, C, O, O) in the dtype of `features`, channels-last in memory.

    Raises:
        ConfigError: `sampling_ratio` is negative or `reduce` unknown.
    """
    edges = in_cells(boxes, level, strides)
    low, high = edges[:, :2], edges[:, 2:]
    if aligned:
        low, high = low - 0.5, high - 0.5
        length = high - low
    else:
        length = (high - low).clamp(min=1.0)
    if reduce == "average" and sampling_ratio >= 0 and has_kernels(features[0]):
        from maskrcnn.ops import roi_align_triton

        if roi_align_triton.serves(features):
            return roi_align_triton.pool_averages(
                features, low, length, image_index, level, output_size=output_size, sampling_ratio=sampling_ratio
            )
    maps = roi_maps(features, image_index, level)
    return pool_samples(maps, low, length, output_size=output_size, sampling_ratio=sampling_ratio, reduce=reduce)


def pool_samples(
    maps: RoIMaps, low: Tensor, length: Tensor, *, output_size: int, sampling_ratio: int, reduce: Reduce
) -> Tensor:
    """Divides rectangles into O x O bins, samples each bin bilinearly and reduces its samples.

    Args:
        low, length: (R, 2) float32, top left corners and sides of the rectangles, x and y in cells; integers are cell
            centres.
        output_size, sampling_ratio, reduce: as in `roi_align`.

    Returns:
        (R, C, O, O), channels-last in memory.

    Raises:
        ConfigError: as in `roi_align`.
    """
    if sampling_ratio < 0:
        raise ConfigError(f"expected sampling_ratio 0 (adaptive) or more, found {sampling_ratio}")
    if reduce not in get_args(Reduce):
        raise ConfigError(f"expected reduce to be one of {', '.join(get_args(Reduce))}, found {reduce!r}")
    if len(low) == 0:
        return to_maps(maps.table[:0], 0, output_size)
    with torch.no_grad():
        x = _samples(low[:, 0], length[:, 0], maps.width, output_size, sampling_ratio, reduce)
        y = _samples(low[:, 1], length[:, 1], maps.height, output_size, sampling_ratio, reduce)
        if reduce == "average" and not sampling_ratio:
            x, y = _merge_cells(x), _merge_cells(y)
        rows = replace(y, cells=table_rows(maps, y.cells))
    if reduce == "max":
        pooled = torch.cat([_maxima(maps.table, *part) for part in _chunks(rows, x, maps.table.shape[1])])
    elif sampling_ratio:
        pooled = averages(maps.table, rows, x)
    else:
        pooled = _adaptive_averages(maps.table, rows, x)
    return to_maps(pooled, len(low), output_size)


def table_rows(maps: RoIMaps, y: Tensor) -> Tensor:
    """(R, ...) int64 rows of each RoI's map -> the numbers of the table rows that hold their first cells."""
    shape = (-1,) + (1,) * (y.dim() - 1)
    return maps.start.view(shape) + y * maps.width.view(shape)


def to_maps(pooled: Tensor, count: int, output_size: int) -> Tensor:
    """(R*O*O, C), bin after bin -> (R, C, O, O), channels-last in memory.

    Without RoIs `pooled` is an empty slice of the table, so that every parameter gets a gradient of zero.
    """
    return pooled.view(count, output_size, output_size, pooled.shape[1]).permute(0, 3, 1, 2)


def bags(row_count: Tensor, column_count: Tensor, row_slots: int, column_slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """All P pairs of a row and a column in each of the R*O*O bins, bin after bin.

    Args:
        row_count, column_count: (R, O) int64, slots that each bin uses on an axis; may be 0.
        row_slots, column_slots: slots of a bin.

    Returns:
        (P,) int64 positions of the rows in a flattened (R, O, row_slots); (P,) int64 positions of the columns in a
        flattened (R, O, column_slots); and (R*O*O,) int64, the number of the first pair of each bin.
    """
    bins = row_count.shape[1]
    size = (row_count[:, :, None] * column_count[:, None, :]).flatten()
    offsets = size.cumsum(0) - size
    bag = torch.repeat_interleave(size)
    pair = torch.arange(len(bag), device=bag.device) - offsets[bag]
    row = bag // bins
    column = row // bins * bins + bag % bins
    across = column_count.flatten()[column]
    return row * row_slots + pair // across, column * column_slots + pair % across, offsets


@dataclass(frozen=True)
class Axis:
    """The cells on one axis under the bins of each RoI: up to S samples of K cells each.

    Attributes:
        cells: (R, O, S, K) int64, inside the map.
        weights: (R, O, S, K) float32, weight of each cell in its sample; zero in unused samples and outside the map.
        number: (R, O) int64, number of samples in use, at least one.
    """

    cells: Tensor
    weights: Tensor
    number: Tensor


def _samples(low: Tensor, length: Tensor, cells: Tensor, bins: int, ratio: int, reduce: Reduce) -> Axis:
    """The samples on one axis, with the two cells around each.

    Inside the map the weights of each bin sum to 1 for "average", and those of each sample for "max".

    Args:
        low, length: (R,) start and length of the RoI in cells.
        cells: (R,) int64, cells of the axis.
    """
    low, size = low[:, None], (length / bins)[:, None]
    step = torch.arange(bins, device=low.device, dtype=low.dtype)
    if ratio:
        count, slots = torch.full_like(size, ratio), ratio
        first, number = torch.zeros_like(size), count.expand(-1, bins)
    else:
        count = size.ceil().clamp(min=1)
        first, number = _samples_near_map(low + step * size, size / count, cells[:, None], count)
        slots = int(number.max())
    slot = torch.arange(slots, device=low.device, dtype=low.dtype)
    used = slot < number[..., None]
    sample = first[..., None] + torch.minimum(slot, number[..., None] - 1)
    # This order of operations gives the same bits as torchvision (csrc/ops/cpu/roi_align_common.h).
    at = (low + step * size)[..., None] + (sample + 0.5) * size[..., None] / count[..., None]  # (R, O, S)
    last = (cells - 1).to(at.dtype)[:, None, None]
    # As in torchvision, a sample more than one cell outside the map is zero, and a nearer one is moved to the border.
    inside = (at >= -1.0) & (at <= last + 1.0) & used
    at = torch.minimum(at.clamp(min=0.0), last)
    before = at.floor()
    fraction = at - before
    after = torch.minimum(before + 1, last)
    weights = torch.stack([1 - fraction, fraction], dim=-1) * inside[..., None]
    if reduce == "average":
        weights = weights * (1 / count)[..., None, None]
    return Axis(torch.stack([before, after], dim=-1).to(torch.int64), weights, number.to(torch.int64))


def _samples_near_map(low: Tensor, spacing: Tensor, cells: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """The first sample of each bin to compute, and the number of them, both (R, O).

    They are the samples on the map and one or two on either side of it, which are zero. Without this limit a RoI of a
    million cells, which a diverging network may predict, would have a million samples.

    Args:
        low: (R, O) start of the bins.
        spacing, cells, count: (R, 1) distance of samples, cells of the axis, samples per bin.
    """
    spacing = spacing.clamp(min=0.5)  # only bins with a single sample have a smaller spacing
    first = (((-1 - low) / spacing - 0.5).floor() - 1).clamp(min=0).minimum(count - 1)
    stop = (((cells - low) / spacing - 0.5).floor() + 3).minimum(count).maximum(first + 1)
    return first, stop - first


def _merge_cells(axis: Axis) -> Axis:
    """Adds up the weights of each cell, because neighbouring samples, at most a cell apart, share cells."""
    first, last = axis.cells[:, :, 0, 0], axis.cells[:, :, -1, -1]
    number = last - first + 1
    slots = int(number.max())
    weights = axis.weights.new_zeros((*number.shape, slots))
    weights.scatter_add_(2, (axis.cells - first[:, :, None, None]).flatten(2), axis.weights.flatten(2))
    cells = first[..., None] + torch.arange(slots, device=first.device)
    return Axis(cells[..., None], weights[..., None], number)


def averages(table: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """(R*O*O, C) averages of bins that all use T = S * K rows and columns: each is a bag of T * T pairs."""
    taps = rows.cells.shape[2] * rows.cells.shape[3]

    def of_pairs(along_y: Tensor, along_x: Tensor) -> tuple[Tensor, Tensor]:
        """(R, O, 1, T * T) and (R, 1, O, T * T), because torch broadcasts long rows faster than T x T blocks."""
        y, x = along_y.flatten(2).repeat_interleave(taps, dim=2), along_x.flatten(2).repeat(1, 1, taps)
        return y[:, :, None], x[:, None]

    index = torch.add(*of_pairs(rows.cells, columns.cells))
    weights = torch.mul(*of_pairs(rows.weights, columns.weights))
    offsets = torch.arange(0, index.numel(), taps * taps, device=index.device)
    return weighted_rows(table, index.flatten(), weights.flatten(), offsets)


def _pairs(rows: Axis, columns: Axis) -> tuple[Tensor, Tensor, Tensor]:
    """Table rows and weights (P, K*K) of all P used samples, bin after bin, and the offsets (R*O*O,) of the bins."""
    y, x, offsets = bags(rows.number, columns.number, rows.cells.shape[2], columns.cells.shape[2])
    taps = rows.cells.shape[3]
    index = rows.cells.view(-1, taps)[y][:, :, None] + columns.cells.view(-1, taps)[x][:, None, :]
    weights = rows.weights.view(-1, taps)[y][:, :, None] * columns.weights.view(-1, taps)[x][:, None, :]
    return index.flatten(1), weights.flatten(1), offsets


def _adaptive_averages(table: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """(R*O*O, C) averages of bins with different numbers of cells: each bin is one bag."""
    index, weights, offsets = _pairs(rows, columns)
    return weighted_rows(table, index.flatten(), weights.flatten(), offsets)


def _maxima(table: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """(R*O*O, C) maxima: each sample is a bag of four cells, and each bin is a bag of samples."""
    index, weights, offsets = _pairs(rows, columns)
    samples = F.embedding_bag(index, table, mode="sum", per_sample_weights=weights.to(table.dtype))
    return F.embedding_bag(torch.arange(len(samples), device=table.device), samples, offsets, mode="max")


def _chunks(rows: Axis, columns: Axis, channels: int) -> Iterator[tuple[Axis, ...]]:
    """Parts of consecutive RoIs with at most `_CHUNK_VALUES` sample values. Autograd does not keep these values."""
    values = rows.number.sum(1) * columns.number.sum(1) * channels
    chunk = (values.cumsum(0) - values) // _CHUNK_VALUES
    start = 0
    for count in torch.unique_consecutive(chunk, return_counts=True)[1].tolist():
        part = slice(start, start + count)
        yield tuple(Axis(axis.cells[part], axis.weights[part], axis.number[part]) for axis in (rows, columns))
        start += count
