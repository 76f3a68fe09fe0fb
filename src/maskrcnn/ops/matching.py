"""Which object a candidate box is matched with, and which candidates enter the loss. Batched, with static shapes.

Legend: B images, G ground-truth slots, N candidates an image, S sampled an image.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from maskrcnn.ops.boxes import area, intersection, pairwise_iou
from maskrcnn.ops.device import static_shapes

# A candidate is no negative if more than this share of it lies in a crowd region (Detectron's CROWD_FILTER_THRESH).
CROWD_COVER = 0.7


class Sampled(NamedTuple):
    """The candidates sampled for the loss: their numbers `chosen` (B, S) int64, `positive` and `valid` (B, S) bool."""

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
    """Matches candidates with ground truth by their overlap (Ren et al. 2015, section 3.1.2).

    Args:
        candidates: (B, N, 4) or (1, N, 4) boxes.
        boxes: (B, G, 4) ground truth; valid: (B, G) bool objects; crowd: (B, G) bool regions to ignore.
        positive_iou: a candidate is positive from this overlap on.
        negative_iou: it is negative below this overlap. Between the two it is ignored.
        low_quality_iou: a candidate that overlaps an object as much as any other does, and by at least this, is
            positive too; None: it is not.
        low_quality_target: the object that such a candidate is matched with, the one that it overlaps most or (`own`)
            the one that made it positive, and the last one if there are several (MMDetection's `MaxIoUAssigner`).
        left_out: (B, N) bool, candidates that are ignored whatever they overlap.

    Returns:
        (B, N) int64 of 1 positive, 0 negative, -1 ignored; and (B, N) int64, the object that it is matched with.
    """
    iou = pairwise_iou(boxes, candidates)  # (B, G, N)
    iou.masked_fill_(~valid[..., None], -1.0)
    if left_out is not None:
        iou.masked_fill_(left_out[:, None], -1.0)
    overlap, matched = iou.max(dim=1)
    positive = overlap >= positive_iou
    if low_quality_iou is not None:
        best = iou.amax(dim=2, keepdim=True)
        # Without this lower bound, an object that no candidate overlaps would make all of them positive.
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
    """Samples `count` candidates an image without replacement, at most `positive_fraction` of them positive.

    Every candidate gets a uniform random key, and those with the largest keys are a uniform sample: one top-k serves
    the whole batch. Negatives take the place of missing positives, and slots that are left over are not valid.

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
