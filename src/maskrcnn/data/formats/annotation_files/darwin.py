"""Reads Darwin JSON of V7 (https://docs.v7labs.com), versions 1.0 and 2.0, one file for each image.

The paths of a polygon are even-odd: any of them may be a hole in any other. Masks lie in a raster layer, a list of
values and counts that goes right, then down. A bounding box alone is only a box. Lines, keypoints, skeletons and tags
have no area.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    entries,
    labels_of,
    of_jsons,
    parts_draw,
    regions_of,
    rings_draw,
    size_of,
)
from maskrcnn.data.pictures import add_named_categories, add_unlabelled, files_in
from maskrcnn.data.regions import counted, ellipse, numbers_of, points_of, spans_to_rle
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import short, under, whole_number

name = "Darwin JSON"
key = "darwin"
takes = frozenset({"missing"})

_JSONS_TO_RECOGNISE = 8
_NO_AREA = ("line", "keypoint", "skeleton", "tag", "cuboid", "eye", "link", "string", "graph", "table", "simple_table")


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, has an item (an image in version 1.0) and annotations."""
    return any(map(_is_darwin, _files(path)[:_JSONS_TO_RECOGNISE]))


def _files(path: Path) -> list[Path]:
    return files_in(path, ".json") if path.is_dir() else [path]


def _is_darwin(file: Path) -> bool:
    outline = json_outline(file)
    if outline is None or outline.is_list or "annotations" not in outline.keys[0]:
        return False
    first, second, _ = outline.keys
    return "item" in first or ("image" in first and "filename" in second)


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the Darwin JSONs of a folder, or a single one.

    Args:
        path: the folder, or the file.
        images: folder of the images; default: they are searched for from the folder of the files.
        strict: raise at the first broken file or annotation, instead of leaving it out.
        hints: `missing` is used for images without a file.

    Raises:
        DataError: there is no Darwin JSON, or one is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    items = of_jsons(builder, _files(path), "a Darwin JSON", _images)
    if not items:
        why = first_of(builder.problems, path)
        raise DataError(f"{path}: expected Darwin JSONs with an item and annotations, found none that can be used{why}")
    add_named_categories(builder, labels_of(items))
    rest = add_labelled(builder, items, images)
    if path.is_dir():
        add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def _images(builder: DatasetBuilder, file: Path, where: str, content: Any) -> Iterator[Labelled]:
    """The images of a file: one for each slot of its item."""
    item = content.get("item", content.get("image")) if isinstance(content, Mapping) else None
    if not isinstance(item, Mapping):
        raise DataError(f"expected an object with item and annotations, found {short(content)}")
    annotations = [entry for entry in entries(content, "annotations") if _layer(entry) is None]
    layers = [layer for entry in entries(content, "annotations") if (layer := _layer(entry)) is not None]
    slots = entries(item, "slots") or [item]
    for number, slot in enumerate(slots):
        if not isinstance(slot, Mapping) or slot.get("type", "image") != "image":
            raise DataError(f"expected slots of the type image, found {short(slot)}")
        own = slot.get("slot_name") if len(slots) > 1 else None
        here = [entry for entry in annotations if _lies_in(entry, own, number)]
        shapes = regions_of(builder, f"{where}: annotations", here, partial(_region, layers))
        names = _names(item, slot, len(slots) > 1)
        yield Labelled(
            Path(names[0]).name, where if own is None else f"{where}#{own}", file, names, size_of(slot), shapes
        )


def _lies_in(entry: Any, slot: Any, number: int) -> bool:
    """Whether an annotation belongs to a slot; one that names none belongs to the first."""
    named = entry.get("slot_names") if isinstance(entry, Mapping) else None
    return slot is None or (slot in named if isinstance(named, list) and named else number == 0)


def _names(item: Mapping[str, Any], slot: Mapping[str, Any], several: bool) -> list[str]:
    """The names under which the image may be saved: with its folder, without it, and as it was uploaded."""
    sources = slot.get("source_files")
    source = sources[0] if isinstance(sources, list) and sources else {}
    uploaded = under(source, "file_name")
    names = [item.get("name") or item.get("filename"), uploaded, item.get("original_filename")]
    texts = [name for name in (names[::-1] if several else names) if isinstance(name, str) and name]
    if not texts:
        raise DataError("expected the name of the image, found none")
    folder = str(item.get("path") or "").strip("/")
    return [f"{folder}/{texts[0]}", *texts] if folder else list(dict.fromkeys(texts))


def _layer(entry: Any) -> Mapping[str, Any] | None:
    layer = under(entry, "raster_layer")
    return layer if isinstance(layer, Mapping) else None


def _region(layers: Sequence[Mapping[str, Any]], entry: Mapping[str, Any]) -> Region:
    label = entry.get("name")
    if not isinstance(label, str):
        raise DataError(f"expected the name of a class, found {short(label)}")
    if "frames" in entry:
        raise DataError("expected an annotation of an image, found frames of a video")
    if polygon := entry.get("polygon") or entry.get("complex_polygon"):
        return Region(label, "polygon", rings_draw(_paths(polygon)))
    if "mask" in entry:
        return Region(label, "mask", partial(_mask, layers, entry.get("id")))
    if "ellipse" in entry:
        (x, y), (rx, ry) = (numbers_of(under(entry, "ellipse", part), "x", "y") for part in ("center", "radius"))
        (angle,) = numbers_of({"angle": under(entry, "ellipse", "angle") or 0}, "angle")
        return Region(label, "ellipse", parts_draw([ellipse((x, y), (rx, ry), angle)]))
    if box := entry.get("bounding_box"):
        x, y, width, height = numbers_of(box, "x", "y", "w", "h")
        return Region(label, "bounding_box", box_draw(x, y, width, height))
    kind = next((kind for kind in _NO_AREA if kind in entry), None)
    if kind is None:
        raise DataError(f"expected a polygon, mask, ellipse or bounding_box, found the keys {', '.join(entry)}")
    return Region(label, kind, None)


def _paths(polygon: Any) -> list[np.ndarray]:
    """The rings of a polygon: `paths`, or `path` of version 1.0, which is a list of rings if it has several."""
    if not isinstance(polygon, Mapping):
        raise DataError(f"expected a polygon with paths, found {short(polygon)}")
    paths = entries(polygon, "paths")
    if not paths:
        path = entries(polygon, "path")
        paths = path if path and isinstance(path[0], list) else [path]
        paths += entries(polygon, "additional_paths")
    return [points_of(path) for path in paths]


def _mask(layers: Sequence[Mapping[str, Any]], own: Any, size: Size) -> dict[str, Any]:
    """The mask with the id of an annotation in one of the raster layers."""
    for layer in layers:
        mapping = layer.get("mask_annotation_ids_mapping")
        if isinstance(mapping, Mapping) and isinstance(own, str) and own in mapping:
            return counted(_layer_mask(layer.get("dense_rle"), mapping[own], size))
    raise DataError(f"expected a raster layer with the mask {short(own)}, found none")


def _layer_mask(runs: Any, value: Any, size: Size) -> RLE:
    """The pixels of a value in a list of values and counts that goes right, then down."""
    pixels = size[0] * size[1]
    try:
        numbers = np.array(runs, dtype=np.int64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.zeros(0, dtype=np.int64)
    if numbers.ndim != 1 or len(numbers) % 2 or not len(numbers):
        raise DataError(f"expected dense_rle as a list of values and counts, found {short(runs)}")
    values, counts = numbers[0::2], numbers[1::2]
    if counts.min() < 0 or counts.max() > pixels or counts.sum() != pixels:
        raise DataError(f"expected dense_rle of {pixels} pixels, found {int(counts.sum())}")
    number = whole_number(value)
    if number is None:
        raise DataError(f"expected mask_annotation_ids_mapping to give whole numbers, found {short(value)}")
    own = (values == number) & (counts > 0)
    return spans_to_rle((np.cumsum(counts) - counts)[own], counts[own], size, "right")
