"""COCO average precision and recall of detection results against annotations, for masks and boxes.

Matching and accumulation are hotcoco's. What is ours: every input is checked before it gets there, ids of any kind
are renumbered, and each figure says what it was computed with.

Legend of hotcoco's arrays: T IoU thresholds 0.50:0.95, R recall points, K classes, A areas (all, small, medium,
large: up to 32^2, up to 96^2 and above, in pixels of the image), M limits of detections an image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hotcoco import COCO, COCOeval

from maskrcnn.errors import DataError
from maskrcnn.structures.masks import RLE

Figures = dict[str, float | None]
_AREAS = {"s": 1, "m": 2, "l": 3}
_STANDARD = 100  # detections an image, the limit of the COCO benchmark
_PRINTED = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class Report:
    """The figures of one evaluation, fractions of 1. None: there was no object to find.

    Attributes:
        masks: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; None when there were no masks to
            compare. All use `max_detections` an image, but AR1, AR10 and AR100 never more than their number; with a
            larger limit N there is ARN too.
        boxes: the same for boxes.
        per_class: name of the class -> "masks" (None without masks) and "boxes", the AP of that class.
        images, objects, detections: how many were compared; crowd regions are no objects.
        max_detections: the best so many detections of an image count.
        skipped: annotations that could not be used, each with the reason.
    """

    masks: Figures | None
    boxes: Figures
    per_class: dict[str, Figures]
    images: int
    objects: int
    detections: int
    max_detections: int
    skipped: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """The one figure to compare models by: mask AP, box AP without masks, -1 when it is undefined."""
        ap = (self.boxes if self.masks is None else self.masks)["AP"]
        return -1.0 if ap is None else ap

    def line(self) -> str:
        """One line to read and copy: `mask AP 0.531  AP50 0.834  AP75 0.571   box AP ...`."""
        kinds = (("mask", self.masks), ("box", self.boxes))
        return "   ".join(
            f"{kind} " + "  ".join(f"{name} {figure_text(figures[name])}" for name in _PRINTED)
            for kind, figures in kinds
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
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)


def figure_text(value: float | None) -> str:
    """A figure to the three digits that COCO prints; a dash when it is undefined."""
    return "-" if value is None else f"{value:.3f}"


def evaluate_results(
    ground_truth: Path | str | Mapping[str, Any],
    results: Path | str | Sequence[Mapping[str, Any]],
    *,
    max_detections: int = _STANDARD,
    image_ids: Collection[Any] | None = None,
) -> Report:
    """Compares COCO results with COCO annotations.

    Masks are compared when the results carry `segmentation` (run lengths) and the annotations do; boxes always,
    taken from the masks where there is no `bbox`. The area of a found mask is its own, not its box's. Images
    without results count. Annotations that cannot be used are left out and named in `Report.skipped`.

    Args:
        ground_truth: a COCO JSON file, or its content.
        results: a COCO results file, or its content: a list of objects with image_id, category_id, score and
            bbox (x, y, width, height in pixels) or segmentation or both. Ids are those of the ground truth.
        max_detections: the best so many of an image count, for AP and for AR.
        image_ids: only these images of the ground truth; all by default.

    Raises:
        DataError: a file cannot be read, is not COCO, or a result cannot be used; names the file and the entry.
    """
    if max_detections < 1:
        raise DataError(f"max_detections: expected 1 or more detections an image, found {max_detections}")
    content, name = _read(ground_truth, "ground truth")
    truth = _Truth.read(content, name)
    entries, name = _read(results, "results")
    found = _read_results(entries, name, truth)
    chosen = truth.choose(image_ids)
    found = [entry for entry in found if entry["image_id"] in chosen]

    with_masks = truth.has_masks and all("segmentation" in entry for entry in found)
    skipped = list(truth.skipped)
    masks, masks_by_class = None, [None] * len(truth.names)
    if with_masks:
        annotations = [a for a in truth.annotations if "segmentation" in a]
        skipped += [f"{a['where']} has no mask, left out of the mask figures"
                    for a in truth.annotations if "segmentation" not in a]
        masks, masks_by_class = _figures(truth, annotations, found, chosen, "segm", max_detections)
    boxes, boxes_by_class = _figures(truth, truth.annotations, found, chosen, "bbox", max_detections)
    return Report(
        masks=masks,
        boxes=boxes,
        per_class={
            name: {"masks": of_masks, "boxes": of_boxes}
            for name, of_masks, of_boxes in zip(truth.names, masks_by_class, boxes_by_class, strict=True)
        },
        images=len(chosen),
        objects=sum(a["image_id"] in chosen and not a["iscrowd"] for a in truth.annotations),
        detections=len(found),
        max_detections=max_detections,
        skipped=tuple(skipped),
    )
