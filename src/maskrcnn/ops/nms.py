"""Non-maximum suppression of several lists at once. Legend: L lists, N boxes a list."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor


def nms(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None = None) -> Tensor:
    """Marks the boxes that survive greedy suppression within each list (and each class of it).

    Args:
        boxes: (L, N, 4) float32, best first.
        valid: (L, N) bool; other boxes neither survive nor suppress.
        iou_threshold: a box is dropped if it overlaps a better survivor by more than this.
        labels: (L, N) int64; only boxes of one label suppress each other. None: one class.

    Returns:
        (L, N) bool.
    """
    if labels is not None:
        # Classes are moved apart so that they never overlap; float64 keeps the overlaps exact there.
        boxes = boxes.double()
        boxes = boxes + (labels * (boxes.amax() - boxes.amin() + 1))[..., None]
    keep = torch.zeros_like(valid)
    # One kernel call a list: all lists in one call would compare every pair across lists.
    for row_keep, row_boxes, row_valid in zip(keep, boxes, valid, strict=True):
        index = row_valid.nonzero()[:, 0]
        rank = torch.arange(len(index), 0, -1, device=boxes.device, dtype=boxes.dtype)
        row_keep[index[torchvision.ops.nms(row_boxes[index], rank, iou_threshold)]] = True
    return keep
