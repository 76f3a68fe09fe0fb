"""Matches candidate boxes with objects and samples candidates for the loss, for a whole batch with static shapes.

Legend: B images, G ground-truth slots, N candidates per image, S sampled candidates per image.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maskrcnn.ops.boxes import area, intersection, pairwise_iou
from maskrcnn.ops.device import static_shapes

# A negative is ignored if more than this fraction of it is in a crowd region (Detectron's CROWD_FILTER_THRESH).
CROWD_COVER = 0.7


class Sampled(NamedTuple):
    """The candidates sampled for the loss.

    Attributes:
        chosen: (B, S) int64, numbers of the candidates.
        positive: (B, S) bool.
        valid: (B, S) bool, False for slots for which there was no candidate.
    """

    chosen: Tensor
    positive: Tensor
    valid: Tensor


def match(
    candidates: Tensor,
    boxes: Tensor,
    valid: Tensor,
    crowd: Tensor,
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
    low_quality_target: Literal["highest_iou", "own"] = "highest_iou",
    left_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Matches candidates with ground-truth boxes by their IoU (Ren et al. 2015, section 3.1.2).

    Args:
        candidates: (B, N, 4) or (1, N, 4) boxes.
        boxes: (B, G, 4) ground truth.
        valid: (B, G) bool, slots that hold an object.
        crowd: (B, G) bool, slots that hold a crowd region, in which negatives are ignored.
        positive_iou: a candidate is positive if its highest IoU is at least this.
        negative_iou: a candidate is negative if its highest IoU is below this; between the two it is ignored.
        low_quality_iou: the candidates with the highest IoU for an object are positive too, if that IoU is at least
            this. None: they are not.
        low_quality_target: the object that such a candidate is matched with: the one with the highest IoU, or the one
            that made it positive (`own`; the last one if there are several, as in MMDetection's `MaxIoUAssigner`).
        left_out: (B, N) bool, candidates that are always ignored.

    Returns:
        (B, N) int64, 1 for positive, 0 for negative and -1 for ignored candidates; and (B, N) int64, the slot of the
        object that each candidate is matched with.
    """
    iou = pairwise_iou(boxes, candidates)  # (B, G, N)
    iou.masked_fill_(~valid[..., None], -1.0)
    if left_out is not None:
        iou.masked_fill_(left_out[:, None], -1.0)
    overlap, matched = iou.max(dim=1)
    positive = overlap >= positive_iou
    if low_quality_iou is not None:
        best = iou.amax(dim=2, keepdim=True)
        # Without best > 0, an object that no candidate overlaps would make all candidates positive.
        is_best = (iou == best) & (best > 0) & (best >= low_quality_iou)
        positive |= is_best.any(dim=1)
        if low_quality_target == "own":
            numbers = torch.arange(1, iou.shape[1] + 1, device=iou.device)[:, None]
            own = (is_best * numbers).amax(dim=1)
            matched = torch.where(own > 0, own - 1, matched)
    label = torch.where(positive, 1, torch.where(overlap < negative_iou, 0, -1))
    if static_shapes(crowd) or bool(crowd.any()):
        cover = intersection(boxes, candidates) / area(candidates).clamp(min=1e-9)[:, None]
        ignored = ((cover > CROWD_COVER) & crowd[..., None]).any(dim=1)
        label = torch.where(ignored & (label == 0), -1, label)
    if left_out is not None:
        label = label.masked_fill(left_out, -1)
    return label, matched


def sample(label: Tensor, count: int, positive_fraction: float) -> Sampled:
    """Samples `count` candidates per image without replacement, at most `positive_fraction` of them positive.

    Every candidate gets a uniform random key, so that a top-k of the keys is a uniform sample. Negatives replace
    missing positives. Slots that remain empty are not valid.

    Args:
        label: (B, N) int64 of 1, 0 and -1, as `match` returns it.
    """
    count = min(count, label.shape[1])
    most_positive = min(int(count * positive_fraction), count)
    keys = torch.rand(label.shape, device=label.device)
    positive_key, positive_index = keys.where(label == 1, -1.0).topk(most_positive, dim=1)
    negative_key, negative_index = keys.where(label == 0, -1.0).topk(count, dim=1)
    positives = (positive_key >= 0).sum(dim=1, keepdim=True)
    slot = torch.arange(count, device=label.device)[None]
    is_positive = slot < positives
    rank = (slot - positives).clamp(min=0)
    index = negative_index.gather(1, rank)
    valid = is_positive | (negative_key.gather(1, rank) >= 0)
    if most_positive:
        positive_slot = slot.clamp(max=most_positive - 1).expand_as(index)
        index = torch.where(is_positive, positive_index.gather(1, positive_slot), index)
    return Sampled(index, is_positive, valid)
