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

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.evaluation.oks import oks_sigmas
from maskrcnn.evaluation.results import Entry, annotated, read_results
from maskrcnn.structures.dataset import Dataset

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
    dataset: Dataset,
    results: Path | str | Sequence[Mapping[str, Any]],
    *,
    max_detections: int = _STANDARD,
    image_ids: Collection[Any] | None = None,
    group_by: str | None = None,
) -> Report:
    """Compares COCO results with the annotations of a data set of any format.

    Masks are compared when every result carries a `segmentation` and the annotations do; boxes too, those of the
    masks where there is no `bbox`, unless a result has only keypoints. Keypoints are compared when categories of the
    data set name some and every result of these categories carries them; objects of which no keypoint is labelled
    do not count. The area of a found mask is its own, not its box's, and that of found keypoints is what they span.
    Images without results count. What the data set has left out is named in `Report.skipped`.

    Args:
        results: a COCO results file, or its content: a list of objects with image_id, category_id, score, and bbox
            (x, y, width, height in pixels), segmentation (run lengths) or keypoints (x, y, score of each), or more
            than one of them.
        max_detections: the best so many of an image count, for AP and for AR.
        image_ids: only these images of the data set; all by default.
        group_by: a field of the data set's images, for example `modality`: also the figures of each of its values.

    Raises:
        DataError: the results cannot be read, a result cannot be used, or an image lacks the field `group_by`; names
            the file and the entry.
    """
    if max_detections < 1:
        raise DataError(f"max_detections: expected 1 or more detections an image, found {max_detections}")
    sides = _Sides(dataset, range(len(dataset)), annotated(dataset), read_results(results, dataset), max_detections)
    if image_ids is not None:
        sides = sides.only(_places(dataset, image_ids))
    report = _compare(sides)
    if group_by is None:
        return report
    groups = _groups(dataset, sides.images, group_by)
    return replace(report, groups={name: _compare(sides.only(places)) for name, places in groups.items()})


def _places(dataset: Dataset, image_ids: Collection[Any]) -> list[int]:
    """The numbers of the images with these ids."""
    numbers = {image_id: i for i, image_id in enumerate(dataset.records.image_ids)}
    unknown = [image_id for image_id in image_ids if image_id not in numbers]
    if unknown:
        raise DataError(f"{dataset.path}: expected ids of its images, found {unknown[0]!r} in image_ids")
    return [numbers[image_id] for image_id in image_ids]


def _groups(dataset: Dataset, images: Collection[int], key: str) -> dict[str, list[int]]:
    """The numbers of the images by their value of a field, sorted by it."""
    found: dict[str, list[int]] = {}
    for place in images:
        record = dataset.records[place]
        fields = {"height": record.height, "width": record.width, **record.fields}
        if key not in fields:
            raise DataError(
                f"{dataset.path}: image {record.image_id!r} has no field {key!r} to group by, found {', '.join(fields)}"
            )
        found.setdefault(str(fields[key]), []).append(place)
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class _Sides:
    """What is compared: the annotations of some images of a data set, and the results on them.

    Attributes:
        images: their numbers in the data set.
        limit: detections an image.
    """

    dataset: Dataset
    images: Collection[int]
    truth: Sequence[Entry]
    found: Sequence[Entry]
    limit: int

    def only(self, images: Collection[int]) -> _Sides:
        """The same on some of the images."""
        chosen = set(images)
        truth, found = ([entry for entry in side if entry.image in chosen] for side in (self.truth, self.found))
        return replace(self, images=images, truth=truth, found=found)


def _compare(sides: _Sides) -> Report:
    truth, found, categories = sides.truth, sides.found, sides.dataset.categories
    compared: dict[str, tuple[Figures, list[float | None]]] = {}
    skipped = list(sides.dataset.problems)
    if all(entry.box is not None for entry in found):
        compared["boxes"] = _figures(sides, truth, "bbox")
    masked = [entry for entry in truth if entry.mask is not None]
    if (masked or not truth) and all(entry.mask is not None for entry in found):
        compared["masks"] = _figures(sides, masked, "segm")
        skipped += [f"{e.where}: no segmentation, counts for boxes only" for e in truth if e.mask is None]
    pointed = [label for label, category in enumerate(categories) if category.keypoints]
    if pointed and all(entry.keypoints is not None for entry in found if entry.label in pointed):
        compared["keypoints"] = _keypoint_figures(sides, pointed)
    figures = {kind: of_all for kind, (of_all, _) in compared.items()}
    by_class = {kind: of_each for kind, (_, of_each) in compared.items()}
    names = _names(categories)
    return Report(
        masks=figures.get("masks"),
        boxes=figures.get("boxes"),
        keypoints=figures.get("keypoints"),
        per_class={
            name: {"masks": None, "boxes": None, **{kind: of_each[label] for kind, of_each in by_class.items()}}
            for label, name in enumerate(names)
        },
        images=len(sides.images),
        objects=sum(not entry.crowd for entry in truth),
        detections=len(found),
        max_detections=sides.limit,
        skipped=tuple(skipped),
        oks_sigmas={names[label]: oks_sigmas(categories[label]) for label in pointed if "keypoints" in compared},
    )


def _names(categories: Sequence[Category]) -> list[str]:
    """A name for each class; where two have one name, the id tells them apart."""
    names: list[str] = []
    for category in categories:
        names.append(f"{category.name} (id {category.id})" if category.name in names else category.name)
    return names


def _figures(
    sides: _Sides, truth: Sequence[Entry], kind: Literal["segm", "bbox"]
) -> tuple[Figures, list[float | None]]:
    """The figures over all classes, and the AP of each class."""
    limits = sorted({min(limit, sides.limit) for limit in (1, 10, _STANDARD, sides.limit)})
    evaluator = _evaluator(sides, truth, sides.found, kind)
    evaluator.params.max_dets = limits
    precision, recall = _sums(evaluator)
    areas = {"s": 1, "m": 2, "l": 3}
    figures = {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
        **{f"AP{name}": _mean(precision[:, :, :, area, -1]) for name, area in areas.items()},
        **{
            f"AR{limit}": _mean(recall[:, :, 0, limits.index(min(limit, sides.limit))])
            for limit in sorted({1, 10, _STANDARD, max(_STANDARD, sides.limit)})
        },
        **{f"AR{name}": _mean(recall[:, :, area, -1]) for name, area in areas.items()},
    }
    return figures, [_mean(precision[:, :, k, 0, -1]) for k in range(precision.shape[2])]


def _keypoint_figures(sides: _Sides, labels: Sequence[int]) -> tuple[Figures, list[float | None]]:
    """The figures over the classes `labels`, those with keypoints, and the AP of each class."""
    precisions, recalls = [], []
    for label in labels:  # one by one: each may have its own number of keypoints and spreads
        truth, found = ([e for e in side if e.label == label] for side in (sides.truth, sides.found))
        evaluator = _evaluator(sides, truth, found, "keypoints")
        evaluator.params.max_dets = [min(_STANDARD_KEYPOINTS, sides.limit)]
        evaluator.params.kpt_oks_sigmas = list(oks_sigmas(sides.dataset.categories[label]))
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
    return figures, [_mean(by_label[k]) if k in by_label else None for k in range(len(sides.dataset.categories))]


def _evaluator(sides: _Sides, truth: Sequence[Entry], found: Sequence[Entry], kind: _Kind) -> COCOeval:
    sizes = sides.dataset.records.sizes_hw.tolist()
    dataset = COCO(
        {
            # Positions serve as ids: hotcoco takes no text and no negative numbers.
            "images": [{"id": i, "height": sizes[i][0], "width": sizes[i][1]} for i in sides.images],
            "categories": [{"id": i, "name": name} for i, name in enumerate(_names(sides.dataset.categories))],
            "annotations": [
                {**_to_coco(entry, kind), "bbox": entry.box, "id": i, "area": entry.area, "iscrowd": int(entry.crowd)}
                for i, entry in enumerate(truth, start=1)
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
