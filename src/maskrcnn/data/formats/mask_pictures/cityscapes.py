"""Reads Cityscapes (https://github.com/mcordts/cityscapesScripts), and what is laid out like it.

The values of `<name>_gtFine_instanceIds.png` from 1000 on are 1000 * class + object. Values below 1000 are classes: of
regions without objects, or of a group that is not told apart, which becomes a crowd region. Without that picture, the
polygons of `<name>_gtFine_polygons.json` are drawn over each other in their order. Fine labels come before coarse ones.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats.mask_pictures.segments import (
    Category,
    LabelledImage,
    Meaning,
    Segment,
    Segments,
    Source,
    any_below,
    coded_segments,
    files_below,
    images_below,
    missing,
    part_of,
    read_numbers,
    read_source,
)
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place
from maskrcnn.data.pictures import Picture
from maskrcnn.data.regions import label_image_to_rles, points_of
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import read_json
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import short, whole_number

name = "Cityscapes"
key = "cityscapes"
takes = frozenset({"split", "missing"})

CLASSES = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
    *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole"),
    *("polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
    *("bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
"""The names of the classes, by number."""
THINGS = range(24, 34)
"""The classes that have objects."""
_STUFF = frozenset(CLASSES[: THINGS.start]) | {"license plate"}
_UNLABELLED = 4  # the classes below cover all of an image that nobody has labelled, as in the test set
_LABELS = re.compile(r"(?P<image>.+)_gt(?P<kind>[A-Z][a-z]+)_(?P<file>instanceIds\.png|polygons\.json)")
_ORDER = (("Fine", "instanceIds.png"), ("Fine", "polygons.json"), ("Coarse", "instanceIds.png"))
_IMAGES, _IMAGE_SUFFIX = "leftImg8bit", "_leftImg8bit"
_DEPTH = 3  # folders: gtFine, the part, the city
_MOST_PIXELS = 1 << 26  # of a picture that is drawn from polygons


def recognise(path: Path) -> bool:
    """Whether a folder holds the labels of Cityscapes, at most three folders below."""
    return path.is_dir() and any_below(path, lambda file: bool(_LABELS.fullmatch(file.name)), _DEPTH)


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads Cityscapes.

    Args:
        path: the folder that holds `gtFine` and `leftImg8bit`, or `gtFine` or a folder in it.
        images: folder of the images, which may be in folders below; default: `leftImg8bit`.
        strict: raise at the first broken file, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there are no labels, or a file is broken and `strict` is set.
    """
    return read_source(path, Source(_find(path, images), _read_labels, add_classes), strict=strict, hints=hints)


def add_classes(builder: DatasetBuilder, used: Mapping[Category, str]) -> None:
    """Adds the classes that have objects, and others that are used, by number or name."""
    for number in sorted({*THINGS, *(own for own in used if isinstance(own, int))}):
        builder.add_category(number, CLASSES[number] if number < len(CLASSES) else f"class {number}")
    for label in sorted(own for own in used if isinstance(own, str)):
        builder.add_category(label, label)


def _find(path: Path, images: Path | None) -> list[LabelledImage]:
    labels: dict[str, tuple[int, Path]] = {}
    for file in files_below(path):
        if match := _LABELS.fullmatch(file.name):
            kind = (match["kind"], match["file"])
            rank = _ORDER.index(kind) if kind in _ORDER else len(_ORDER)
            if rank < labels.get(match["image"], (len(_ORDER) + 1, path))[0]:
                labels[match["image"]] = rank, file
    root = _root(path)
    pictures = {
        file.stem.removesuffix(_IMAGE_SUFFIX): file
        for file in images_below(images or (root / _IMAGES if (root / _IMAGES).is_dir() else root))
        if images or file.stem.endswith(_IMAGE_SUFFIX)
    }
    found = [
        LabelledImage(
            stem,
            Place(pictures[stem]) if stem in pictures else missing(root / _IMAGES / f"{stem}{_IMAGE_SUFFIX}.png"),
            file,
            part_of(file, path),
        )
        for stem, (_, file) in labels.items()
    ]
    if root != path:  # the images of other parts are no part of what was asked for
        return found
    rest = [(stem, file) for stem, file in pictures.items() if stem not in labels]
    return found + [LabelledImage(stem, Place(file), None, part_of(file, images or root)) for stem, file in rest]


def _root(path: Path) -> Path:
    """The folder that holds the images, for that of the labels or one in it."""
    above = path.absolute()
    inside = any(folder.lower().startswith("gt") for folder in above.parts[-_DEPTH:])
    return next((folder for folder in above.parents if inside and (folder / _IMAGES).is_dir()), path)


def _read_labels(file: Path, picture: Picture) -> Segments:
    if file.suffix.lower() == ".json":
        return _read_polygons(file, picture)
    values = read_numbers(file, picture)
    return coded_segments(values, _meaning)._replace(labelled=bool((values >= _UNLABELLED).any()))


def _meaning(value: int) -> Sequence[Meaning]:
    if value >= 1000:
        return [Meaning(value // 1000)]
    return [Meaning(value, crowd=True)] if value in THINGS else []


def _read_polygons(file: Path, picture: Picture) -> Segments:
    """The visible parts of the polygons of a JSON, of which later ones cover earlier ones."""
    content = read_json(file, "polygons of Cityscapes")
    entries = content.get("objects") if isinstance(content, Mapping) else None
    if not isinstance(entries, list):
        raise DataError(f"{file}: expected an object with the list objects, found {short(content)}")
    size = (whole_number(content.get("imgHeight")) or 0, whole_number(content.get("imgWidth")) or 0)
    if min(size) < 1 or size[0] * size[1] > _MOST_PIXELS:
        raise DataError(f"{file}: expected imgHeight and imgWidth of up to {_MOST_PIXELS} pixels, found {size}")
    canvas = np.zeros(picture.size or size, dtype=np.int32)
    labels, faults = [""], []
    for entry in entries:
        try:
            label, points = _polygon(entry)
            bitmap, (x, y) = RLE(canvas.shape, polygons_to_rle([points], canvas.shape)).crop()
        except DataError as error:
            faults.append(f"{file.name}: {error}")
            continue
        if label:
            canvas[y : y + bitmap.shape[0], x : x + bitmap.shape[1]][bitmap != 0] = len(labels)
            labels.append(label)
    counts: Counter[str] = Counter()
    found = []
    for number, mask in zip(*label_image_to_rles(canvas), strict=True):
        label = labels[number]
        counts[label] += 1
        found += [Segment(f"{label}.{counts[label]}", kind, mask, crowd) for kind, crowd in _named(label)]
    return Segments(size, found, faults, labelled=not set(labels[1:]) <= set(CLASSES[:_UNLABELLED]))


def _polygon(entry: Any) -> tuple[str, np.ndarray]:
    """The label of an object and its (n, 2) polygon; no label for an object that is marked as deleted."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("label"), str):
        raise DataError(f"expected objects with label and polygon, found {short(entry)}")
    return "" if entry.get("deleted") else entry["label"], points_of(entry.get("polygon"))


def _named(label: str) -> Sequence[Meaning]:
    """What a label stands for. One that Cityscapes does not know is a class of objects."""
    whole = label if label in CLASSES or not label.endswith("group") else label.removesuffix("group")
    if whole in _STUFF:
        return []
    return [Meaning(CLASSES.index(whole) if whole in CLASSES else whole, crowd=whole != label)]
