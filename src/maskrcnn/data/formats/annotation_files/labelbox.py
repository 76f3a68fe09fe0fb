"""Reads exports of Labelbox (https://docs.labelbox.com): JSON of version 1, and JSON lines of version 2.

Masks are behind addresses, which are not fetched. An image that has only such masks is left out, because its objects
would be background. A bounding box is only a box. Points and lines have no area. Of several labels of a row, which may
be of the same objects, the first counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import (
    Labelled,
    Region,
    add_labelled,
    box_draw,
    entries,
    labels_of,
    only_file,
    regions_of,
    rings_draw,
    size_of,
)
from maskrcnn.data.pictures import add_named_categories, files_in
from maskrcnn.data.regions import numbers_of, points_of
from maskrcnn.errors import DataError, agreeing, omission
from maskrcnn.files.json_file import json_outline, read_json_lines
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import is_id, short, under

name = "Labelbox export"
key = "labelbox"
takes = frozenset({"missing"})

_SUFFIXES = ("ndjson", "jsonl", "json")
_FILES_TO_RECOGNISE = 8
_ADDRESSES = frozenset({"instanceURI", "mask", "composite_mask"})  # of masks
_NO_AREA = ("point", "line", "polyline")
_GEOMETRIES = frozenset({"polygon", "bbox", "bounding_box", *_NO_AREA})
# Names of an image in both versions, the best first.
_NAMES = ("External ID", "Labeled Data", "Global Key", "DataRow ID")
_NAMES_2 = ("external_id", "global_key", "row_data", "id")


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder, has rows with `Labeled Data`, or with `data_row` and `projects`."""
    return bool(_exports(path))


def _exports(path: Path) -> list[Path]:
    files = [file for suffix in _SUFFIXES for file in files_in(path, f".{suffix}")] if path.is_dir() else [path]
    return [file for file in files[:_FILES_TO_RECOGNISE] if _is_export(file)]


def _is_export(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and ("Labeled Data" in outline.keys[0] or {"data_row", "projects"} <= outline.keys[0])


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads an export of Labelbox.

    Args:
        path: the file, or a folder with exactly one.
        images: folder of the images; default: they are searched for from the folder of the file.
        strict: raise at the first broken row or object, instead of leaving it out.
        hints: `missing` is used for images that nobody has labelled.

    Raises:
        DataError: the file cannot be used, or a row or object is broken and `strict` is set.
    """
    file = only_file(path, _exports(path), name) if path.is_dir() else path
    builder = DatasetBuilder(file, strict=strict)
    items: list[Labelled] = []
    unlabelled = several = 0
    for number, row in read_json_lines(file, f"a {name}"):
        try:
            objects = _objects(row)
            several += len(_labels(row)) > 1
            if objects is None and hints.missing != "empty":
                unlabelled += 1
            else:
                items += _image(builder, f"row {number}", file, row, objects or [])
        except DataError as error:
            builder.problem(f"row {number}: {error}")
    if unlabelled:
        builder.choice(f"{omission(unlabelled, 'image', 'without labels')}; --missing empty keeps such images")
    if several:
        builder.choice(agreeing(several, "{row has|rows have} several labels, of which only the first is read"))
    add_named_categories(builder, labels_of(items))
    add_labelled(builder, items, images)
    return builder.build()


def _image(
    builder: DatasetBuilder, where: str, file: Path, row: Mapping[str, Any], objects: list[Any]
) -> list[Labelled]:
    """The image of a row; none if all its masks are behind addresses."""
    source = row.get("data_row", row)
    names = [str(value) for own in (*_NAMES_2, *_NAMES) if is_id(value := under(source, own)) and value != ""]
    if not names:
        raise DataError(f"expected {_NAMES[0]} or {_NAMES_2[0]} with the name of the image, found neither")
    own = [entry for entry in objects if not _is_address(entry)]
    if len(own) < len(objects):
        done = "they are left out" if own else "the image is left out"
        builder.problem(
            f"{where}: {names[0]}: {len(objects) - len(own)} masks are only addresses, which are not fetched; {done}. "
            "Save each as <image>_<class>_<number>.png beside the images, which are read as object-masks"
        )
        if not own:
            return []
    regions = regions_of(builder, f"{where}: objects", own, _region)
    return [Labelled(names[0], where, file, names, size_of(row.get("media_attributes")), regions)]


def _is_address(entry: Any) -> bool:
    """Whether an object has only the address of its mask. Version 1 has one for every object."""
    return isinstance(entry, Mapping) and bool(_ADDRESSES & entry.keys()) and not _GEOMETRIES & entry.keys()


def _objects(row: Any) -> list[Any] | None:
    """The objects of a row; None if nobody has labelled it. Raises DataError for a broken row."""
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, Mapping):
        raise DataError(f"expected a row with data_row or Labeled Data, found {short(row)}")
    if "data_row" in row:
        labels = _labels(row)
        return entries(under(labels[0], "annotations") or {}, "objects") if labels else None
    label = row.get("Label")
    if not isinstance(label, Mapping) or not label or row.get("Skipped") is True:
        return None  # such as "Skip"
    if "objects" in label or "classifications" in label:
        return entries(label, "objects")
    # Before 2020: a list of outlines for each class.
    outlines = [(title, outline) for title in label for outline in entries(label, title)]
    return [{"title": title, "polygon": under(outline, "geometry") or outline} for title, outline in outlines]


def _labels(row: Mapping[str, Any]) -> list[Any]:
    """The labels of a row of version 2, of all its projects. There are several if several people have labelled it."""
    projects = row.get("projects")
    listed = [under(project, "labels") for project in projects.values()] if isinstance(projects, Mapping) else []
    return [label for labels in listed if isinstance(labels, list) for label in labels]


def _region(entry: Mapping[str, Any]) -> Region:
    label = next((text for own in ("title", "name", "value") if isinstance(text := entry.get(own), str) and text), None)
    if label is None:
        raise DataError("expected a title or name, which is the class, found none")
    if "polygon" in entry:
        return Region(label, "polygon", rings_draw([points_of(entry["polygon"])]))
    if box := entry.get("bbox") or entry.get("bounding_box"):
        x, y, width, height = numbers_of(box, "left", "top", "width", "height")
        return Region(label, "bounding box", box_draw(x, y, width, height))
    kind = next((kind for kind in _NO_AREA if kind in entry), None)
    if kind is None:
        raise DataError(f"expected a polygon, bbox, point or line, found the keys {', '.join(entry)}")
    return Region(label, kind, None)
