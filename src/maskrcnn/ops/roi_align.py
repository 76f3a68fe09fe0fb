"""RoIAlign over all levels of a pyramid in one call, as a weighted embedding-bag lookup.

With the features of all levels as one table of pixels, (sum of B*h*w, C), every output bin is a
weighted sum of table rows: bilinear weights are products of one weight per axis, so each axis is
solved once per RoI. Forward and backward are then one `embedding_bag` each, on any device and in
bfloat16. `ops.reference.roi_align` is the slow twin.

Legend: B images, C channels, R RoIs, O output side, T taps an axis and bin (two a sample).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def level_of(boxes: Tensor, levels: int, canonical_level: int, canonical_size: float, lowest: int = 2) -> Tensor:
    """Pyramid level of each box, k = floor(k0 + log2(sqrt(wh) / 224)) (FPN, equation 1), counted from 0.

    Args:
        boxes: (R, 4), network-input pixels.
        levels: how many levels there are; the result is clamped to 0..levels-1.
        lowest: the number of the first level, P2.
    """
    wh = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    size = torch.sqrt(wh[:, 0] * wh[:, 1])
    # The small term keeps exact powers of two on their level despite rounding (torchvision's LevelMapper).
    level = torch.floor(canonical_level + torch.log2(size / canonical_size) + 1e-6)
    return level.clamp(lowest, lowest + levels - 1).nan_to_num(lowest).to(torch.int64) - lowest


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
) -> Tensor:
    """RoIAlign with average pooling over regularly spaced bilinear samples (paper section 3).

    Args:
        features: one (B, C, h, w) map a level, channels-last for speed.
        boxes: (R, 4) float32, network-input pixels; not differentiated.
        image_index: (R,) int64, which image of the batch a box belongs to.
        level: (R,) int64, index into `features`.
        strides: network-input pixels a cell of each level.
        output_size: O.
        sampling_ratio: samples a bin and axis.
        aligned: continuous coordinates, with cell centres at i + 0.5; False is the older rule without the
            half pixel, in which a RoI is at least one cell wide.

    Returns:
        (R, C, O, O) in the dtype of `features`, channels-last in memory.
    """
    channels = features[0].shape[1]
    table = torch.cat([feature.permute(0, 2, 3, 1).reshape(-1, channels) for feature in features])
    if len(boxes) == 0:
        # Connected to the features, so that a step without RoIs still has a gradient (of zero) everywhere.
        empty = table[:0].reshape(0, output_size, output_size, channels)
        return empty.permute(0, 3, 1, 2)
    with torch.no_grad():
        per_level = [(f.shape[0] * f.shape[2] * f.shape[3], f.shape[2], f.shape[3]) for f in features]
        shape = torch.tensor(per_level, device=boxes.device)
        starts = torch.cumsum(shape[:, 0], 0) - shape[:, 0]
        height, width = shape[level, 1:].unbind(-1)
        stride = torch.tensor([float(s) for s in strides], device=boxes.device)[level]
        roi = boxes / stride[:, None]
        rows, row_weights = _axis_taps(roi[:, 1], roi[:, 3], height, output_size, sampling_ratio, aligned)
        columns, column_weights = _axis_taps(roi[:, 0], roi[:, 2], width, output_size, sampling_ratio, aligned)
        start = starts[level] + image_index * height * width
        rows = start[:, None, None] + rows * width[:, None, None]
        # (R, O, 1, T, 1) with (R, 1, O, 1, T) -> one bag of T*T taps a bin
        index = rows[:, :, None, :, None] + columns[:, None, :, None, :]
        weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
        taps = index.shape[-1] * index.shape[-2]
    pooled = F.embedding_bag(
        index.reshape(-1, taps), table, mode="sum", per_sample_weights=weights.reshape(-1, taps).to(table.dtype)
    )
    return pooled.view(len(boxes), output_size, output_size, channels).permute(0, 3, 1, 2)


def _axis_taps(low: Tensor, high: Tensor, cells: Tensor, bins: int, ratio: int, aligned: bool) -> tuple[Tensor, Tensor]:
    """The cells that one axis of each RoI reads, and their weights.

    Args:
        low, high: (R,) edges of the RoI in cells; cells: (R,) int64 cells of the axis.

    Returns:
        (R, bins, 2 * ratio) int64 positions in 0..cells-1 and float32 weights, which sum to 1 inside the map.
    """
    if aligned:
        low, high = low - 0.5, high - 0.5
        length = high - low
    else:
        length = (high - low).clamp(min=1.0)
    steps = (torch.arange(bins * ratio, device=low.device, dtype=low.dtype) + 0.5) / ratio
    at = low[:, None] + steps * (length / bins)[:, None]  # (R, bins * ratio)
    last = (cells - 1).to(at.dtype)[:, None]
    # Samples more than one cell outside count as zero; those nearer are moved to the border (torchvision, Detectron2).
    inside = (at >= -1.0) & (at <= last + 1.0)
    # Coordinates that are not numbers, of a network that diverges, must not become positions.
    at = torch.minimum(at.where(inside, 0.0).clamp(min=0.0), last)
    first = at.floor()
    fraction = at - first
    second = torch.minimum(first + 1, last)
    positions = torch.stack([first, second], dim=-1).to(torch.int64)
    weights = torch.stack([1 - fraction, fraction], dim=-1) * (inside / ratio)[..., None]
    shape = (len(low), bins, 2 * ratio)
    return positions.reshape(shape), weights.reshape(shape)
