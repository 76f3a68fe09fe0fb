"""COCO average precision (AP) and average recall (AR) of results against annotations: masks, boxes and keypoints."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.evaluation.analysis import Analysis, analyse
from maskrcnn.evaluation.figures import STANDARD_LIMIT, Figures, Scene, area_figures, keypoint_figures
from maskrcnn.evaluation.matching import Matching, match
from maskrcnn.evaluation.notes import notes_on_entries, notes_on_figures
from maskrcnn.evaluation.oks import oks_sigmas
from maskrcnn.evaluation.portions import by_image
from maskrcnn.evaluation.results import Entry, read_results
from maskrcnn.evaluation.truth import require_objects
from maskrcnn.structures.coco import coco_annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import is_int

_MOST = 10**9  # detections per image
_SINGULAR = {"masks": "mask", "boxes": "box", "keypoints": "keypoint"}


@dataclass(frozen=True)
class Report:
    """The figures of one evaluation, from 0 to 1. A figure is None if there was no object to find.

    Attributes:
        masks: AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl; None if masks were not compared. The
            `max_detections` highest-scoring detections of an image count. AR1, AR10 and AR100 use at most 1, 10 and 100
            of them; if `max_detections` is N > 100, there is also ARN.
        boxes: the same for boxes; None if boxes were not compared.
        per_class: class name -> its AP for "masks" and "boxes", and for "keypoints" if they were compared.
        images, objects, detections: numbers compared; crowd regions are not objects.
        max_detections: maximum detections per image.
        skipped: annotations and images that could not be used, each with the reason.
        notes: what no figure counts, and which figures are missing and why (`evaluation/notes.py`).
        groups: a report for each group of images, if `group_by` was given.
        keypoints: AP, AP50, AP75, APm, APl, AR, AR50, AR75, ARm, ARl by object keypoint similarity (OKS), for at most
            20 detections per image; None if keypoints were not compared.
        oks_sigmas: class name -> the OKS standard deviations of its keypoints (`evaluation/oks.py`).
        matching: TP / (TP + FP + FN) of the masks, if it was asked for (`evaluation/matching.py`).
        analysis: what is right and wrong in the masks, or in the boxes if there are no masks, if it was asked for and
            either was compared (`evaluation/analysis.py`).
    """

    masks: Figures | None
    boxes: Figures | None
    per_class: dict[str, Figures]
    images: int
    objects: int
    detections: int
    max_detections: int
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    groups: dict[str, Report] = field(default_factory=dict)
    keypoints: Figures | None = None
    oks_sigmas: dict[str, tuple[float, ...]] = field(default_factory=dict)
    matching: Matching | None = None
    analysis: Analysis | None = field(default=None, compare=False)

    @property
    def figures(self) -> dict[str, Figures]:
        """The figures of "masks", "boxes" and "keypoints", in this order, without those that were not compared."""
        kinds = {"masks": self.masks, "boxes": self.boxes, "keypoints": self.keypoints}
        return {kind: figures for kind, figures in kinds.items() if figures is not None}

    @property
    def score(self) -> float | None:
        """One figure to rank models by: the first defined AP of masks, keypoints and boxes; None if none is defined."""
        aps = (kind["AP"] for kind in (self.masks, self.keypoints, self.boxes) if kind is not None)
        return next((ap for ap in aps if ap is not None), None)

    @property
    def undefined(self) -> str | None:
        """Why no AP is defined, so that there is no result at all; None if there is one."""
        if self.score is not None:
            return None
        return f"no AP is defined: {self.images} images were judged, with {self.objects} objects to find"

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
            "matching": None if self.matching is None else self.matching.to_dict(),
            "analysis": None if self.analysis is None else self.analysis.to_dict(),
            "oks_sigmas": {name: list(sigmas) for name, sigmas in self.oks_sigmas.items()},
            "undefined": self.undefined,
            "notes": list(self.notes),
            "skipped": list(self.skipped),
            "groups": {name: report.to_dict() for name, report in self.groups.items()},
        }

    def to_json(self) -> str:
        """`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)


def digits(figure: float | None) -> str:
    """A figure with three decimals, as COCO prints it; a dash if it is undefined."""
    return "-" if figure is None else f"{figure:.3f}"


def evaluate_results(
    dataset: Dataset,
    results: Path | str | Sequence[Mapping[str, Any]],
    *,
    max_detections: int = STANDARD_LIMIT,
    image_ids: Collection[Any] | None = None,
    group_by: str | None = None,
    matching: float | None = None,
    analysis: bool = False,
) -> Report:
    """Compares COCO results with the annotations of a data set of any format.

    - Masks are compared if the results have a `segmentation` and some annotation has a mask.
    - Boxes are compared unless the results have only keypoints. A result without `bbox` gets the tight box of its mask.
    - Keypoints are compared if some category names keypoints and the results of such categories have them. Objects
      without a labelled keypoint do not count.
    - `Report.notes` says what was not compared. It is an error if only some of the results have a kind.
    - Results belong to images by `image_id`, or by `file_name` if their ids are not those of the data set
      (`evaluation/places.py`).

    The size range of a detection follows from the area of its mask, not its box, when masks are compared, and from the
    extent of its keypoints when keypoints are compared. Images without results count. `Report.skipped` names what the
    data set has left out.

    Args:
        results: a COCO results file, or its content: a list of objects with image_id, category_id, score and at least
            one of bbox (x, y, width, height in pixels), segmentation (run lengths) and keypoints (x, y, score of each).
        max_detections: maximum detections per image, for AP and AR.
        image_ids: evaluate only these images of the data set, each once; default: all.
        group_by: a field of the images, such as `modality`: also report the figures for each of its values.
        matching: also report TP / (TP + FP + FN) of the masks, for detections with at least this score.
        analysis: also report errors, calibration, the best thresholds and the worst mistakes.

    Raises:
        DataError: `max_detections` is out of range, the results cannot be read or used (names the file and the entry),
            the data set has no object to judge by, `image_ids` has an unknown id, an image lacks the field
            `group_by`, or `matching` is asked for and masks cannot be compared.
    """
    if not is_int(max_detections) or not 1 <= max_detections <= _MOST:
        raise DataError(
            f"max_detections: expected a whole number of 1 to {_MOST} detections per image, found {max_detections!r}"
        )
    require_objects(dataset)
    found, note = read_results(results, dataset)
    if image_ids is not None:
        dataset = dataset.subset(_positions(dataset, image_ids))
    kinds = _kinds_in(found, dataset)
    report = _compare(dataset, found, kinds, max_detections, matching, analysis)
    if matching is not None and report.matching is None:
        raise DataError(
            f"{dataset.path}: matching compares masks: expected masks in the annotations and in the results"
        )
    others = len(found) - report.detections
    elsewhere = f"{others} results of other images of the data set are not counted" if others else None
    report = replace(report, notes=(*filter(None, (note, elsewhere)), *report.notes))
    if group_by is None:
        return report
    of_images = by_image(found)  # a group looks at its own results: there may be a group per patient
    groups = {}
    for name, positions in _groups(dataset, group_by).items():
        part = dataset.subset(positions)
        own = [entry for image_id in part.records.numbers() for entry in of_images[image_id]]
        groups[name] = _compare(part, own, kinds, max_detections, matching)
    return replace(report, groups=groups)


def _kinds_in(results: Sequence[Entry], dataset: Dataset) -> set[str]:
    """The kinds of figures for which all results have what is compared. Without any result these are all."""
    with_keypoints = {category.id for category in dataset.categories if category.keypoints}
    pointed = [entry for entry in results if entry["category_id"] in with_keypoints]
    kinds = {"boxes"} if all(entry["bbox"] is not None for entry in results) else set()
    kinds |= {"masks"} if all(entry["segmentation"] for entry in results) else set()
    return kinds | ({"keypoints"} if with_keypoints and all(entry["keypoints"] for entry in pointed) else set())


def _positions(dataset: Dataset, image_ids: Collection[Any]) -> list[int]:
    """The positions of the images with these ids, each once, so that its objects count once."""
    numbers = dataset.records.numbers()
    unknown = [image_id for image_id in image_ids if image_id not in numbers]
    if unknown:
        raise DataError(f"{dataset.path}: expected image_ids of its images, found {unknown[0]!r}")
    return [numbers[image_id] for image_id in dict.fromkeys(image_ids)]


def _groups(dataset: Dataset, key: str) -> dict[str, list[int]]:
    """Value of the field `key` -> the positions of the images with that value, sorted by value."""
    found: dict[str, list[int]] = {}
    for number, record in enumerate(dataset.records):
        fields = {"height": record.height, "width": record.width, **record.fields}
        if key not in fields:
            raise DataError(
                f"{dataset.path}: image {record.image_id!r} has no field {key!r} to group by, found {', '.join(fields)}"
            )
        found.setdefault(str(fields[key]), []).append(number)
    return dict(sorted(found.items()))


def _compare(
    dataset: Dataset,
    results: Sequence[Entry],
    kinds: Collection[str],
    max_detections: int,
    matching: float | None,
    analysis: bool = False,
) -> Report:
    """The report for all images of the data set. Results for other images are ignored. `kinds` are those that the
    results hold."""
    annotations = coco_annotations(dataset)
    # The COCO API goes through images in the order of their ids, which decides between detections of equal score.
    order = dataset.records.order_by_id()
    ranks = {image_id: rank for rank, image_id in enumerate(order)}
    truth, found = _numbered(annotations, dataset, ranks), _numbered(results, dataset, ranks)
    scene = Scene(dataset.records.sizes_hw[list(order.values())].tolist(), _names(dataset.categories), max_detections)
    compared: dict[str, tuple[Figures, list[float | None]]] = {}
    skipped = list(dataset.problems)
    if "boxes" in kinds:
        compared["boxes"] = area_figures(scene, truth, found, "bbox")
    masked = [entry for entry in truth if entry["segmentation"]]
    if (masked or not truth) and "masks" in kinds:
        compared["masks"] = area_figures(scene, masked, found, "segm")
        skipped += [
            f"{dataset.path}: annotation {e['id']} of image {e['image_id']}: no segmentation, compared by box only"
            for e in annotations
            if not e["segmentation"]
        ]
    sigmas = {label: oks_sigmas(c) for label, c in enumerate(dataset.categories) if c.keypoints}
    if "keypoints" in kinds:
        compared["keypoints"] = keypoint_figures(scene, truth, found, sigmas)
    analysed: Literal["masks", "boxes"] = "masks" if "masks" in compared else "boxes"
    figures = {kind: of_all for kind, (of_all, _) in compared.items()}
    by_class = {kind: of_each for kind, (_, of_each) in compared.items()}
    return Report(
        masks=figures.get("masks"),
        boxes=figures.get("boxes"),
        keypoints=figures.get("keypoints"),
        per_class={
            name: {"masks": None, "boxes": None, **{kind: of_each[label] for kind, of_each in by_class.items()}}
            for label, name in enumerate(scene.names)
        },
        images=len(dataset),
        objects=sum(not entry["iscrowd"] for entry in truth),
        detections=len(found),
        max_detections=max_detections,
        skipped=tuple(skipped),
        notes=(
            *dataset.notes,
            *notes_on_entries(truth, found, scene),
            *notes_on_figures(figures, truth, kinds, sigmas),
        ),
        analysis=analyse(dataset, scene, masked if analysed == "masks" else truth, found, analysed)
        if analysis and analysed in compared
        else None,
        matching=match(scene, masked, found, matching) if matching is not None and "masks" in compared else None,
        oks_sigmas={scene.names[k]: values for k, values in sigmas.items() if "keypoints" in compared},
    )


def _numbered(entries: Iterable[Entry], dataset: Dataset, ranks: Mapping[int | str, int]) -> list[Entry]:
    """The entries on images of the data set, with ranks and labels as ids: hotcoco accepts no strings and no negative
    ids."""
    labels = {category.id: label for label, category in enumerate(dataset.categories)}
    kept = [entry for entry in entries if entry["image_id"] in ranks]
    return [
        {**entry, "id": i, "image_id": ranks[entry["image_id"]], "category_id": labels[entry["category_id"]]}
        for i, entry in enumerate(kept, start=1)
    ]


def _names(categories: Sequence[Category]) -> list[str]:
    """The name of each class; a name that occurred before gets the id appended."""
    names: list[str] = []
    for category in categories:
        names.append(f"{category.name} (id {category.id})" if category.name in names else category.name)
    return names
