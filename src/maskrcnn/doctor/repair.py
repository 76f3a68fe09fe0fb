"""Repairs what can be repaired without a person: `repaired` gives the data set and says what was done.

A person must look at everything else: crossing outlines, doubtful classes, objects inside others, specks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from maskrcnn.data.doubts import spelling
from maskrcnn.doctor.diagnosis import Diagnosis
from maskrcnn.doctor.findings import Finding
from maskrcnn.doctor.object_faults import contained, lies_inside
from maskrcnn.errors import agreeing
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.ops.rle import crop_to_rle
from maskrcnn.structures.annotations import NO_MASK, RUN_LENGTHS, Annotations
from maskrcnn.structures.crops import crop_box, part_of, united
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.structures.records import PackedBytes, as_numpy

_IMAGES_LEFT_OUT = {
    "missing-image": "{image|images} without a file {is|are} left out",
    "unreadable-image": "{image|images} that cannot be read {is|are} left out",
    "other-size": "{image of another size than its|images of another size than their} record {is|are} left out",
    "turned-image": "{image turned against its record is|images turned against their record are} left out",
    "duplicate-image": "second {copy of an image is|copies of images are} left out",
    "similar-image": "{image that looks like another is|images that look like another are} left out",
    "shared-image": "{image|images} of another split {is|are} left out",
    "shared-photograph": "{version of a photograph|versions of photographs} of another split {is|are} left out",
}
_ANNOTATIONS_LEFT_OUT = {
    "object-outside": "{object outside its image is|objects outside their image are} left out",
    "empty-mask": "{mask|masks} without a pixel {is|are} left out",
    "duplicate-object": "second {annotation of an object is|annotations of objects are} left out",
}
_MEASURED = {
    "box-beside-mask": "{box becomes that of its mask|boxes become those of their masks}",
    "area-beside-mask": "{area becomes that of its mask|areas become those of their masks}",
    "outside-image": "{mask with its box is clipped to its|masks with their boxes are clipped to their} image",
    "filled-hole": "{polygon inside another one is cut out as a hole|polygons inside other ones are cut out as holes}",
}


def repaired(diagnosis: Diagnosis) -> tuple[Dataset, list[str]]:
    """The repaired data set, and a sentence with its number for each kind of repair.

    What the reader left out or repaired is not in the data set, so it is said too.
    """
    dataset = diagnosis.dataset
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for found in diagnosis.findings:
        by_kind[found.kind].append(found)
    done = {
        "{image or annotation was|images or annotations were} left out by the reader": len(by_kind["left-out"]),
        "{kind of fault was|kinds of faults were} repaired by the reader": len(by_kind["repaired"]),
    }
    images = np.zeros(len(dataset), dtype=bool)
    for kind, what in _IMAGES_LEFT_OUT.items():
        images[[found.image for found in by_kind[kind] if found.image is not None]] = True
        done[what] = len({found.image for found in by_kind[kind]})
    again = _needless_entries(dataset)
    images[again] = True
    done["second {entry|entries} of image files, empty or with equal annotations, {is|are} left out"] = len(again)
    kept = np.ones(len(dataset.columns["labels"]), dtype=bool)
    for kind, what in _ANNOTATIONS_LEFT_OUT.items():
        before = int(kept.sum())
        for rows in sorted(found.rows for found in by_kind[kind]):
            if kept[list(rows)].all():  # a duplicate of one that is left out may be no duplicate of those that are kept
                kept[rows[-1]] = False
        done[what] = before - int(kept.sum())
    measured = [found for kind in _MEASURED for found in by_kind[kind] if kept[list(found.rows)].all()]
    for kind, what in _MEASURED.items():
        done[what] = sum(found.kind == kind for found in measured)
    dataset = _measured_again(dataset, measured)
    crowds = [row for found in by_kind["false-crowd"] for row in found.rows]
    done["crowd {flag of a single object is|flags of single objects are} removed"] = len(crowds)
    crowd = as_numpy(dataset.columns["crowd"]).copy()
    crowd[crowds] = False
    dataset = replace(dataset, columns={**dataset.columns, "crowd": torch.from_numpy(crowd)}).with_annotations(kept)
    done["{class|classes} that {differs|differ} only in spelling {is|are} merged"] = len(by_kind["same-name"])
    dataset = _merged(dataset.subset(np.flatnonzero(~images).tolist()))
    return dataset, [agreeing(number, what) for what, number in done.items() if number]


def _needless_entries(dataset: Dataset) -> list[int]:
    """The images, by number, that have no annotations, or the same ones as the first image of their file that has some,
    if another image has this file."""
    entries: dict[str, list[int]] = defaultdict(list)
    for number, path in enumerate(dataset.records.paths):
        entries[path].append(number)
    counts, needless = dataset.records.counts, []
    for numbers in entries.values():
        if len(numbers) > 1:
            first = max(numbers, key=lambda number: bool(counts[number]))
            content = _content(dataset, first)
            needless += [n for n in numbers if n != first and (not counts[n] or _content(dataset, n) == content)]
    return needless


def _content(dataset: Dataset, number: int) -> list[Any]:
    """What the annotations of an image say, without their ids."""
    first, count = dataset.records[number].first, dataset.records[number].count
    rows = np.arange(first, first + count)
    columns = [as_numpy(dataset.columns[name])[rows].tolist() for name in ("labels", "crowd", "annotated_boxes")]
    return [*columns, [mask.tobytes() for mask in dataset.segmentations.chosen(rows)]]


def _measured_again(dataset: Dataset, findings: Sequence[Finding]) -> Dataset:
    """The data set in which boxes and areas of the annotations of findings are those of their masks in their images. A
    mask with a hole, or beyond the border, becomes run lengths."""
    columns = {name: as_numpy(dataset.columns[name]).copy() for name in ("annotated_boxes", "areas", "kinds")}
    drawn: dict[int, bytes] = {}
    once = {(found.kind, found.image, found.rows): found for found in findings}  # an object has one for each hole
    for found in once.values():
        for row, own, number in _rows(dataset, found):
            if own.kinds[number] == NO_MASK:
                x1, y1, x2, y2 = own.boxes[number].tolist()
            else:
                mask = _with_holes(own, number) if found.kind == "filled-hole" else own.rle(number)
                x1, y1, x2, y2 = mask.box.tolist()
                columns["areas"][row] = mask.area
                if found.kind in ("filled-hole", "outside-image"):
                    drawn[row] = mask.counts
                    columns["kinds"][row] = RUN_LENGTHS
            if x2 > x1:
                columns["annotated_boxes"][row] = (x1, y1, x2 - x1, y2 - y1)
    strings = dataset.segmentations
    if drawn:
        strings = PackedBytes([drawn.get(row, strings[row].tobytes()) for row in range(len(columns["kinds"]))])
    changed = {name: torch.from_numpy(column) for name, column in columns.items()}
    return replace(dataset, columns={**dataset.columns, **changed}, segmentations=strings)


def _rows(dataset: Dataset, found: Finding) -> Iterator[tuple[int, Annotations, int]]:
    """The annotations of a finding: row in the columns, annotations of the image, number among them."""
    if found.image is not None:
        first, annotations = dataset.records[found.image].first, dataset.annotations(found.image)
        yield from ((row, annotations, row - first) for row in found.rows)


def _with_holes(annotations: Annotations, number: int) -> RLE:
    """The mask of polygons in which those inside another one are holes, and those inside a hole are filled again.

    A hole is cut out of the polygons around it only. Other polygons may overlap each other, or cover the hole.
    """
    size, parts = annotations.image_hw, annotations.polygons(number)
    masks = [RLE(size, polygons_to_rle([part], size)) for part in parts]
    boxes = np.array([[*part.min(axis=0), *part.max(axis=0)] for part in parts])
    nested = [
        (outer, inner)
        for outer, inner in contained(boxes, np.zeros(len(parts), dtype=np.int64))
        if lies_inside(masks[inner], masks[outer])
    ]
    depths = [0] * len(parts)
    for outer, inner in sorted(nested, key=lambda pair: -masks[pair[0]].area):  # what is around the outer one is larger
        depths[inner] = max(depths[inner], depths[outer] + 1)
    crops = Masks(masks).crops()
    for outer, inner in nested:
        if depths[outer] % 2 == 0 and depths[inner] % 2 == 1:
            part_of(crops[outer], crop_box(crops[inner]))[...] &= 1 - part_of(crops[inner], crop_box(crops[outer]))
    bitmap, origin = united([crop for crop, depth in zip(crops, depths, strict=True) if depth % 2 == 0])
    return RLE(size, crop_to_rle(bitmap, origin, size))


def _merged(dataset: Dataset) -> Dataset:
    """The data set in which classes that differ only in spelling are one, the first."""
    first: dict[str, int] = {}
    for category in dataset.categories:
        first.setdefault(spelling(category.name), len(first))
    if len(first) == len(dataset.categories):
        return dataset
    names: Mapping[str, int] = first
    kept = {names[spelling(category.name)]: category for category in reversed(dataset.categories)}
    places = [names[spelling(category.name)] for category in dataset.categories]
    return dataset.with_categories(tuple(kept[place] for place in range(len(first))), places)
