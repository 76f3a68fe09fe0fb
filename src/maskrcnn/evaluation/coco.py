"""COCO average precision and recall of detection results against annotations, for masks, boxes and keypoints.

Matching and accumulation, crowd regions included, are hotcoco's.

Legend of its arrays: T IoU thresholds 0.50:0.95, R recall points, K classes, A areas (all, small, medium and large:
below 32^2, below 96^2, and from there on, in pixels of the image; keypoints have no small ones), M limits of
detections an image.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hotcoco import COCO, COCOeval

from maskrcnn.errors import DataError
from maskrcnn.evaluation.inputs import Entry, GroundTruth, read_ground_truth, read_results

Figures = dict[str, float | None]
_Kind = Literal["segm", "bbox", "keypoints"]

_STANDARD = 100  # detections an image, the limit of the COCO benchmark
_STANDARD_KEYPOINTS = 20  # and that of its keypoint benchmark
_SINGULAR = {"masks": "mask", "boxes": "box", "keypoints": "keypoint"}


@dataclass(frozen=True)
class Report:
    """The figures of one evaluation, fractions of 1. None: there was nothing to find.

    Attributes:
        masks: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; None when there were no masks to
            compare. The best `max_detections` of an image count, for AR1, AR10 and AR100 at most the best 1, 10 and
            100 of them; with a limit N above 100 there is ARN too.
        boxes: the same for boxes; None when results are keypoints alone.
        per_class: name of the class -> its AP for "masks" and "boxes", and "keypoints" where they are compared.
        images, objects, detections: how many were compared; crowd regions are no objects.
        max_detections: the limit.
        skipped: annotations and images that could not be used, each with the reason.
        groups: the same for each group of images, when groups were asked for.
        keypoints: AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl by object keypoint similarity, of at most 20
            detections an image; None when there were no keypoints to compare.
        oks_sigmas: the spreads they were judged by, of each class with keypoints (`evaluation/oks.py`).
    """

    masks: Figures | None
    boxes: Figures | None
    per_class: dict[str, Figures]
    images: int
    objects: int
    detections: int
    max_detections: int
    skipped: tuple[str, ...] = ()
    groups: dict[str, Report] = field(default_factory=dict)
    keypoints: Figures | None = None
    oks_sigmas: dict[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Figures]:
        """What was compared: "masks", "boxes" and "keypoints", those that there are, in this order."""
        kinds = {"masks": self.masks, "boxes": self.boxes, "keypoints": self.keypoints}
        return {kind: figures for kind, figures in kinds.items() if figures is not None}

    @property
    def score(self) -> float:
        """The one figure to compare models by: AP of masks, without them of keypoints, without either of boxes; -1
        when it is undefined."""
        ap = next((kind["AP"] for kind in (self.masks, self.keypoints, self.boxes) if kind is not None), None)
        return -1.0 if ap is None else ap

    def line(self) -> str:
        """One line to read and copy: `mask AP 0.531  AP50 0.834  AP75 0.571   box AP ...`."""
        return "   ".join(
            f"{_SINGULAR[kind]} " + "  ".join(f"{name} {digits(figures[name])}" for name in ("AP", "AP50", "AP75"))
            for kind, figures in self.figures.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; undefined figures are None."""
        return {
            "masks": self.masks,
            "boxes": self.boxes,
            "keypoints": self.keypoints,
            "per_class": self.per_class,
            "images": self.images,
            "objects": self.objects,
            "detections": self.detections,
            "max_detections": self.max_detections,
            "oks_sigmas": {name: list(sigmas) for name, sigmas in self.oks_sigmas.items()},
            "skipped": list(self.skipped),
            "groups": {name: report.to_dict() for name, report in self.groups.items()},
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)


def digits(figure: float | None) -> str:
    """A figure to the three digits that COCO prints; a dash when it is undefined."""
    return "-" if figure is None else f"{figure:.3f}"


def evaluate_results(
    ground_truth: Path | str | Mapping[str, Any] | GroundTruth,
    results: Path | str | Sequence[Mapping[str, Any]],
    *,
    max_detections: int = _STANDARD,
    image_ids: Collection[Any] | None = None,
    group_by: str | None = None,
) -> Report:
    """Compares COCO results with COCO annotations.

    Masks are compared when every result carries a `segmentation` and the annotations do; boxes too, those of the
    masks where there is no `bbox`, unless a result has only keypoints. Keypoints are compared when categories of the
    ground truth name some and every result of these categories carries them; objects of which no keypoint is labelled
    do not count. The area of a found mask is its own, not its box's, and that of found keypoints is what they span.
    Images without results count. Annotations that cannot be used are left out and named in `Report.skipped`.

    Args:
        ground_truth: a COCO JSON file, its content, or what `read_ground_truth` made of it.
        results: a COCO results file, or its content: a list of objects with image_id, category_id, score, and bbox
            (x, y, width, height in pixels), segmentation (run lengths) or keypoints (x, y, score of each), or more
            than one of them.
        max_detections: the best so many of an image count, for AP and for AR.
        image_ids: only these images of the ground truth; all by default.
        group_by: a field of the ground truth's images, for example `modality`: also the figures of each of its values.

    Raises:
        DataError: a file cannot be read or is not COCO, a result cannot be used, or an image lacks the field
            `group_by`; names the file and the entry.
    """
    if max_detections < 1:
        raise DataError(f"max_detections: expected 1 or more detections an image, found {max_detections}")
    truth = ground_truth if isinstance(ground_truth, GroundTruth) else read_ground_truth(ground_truth)
    found = read_results(results, truth)
    if image_ids is not None:
        truth = truth.only(image_ids)
    report = _compare(truth, found, max_detections)
    if group_by is None:
        return report
    groups = {name: _compare(truth.only(ids), found, max_detections) for name, ids in truth.groups(group_by).items()}
    return replace(report, groups=groups)


def _compare(truth: GroundTruth, found: Sequence[Entry], max_detections: int) -> Report:
    """The report on the images of `truth`; results on others do not count."""
    images = set(truth.images.values())
    found = [entry for entry in found if entry.image in images]
    compared: dict[str, tuple[Figures, list[float | None]]] = {}
    skipped = list(truth.skipped)
    if all(entry.box is not None for entry in found):
        compared["boxes"] = _figures(truth, truth.entries, found, "bbox", max_detections)
    masked = [entry for entry in truth.entries if entry.mask is not None]
    if (masked or not truth.entries) and all(entry.mask is not None for entry in found):
        compared["masks"] = _figures(truth, masked, found, "segm", max_detections)
        skipped += [f"{e.where}: no segmentation, counts for boxes only" for e in truth.entries if e.mask is None]
    pointed = [label for label, names in enumerate(truth.keypoints) if names]
    if pointed and all(entry.keypoints is not None for entry in found if truth.keypoints[entry.label]):
        compared["keypoints"] = _keypoint_figures(truth, pointed, found, max_detections)
    figures = {kind: of_all for kind, (of_all, _) in compared.items()}
    by_class = {kind: of_each for kind, (_, of_each) in compared.items()}
    return Report(
        masks=figures.get("masks"),
        boxes=figures.get("boxes"),
        keypoints=figures.get("keypoints"),
        per_class={
            name: {"masks": None, "boxes": None, **{kind: of_each[label] for kind, of_each in by_class.items()}}
            for label, name in enumerate(truth.names)
        },
        images=len(truth.images),
        objects=sum(not entry.crowd for entry in truth.entries),
        detections=len(found),
        max_detections=max_detections,
        skipped=tuple(skipped),
        oks_sigmas={truth.names[k]: truth.sigmas[k] for k in pointed if "keypoints" in compared},
    )


def _figures(
    truth: GroundTruth,
    annotations: Sequence[Entry],
    found: Sequence[Entry],
    kind: Literal["segm", "bbox"],
    max_detections: int,
) -> tuple[Figures, list[float | None]]:
    """The figures over all classes, and the AP of each class."""
    limits = sorted({min(limit, max_detections) for limit in (1, 10, _STANDARD, max_detections)})
    evaluator = _evaluator(truth, annotations, found, kind)
    evaluator.params.max_dets = limits
    precision, recall = _sums(evaluator)
    areas = {"s": 1, "m": 2, "l": 3}
    figures = {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
        **{f"AP{name}": _mean(precision[:, :, :, area, -1]) for name, area in areas.items()},
        **{
            f"AR{limit}": _mean(recall[:, :, 0, limits.index(min(limit, max_detections))])
            for limit in sorted({1, 10, _STANDARD, max(_STANDARD, max_detections)})
        },
        **{f"AR{name}": _mean(recall[:, :, area, -1]) for name, area in areas.items()},
    }
    return figures, [_mean(precision[:, :, k, 0, -1]) for k in range(len(truth.names))]


def _keypoint_figures(
    truth: GroundTruth, labels: Sequence[int], found: Sequence[Entry], max_detections: int
) -> tuple[Figures, list[float | None]]:
    """The figures over the classes `labels`, those with keypoints, and the AP of each class."""
    precisions, recalls = [], []
    for label in labels:  # one by one: each may have its own number of keypoints and spreads
        annotations, results = ([e for e in entries if e.label == label] for entries in (truth.entries, found))
        evaluator = _evaluator(truth, annotations, results, "keypoints")
        evaluator.params.max_dets = [min(_STANDARD_KEYPOINTS, max_detections)]
        evaluator.params.kpt_oks_sigmas = list(truth.sigmas[label])
        evaluator.params.cat_ids = [label]
        precision, recall = _sums(evaluator)
        precisions.append(precision[:, :, :, :, 0])
        recalls.append(recall[:, :, :, 0])
    precision, recall = np.concatenate(precisions, axis=2), np.concatenate(recalls, axis=1)  # (T, R, K, A), (T, K, A)
    figures: Figures = {}
    for name, values in (("AP", precision), ("AR", recall)):
        figures[name] = _mean(values[..., 0])
        figures[f"{name}50"], figures[f"{name}75"] = _mean(values[0, ..., 0]), _mean(values[5, ..., 0])
        figures[f"{name}m"], figures[f"{name}l"] = _mean(values[..., 1]), _mean(values[..., 2])
    by_label = dict(zip(labels, np.moveaxis(precision[..., 0], 2, 0), strict=True))
    return figures, [_mean(by_label[k]) if k in by_label else None for k in range(len(truth.names))]


def _evaluator(truth: GroundTruth, annotations: Sequence[Entry], found: Sequence[Entry], kind: _Kind) -> COCOeval:
    dataset = COCO(
        {
            # Positions serve as ids: hotcoco takes no text and no negative numbers.
            "images": [
                {"id": i, "height": truth.sizes[i][0], "width": truth.sizes[i][1]} for i in truth.images.values()
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(truth.names)],
            "annotations": [
                {**_to_coco(entry, kind), "bbox": entry.box, "id": i, "area": entry.area, "iscrowd": int(entry.crowd)}
                for i, entry in enumerate(annotations, start=1)
            ],
        }
    )
    return COCOeval(dataset, dataset.load_res([{**_to_coco(e, kind), "score": e.score} for e in found]), kind)


def _sums(evaluator: COCOeval) -> tuple[np.ndarray, np.ndarray]:
    """Precision (T, R, K, A, M) and recall (T, K, A, M)."""
    evaluator.evaluate()
    evaluator.accumulate()
    sums = evaluator.eval
    assert sums is not None
    return sums["precision"], sums["recall"]


def _to_coco(entry: Entry, kind: _Kind) -> dict[str, Any]:
    """Only what is compared: with a box beside the mask or the keypoints, the area of a result would be the box's."""
    ids = {"image_id": entry.image, "category_id": entry.label}
    if kind == "bbox":
        assert entry.box is not None
        return {**ids, "bbox": list(entry.box)}
    if kind == "segm":
        assert entry.mask is not None
        return {**ids, "segmentation": entry.mask.to_coco()}
    assert entry.keypoints is not None
    return {**ids, "keypoints": entry.keypoints.reshape(-1).tolist()}


def _mean(values: np.ndarray) -> float | None:
    """Of the entries that are defined: -1 stands for nothing to find."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
