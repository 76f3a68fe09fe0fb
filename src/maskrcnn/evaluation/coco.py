"""COCO average precision and recall of detection results against annotations, for masks and boxes.

Matching and accumulation, crowd regions included, are hotcoco's.

Legend of its arrays: T IoU thresholds 0.50:0.95, R recall points, K classes, A areas (all, small, medium and large:
below 32^2, below 96^2, and from there on, in pixels of the image), M limits of detections an image.
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

_STANDARD = 100  # detections an image, the limit of the COCO benchmark


@dataclass(frozen=True)
class Report:
    """The figures of one evaluation, fractions of 1. None: there was nothing to find.

    Attributes:
        masks: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; None when there were no masks to
            compare. The best `max_detections` of an image count, for AR1, AR10 and AR100 at most the best 1, 10 and
            100 of them; with a limit N above 100 there is ARN too.
        boxes: the same for boxes.
        per_class: name of the class -> its AP for "masks" and "boxes".
        images, objects, detections: how many were compared; crowd regions are no objects.
        max_detections: the limit.
        skipped: annotations and images that could not be used, each with the reason.
        groups: the same for each group of images, when groups were asked for.
    """

    masks: Figures | None
    boxes: Figures
    per_class: dict[str, Figures]
    images: int
    objects: int
    detections: int
    max_detections: int
    skipped: tuple[str, ...] = ()
    groups: dict[str, Report] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The one figure to compare models by: mask AP, or box AP without masks; -1 when it is undefined."""
        ap = (self.boxes if self.masks is None else self.masks)["AP"]
        return -1.0 if ap is None else ap

    def line(self) -> str:
        """One line to read and copy: `mask AP 0.531  AP50 0.834  AP75 0.571   box AP ...`."""
        return "   ".join(
            f"{kind} " + "  ".join(f"{name} {digits(figures[name])}" for name in ("AP", "AP50", "AP75"))
            for kind, figures in (("mask", self.masks), ("box", self.boxes))
            if figures is not None
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; undefined figures are None."""
        return {
            "masks": self.masks,
            "boxes": self.boxes,
            "per_class": self.per_class,
            "images": self.images,
            "objects": self.objects,
            "detections": self.detections,
            "max_detections": self.max_detections,
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
    ground_truth: Path | str | Mapping[str, Any],
    results: Path | str | Sequence[Mapping[str, Any]],
    *,
    max_detections: int = _STANDARD,
    image_ids: Collection[Any] | None = None,
    group_by: str | None = None,
) -> Report:
    """Compares COCO results with COCO annotations.

    Masks are compared when every result carries a `segmentation` and the annotations do; boxes always, those of the
    masks where there is no `bbox`. The area of a found mask is its own, not its box's. Images without results
    count. Annotations that cannot be used are left out and named in `Report.skipped`.

    Args:
        ground_truth: a COCO JSON file, or its content.
        results: a COCO results file, or its content: a list of objects with image_id, category_id, score, and bbox
            (x, y, width, height in pixels) or segmentation (run lengths) or both.
        max_detections: the best so many of an image count, for AP and for AR.
        image_ids: only these images of the ground truth; all by default.
        group_by: a field of the ground truth's images, for example `modality`: also the figures of each of its values.

    Raises:
        DataError: a file cannot be read or is not COCO, a result cannot be used, or an image lacks the field
            `group_by`; names the file and the entry.
    """
    if max_detections < 1:
        raise DataError(f"max_detections: expected 1 or more detections an image, found {max_detections}")
    truth = read_ground_truth(ground_truth)
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
    boxes, boxes_by_class = _figures(truth, truth.entries, found, "bbox", max_detections)
    masks: Figures | None = None
    masks_by_class: list[float | None] = [None] * len(truth.names)
    skipped = list(truth.skipped)
    masked = [entry for entry in truth.entries if entry.mask is not None]
    if (masked or not truth.entries) and all(entry.mask is not None for entry in found):
        masks, masks_by_class = _figures(truth, masked, found, "segm", max_detections)
        skipped += [f"{e.where}: no segmentation, counts for boxes only" for e in truth.entries if e.mask is None]
    return Report(
        masks=masks,
        boxes=boxes,
        per_class={
            name: {"masks": of_masks, "boxes": of_boxes}
            for name, of_masks, of_boxes in zip(truth.names, masks_by_class, boxes_by_class, strict=True)
        },
        images=len(truth.images),
        objects=sum(not entry.crowd for entry in truth.entries),
        detections=len(found),
        max_detections=max_detections,
        skipped=tuple(skipped),
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
    dataset = COCO(
        {
            # Positions serve as ids: hotcoco takes no text and no negative numbers.
            "images": [
                {"id": i, "height": truth.sizes[i][0], "width": truth.sizes[i][1]} for i in truth.images.values()
            ],
            "categories": [{"id": i, "name": name} for i, name in enumerate(truth.names)],
            "annotations": [
                {**_to_coco(entry, kind), "id": i, "area": entry.area, "iscrowd": int(entry.crowd)}
                for i, entry in enumerate(annotations, start=1)
            ],
        }
    )
    evaluator = COCOeval(dataset, dataset.load_res([{**_to_coco(e, kind), "score": e.score} for e in found]), kind)
    evaluator.params.max_dets = limits
    evaluator.evaluate()
    evaluator.accumulate()
    sums = evaluator.eval
    assert sums is not None
    precision, recall = sums["precision"], sums["recall"]  # (T, R, K, A, M), (T, K, A, M)
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


def _to_coco(entry: Entry, kind: Literal["segm", "bbox"]) -> dict[str, Any]:
    """Only what is compared: with a box beside the mask, the area of a result would be the box's."""
    ids = {"image_id": entry.image, "category_id": entry.label}
    if kind == "bbox":
        return {**ids, "bbox": list(entry.box)}
    assert entry.mask is not None
    return {**ids, "segmentation": entry.mask.to_coco()}


def _mean(values: np.ndarray) -> float | None:
    """Of the entries that are defined: -1 stands for nothing to find."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
