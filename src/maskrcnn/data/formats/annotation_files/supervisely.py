"""Reads projects of Supervisely (https://docs.supervisely.com): a `meta.json`, and folders with `ann` and `img`.

A bitmap is a PNG in base64, usually compressed with zlib once more, whose opaque pixels are the object. Whole numbers
are indices of pixels, so that the second corner of a rectangle lies inside it. A rectangle is only a box. Folders that
are named like train, val and test are the parts of the data set.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.doubts import first_of
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import (
    Labelled,
    Region,
    add_labelled,
    box_draw,
    chosen,
    entries,
    labels_of,
    of_jsons,
    regions_of,
    rings_draw,
    size_of,
    split_of,
)
from maskrcnn.data.pictures import NO_CLASS, add_named_categories, add_unlabelled, files_in
from maskrcnn.data.regions import bitmap_to_rle, counted, foreground, mask_values, points_of
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import is_int, short

name = "Supervisely"
key = "supervisely"
takes = frozenset({"split", "missing"})

_META = "meta.json"
# Folders of annotations of a data set, of a project, and of data sets inside others.
_ANNOTATIONS = ("ann", "*/ann", "*/datasets/*/ann", "*/datasets/*/datasets/*/ann")
_JSONS_TO_RECOGNISE = 8
_BITMAPS = frozenset({"bitmap", "alpha_mask"})
_NO_AREA = frozenset({"point", "line", "polyline", "cuboid", "cuboid_2d", "cuboid_3d", "graph", "keypoints"})
_MOST_EXPANSION = 200  # times its size; a PNG is already compressed


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder `ann` below a folder, has Supervisely's objects and size."""
    return any(map(_is_annotation, _files(path)[:_JSONS_TO_RECOGNISE]))


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    folders = (
        [path] if path.name == "ann" else [folder for place in _ANNOTATIONS for folder in sorted(path.glob(place))]
    )
    return [file for folder in folders for file in files_in(folder, ".json")]


def _is_annotation(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and not outline.is_list and {"objects", "size"} <= outline.keys[0]


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a project of Supervisely.

    Args:
        path: the project, one of its data sets, a folder `ann`, or a single file of annotations.
        images: folder of the images; default: the folder `img` beside each `ann`.
        strict: raise at the first broken file or object, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there is no file of annotations, or one is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    geometries = _geometries(builder, path)
    items = of_jsons(builder, _files(path), "a Supervisely annotation", partial(_images, geometries))
    if not items:
        why = first_of(builder.problems, path)
        raise DataError(f"{path}: expected annotations of Supervisely in folders `ann`, found none{why}")
    listed = {title for title, geometry in geometries.items() if geometry not in _NO_AREA} - NO_CLASS
    add_named_categories(builder, listed | labels_of(items))
    rest = add_labelled(builder, chosen(builder, items, hints.split), images)
    add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def _geometries(builder: DatasetBuilder, path: Path) -> dict[str, str]:
    """The kind of shape of each class of the project, whose `meta.json` lies at the path or in a folder above."""
    for folder in (path, *list(path.absolute().parents)[:5]):
        file = folder / _META
        outline = json_outline(file)
        if outline is None or "classes" not in outline.keys[0]:
            continue
        try:
            classes = entries(read_json(file, "a meta.json"), "classes")
        except DataError as error:
            builder.problem(f"{file}: {error}")
            return {}
        named = [entry for entry in classes if isinstance(entry, Mapping) and isinstance(entry.get("title"), str)]
        return {entry["title"]: str(entry.get("shape")) for entry in named}
    return {}


def _images(
    geometries: Mapping[str, str], builder: DatasetBuilder, file: Path, where: str, content: Any
) -> list[Labelled]:
    if not isinstance(content, Mapping):
        raise DataError(f"expected an object with objects and size, found {short(content)}")
    size = size_of(content.get("size"))
    shapes = regions_of(builder, f"{where}: objects", entries(content, "objects"), partial(_region, geometries))
    split = split_of(file.parent.parent.name)
    return [Labelled(file.stem, where, file, (file.stem,), size, shapes, split=split)]


def _region(geometries: Mapping[str, str], entry: Mapping[str, Any]) -> Region:
    label = entry.get("classTitle")
    if not isinstance(label, str):
        raise DataError(f"expected a classTitle, found {short(label)}")
    kind = str(entry.get("geometryType") or geometries.get(label) or "any")
    if kind == "any":
        kind = "bitmap" if entry.get("bitmap") else "polygon"
    if kind in _NO_AREA:
        return Region(label, kind, None)
    if kind in _BITMAPS:
        return Region(label, kind, partial(_bitmap, entry.get("bitmap")))
    if kind not in ("polygon", "rectangle"):
        raise DataError(f"expected a known geometryType, found {short(kind)}")
    points = entry.get("points")
    if not isinstance(points, Mapping):
        raise DataError(f"expected points with exterior and interior, found {short(points)}")
    if kind == "polygon":
        rings = [points.get("exterior"), *entries(points, "interior")]
        return Region(label, kind, rings_draw(list(map(points_of, rings))))
    corners = points_of(points.get("exterior"), 2)
    low, high = corners.min(axis=0), corners.max(axis=0)
    if all(is_int(value) for corner in points["exterior"] for value in corner):
        high += 1  # both corners are pixels of the rectangle
    return Region(label, kind, box_draw(*low.tolist(), *(high - low).tolist()))


def _bitmap(bitmap: Any, size: Size) -> dict[str, Any]:
    """The mask of a PNG whose top left pixel is `origin`. Raises DataError for broken data."""
    if not isinstance(bitmap, Mapping):
        raise DataError(f"expected a bitmap with data and origin, found {short(bitmap)}")
    (origin,) = points_of([bitmap.get("origin")]).round().astype(np.int64).tolist()
    text: Any = bitmap.get("data")
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise DataError(f"expected a bitmap in base64, found {short(text)}") from None
    values = mask_values(_expanded(content), size)
    has_alpha = values.ndim == 3 and values.shape[2] in (2, 4)
    mask = values[..., -1] > 0 if has_alpha else foreground(values)
    return counted(bitmap_to_rle(mask, (origin[0], origin[1]), size))


def _expanded(content: bytes) -> bytes:
    """The PNG that was compressed with zlib, or the content itself if it was not."""
    expander = zlib.decompressobj()
    try:
        found = expander.decompress(content, _MOST_EXPANSION * len(content))
    except zlib.error:
        return content
    if not expander.eof:
        raise DataError(f"expected a whole bitmap of at most {_MOST_EXPANSION} times its size, found more, or a part")
    return found
