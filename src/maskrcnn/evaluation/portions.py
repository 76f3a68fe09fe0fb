"""Divides images with very many objects into portions, because a table of all pairs would not fit into memory.

A slide may hold 100,000 objects and as many detections. COCO and the matching score pair only what has an IoU of 0.5 or
more, and kinds of errors what has 0.1, so objects and detections that such pairs connect stay together, and the figures
are those of the whole image.
Legend: O objects, D detections, N = O + D.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from hotcoco import mask as coco_mask

from maskrcnn.evaluation.results import Entry

Kind = Literal["segm", "bbox"]
MOST_PAIRS = 1 << 22  # of an image that stays whole
PORTION = 256  # objects and detections of a portion, about
_CELL = 100  # detections of a part of the image, about, that are compared with the objects there at once
LEAST_IOU = 0.5  # of a pair
_ROUNDING = 1e-9  # of an IoU


def by_image(entries: Iterable[Entry]) -> defaultdict[Any, list[Entry]]:
    """The entries of each image id, which is an integer or a string."""
    grouped: defaultdict[Any, list[Entry]] = defaultdict(list)
    for entry in entries:
        grouped[entry["image_id"]].append(entry)
    return grouped


def is_crowded(objects: Sequence[Entry], detections: Sequence[Entry]) -> bool:
    """Whether the pairs of an image are too many for one table."""
    return len(objects) * len(detections) > MOST_PAIRS


def portions(
    objects: Sequence[Entry],
    detections: Sequence[Entry],
    size_hw: Sequence[int],
    kind: Kind,
    least_iou: float = LEAST_IOU,
) -> list[tuple[Sequence[Entry], Sequence[Entry]]]:
    """The portions of the objects and detections of an image, in their order: one for an image that is not crowded.

    Args:
        least_iou: pairs with this IoU or more stay together.
    """
    if not is_crowded(objects, detections):
        return [(objects, detections)]
    group = _connected(len(objects) + len(detections), *_pairs(objects, detections, size_hw, kind, least_iou))
    _, group, counts = np.unique(group, return_inverse=True, return_counts=True)
    portion = ((np.cumsum(counts) - counts) // PORTION)[group]
    of_objects, of_detections = np.split(portion, [len(objects)])
    return [
        (
            [objects[i] for i in np.flatnonzero(of_objects == number).tolist()],
            [detections[i] for i in np.flatnonzero(of_detections == number).tolist()],
        )
        for number in range(int(portion.max()) + 1)
    ]


def best_of_each(found: Sequence[Entry], limit: int) -> list[Entry]:
    """The detections with the highest scores of each class in each image, at most `limit` of them."""
    taken, best = Counter[tuple[int, int]](), []
    for entry in sorted(found, key=lambda entry: -entry["score"]):
        place = entry["image_id"], entry["category_id"]
        taken[place] += 1
        if taken[place] <= limit:
            best.append(entry)
    return best


def runs_of(entry: Entry, size_hw: Sequence[int]) -> dict[str, Any]:
    """The run lengths of a mask in COCO's notation."""
    segmentation = entry["segmentation"]
    if isinstance(segmentation, list):
        return coco_mask.merge(coco_mask.frPyObjects(segmentation, *size_hw))
    return dict(segmentation)


def _pairs(
    objects: Sequence[Entry], detections: Sequence[Entry], size_hw: Sequence[int], kind: Kind, least_iou: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of one image with an IoU of `least_iou` or more: two arrays of numbers, detections after objects.

    The image is divided into cells, and the detections of a cell are compared with the objects whose boxes they touch.
    """
    there, found = (
        [runs_of(entry, size_hw) if kind == "segm" else entry["bbox"] for entry in side]
        for side in (objects, detections)
    )
    crowd = np.array([entry["iscrowd"] for entry in objects], dtype=bool)
    corners_there, corners_found = _corners(there, kind), _corners(found, kind)
    cell = _cells(corners_found)
    order = np.argsort(cell, kind="stable")
    pairs = []
    for own in np.split(order, np.flatnonzero(np.diff(cell[order])) + 1):
        low, high = corners_found[own, :2].min(axis=0), corners_found[own, 2:].max(axis=0)
        near = np.flatnonzero(((corners_there[:, :2] < high) & (corners_there[:, 2:] > low)).all(axis=1))
        if len(near):
            ious = coco_mask.iou([found[i] for i in own], [there[i] for i in near], crowd[near].tolist())
            rows, columns = np.nonzero(np.asarray(ious) >= least_iou - _ROUNDING)
            pairs.append(np.stack([near[columns], len(objects) + own[rows]]))
    first, second = np.concatenate([np.zeros((2, 0), dtype=np.int64), *pairs], axis=1)
    return first, second


def _corners(shapes: Sequence[Any], kind: Kind) -> np.ndarray:
    """x1 y1 x2 y2 of the boxes, or of the tight boxes of the masks, (n, 4) float64."""
    boxes = np.asarray(coco_mask.toBbox(list(shapes)) if kind == "segm" else shapes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def _cells(corners: np.ndarray) -> np.ndarray:
    """The number of the cell in which the middle of each box lies, (D,) int64."""
    middles = (corners[:, :2] + corners[:, 2:]) / 2
    side = int(np.ceil(np.sqrt(len(corners) / _CELL)))
    low, span = middles.min(axis=0), np.maximum(np.ptp(middles, axis=0), 1e-9)
    column, row = np.minimum((middles - low) / span * side, side - 1).astype(np.int64).T
    return row * side + column


def _connected(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The smallest number to which pairs connect each of the numbers below `count`, directly or through others."""
    smallest = np.arange(count)
    while True:
        joint = np.minimum(smallest[first], smallest[second])
        if (joint == smallest[first]).all() and (joint == smallest[second]).all():
            return smallest
        np.minimum.at(smallest, first, joint)
        np.minimum.at(smallest, second, joint)
