"""Non-maximum suppression of all lists in one Triton kernel. Legend: L lists, N boxes per list."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 64  # the kernel compares blocks of this number of boxes


def nms_of_lists(boxes: Tensor, valid: Tensor, iou_threshold: float, labels: Tensor | None) -> Tensor:
    """`ops.nms.nms` for CUDA tensors. The host does not wait for the device."""
    lists, count = valid.shape
    keep = torch.zeros((lists, count), dtype=torch.uint8, device=valid.device)
    if keep.numel():
        _suppress[(lists,)](
            boxes.float().contiguous(),
            valid.contiguous().view(torch.uint8),
            boxes if labels is None else labels.contiguous(),
            keep,
            iou_threshold,
            count,
            labelled=labels is not None,
            block=_BLOCK,
        )
    return keep.view(torch.bool)


@triton.jit
def _suppress(boxes, valid, labels, keep, threshold, count, labelled: tl.constexpr, block: tl.constexpr):
    """Each program processes one list, block by block, and compares each block with the survivors of earlier blocks.

    Inside a block, a box survives if no higher-scoring survivor overlaps it. The program starts with all boxes of the
    block as survivors and applies this rule to all of them until nothing changes. Each round makes the result of at
    least one more box final, in the order of the scores, so that the loop ends with the survivors.
    """
    start = tl.program_id(0).to(tl.int64) * count
    number = tl.arange(0, block)
    for column in range(0, count, block):
        j = column + number
        real = j < count
        candidate = tl.load(valid + start + j, mask=real, other=0) != 0
        if tl.sum(candidate.to(tl.int32), axis=0) > 0:  # blocks of empty slots are skipped
            for row in range(0, column, block):
                i = row + number
                survived = tl.load(keep + start + i) != 0
                over = _overlap(boxes, labels, start, i, j, i < count, real, threshold, labelled)
                candidate = candidate & (tl.sum((over & survived[:, None]).to(tl.int32), axis=0) == 0)
            over = _overlap(boxes, labels, start, j, j, real, real, threshold, labelled)
            over = over & (number[:, None] < number[None, :])
            alive = candidate
            changed = 1
            while changed > 0:
                again = candidate & (tl.sum((over & alive[:, None]).to(tl.int32), axis=0) == 0)
                changed = tl.sum((again != alive).to(tl.int32), axis=0)
                alive = again
            tl.store(keep + start + j, alive.to(tl.uint8), mask=real)
            tl.debug_barrier()  # no thread reads the block before all have written it


@triton.jit
def _overlap(boxes, labels, start, i, j, i_real, j_real, threshold, labelled: tl.constexpr):
    """(block, block) bool: whether the IoU of boxes i and j exceeds the threshold, in torchvision's arithmetic."""
    a, b = boxes + (start + i) * 4, boxes + (start + j) * 4
    left_i, top_i = tl.load(a, mask=i_real, other=0.0), tl.load(a + 1, mask=i_real, other=0.0)
    right_i, bottom_i = tl.load(a + 2, mask=i_real, other=0.0), tl.load(a + 3, mask=i_real, other=0.0)
    left_j, top_j = tl.load(b, mask=j_real, other=0.0), tl.load(b + 1, mask=j_real, other=0.0)
    right_j, bottom_j = tl.load(b + 2, mask=j_real, other=0.0), tl.load(b + 3, mask=j_real, other=0.0)
    width = tl.minimum(right_i[:, None], right_j[None, :]) - tl.maximum(left_i[:, None], left_j[None, :])
    height = tl.minimum(bottom_i[:, None], bottom_j[None, :]) - tl.maximum(top_i[:, None], top_j[None, :])
    shared = tl.maximum(width, 0.0) * tl.maximum(height, 0.0)
    area_i = (right_i - left_i) * (bottom_i - top_i)
    area_j = (right_j - left_j) * (bottom_j - top_j)
    union = area_i[:, None] + area_j[None, :] - shared
    over = shared / tl.maximum(union, 1e-30) > threshold  # slots beyond the list are empty boxes
    if labelled:
        label_i = tl.load(labels + start + i, mask=i_real, other=-1)
        label_j = tl.load(labels + start + j, mask=j_real, other=-1)
        over = over & (label_i[:, None] == label_j[None, :])
    return over
