"""Reads the projects and exports of the VGG Image Annotator, versions 1 to 3, as JSON and as CSV.

The class is the region attribute that most regions have, and of several the one that is called so; `--class-attribute`
names another. Polylines and points have no area. A file without any attribute has one class.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import only_file
from maskrcnn.data.pictures import NO_CLASS, add_named_categories, add_picture, files_in, find_pictures
from maskrcnn.data.regions import ellipse, flat, numbers_of, points_of, rectangle
from maskrcnn.errors import DataError, omission
from maskrcnn.files.csv_table import csv_beginning, csv_rows
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import is_number, short, under

name = "VIA"
key = "via"
takes = frozenset({"class_attribute"})

_FILES_TO_RECOGNISE = 8
_COLUMNS = ("filename", "region_shape_attributes", "region_attributes")  # of the CSV
_AREAS = frozenset({"polygon", "rect", "circle", "ellipse"})
_CALLED_SO = ("class", "label", "category", "type", "name", "object")
_MOST_CLASSES = 100  # an attribute with more values is free text
# The numbers of VIA 3 for its shapes, with the names that their lengths have in VIA 2.
_SHAPES_3 = {
    2: ("rect", ("x", "y", "width", "height")),
    3: ("circle", ("cx", "cy", "r")),
    4: ("ellipse", ("cx", "cy", "rx", "ry")),
}
_POLYGON_3 = 7


class _Image(NamedTuple):
    """An image with its regions, each a `shape_attributes` and a `region_attributes` as in VIA 2."""

    key: str
    file: str
    regions: list[Mapping[str, Any]]


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder, has VIA's regions."""
    return bool(_candidates(path))


def _candidates(path: Path) -> list[Path]:
    files = files_in(path, ".json", ".csv")[:_FILES_TO_RECOGNISE] if path.is_dir() else [path]
    return [file for file in files if _is_via(file)]


def _is_via(file: Path) -> bool:
    if file.suffix.lower() == ".csv":
        header = (csv_beginning(file) or [[]])[0]
        return {name.lstrip("#") for name in header} >= set(_COLUMNS)
    outline = json_outline(file)
    if outline is None or outline.is_list:
        return False
    first, second, _ = outline.keys
    return bool(
        "_via_img_metadata" in first or {"filename", "regions"} <= second or {"project", "metadata", "file"} <= first
    )


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a VIA file.

    Args:
        path: the JSON or CSV, or a folder with exactly one.
        images: folder of the images; default: they are searched for from the folder of the file.
        strict: raise at the first broken region, instead of leaving it out.
        hints: `class_attribute` is used.

    Raises:
        DataError: the file cannot be used, or a region is broken and `strict` is set.
    """
    found = _candidates(path) if path.is_dir() else [path]
    file = only_file(path, found, f"{name} file")
    builder = DatasetBuilder(file, strict=strict)
    entries = _from_csv(builder, file) if file.suffix.lower() == ".csv" else _from_json(builder, file)
    attribute = _class_attribute(builder, entries, hints.class_attribute)
    labels = {_label(region, attribute) for entry in entries for region in entry.regions if _kind(region) in _AREAS}
    add_named_categories(builder, (label for label in labels if label and label not in NO_CLASS))
    pictures = find_pictures((entry.file for entry in entries), file, images)
    left_out: Counter[str] = Counter()
    for entry in entries:
        if add_picture(builder, entry.key, pictures[entry.file], None) is None:
            continue
        for number, region in enumerate(entry.regions):
            kind, label = _kind(region), _label(region, attribute)
            if kind not in _AREAS:
                left_out[f"{kind} has no area"] += 1
            elif label in NO_CLASS:
                left_out[f"{label} is no class"] += 1
            else:
                try:
                    polygon = _polygon(region["shape_attributes"], kind)
                except DataError as error:
                    builder.problem(f"{entry.key}: regions[{number}]: {error}")
                    continue
                own = f"{entry.key}:{number}"
                builder.add_annotation(RawAnnotation(entry.key, label, own, polygons=[flat(polygon)]))
    for reason, times in left_out.items():
        builder.choice(f"{omission(times, 'region')}, because {reason}")
    return builder.build()


def _from_json(builder: DatasetBuilder, file: Path) -> list[_Image]:
    content = read_json(file, f"a {name} JSON")
    if isinstance(content, Mapping) and {"metadata", "file"} <= content.keys():
        return _from_version_3(builder, content)
    if isinstance(content, Mapping) and "_via_img_metadata" in content:
        content = content["_via_img_metadata"]
    if not isinstance(content, Mapping):
        raise DataError(f"{file}: expected images by name, found {short(content)}")
    found = []
    for own, entry in content.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("filename"), str):
            builder.problem(f"{own}: expected an image with filename and regions, found {short(entry)}")
            continue
        regions = entry.get("regions") or []
        regions = list(regions.values()) if isinstance(regions, Mapping) else regions  # VIA 1 numbers them
        found.append(_Image(own, entry["filename"], _regions(builder, own, regions)))
    return found


def _regions(builder: DatasetBuilder, where: str, regions: Any) -> list[Mapping[str, Any]]:
    kept = []
    for number, region in enumerate(regions if isinstance(regions, list) else [regions]):
        if isinstance(region, Mapping) and isinstance(region.get("shape_attributes"), Mapping):
            kept.append(region)
        else:
            builder.problem(f"{where}: regions[{number}]: expected shape_attributes, found {short(region)}")
    return kept


def _from_csv(builder: DatasetBuilder, file: Path) -> list[_Image]:
    lines = csv_rows(file)
    header = [name.lstrip("#") for name in next(lines, (0, []))[1]]
    places = [header.index(column) for column in _COLUMNS]
    found: dict[str, _Image] = {}
    for line, cells in lines:
        try:
            image, shape, attributes = (cells[place] for place in places)
            region = {"shape_attributes": json.loads(shape), "region_attributes": json.loads(attributes)}
        except (IndexError, ValueError, RecursionError):
            builder.problem(f"line {line}: expected JSON in {_COLUMNS[1]} and {_COLUMNS[2]}, found {short(cells)}")
            continue
        entry = found.setdefault(image, _Image(image, image, []))
        if region["shape_attributes"]:  # an image without regions has a row with empty ones
            entry.regions.extend(_regions(builder, f"line {line}", [region]))
    return list(found.values())


def _from_version_3(builder: DatasetBuilder, content: Mapping[str, Any]) -> list[_Image]:
    """The images of VIA 3: regions name a view, views name files, and values of attributes have numbers."""
    parts = [content.get(part) for part in ("file", "view", "attribute", "metadata")]
    files, views, attributes, metadata = (part if isinstance(part, Mapping) else {} for part in parts)
    found = {}
    for own, file in files.items():
        if isinstance(file, Mapping) and isinstance(file.get("fname"), str):
            found[str(own)] = _Image(file["fname"], file["fname"], [])
    names = {own: entry.get("aname") for own, entry in attributes.items() if isinstance(entry, Mapping)}
    options = _options_3(builder, attributes)
    for own, region in metadata.items():
        view = views.get(str(region.get("vid"))) if isinstance(region, Mapping) else None
        listed = view.get("fid_list") if isinstance(view, Mapping) else None
        xy = region.get("xy") if isinstance(region, Mapping) else None
        if not isinstance(listed, list) or len(listed) != 1 or str(listed[0]) not in found or not isinstance(xy, list):
            builder.problem(f"metadata {own}: expected a region of one image with xy, found {short(region)}")
            continue
        if xy and not is_number(xy[0]):
            builder.problem(f"metadata {own}: expected xy with the number of a shape first, found {short(xy)}")
            continue
        values = region.get("av") if isinstance(region.get("av"), Mapping) else {}
        named = {str(names.get(a, a)): options.get(a, {}).get(str(v), v) for a, v in values.items()}
        if xy:  # without it, the attributes describe the whole image
            found[str(listed[0])].regions.append({"shape_attributes": _shape_3(xy), "region_attributes": named})
    return list(found.values())


def _options_3(builder: DatasetBuilder, attributes: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The values of each attribute by their numbers; none for an attribute of free text."""
    found = {}
    for own in attributes:
        options = under(attributes, own, "options")
        if isinstance(options, Mapping):
            found[own] = options
        elif options:
            builder.problem(f"attribute {own}: expected options by their numbers, found {short(options)}")
    return found


def _shape_3(xy: Sequence[Any]) -> dict[str, Any]:
    kind, *numbers = xy
    if kind == _POLYGON_3:
        return {"name": "polygon", "all_points_x": numbers[0::2], "all_points_y": numbers[1::2]}
    shape, lengths = _SHAPES_3.get(kind, (f"shape {kind}", ()))
    return {"name": shape, **dict(zip(lengths, numbers, strict=False))}


def _kind(region: Mapping[str, Any]) -> str:
    return str(region["shape_attributes"].get("name"))


def _label(region: Mapping[str, Any], attribute: str | None) -> str | None:
    """The class of a region; None if it has no value for the attribute."""
    if attribute is None:
        return ONLY_CLASS
    attributes = region.get("region_attributes")
    value = attributes.get(attribute) if isinstance(attributes, Mapping) else None
    if isinstance(value, Mapping):  # a checkbox
        value = ", ".join(str(name) for name, chosen in value.items() if chosen)
    return str(value).strip() or None if isinstance(value, str) or is_number(value) else None


def _class_attribute(builder: DatasetBuilder, entries: Sequence[_Image], given: str | None) -> str | None:
    """The region attribute that names the class; None if no region has attributes with values."""
    regions = [region for entry in entries for region in entry.regions]
    values: dict[str, list[str]] = defaultdict(list)
    for region in regions:
        attributes = region.get("region_attributes")
        for attribute in attributes if isinstance(attributes, Mapping) else ():
            if label := _label(region, attribute):
                values[attribute].append(label)
    if given is not None:
        if given not in values:
            found = ", ".join(values) or "none"
            raise DataError(f"{builder.path}: expected --class-attribute to be one of {found}, found {given}")
        return given
    few = {attribute: found for attribute, found in values.items() if len(set(found)) <= _MOST_CLASSES}
    if not few:
        return None
    most = max(map(len, few.values()))
    best = [attribute for attribute, found in few.items() if len(found) == most]
    chosen = next((attribute for attribute in best if attribute.lower() in _CALLED_SO), best[0])
    if len(values) > 1:
        others = ", ".join(attribute for attribute in values if attribute != chosen)
        builder.choice(f"the region attribute {chosen} is read as the class; --class-attribute names another: {others}")
    return chosen


def _polygon(shape: Mapping[str, Any], kind: str) -> np.ndarray:
    """The (n, 2) outline of a region in pixels. Raises DataError for broken numbers."""
    if kind == "polygon":
        x, y = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or len(x) < 3:
            raise DataError(f"expected 3 or more all_points_x and all_points_y each, found {short(x)} and {short(y)}")
        return points_of(list(zip(x, y, strict=True)))
    if kind == "rect":
        x, y, width, height = numbers_of(shape, "x", "y", "width", "height")
        return rectangle(x, y, x + width, y + height)
    if kind == "circle":
        x, y, radius = numbers_of(shape, "cx", "cy", "r")
        return ellipse((x, y), (radius, radius))
    x, y, rx, ry = numbers_of(shape, "cx", "cy", "rx", "ry")
    theta = shape.get("theta") or 0
    return ellipse((x, y), (rx, ry), theta if is_number(theta) else math.nan)
