"""RoIPool and RoIWarp, which round RoIs to whole cells: the alternatives to RoIAlign in the paper's ablation.

Both read all levels of a pyramid in one call, through the lookup of `ops.roi_align`, whose legend holds here.
The slow twins are in `ops.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.ops.roi_align import Reduce, bags, in_cells, pool_samples, roi_maps, table_rows, to_maps


def roi_pool(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    *,
    strides: Sequence[float],
    output_size: int,
) -> Tensor:
    """RoIPool: the maximum of the cells of each bin, with RoI and bins rounded to whole cells (Girshick 2015).

    The edges of a RoI are divided by the stride and rounded, halves away from zero. Both rounded cells belong to the
    RoI, which is thus at least one cell wide. Bins are enlarged to whole cells and may overlap. A bin without cells,
    outside the map, is zero. These are the rules of `torchvision.ops.roi_pool`.

    Args:
        features: one (B, C, h, w) map a level, channels-last for speed.
        boxes: (R, 4) float32, network-input pixels; not differentiated. A box that is not finite gives zeros.
        image_index: (R,) int64, which image of the batch a box belongs to.
        level: (R,) int64, index into `features`.
        strides: network-input pixels a cell of each level.
        output_size: O.

    Returns:
        (R, C, O, O) in the dtype of `features`, channels-last in memory. The first of equal maxima gets the gradient.
    """
    maps = roi_maps(features, image_index, level)
    if len(boxes) == 0:
        return to_maps(maps.table[:0], 0, output_size)
    with torch.no_grad():
        first, length = _whole_cells(in_cells(boxes, level, strides))
        columns, column_count = _bin_cells(first[:, 0], length[:, 0], maps.width, output_size)
        rows, row_count = _bin_cells(first[:, 1], length[:, 1], maps.height, output_size)
        y, x, offsets = bags(row_count, column_count, rows.shape[2], columns.shape[2])
        index = table_rows(maps, rows).flatten()[y] + columns.flatten()[x]
    return to_maps(F.embedding_bag(index, maps.table, offsets, mode="max"), len(boxes), output_size)


def roi_warp(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    *,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int = 2,
    reduce: Reduce = "average",
) -> Tensor:
    """RoIWarp: the bilinear samples of RoIAlign in the rounded RoI of `roi_pool` (Dai et al. 2016).

    This is the form that the paper compares with: rounding loses the alignment, and the sampling is the same. The
    rounded RoI covers all of its first to last cell, with cell centres at i + 0.5.

    Args:
        features, boxes, image_index, level, strides, output_size: as in `roi_pool`.
        sampling_ratio, reduce: as in `roi_align`.

    Returns:
        (R, C, O, O) in the dtype of `features`, channels-last in memory.

    Raises:
        ConfigError: `sampling_ratio` is negative or `reduce` unknown.
    """
    maps = roi_maps(features, image_index, level)
    first, length = _whole_cells(in_cells(boxes, level, strides))
    return pool_samples(
        maps, first - 0.5, length, output_size=output_size, sampling_ratio=sampling_ratio, reduce=reduce
    )


def _whole_cells(edges: Tensor) -> tuple[Tensor, Tensor]:
    """(R, 4) edges in cells -> (R, 2) first cell of each RoI, x and y, and (R, 2) number of cells, at least one."""
    whole = edges.trunc()
    whole = whole + ((edges - whole) * 2).trunc()  # halves away from zero, which torch.round does not
    return whole[:, :2], (whole[:, 2:] - whole[:, :2] + 1).clamp(min=1)


def _bin_cells(first: Tensor, length: Tensor, cells: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Cells of each bin on one axis: (R, O, T) int64, of which the first `count`, (R, O) int64, are in the map.

    The products stay in float32. For some lengths (7 bins of 31 cells) their rounding adds a cell to a bin, and so it
    does in torchvision and in every network trained with it.
    """
    step = torch.arange(bins + 1, device=first.device, dtype=first.dtype) * (length / bins)[:, None]
    last = cells.to(first.dtype)[:, None]
    low = (first[:, None] + step[:, :-1].floor()).clamp(min=0).minimum(last).to(torch.int64)
    high = (first[:, None] + step[:, 1:].ceil()).clamp(min=0).minimum(last).to(torch.int64)
    count = (high - low).clamp(min=0)
    return low[..., None] + torch.arange(int(count.max()), device=first.device), count
