"""Non-maximum suppression of several lists at once. Legend: L lists, N boxes a list."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from maskrcnn.ops.device import has_kernels


def nms(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None = None) -> Tensor:
    """Marks the boxes that survive greedy non-maximum suppression within each list (and within each class of it).

    On a CUDA device with Triton one kernel serves all lists, and the host does not wait for it. Elsewhere torchvision's
    kernel runs once a list.

    Args:
        boxes: (L, N, 4) float32, highest-scoring first.
        valid: (L, N) bool; other boxes are dropped, and drop no others.
        iou_threshold: a box is dropped if it overlaps a higher-scoring survivor by more than this.
        labels: (L, N) int64; a box drops only boxes of its own label. None: one class.

    Returns:
        (L, N) bool.
    """
    keep: Tensor = _nms(boxes, valid, iou_threshold, labels)
    return keep


@torch.library.custom_op(
    "maskrcnn::nms",
    mutates_args=(),
    schema="(Tensor boxes, Tensor valid, float iou_threshold, Tensor? labels) -> Tensor",
)
def _nms(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None) -> Tensor:
    """One operator for a compiler, which so does not see that the number of survivors varies."""
    if has_kernels(boxes):
        from maskrcnn.ops.nms_triton import nms_of_lists

        return nms_of_lists(boxes, valid, iou_threshold, labels)
    if labels is not None:
        # Boxes of different classes are moved so far apart that they never overlap; float64 keeps the overlaps exact.
        boxes = boxes.double()
        boxes = boxes + (labels * (boxes.amax() - boxes.amin() + 1))[..., None]
    keep = torch.zeros_like(valid)
    # One call a list, because one call for all lists would compare every pair of boxes across lists.
    for row_keep, row_boxes, row_valid in zip(keep, boxes, valid, strict=True):
        index = row_valid.nonzero()[:, 0]
        rank = torch.arange(len(index), 0, -1, device=boxes.device, dtype=boxes.dtype)
        row_keep[index[torchvision.ops.nms(row_boxes[index], rank, iou_threshold)]] = True
    return keep


@_nms.register_fake
def _(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None) -> Tensor:
    return torch.empty_like(valid)
