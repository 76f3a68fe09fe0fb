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
# The constants of SplitMix64 (Steele et al. 2014), as signed numbers: int64 wraps around as uint64 does.
_STEP = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))
_STREAM = 0xD1342543DE82EF95 - (1 << 64)


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


def sample(
    label: Tensor, count: int, positive_fraction: float, seeds: Tensor | None = None, stream: int = 0
) -> Sampled:
    """Samples `count` candidates per image without replacement, at most `positive_fraction` of them positive.

    Every candidate gets a uniform random key, so that a top-k of the keys is a uniform sample. Negatives replace
    missing positives. Slots that remain empty are not valid.

    Args:
        label: (B, N) int64 of 1, 0 and -1, as `match` returns it.
        seeds, stream: as in `uniform`, for the keys.
    """
    count = min(count, label.shape[1])
    most_positive = min(int(count * positive_fraction), count)
    keys = uniform(label, seeds, stream)
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


def uniform(like: Tensor, seeds: Tensor | None, stream: int) -> Tensor:
    """Uniform random numbers in [0, 1). With seeds, an image gets the same ones in whatever batch it lies.

    Args:
        like: (R, N), gives the shape and the device.
        seeds: (R,) int64. A row depends on its own seed and on `stream` alone. None: torch's generator.
        stream: a number of the caller's own, so that two callers with the same seeds draw different numbers.

    Returns:
        (R, N) float32.
    """
    if seeds is None:
        return torch.rand(like.shape, device=like.device)
    number = torch.arange(1, like.shape[1] + 1, device=like.device)
    bits = _mixed(seeds + _wrapped(stream * _STREAM))[:, None] + number * _STEP
    return ((_mixed(bits) >> 40) & 0xFFFFFF).to(torch.float32) * 2.0**-24


def _wrapped(number: int) -> int:
    """The number in the range of int64, as arithmetic on tensors wraps it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def _mixed(bits: Tensor) -> Tensor:
    """The finaliser of SplitMix64 on int64 numbers of any shape: every bit of a result depends on all bits."""
    for shift, factor in _MIX:
        bits = (bits ^ _shifted(bits, shift)) * factor
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shifts to the right and fills with zeros, where `>>` copies the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
