"""The matching score of instance segmentation, TP / (TP + FP + FN), the usual measure of cells and nuclei.

It counts objects at one score, where AP looks at all scores. Schmidt et al. 2018 (StarDist) and the Data Science Bowl
2018 use it, as a mean over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hotcoco import mask as coco_mask

from maskrcnn.evaluation.figures import Scene
from maskrcnn.evaluation.portions import by_image, portions, runs_of
from maskrcnn.evaluation.results import Entry

IOUS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Matching:
    """Objects and detections that belong together, at each IoU of `IOUS`.

    Attributes:
        min_score: detections with a lower score are ignored.
        scores: TP / (TP + FP + FN) of each image, averaged over the images with an object or a detection. None if no
            image has either.
        found, missed, extra: the true positives, false negatives and false positives of all images.
    """

    min_score: float
    scores: tuple[float | None, ...]
    found: tuple[int, ...]
    missed: tuple[int, ...]
    extra: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, with the IoU as key."""
        columns = {"score": self.scores, "found": self.found, "missed": self.missed, "extra": self.extra}
        by_iou = {name: dict(zip(map(str, IOUS), column, strict=True)) for name, column in columns.items()}
        return {"min_score": self.min_score, **by_iou}


def match(scene: Scene, truth: Sequence[Entry], found: Sequence[Entry], min_score: float) -> Matching:
    """Matches the masks of detections with those of objects.

    Detections choose in the order of their scores. Each takes the free object of its class with which it has the
    highest IoU. A detection without one is ignored if it covers a crowd region of its class, as in the COCO figures.

    Args:
        truth, found: with 0-based images and labels as ids.
        min_score: detections with a lower score are ignored. Of the others, the best of each image count, as many as
            the scene allows.
    """
    objects, detections = by_image(truth), by_image(entry for entry in found if entry["score"] >= min_score)
    of_images = []
    for image in sorted(objects.keys() | detections.keys()):
        best = sorted(detections[image], key=lambda entry: -entry["score"])[: scene.limit]
        labels = {entry["category_id"] for entry in (*objects[image], *best)}
        of_labels: list[np.ndarray] = [
            _counts(there, found_there, scene.sizes[image])
            for label in labels
            for there, found_there in portions(
                [entry for entry in objects[image] if entry["category_id"] == label],
                [entry for entry in best if entry["category_id"] == label],
                scene.sizes[image],
                "segm",
            )
        ]
        of_images.append(np.sum(of_labels, axis=0))
    counts = np.array(of_images, dtype=np.int64).reshape(-1, len(IOUS), 3)
    total = counts.sum(axis=2)
    scores = tuple(
        float((counts[seen, k, 0] / total[seen, k]).mean()) if (seen := total[:, k] > 0).any() else None
        for k in range(len(IOUS))
    )
    tp, fn, fp = counts.sum(axis=0).T.tolist()
    return Matching(min_score, scores, tuple(tp), tuple(fn), tuple(fp))


def _counts(objects: Sequence[Entry], detections: Sequence[Entry], size_hw: Sequence[int]) -> np.ndarray:
    """True positives, false negatives and false positives of one class in one image, (IoUs, 3) int64.

    Args:
        detections: in descending order of score.
    """
    crowd = np.array([entry["iscrowd"] for entry in objects], dtype=bool)
    result = np.zeros((len(IOUS), 3), dtype=np.int64)
    result[:, 1] = (~crowd).sum()
    if not detections:
        return result
    ious = np.zeros((len(detections), len(objects)))
    if objects:
        found, there = ([runs_of(entry, size_hw) for entry in side] for side in (detections, objects))
        ious[:] = coco_mask.iou(found, there, crowd)
    # The last column is no object. Rows are the thresholds.
    ious = np.pad(ious, ((0, 0), (0, 1)), constant_values=-1.0)
    free = np.tile(np.append(~crowd, True), (len(IOUS), 1))
    thresholds, rows = np.array(IOUS), np.arange(len(IOUS))
    for of_detection in ious:
        open_ious = np.where(free, of_detection, -1.0)
        best = open_ious.argmax(axis=1)
        hit = open_ious[rows, best] >= thresholds
        free[rows[hit], best[hit]] = False
        ignored = of_detection[:-1][crowd].max(initial=-2.0) >= thresholds
        result += np.stack([hit, -1 * hit, ~hit & ~ignored], axis=1).astype(np.int64)
    return result
