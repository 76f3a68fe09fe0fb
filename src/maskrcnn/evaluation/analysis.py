"""What detections get right and wrong at an IoU of 0.5. hotcoco matches, and computes errors and calibration.

Errors are those of TIDE (Bolya et al. 2020). Legend: K classes, R = 101 recall points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from maskrcnn.evaluation.figures import Scene, any_crowded, evaluator_of, in_portions, sums_of
from maskrcnn.evaluation.portions import best_of_each
from maskrcnn.evaluation.results import Entry
from maskrcnn.structures.dataset import Dataset

IOUS = (0.5, 0.75)  # of the precision-recall curves
ERRORS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
USUAL_SCORE = 0.5  # the threshold of a class for which none is known
_FOREGROUND = 0.1  # the lowest IoU with an object that TIDE does not take for background
_SHOWN = 12  # mistakes of a kind that are kept for a picture
_SAMPLE = 8  # images of the random sample


@dataclass(frozen=True)
class Threshold:
    """The lowest score of a class that gives the highest F1, and what it gives."""

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Examples:
    """Mistakes and images that are worth a look.

    Attributes:
        wrong: image id, and position in `found`, of the false positives with the highest scores.
        missed: image id, and number of the annotation in its image, of objects that are not found above the threshold
            of their class. Those that are found at no score come first, and of these the largest.
        sample: ids of images drawn at random.
        found: the detections of all these images, with labels as `category_id`.
    """

    wrong: tuple[tuple[int | str, int], ...]
    missed: tuple[tuple[int | str, int], ...]
    sample: tuple[int | str, ...]
    found: Mapping[int | str, Sequence[Entry]]


@dataclass(frozen=True)
class Analysis:
    """What detections get right and wrong.

    Attributes:
        kind: what was compared.
        names: the K names of the classes.
        precision: (2, R, K) at the IoUs of `IOUS` and recalls of 0 to 1; NaN for a class without objects.
        errors: TIDE's name of a kind of error -> how often it occurs, and the AP50 that would be gained without it.
        calibration: mean score, share of right detections, and number of detections of each tenth of scores that has
            any.
        calibration_error: the mean of the difference of the first two, weighted by the third.
        thresholds: for each class; None if no detection of it is right.
        confusion: (K + 1, K + 1) numbers of objects, rows by annotated class and columns by found class. The last row
            are detections without an object, the last column objects without a detection. Detections below the
            threshold of their class are left out.
        examples: what to draw.
    """

    kind: Literal["masks", "boxes"]
    names: tuple[str, ...]
    precision: np.ndarray
    errors: dict[str, tuple[int, float]]
    calibration: tuple[tuple[float, float, int], ...]
    calibration_error: float
    thresholds: tuple[Threshold | None, ...]
    confusion: np.ndarray
    examples: Examples

    def to_dict(self) -> dict[str, Any]:
        """Errors, calibration and thresholds in plain JSON types."""
        return {
            "kind": self.kind,
            "errors": {name: {"count": count, "ap50_lost": lost} for name, (count, lost) in self.errors.items()},
            "calibration_error": self.calibration_error,
            "thresholds": {
                name: threshold and asdict(threshold)
                for name, threshold in zip(self.names, self.thresholds, strict=True)
            },
        }


def analyse(
    dataset: Dataset, scene: Scene, truth: Sequence[Entry], found: Sequence[Entry], kind: Literal["masks", "boxes"]
) -> Analysis:
    """Analyses detections.

    Args:
        truth: annotations of the data set, whose ids count all of them from 1.
        found: with the rank of the image and the label as ids, as in `truth`.
    """
    iou_type: Literal["segm", "bbox"] = "segm" if kind == "masks" else "bbox"
    parts, there, seen = scene, truth, found
    if any_crowded(truth, found):
        best = best_of_each(found, scene.limit)
        parts, there, seen = in_portions(scene, truth, best, iou_type, _FOREGROUND)
        parts = parts._replace(limit=len(seen) + 1)  # all: the limit is that of a whole image
    evaluator = evaluator_of(parts, there, seen, iou_type)
    evaluator.params.iou_thrs = list(IOUS)
    evaluator.params.area_rng, evaluator.params.area_rng_lbl = [[0, 1e10]], ["all"]
    evaluator.params.max_dets = [parts.limit]
    precision = sums_of(evaluator)[0][..., 0, 0]
    matches = evaluator.image_diagnostics(iou_thr=IOUS[0])
    places = np.array([entry["id"] - 1 for entry in seen], dtype=np.int64)  # of what is seen among what was found
    status = np.zeros(len(found), dtype="<U2")
    status[places] = [matches["dt_status"].get(i, "") for i in range(1, len(seen) + 1)]
    match = {own: int(places[i - 1]) for own, i in matches["gt_match"].items()}
    judged = [entry for entry in truth if entry["id"] in matches["gt_status"]]
    scores = np.array([entry["score"] for entry in found], dtype=np.float64)
    labels = np.array([entry["category_id"] for entry in found], dtype=np.int64)
    objects = np.array([entry["category_id"] for entry in judged], dtype=np.int64)
    counts, right = status != "", status == "tp"  # once: there may be 1,000 classes and a million detections
    thresholds = []
    for label in range(len(scene.names)):
        own = (labels == label) & counts
        thresholds.append(best_threshold(scores[own], right[own], int((objects == label).sum())))
    least = np.array([USUAL_SCORE if each is None else each.score for each in thresholds])
    good = counts & (scores >= least[labels])
    clear = [entry for entry, place in zip(seen, places.tolist(), strict=True) if good[place]]
    objects_there = [entry for entry in there if entry["id"] in matches["gt_status"]]
    confusion = evaluator_of(parts, objects_there, clear, iou_type).confusion_matrix(
        iou_thr=IOUS[0], max_det=parts.limit
    )
    wrong = [i for i in np.argsort(-scores, kind="stable").tolist() if status[i] == "fp"][:_SHOWN]
    tide, calibration = evaluator.tide_errors(), evaluator.calibration(n_bins=10, iou_threshold=IOUS[0])
    return Analysis(
        kind=kind,
        names=tuple(scene.names),
        precision=np.where(precision < 0, np.nan, precision),
        errors={name: (tide["counts"][name], tide["delta_ap"][name]) for name in ERRORS},
        calibration=tuple(
            (part["avg_confidence"], part["avg_accuracy"], part["count"])
            for part in calibration["bins"]
            if part["count"]
        ),
        calibration_error=calibration["ece"],
        thresholds=tuple(thresholds),
        confusion=confusion["matrix"].astype(np.int64),
        examples=_examples(dataset, found, wrong, _missed(judged, match, scores, least)),
    )


def best_threshold(scores: np.ndarray, right: np.ndarray, objects: int) -> Threshold | None:
    """The threshold of one class with the highest F1, or None if no detection is right.

    Args:
        scores: (N,) of its detections, in any order.
        right: (N,) bool, whether each has found an object.
        objects: the objects to find.
    """
    if not right.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hits, counts = scores[order], right[order].cumsum(), np.arange(1, len(scores) + 1)
    f1 = 2 * hits / (counts + objects)
    f1[:-1][ranked[1:] == ranked[:-1]] = -1  # detections of one score count together
    best = int(f1.argmax())
    return Threshold(
        float(ranked[best]), float(hits[best] / counts[best]), float(hits[best] / objects), float(f1[best])
    )


def _missed(judged: Sequence[Entry], match: Mapping[int, int], scores: np.ndarray, least: np.ndarray) -> list[Entry]:
    """The worst misses, as in `Examples.missed`.

    Args:
        match: id of an object -> place of its detection in `scores`.
        least: (K,) thresholds of the classes.
    """
    best = {entry["id"]: scores[match[entry["id"]]] if entry["id"] in match else -1.0 for entry in judged}
    lost = [entry for entry in judged if best[entry["id"]] < least[entry["category_id"]]]
    return sorted(lost, key=lambda entry: (best[entry["id"]], -entry["area"]))[:_SHOWN]


def _examples(dataset: Dataset, found: Sequence[Entry], wrong: Sequence[int], missed: Sequence[Entry]) -> Examples:
    """Where to look for the false positives at the places `wrong` in `found`, and for the missed objects."""
    counts, image_ids = dataset.records.counts, list(dataset.records.order_by_id())
    rows = np.array([entry["id"] - 1 for entry in missed], dtype=np.int64)  # among all annotations
    images = np.searchsorted(counts.cumsum(), rows, side="right")
    numbers = rows - (counts.cumsum() - counts)[images]
    lost = [(image_ids[entry["image_id"]], number) for entry, number in zip(missed, numbers.tolist(), strict=True)]
    sample = np.random.default_rng(0).choice(len(dataset), min(_SAMPLE, len(dataset)), replace=False)
    sampled = [dataset.records[index].image_id for index in sorted(sample.tolist())]
    shown = {image_ids[found[i]["image_id"]] for i in wrong} | {image_id for image_id, _ in lost} | {*sampled}
    kept: dict[int | str, list[Entry]] = {image_id: [] for image_id in shown}
    places = {}
    for i, entry in enumerate(found):
        image_id = image_ids[entry["image_id"]]
        if image_id in kept:
            places[i] = (image_id, len(kept[image_id]))
            kept[image_id].append(entry)
    return Examples(tuple(places[i] for i in wrong), tuple(lost), tuple(sampled), kept)
