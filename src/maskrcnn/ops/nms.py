"""Non-maximum suppression (NMS) of several lists at once. Legend: L lists, N boxes per list."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from maskrcnn.ops.device import has_kernels


def nms(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None = None) -> Tensor:
    """Marks the boxes that survive greedy NMS within each list and, with `labels`, within each class of it.

    On a CUDA device with Triton one kernel processes all lists, and the host does not wait for it. Elsewhere
    torchvision's kernel runs once per list.

    Args:
        boxes: (L, N, 4) float32, highest-scoring first.
        valid: (L, N) bool, False for boxes that NMS ignores; they do not survive.
        iou_threshold: a box is removed if its IoU with a higher-scoring survivor exceeds this.
        labels: (L, N) int64; a box removes only boxes of its own label. None: all boxes have one label.

    Returns:
        (L, N) bool, True for survivors.
    """
    keep: Tensor = _nms(boxes, valid, iou_threshold, labels)
    return keep


@torch.library.custom_op(
    "maskrcnn::nms",
    mutates_args=(),
    schema="(Tensor boxes, Tensor valid, float iou_threshold, Tensor? labels) -> Tensor",
)
def _nms(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None) -> Tensor:
    """`nms` as one operator, because a compiler cannot trace the varying number of survivors."""
    if has_kernels(boxes):
        from maskrcnn.ops.nms_triton import nms_of_lists

        return nms_of_lists(boxes, valid, iou_threshold, labels)
    if labels is not None:
        # Shift the classes so far apart that they never overlap; float64 keeps the IoU exact.
        boxes = boxes.double()
        boxes = boxes + (labels * (boxes.amax() - boxes.amin() + 1))[..., None]
    keep = torch.zeros_like(valid)
    # One call per list, because one call for all lists would compare every pair of boxes across lists.
    for row_keep, row_boxes, row_valid in zip(keep, boxes, valid, strict=True):
        index = row_valid.nonzero()[:, 0]
        rank = torch.arange(len(index), 0, -1, device=boxes.device, dtype=boxes.dtype)
        row_keep[index[torchvision.ops.nms(row_boxes[index], rank, iou_threshold)]] = True
    return keep


@_nms.register_fake
def _(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None) -> Tensor:
    return torch.empty_like(valid)
