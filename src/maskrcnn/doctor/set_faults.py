"""Faults of a whole data set: its reader's remarks, its classes, its files, and objects beside those of their class."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from maskrcnn.data.doubts import repeated_names, spelling
from maskrcnn.doctor.findings import Finding
from maskrcnn.structures.classes import disagreement
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy

_SPECK = 10  # pixels below which an object may be a speck
_SPECK_SHARE = 1 / 20  # of the median of its class
_LEAST_OBJECTS = 5  # of a class, for a median
_NUMBER = re.compile(r"((class|label|cls|category|object|id)?[\s_\-:.]*\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Measures:
    """The T annotations of a data set, image by image.

    Attributes:
        images, rows: (T,) int64, the number of their image and their row in the columns.
        labels: (T,) int64.
        crowd: (T,) bool.
        pixels: (T,) float64 as in `Objects`.
        boxes: (T, 4) float64 x1 y1 x2 y2 clipped to the image: that of the mask, else the annotated one.
    """

    images: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    pixels: np.ndarray
    boxes: np.ndarray


def readers_remarks(dataset: Dataset) -> Iterator[Finding]:
    """What the reader left out and repaired. Repeated names are left to the functions below, which say where."""
    doubts = repeated_names(dataset.categories, dataset.records.paths)
    elsewhere = {f"{dataset.path}: {doubt}" for doubt in doubts}
    for text in dataset.problems:
        yield Finding("left-out", text.removeprefix(f"{dataset.path}: "), "doubt")
    for text in dataset.notes:
        if text not in elsewhere:
            yield Finding("repaired", text.removeprefix(f"{dataset.path}: "), "doubt")


def repeated_files(dataset: Dataset) -> Iterator[Finding]:
    """Image files that are listed more than once."""
    numbers = defaultdict(list)
    for number, path in enumerate(dataset.records.paths):
        numbers[path].append(number)
    for path, several in numbers.items():
        if len(several) > 1:
            ids = ", ".join(repr(dataset.records[number].image_id) for number in several[:4])
            what = f"{Path(path).name} is the file of {len(several)} images, with the ids {ids}"
            yield Finding("repeated-file", what, "hurts", several[0], other=Path(path))


def class_faults(dataset: Dataset, measures: Measures) -> Iterator[Finding]:
    """Classes of one name, of names that say nothing, without objects, and with nothing but crowd regions."""
    spelled = defaultdict(list)
    for category in dataset.categories:
        spelled[spelling(category.name)].append(category)
    for several in spelled.values():
        if len(several) > 1:
            what = ", ".join(f"{category.name!r} is the name of id {category.id!r}" for category in several)
            yield Finding("same-name", f"{what}: they are different classes", "hurts")
    objects = np.bincount(measures.labels[~measures.crowd], minlength=len(dataset.categories)).tolist()
    crowds = np.bincount(measures.labels[measures.crowd], minlength=len(dataset.categories)).tolist()
    for category, count, regions in zip(dataset.categories, objects, crowds, strict=True):
        if _NUMBER.fullmatch(category.name.strip()):
            yield Finding("number-as-name", f"{category.name!r}, id {category.id!r}", "advice")
        if regions and not count:
            what = f"all {regions} annotations of {category.name!r} are crowd regions, which are not learned"
            yield Finding("false-crowd", what, "hurts")
        elif not count:
            yield Finding("unused-class", f"{category.name!r}, id {category.id!r}", "advice")


def other_classes(dataset: Dataset, val: Dataset) -> Iterator[Finding]:
    """That a model of the classes of a data set cannot be judged on its validation set."""
    if fault := disagreement(dataset.categories, val, "the training data"):
        yield Finding("other-classes", f"{val.path}: {fault}", "hurts")


def specks(dataset: Dataset, measures: Measures) -> Iterator[Finding]:
    """Objects of few pixels, far smaller than others of their class."""
    objects = ~measures.crowd & (measures.pixels > 0)
    for label in range(len(dataset.categories)):
        own = np.flatnonzero(objects & (measures.labels == label))
        if len(own) < _LEAST_OBJECTS:
            continue
        median = float(np.median(measures.pixels[own]))
        for i in own[measures.pixels[own] < min(_SPECK, _SPECK_SHARE * median)].tolist():
            number, row = int(measures.images[i]), int(measures.rows[i])
            pixels = dataset.annotations(number).rle(row - dataset.records[number].first).area
            if 0 < pixels < _SPECK:
                what = f"{pixels} pixels, half of the others have more than {median:.4g}"
                yield Finding("speck", what, "doubt", number, (row,))


def crowded_images(dataset: Dataset, measures: Measures, most: int) -> Iterator[Finding]:
    """Images with more objects than the largest number of detections on one image."""
    counts = np.bincount(measures.images[~measures.crowd], minlength=len(dataset))
    for number in np.flatnonzero(counts > most).tolist():
        what = f"{counts[number]} objects; a model that predicts at most {most} cannot find them all"
        yield Finding("crowded-image", what, "advice", number)


def count_keypoints(dataset: Dataset) -> dict[str, dict[str, int]]:
    """The number of labelled keypoints, and of objects that have some, for each category with keypoints."""
    found = {category.name: {"labelled": 0, "objects": 0} for category in dataset.categories if category.keypoints}
    if not found:
        return found
    rows = dataset.records.rows
    columns = {name: as_numpy(dataset.columns[name])[rows] for name in ("keypoints", "labels", "crowd")}
    counts = (columns["keypoints"][..., 2] > 0).sum(axis=1) * ~columns["crowd"]
    for label, category in enumerate(dataset.categories):
        if category.keypoints:
            own = counts[columns["labels"] == label]
            found[category.name]["labelled"] += int(own.sum())
            found[category.name]["objects"] += int((own > 0).sum())
    return found
