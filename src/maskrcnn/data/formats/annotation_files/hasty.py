"""Reads the JSON that Hasty exports, version 1.0 and 1.1: images with labels, each a polygon or a mask inside its box.

A mask is a list of runs, background first, of the pixels of its box. The documents do not say whether they go right or
down; the order in which the masks have fewer parts is taken, and right if both have as many. Classes of the type
background have no objects. An image that nobody has begun is unlabelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import (
    Labelled,
    Region,
    add_labelled,
    box_draw,
    chosen,
    entries,
    labels_of,
    only_file,
    regions_of,
    rings_draw,
    size_of,
    split_of,
)
from maskrcnn.data.pictures import NO_CLASS, add_named_categories, files_in
from maskrcnn.data.regions import Order, bitmap_to_rle, connected_parts, counted, points_of
from maskrcnn.errors import DataError, omission
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import MOST_PIXELS, RLE
from maskrcnn.structures.values import is_number, short, under, whole_number

name = "Hasty JSON"
key = "hasty"
takes = frozenset({"missing", "split"})

_KEYS = frozenset({"label_classes", "export_format_version"})
_FILES_TO_RECOGNISE = 8
_NOT_BEGUN = frozenset({"NEW", "SKIPPED"})  # image_status
_MASKS_FOR_ORDER, _PIXELS_FOR_ORDER = 100, 1 << 20  # masks that are tried in both orders, and pixels of one


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, has Hasty's classes and version."""
    return any(map(_is_hasty, _jsons(path)[:_FILES_TO_RECOGNISE]))


def _jsons(path: Path) -> list[Path]:
    return files_in(path, ".json") if path.is_dir() else [path]


def _is_hasty(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and outline.keys[0] >= _KEYS


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads an export of Hasty.

    Args:
        path: the file, or a folder with exactly one.
        images: folder of the images; default: they are searched for from the folder of the file.
        strict: raise at the first broken image or label, instead of leaving it out.
        hints: `missing` is used for images that nobody has begun; `split` for sets named like train, val and test.

    Raises:
        DataError: the file cannot be used, or an image or label is broken and `strict` is set.
    """
    file = only_file(path, [own for own in _jsons(path) if _is_hasty(own)], name) if path.is_dir() else path
    content = read_json(file, f"a {name}")
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: expected an object with label_classes and images, found {short(content)}")
    builder = DatasetBuilder(file, strict=strict)
    classes = {under(own, "class_name"): under(own, "class_type") for own in entries(content, "label_classes")}
    stuff = {label for label, kind in classes.items() if kind == "background"}
    given = entries(content, "images")
    order = _order(label for image in given for label in _labels(image))
    items: list[Labelled] = []
    unlabelled = 0
    for number, image in enumerate(given):
        where = f"images[{number}]"
        try:
            if not _labels(image) and under(image, "image_status") in _NOT_BEGUN and hints.missing != "empty":
                unlabelled += 1
            else:
                items.append(_image(builder, where, file, image, partial(_region, stuff, order)))
        except DataError as error:
            builder.problem(f"{where}: {error}")
    if unlabelled:
        builder.choice(f"{omission(unlabelled, 'image', 'that nobody has begun')}; --missing empty keeps such images")
    named = {label for label in classes if isinstance(label, str)} - stuff - NO_CLASS
    add_named_categories(builder, named | labels_of(items))
    add_labelled(builder, chosen(builder, items, hints.split), images)
    return builder.build()


def _labels(image: Any) -> list[Any]:
    labels = under(image, "labels")
    return labels if isinstance(labels, list) else []


def _image(builder: DatasetBuilder, where: str, file: Path, image: Any, region: Any) -> Labelled:
    own, group = under(image, "image_name"), under(image, "dataset_name")
    if not isinstance(own, str) or not own:
        raise DataError(f"expected an image with an image_name, found {short(image)}")
    names = [f"{group}/{own}", own] if isinstance(group, str) and group else [own]
    regions = regions_of(builder, f"{where}: labels", entries(image, "labels"), region)
    return Labelled(own, names[0], file, names, size_of(image), regions, split=split_of(str(group)))


def _region(stuff: set[Any], order: Order, entry: Mapping[str, Any]) -> Region:
    label = entry.get("class_name")
    if not isinstance(label, str):
        raise DataError(f"expected a class_name, found {short(label)}")
    if label in stuff:
        return Region(label, "a class of the type background", None)
    if entry.get("mask"):
        return Region(label, "mask", partial(_draw, *_box(entry), entry["mask"], order))
    if entry.get("polygon"):
        return Region(label, "polygon", rings_draw([points_of(entry["polygon"])]))
    (x1, y1), (x2, y2) = _edges(entry)
    return Region(label, "box", box_draw(x1, y1, x2 - x1, y2 - y1))


def _edges(entry: Mapping[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    box = entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_number, box)):
        raise DataError(f"expected bbox as x1, y1, x2, y2, found {short(box)}")
    return (box[0], box[1]), (box[2], box[3])


def _box(entry: Mapping[str, Any]) -> tuple[tuple[int, int], Size]:
    """The first pixel x, y of the box of a label, and its height and width."""
    numbers = [whole_number(value) for corner in _edges(entry) for value in corner]
    if None in numbers:
        raise DataError(f"expected bbox in whole pixels around a mask, found {short(entry['bbox'])}")
    x1, y1, x2, y2 = (number or 0 for number in numbers)
    if not 0 < (x2 - x1) * (y2 - y1) <= MOST_PIXELS or x2 <= x1:
        raise DataError(f"expected bbox as x1, y1, x2, y2 around a mask, found {short(entry['bbox'])}")
    return (x1, y1), (y2 - y1, x2 - x1)


def _draw(corner_xy: tuple[int, int], box_hw: Size, runs: Any, order: Order, image_hw: Size) -> dict[str, Any]:
    if box_hw[0] * box_hw[1] > 4 * image_hw[0] * image_hw[1]:
        raise DataError(f"expected bbox inside the image, found one of {box_hw[1]} x {box_hw[0]} pixels")
    return counted(bitmap_to_rle(_bitmap(runs, box_hw, order), corner_xy, image_hw))


def _bitmap(runs: Any, size: Size, order: Order) -> np.ndarray:
    """(h, w) bool of runs, background first. Raises DataError if they do not fill the box."""
    try:
        counts = np.array(runs, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        counts = np.zeros((0, 0), dtype=np.int64)
    pixels = size[0] * size[1]
    if counts.ndim != 1 or counts.min(initial=0) < 0 or counts.max(initial=0) > pixels or counts.sum() != pixels:
        raise DataError(f"expected mask as runs of all {pixels} pixels of bbox, found {short(runs)}")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(size) if order == "right" else values.reshape(size[::-1]).T


def _order(labels: Iterable[Any]) -> Order:
    """The order of the pixels in which masks have fewer parts."""
    parts: dict[Order, int] = {"right": 0, "down": 0}
    masked = (label for label in labels if under(label, "mask"))
    for label in islice(masked, _MASKS_FOR_ORDER):
        try:
            _, size = _box(label)
            for order in parts if size[0] * size[1] <= _PIXELS_FOR_ORDER else ():
                parts[order] += len(connected_parts(RLE.from_dense(_bitmap(label["mask"], size, order))))
        except DataError:
            continue  # reading names it
    return "down" if parts["down"] < parts["right"] else "right"
