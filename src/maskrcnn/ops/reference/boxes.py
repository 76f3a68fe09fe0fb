"""The slow twins of `ops.boxes`, `ops.nms` and `ops.matching`: one box at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from maskrcnn.ops.boxes import MAX_LOG_SCALE
from maskrcnn.ops.matching import CROWD_COVER

Box = Sequence[float]


def area(box: Box) -> float:
    x1, y1, x2, y2 = box
    return (x2 - x1) * (y2 - y1)


def intersection(a: Box, b: Box) -> float:
    """The area that two boxes share."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0.0) * max(height, 0.0)


def iou(a: Box, b: Box) -> float:
    """Intersection over union, 0 for two empty boxes."""
    shared = intersection(a, b)
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


def generalised_iou(a: Box, b: Box) -> float:
    """IoU minus the fraction of the smallest box around both that neither covers."""
    around = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    union = area(a) + area(b) - intersection(a, b)
    return iou(a, b) - (area(around) - union) / area(around)


def encode(box: Box, anchor: Box, weights: Sequence[float]) -> tuple[float, float, float, float]:
    """The shift of the centre in units of the anchor's sides, and the logarithms of the growth of the sides, each times
    its weight."""
    anchor_w, anchor_h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    t_x = ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / anchor_w
    t_y = ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / anchor_h
    t_w = math.log((box[2] - box[0]) / anchor_w)
    t_h = math.log((box[3] - box[1]) / anchor_h)
    return t_x * weights[0], t_y * weights[1], t_w * weights[2], t_h * weights[3]


def decode(
    delta: Sequence[float],
    anchor: Box,
    weights: Sequence[float],
    growth_bound: Literal["above", "both", "none"] = "above",
) -> tuple[float, float, float, float]:
    """The box from which `encode` computed the offsets. With a bound no side grows by more than a factor of 62.5; with
    `both` no side shrinks by more than that either."""
    bound = math.inf if growth_bound == "none" else MAX_LOG_SCALE
    least = -MAX_LOG_SCALE if growth_bound == "both" else -math.inf
    anchor_w, anchor_h = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x = (anchor[0] + anchor[2]) / 2 + delta[0] / weights[0] * anchor_w
    y = (anchor[1] + anchor[3]) / 2 + delta[1] / weights[1] * anchor_h
    w = anchor_w * math.exp(max(least, min(delta[2] / weights[2], bound)))
    h = anchor_h * math.exp(max(least, min(delta[3] / weights[3], bound)))
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def nms(boxes: Sequence[Box], iou_threshold: float, labels: Sequence[int] | None = None) -> list[int]:
    """Numbers of the boxes that survive: no higher-scoring survivor of the same label has an IoU above the threshold.

    Args:
        boxes: highest-scoring first.
    """
    kept: list[int] = []
    for i, box in enumerate(boxes):
        survivors = [j for j in kept if labels is None or labels[j] == labels[i]]
        if all(iou(boxes[j], box) <= iou_threshold for j in survivors):
            kept.append(i)
    return kept


def match(
    candidates: Sequence[Box],
    boxes: Sequence[Box],
    valid: Sequence[bool],
    crowd: Sequence[bool],
    *,
    positive_iou: float,
    negative_iou: float,
    low_quality_iou: float | None,
    low_quality_target: str = "highest_iou",
) -> tuple[list[int], list[int]]:
    """The labels of one image's candidates, 1 positive, 0 negative or -1 ignored, and the object of each.

    The object is the one with the highest IoU (0 if there is none). With `low_quality_target` own it is the last object
    for which the candidate has the highest IoU, if there is one.

    Args:
        boxes: ground truth; `valid` marks the objects and `crowd` the regions in which negatives are ignored.
    """
    objects = [g for g in range(len(boxes)) if valid[g]]
    overlaps = {g: [iou(boxes[g], candidate) for candidate in candidates] for g in objects}
    labels, matched = [], []
    for n, candidate in enumerate(candidates):
        own = max(objects, key=lambda g: overlaps[g][n], default=None)
        overlap = overlaps[own][n] if own is not None else -1.0
        least = math.inf if low_quality_iou is None else low_quality_iou
        best = [g for g in objects if overlaps[g][n] == max(overlaps[g]) > 0 and overlaps[g][n] >= least]
        if best and low_quality_target == "own":
            own = best[-1]
        if overlap >= positive_iou or best:
            label = 1
        elif overlap >= negative_iou:
            label = -1
        else:
            regions = [boxes[g] for g in range(len(boxes)) if crowd[g]]
            inside = any(intersection(region, candidate) > CROWD_COVER * area(candidate) for region in regions)
            label = -1 if inside else 0
        labels.append(label)
        matched.append(own or 0)
    return labels, matched
