"""Keypoints as cells of a map over the box: the training targets, and the decoding of predicted maps.

Legend: R RoIs, K keypoints, M side of a map.
"""

from __future__ import annotations

import torch
from torch import Tensor

CUBIC_A = -0.75  # the coefficient of torch's and OpenCV's bicubic kernel
CHUNK = 1 << 24  # values of upsampled maps in memory at a time


def keypoint_targets(keypoints: Tensor, boxes: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The cell of an M x M map over the box that contains each keypoint (paper section 5).

    The rule is that of `keypoints_to_heatmap` in torchvision and Detectron2.

    Args:
        keypoints: (R, K, 3) x, y in network-input pixels and visibility, 0 for a keypoint that is not labelled.
        boxes: (R, 4) in network-input pixels.
        side: M.

    Returns:
        (R, K) int64, numbers of the cells, counted row by row; and (R, K) bool, whether the keypoint is labelled and
        inside the box or on its border. Other keypoints have the number 0.
    """
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    xy = keypoints[..., :2]
    cell = ((xy - low) * (side / (high - low))).floor()
    cell = torch.where(xy == high, side - 1, cell)
    valid = (cell >= 0).all(-1) & (cell < side).all(-1) & (keypoints[..., 2] > 0)
    cell = torch.where(valid[..., None], cell, 0).to(torch.int64)
    return cell[..., 1] * side + cell[..., 0], valid


def decode_keypoints(maps: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The highest-scoring point of each map after bicubic upsampling to the pixels of its box.

    This is the rule of Detectron, Detectron2 and torchvision.

    Args:
        maps: (R, K, M, M) float32 logits.
        boxes: (R, 4) in network-input pixels; sides below 1 count as 1.

    Returns:
        Points (R, K, 2) x, y in network-input pixels; their upsampled logits (R, K); and their probabilities (R, K) in
        the softmax over the M x M map before upsampling (Detectron2), which are comparable between boxes of all sizes.
        All are float32.
    """
    count, kinds, side = maps.shape[:3]
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    pixels = sides.ceil().to(torch.int64)
    position = torch.zeros((count, kinds), dtype=torch.int64, device=maps.device)
    best = maps.new_zeros((count, kinds))
    width = int(pixels[:, 0].max()) if count else 1
    height = int(pixels[:, 1].max()) if count else 1
    step = max(1, CHUNK // (kinds * width * height))
    for start in range(0, count, step):
        part = slice(start, start + step)
        rows, columns = _cubic(pixels[part, 1], side, height), _cubic(pixels[part, 0], side, width)
        here = maps[part]
        # Two products upsample all maps of a box: (r, H, M) @ (r, M, K * M), then (r, H * K, M) @ (r, M, W).
        tall = rows @ here.permute(0, 2, 1, 3).flatten(2)
        full = tall.view(len(here), height * kinds, side) @ columns.transpose(1, 2)
        full = full.view(len(here), height, kinds, width).transpose(1, 2)
        y, x = torch.arange(height, device=maps.device), torch.arange(width, device=maps.device)
        outside = (y >= pixels[part, 1:])[:, None, :, None] | (x >= pixels[part, :1])[:, None, None, :]
        best[part], position[part] = full.masked_fill(outside, -torch.inf).flatten(2).max(-1)
    xy = torch.stack([position % width, position // width], dim=-1)
    points = (xy + 0.5) * (sides / pixels)[:, None] + boxes[:, None, :2]
    probability = torch.exp(best - maps.flatten(2).logsumexp(-1))
    return points, best, probability


def _cubic(lengths: Tensor, side: int, longest: int) -> Tensor:
    """The matrices (R, longest, side) that upsample an axis of `side` cells to each of the (R,) lengths.

    They do what torch's `interpolate(mode="bicubic")` does; cells beyond the border repeat it.
    """
    at = (torch.arange(longest, device=lengths.device) + 0.5) * (side / lengths[:, None]) - 0.5
    first = at.floor()
    offset = (at - first)[..., None] - torch.arange(-1, 3, device=at.device)  # to the four cells of the kernel
    distance = offset.abs()
    near = ((CUBIC_A + 2) * distance - (CUBIC_A + 3)) * distance**2 + 1
    far = CUBIC_A * (((distance - 5) * distance + 8) * distance - 4)
    weights = torch.where(distance <= 1, near, far)
    taps = (first[..., None] + torch.arange(-1, 3, device=at.device)).clamp(0, side - 1).to(torch.int64)
    matrix = weights.new_zeros((len(lengths), longest, side))
    return matrix.scatter_add_(2, taps, weights)
