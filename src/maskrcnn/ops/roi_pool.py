"""RoIPool and RoIWarp, which round RoIs to whole cells: the alternatives to RoIAlign in the paper's ablation.

Both pool from all levels of a pyramid in one call, with the lookup and the legend of `ops.roi_align`. The slow twins
are in `ops.reference.rois`.
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
    """RoIPool: the maximum of the cells of each bin, where RoIs and bins are rounded to whole cells (Girshick 2015).

    The edges of a RoI are divided by the stride and rounded, halves away from zero. They name the first and the last
    cell of the RoI. Bins are enlarged to whole cells and may overlap. A bin outside the map is zero. These rules are
    those of `torchvision.ops.roi_pool`.

    Args:
        features: one (B, C, h, w) map per level, channels-last for speed.
        boxes: (R, 4) float32, network-input pixels; not differentiated. A box that is not finite gives zeros.
        image_index: (R,) int64, the image of the batch that each box belongs to.
        level: (R,) int64, index into `features`.
        strides: network-input pixels per cell of each level.
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

    The paper compares RoIAlign with this form. The sampling is the same, and only the rounding loses the alignment. The
    rounded RoI covers its first to last cell completely; cell centres are at i + 0.5.

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
    """Edges (R, 4) in cells -> the first cell of each RoI (R, 2) x, y, and its number of cells (R, 2), at least one."""
    whole = edges.trunc()
    whole = whole + ((edges - whole) * 2).trunc()  # torch.round would round halves to even
    return whole[:, :2], (whole[:, 2:] - whole[:, :2] + 1).clamp(min=1)


def _bin_cells(first: Tensor, length: Tensor, cells: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """The cells of each bin on one axis, (R, O, T) int64, and how many of them are in use, (R, O) int64.

    The products are float32. For some lengths (7 bins of 31 cells) their rounding adds a cell to a bin, as it does in
    torchvision and in every network trained with it.
    """
    step = torch.arange(bins + 1, device=first.device, dtype=first.dtype) * (length / bins)[:, None]
    last = cells.to(first.dtype)[:, None]
    low = (first[:, None] + step[:, :-1].floor()).clamp(min=0).minimum(last).to(torch.int64)
    high = (first[:, None] + step[:, 1:].ceil()).clamp(min=0).minimum(last).to(torch.int64)
    count = (high - low).clamp(min=0)
    return low[..., None] + torch.arange(int(count.max()), device=first.device), count
