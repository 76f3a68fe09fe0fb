"""Reads datumaro's own JSON (https://open-edge-platform.github.io/datumaro): annotations, and a list of classes.

The class of an annotation is its position in that list. Masks and polygons of one class and one group are one object.
A bounding box is only a box, and none if its group has a mask. Points, lines, labels and captions have no area.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import Labelled, Region, add_labelled, box_draw, entries, only_file
from maskrcnn.data.pictures import NO_CLASS, files_in
from maskrcnn.data.regions import ellipse, joined, points_of, rectangle, turned
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import as_id, is_int, is_number, short, under

name = "Datumaro JSON"
key = "datumaro"
takes = frozenset[str]()

_FILES_TO_RECOGNISE = 8
_NO_AREA = frozenset({"label", "caption", "points", "polyline", "cuboid_3d", "cuboid_2d", "feature_vector", "skeleton"})


class _Part(NamedTuple):
    """A part of an object: an (n, 2) polygon, or run lengths that are not checked yet."""

    shape: Any
    crowd: bool


class _Object(NamedTuple):
    """The annotations of one group and class."""

    region: Region
    parts: list[_Part]
    boxes: list[tuple[float, float, float, float]]


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, has datumaro's items and categories."""
    return bool(_jsons(path))


def _jsons(path: Path) -> list[Path]:
    files = files_in(path, ".json")[:_FILES_TO_RECOGNISE] if path.is_dir() else [path]
    return [file for file in files if _is_datumaro(file)]


def _is_datumaro(file: Path) -> bool:
    outline = json_outline(file)
    own = frozenset() if outline is None or outline.is_list else outline.keys[0]
    return "dm_format_version" in own or {"categories", "items"} <= own


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads datumaro's JSON.

    Args:
        path: the file, or a folder with exactly one.
        images: folder of the images; default: they are searched for from the folder of the file.
        strict: raise at the first broken item or annotation, instead of leaving it out.
        hints: not used; the JSON lists every image and class.

    Raises:
        DataError: the file cannot be used, or an item or annotation is broken and `strict` is set.
    """
    file = only_file(path, _jsons(path), name) if path.is_dir() else path
    content = read_json(file, f"a {name}")
    if not isinstance(content, Mapping) or not isinstance(content.get("items"), list):
        raise DataError(f"{file}: expected an object with a list of items, found {short(content)}")
    builder = DatasetBuilder(file, strict=strict)
    labels = under(content, "categories", "label", "labels")
    names = [under(label, "name") for label in labels] if isinstance(labels, list) else []
    classes = [label if isinstance(label, str) else None for label in names]
    for number, label in enumerate(classes or [ONLY_CLASS]):
        if label not in NO_CLASS:
            builder.add_category(number, label)
    items = []
    for number, item in enumerate(content["items"]):
        try:
            items.append(_image(builder, f"items[{number}]", file, item, classes))
        except DataError as error:
            builder.problem(f"items[{number}]: {error}")
    add_labelled(builder, items, images)
    return builder.build()


def _image(builder: DatasetBuilder, where: str, file: Path, item: Any, classes: Sequence[str | None]) -> Labelled:
    own = as_id(under(item, "id"))
    image = under(item, "image") or under(item, "media")
    if own is None:
        raise DataError(f"expected an item with an id, found {short(item)}")
    path, size = under(image, "path"), under(image, "size")
    names = [path, str(own)] if isinstance(path, str) and path else [str(own)]
    known = isinstance(size, list) and len(size) == 2 and all(is_int(side) and side > 0 for side in size)
    return Labelled(
        own, where, file, names, (size[0], size[1]) if known else None, _regions(builder, where, item, classes)
    )


def _regions(
    builder: DatasetBuilder, where: str, item: Mapping[str, Any], classes: Sequence[str | None]
) -> list[Region]:
    """The objects of an item: one for each group of a class, and one for each annotation without a group."""
    regions: list[Region] = []
    objects: dict[tuple[Any, Any], _Object] = {}
    for number, entry in enumerate(entries(item, "annotations")):
        at = f"{where}: annotations[{number}]"
        try:
            kind = str(under(entry, "type"))
            if kind in _NO_AREA:
                regions.append(Region("", kind, None, at))
                continue
            label = _class(entry, classes)
            own = (label, as_id(under(entry, "group")) or f"#{number}")
            found = objects.setdefault(own, _Object(Region(label, kind, None, at), [], []))
            if kind == "bbox" and not under(entry, "attributes", "rotation"):
                found.boxes.append(_box(entry))
            else:
                found.parts.append(_part(entry, kind, bool(under(entry, "attributes", "is_crowd"))))
        except DataError as error:
            builder.problem(f"{at}: {error}")
    for region, parts, boxes in objects.values():
        draws = [partial(_drawn, parts)] if parts else [box_draw(*box) for box in boxes]
        regions += [region._replace(draw=draw) for draw in draws]
    return regions


def _class(entry: Any, classes: Sequence[str | None]) -> int | str:
    """The number of the class of an annotation, or its name if it is none. Raises DataError for an unknown one."""
    number = under(entry, "label_id")
    if number is None and not classes:
        return 0
    if not is_int(number) or not 0 <= number < len(classes):
        raise DataError(f"expected label_id as one of {len(classes)} classes, found {short(number)}")
    label = classes[number]
    return label if label in NO_CLASS else number


def _part(entry: Mapping[str, Any], kind: str, crowd: bool) -> _Part:
    """A polygon, or run lengths. Raises DataError for a broken shape."""
    if kind == "mask":
        return _Part(entry.get("rle"), crowd)
    if kind == "bbox":
        x, y, width, height = _box(entry)
        angle, centre = under(entry, "attributes", "rotation"), (x + width / 2, y + height / 2)
        if not is_number(angle):
            raise DataError(f"expected rotation as a number, found {short(angle)}")
        return _Part(turned(rectangle(x, y, x + width, y + height), math.radians(angle), centre), crowd)
    if kind not in ("polygon", "ellipse"):
        raise DataError(f"expected a known type, found {short(kind)}")
    numbers = entries(entry, "points")
    points = points_of(list(zip(numbers[0::2], numbers[1::2], strict=False)), 2 if kind == "ellipse" else 0)
    if kind == "polygon":
        if len(points) < 3:
            raise DataError(f"expected a polygon of at least 3 points, found {len(points)}")
        return _Part(points, crowd)
    (x, y), (rx, ry) = (points[0] + points[1]) / 2, abs(points[1] - points[0]) / 2
    return _Part(ellipse((x, y), (rx, ry)), crowd)


def _box(entry: Mapping[str, Any]) -> tuple[float, float, float, float]:
    (x, y), (width, height) = points_of([entries(entry, "bbox")[:2], entries(entry, "bbox")[2:]], 2).tolist()
    return x, y, width, height


def _drawn(parts: Sequence[_Part], size: Size) -> dict[str, Any]:
    """The union of the parts of an object, which is a crowd region if one of them is. A broken mask is a DataError."""
    found: list[np.ndarray | RLE] = []
    for shape, _ in parts:
        mask = shape if isinstance(shape, np.ndarray) else RLE.from_coco(shape)
        if isinstance(mask, RLE) and mask.size != size:
            raise DataError(f"expected a mask of the image's height, width {size}, found {mask.size}")
        found.append(mask)
    return {**joined(found, size), "crowd": any(part.crowd for part in parts)}
