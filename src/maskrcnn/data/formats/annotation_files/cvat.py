"""Reads and writes CVAT XML 1.1 "for images", of CVAT (https://docs.cvat.ai) and datumaro.

Shapes with one label and one group are one object. A box is only a box; a turned box is a polygon. Polylines, points,
skeletons and tags have no area.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np

from maskrcnn.data.annotation import RawAnnotation, Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import only_file
from maskrcnn.data.pictures import NO_CLASS, add_named_categories, add_picture, files_in, find_pictures
from maskrcnn.data.regions import bitmap_to_rle, ellipse, joined, points_of, rectangle, turned
from maskrcnn.data.writing import Holds, Lost, class_name, objects_to_write, with_names
from maskrcnn.errors import DataError, omission
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.images import MOST_PIXELS
from maskrcnn.files.xml_file import NOT_IN_XML, read_xml
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import short

name = "CVAT XML"
key = "cvat"
image_folder = "images"
takes = frozenset[str]()
holds: Holds = frozenset({"boxes", "scores"})

_BEGINNING = 1024  # bytes, in which the first element begins
_ROOT = re.compile(rb"<annotations[\s/>]")
_SHAPES = frozenset({"polygon", "mask", "ellipse", "box"})
_NO_AREA = frozenset({"polyline", "points", "skeleton", "tag", "cuboid"})


def recognise(path: Path) -> bool:
    """Whether a file, or an XML in a folder, begins with `<annotations>`."""
    return any(map(_is_cvat, files_in(path, ".xml") if path.is_dir() else [path]))


def _is_cvat(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return file.suffix.lower() == ".xml" and _ROOT.search(opened.read(_BEGINNING)) is not None
    except OSError:
        return False


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a CVAT XML.

    Args:
        path: the XML, or a folder with exactly one.
        images: folder of the images; default: they are searched for from the folder of the XML.
        strict: raise at the first broken shape, instead of leaving it out.
        hints: not used; the XML lists every image and class.

    Raises:
        DataError: the XML cannot be used, or a shape is broken and `strict` is set.
    """
    found = [file for file in files_in(path, ".xml") if _is_cvat(file)] if path.is_dir() else [path]
    file = only_file(path, found, name)
    root = read_xml(file, f"a {name}")
    entries = root.findall("image")
    if not entries:
        kind = "tracks of a video; export the task as 'CVAT for images'" if root.find("track") is not None else "none"
        raise DataError(f"{file}: expected elements <image>, found {kind}")
    builder = DatasetBuilder(file, strict=strict)
    _add_classes(builder, root, entries)
    pictures = find_pictures((entry.get("name", "") for entry in entries), file, images)
    left_out: Counter[str] = Counter()
    numbers = {number for entry in entries if (number := entry.get("id", "")).isdecimal()}
    for entry in entries:
        named = entry.get("name", "")
        # The tasks of a project may all count from 0.
        image = int(entry.get("id", "")) if len(numbers) == len(entries) else named
        size = add_picture(builder, image, pictures[named], _size(entry))
        if size is not None:
            _add_objects(builder, entry, image, size, left_out)
    for kind, times in left_out.items():
        builder.choice(f"{omission(times, 'shape')}, because {kind}")
    return builder.build()


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes `annotations.xml` beside the images of each part.

    Polygons stay polygons, the parts of an object as a group. Other masks become shapes of the type mask. A score is an
    attribute, which CVAT shows if the label has one of this name.
    """
    lost: Lost = Counter()
    for part, given in parts.items():
        dataset = with_names(given, NOT_IN_XML, "XML", lost)
        with (
            atomic_write(folder / part / "annotations.xml") as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            file.write(f"{_text(_meta(dataset))}\n")
            for index, record in enumerate(dataset.records):
                size = {"width": str(record.width), "height": str(record.height)}
                entry = Element("image", {"id": str(index), "name": record.path.name, **size})
                entry.extend(_shapes(dataset, index, lost))
                file.write(f"{_text(entry)}\n")
            file.write("</annotations>\n")
    return lost


def _meta(dataset: Dataset) -> Element:
    """The labels of the task."""
    meta = Element("meta")
    labels = SubElement(SubElement(meta, "task"), "labels")
    for category in dataset.categories:
        SubElement(SubElement(labels, "label"), "name").text = category.name
    return meta


def _shapes(dataset: Dataset, index: int, lost: Lost) -> Iterator[Element]:
    annotations = dataset.annotations(index)
    numbers = objects_to_write(annotations, holds, lost)
    for number, (bitmap, corner_xy) in zip(numbers, annotations.crops(numbers), strict=True):
        label = class_name(dataset, annotations, number, lost)
        for kind, geometry in _geometries(annotations, number, bitmap, corner_xy):
            source = "manual" if annotations.scores is None else "auto"
            shape = Element(kind, {"label": label, "source": source, "occluded": "0", **geometry, "z_order": "0"})
            if annotations.scores is not None:
                SubElement(shape, "attribute", {"name": "score"}).text = repr(float(annotations.scores[number]))
            yield shape


def _geometries(
    annotations: Annotations, number: int, bitmap: np.ndarray, corner_xy: tuple[int, int]
) -> list[tuple[str, dict[str, str]]]:
    """The shapes of an object, each with its element and the attributes that say where it is."""
    if not annotations.has_mask[number]:
        edges = annotations.boxes[number].tolist()
        return [("box", dict(zip(("xtl", "ytl", "xbr", "ybr"), map(str, edges), strict=True)))]
    polygons = annotations.polygons(number)
    if polygons:
        group = {"group_id": str(number + 1)} if len(polygons) > 1 else {}
        return [("polygon", {"points": _pairs(points), **group}) for points in polygons]
    flat = bitmap.ravel() != 0
    runs = np.diff([0, *(np.flatnonzero(flat[1:] != flat[:-1]) + 1), flat.size]).tolist()
    rle = ", ".join(map(str, [0, *runs] if flat[0] else runs))
    place: dict[str, Any] = dict(zip(("left", "top", "height", "width"), (*corner_xy, *bitmap.shape), strict=True))
    return [("mask", {"rle": rle, **{key: str(value) for key, value in place.items()}})]


def _pairs(points: np.ndarray) -> str:
    return ";".join(f"{x!r},{y!r}" for x, y in points.tolist())


def _text(element: Element) -> str:
    return tostring(element, encoding="unicode")


def _size(entry: Element) -> Size | None:
    height, width = entry.get("height", ""), entry.get("width", "")
    return (int(height), int(width)) if height.isdecimal() and width.isdecimal() and int(height) * int(width) else None


def _add_classes(builder: DatasetBuilder, root: Element, entries: list[Element]) -> None:
    """Adds the labels of the project that may have an area, and those of shapes that it does not list."""
    listed = [
        (label.findtext("name") or "").strip()
        for label in root.iter("label")
        if (label.findtext("type") or "any").strip() not in _NO_AREA and label.find("parent") is None
    ]
    used = [_label(shape) for entry in entries for shape in entry if shape.tag in _SHAPES]
    add_named_categories(builder, {label for label in (*listed, *used) if label and label not in NO_CLASS})


def _label(shape: Element) -> str:
    return shape.get("label", "").strip() or ONLY_CLASS


def _add_objects(builder: DatasetBuilder, entry: Element, image: int | str, size: Size, left_out: Counter[str]) -> None:
    """Adds the objects of an image: one for each group of a label, and one for each shape without a group."""
    objects: dict[tuple[str, str], list[np.ndarray | RLE]] = {}
    boxes: list[tuple[str, tuple[float, float, float, float]]] = []
    for number, shape in enumerate(entry):
        label, group = _label(shape), shape.get("group_id", "0")
        if shape.tag in _NO_AREA:
            left_out[f"{shape.tag} has no area"] += 1
        elif label in NO_CLASS:
            left_out[f"{label} is no class"] += 1
        elif shape.tag in _SHAPES:
            try:
                if shape.tag == "box" and not _number(shape, "rotation", 0):
                    x1, y1, x2, y2 = _box(shape)
                    boxes.append((label, (x1, y1, x2 - x1, y2 - y1)))
                else:
                    part = _part(shape, size)
                    own = f"shape {number}" if group in ("", "0") else f"group {group}"
                    objects.setdefault((label, own), []).append(part)
            except DataError as error:
                builder.problem(f"image {image}: {shape.tag} {number}: {error}")
    for (label, _), parts in objects.items():
        builder.add_annotation(RawAnnotation(image, label, **joined(parts, size)))
    for label, box in boxes:
        builder.add_annotation(RawAnnotation(image, label, box=box))


def _part(shape: Element, size: Size) -> np.ndarray | RLE:
    """The (n, 2) polygon of a shape, or its mask. Raises DataError for a broken shape."""
    angle = math.radians(_number(shape, "rotation", 0))
    if shape.tag == "polygon":
        points = points_of([pair.split(",") for pair in shape.get("points", "").split(";") if pair.strip()])
        if len(points) < 3:
            raise DataError(f"expected a polygon of at least 3 points, found {len(points)}")
        return points
    if shape.tag == "box":
        x1, y1, x2, y2 = _box(shape)
        return turned(rectangle(x1, y1, x2, y2), angle, ((x1 + x2) / 2, (y1 + y2) / 2))
    if shape.tag == "ellipse":
        centre = _number(shape, "cx"), _number(shape, "cy")
        return ellipse(centre, (_number(shape, "rx"), _number(shape, "ry")), angle)
    return _mask(shape, size)


def _mask(shape: Element, size: Size) -> RLE:
    """The mask of runs that go right, then down, inside a rectangle of the image, background first."""
    left, top, width, height = (int(_number(shape, key)) for key in ("left", "top", "width", "height"))
    if min(width, height) < 1 or width * height > min(4 * size[0] * size[1], MOST_PIXELS):
        raise DataError(
            f"expected a mask about as large as its image of {size[1]} x {size[0]}, found {width} x {height}"
        )
    try:
        runs = np.array(shape.get("rle", "").split(","), dtype=np.int64)
    except (ValueError, OverflowError):
        raise DataError(f"expected rle as numbers with commas, found {short(shape.get('rle'))}") from None
    if runs.min() < 0 or runs.max() > width * height or runs.sum() != width * height:
        raise DataError(f"expected rle of {width} * {height} = {width * height} pixels, found {int(runs.sum())}")
    bitmap = np.repeat(np.arange(len(runs)) % 2, runs).reshape(height, width)
    return bitmap_to_rle(bitmap, (left, top), size)


def _box(shape: Element) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (_number(shape, key) for key in ("xtl", "ytl", "xbr", "ybr"))
    return x1, y1, x2, y2


def _number(shape: Element, attribute: str, default: float | None = None) -> float:
    """A finite number in an attribute. Raises DataError for anything else."""
    text = shape.get(attribute)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"expected a number in {attribute}, found {short(text)}")
    return value
