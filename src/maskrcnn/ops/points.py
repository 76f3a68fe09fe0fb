"""Bilinear samples of maps at arbitrary points. Legend: B images, R RoIs, P points per RoI, C channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sample_map(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear samples of one map per RoI, which is zero beyond its border.

    Args:
        maps: (R, C, h, w).
        points: (R, P, 2) x, y as fractions of the map, which spans 0..1.

    Returns:
        (R, C, P).
    """
    return F.grid_sample(maps, 2 * points[:, :, None] - 1, mode="bilinear", align_corners=False)[..., 0]


def sample_feature(feature: Tensor, points: Tensor, image_index: Tensor, stride: int) -> Tensor:
    """Bilinear samples of the feature map of each RoI's image, which is zero beyond its border.

    Args:
        feature: (B, C, h, w), channels-last for speed.
        points: (R, P, 2) float32 x, y in network-input pixels.
        image_index: (R,) int64, the image of the batch that each RoI belongs to.
        stride: network-input pixels per cell.

    Returns:
        (R, C, P) in the dtype of `feature`.
    """
    channels, height, width = feature.shape[1:]
    table = feature.permute(0, 2, 3, 1).reshape(-1, channels)
    if len(points) == 0:
        return table[:0].reshape(0, channels, points.shape[1])
    at = points / stride - 0.5  # a cell's value is at its centre
    first = at.floor()
    fraction = at - first
    positions, weights = [], []
    for dy in (0, 1):
        for dx in (0, 1):
            x, y = first[..., 0] + dx, first[..., 1] + dy
            weight = (fraction[..., 0] if dx else 1 - fraction[..., 0]) * (
                fraction[..., 1] if dy else 1 - fraction[..., 1]
            )
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            x, y = x.where(inside, 0.0).to(torch.int64), y.where(inside, 0.0).to(torch.int64)
            positions.append((image_index[:, None] * height + y) * width + x)
            weights.append(weight.where(inside, 0.0))
    index, per_cell = torch.stack(positions, -1).view(-1, 4), torch.stack(weights, -1).view(-1, 4)
    sampled = F.embedding_bag(index, table, mode="sum", per_sample_weights=per_cell.to(table.dtype))
    return sampled.view(*points.shape[:2], channels).transpose(1, 2)
