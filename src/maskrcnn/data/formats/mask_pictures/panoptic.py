"""Reads COCO panoptic JSON (https://cocodataset.org/#format-data), with a picture of ids for each image.

The id of a pixel is red + 256 * green + 65536 * blue. Only the segments of things are objects; those of stuff are left
out. Boxes and areas are those of the pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.coco_dialects import is_panoptic
from maskrcnn.data.formats.mask_pictures.segments import Category, LabelledImage, Segment, Segments, Source, read_source
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import ANNOTATION_FOLDERS, find_images
from maskrcnn.data.pictures import Picture, files_in, read_masks
from maskrcnn.data.regions import label_image_to_rles
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import as_id, short, under

name = "COCO panoptic"
key = "coco-panoptic"
takes = frozenset({"missing"})

_LISTS = ("images", "annotations", "categories")
_JSONS_TO_RECOGNISE = 8
_TRIES = 10  # pictures by which their folder is known


def recognise(path: Path) -> bool:
    """Whether a file, or a JSON in a folder, lists segments of pictures."""
    return any(map(is_panoptic, _files(path)[:_JSONS_TO_RECOGNISE]))


def _files(path: Path) -> list[Path]:
    return files_in(path, ".json") if path.is_dir() else [path]


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a COCO panoptic JSON.

    Args:
        path: the JSON, or a folder with one. Its pictures lie in a folder beside it, mostly of the same name.
        images: folder of the images; default: the places that `find_images` knows.
        strict: raise at the first broken picture or segment, instead of leaving it out.
        hints: `missing` is used for images without a picture.

    Raises:
        DataError: the JSON cannot be used, or a picture or segment is broken and `strict` is set.
    """
    files = [file for file in _files(path) if file == path or is_panoptic(file)]
    if len(files) != 1:
        listed = ", ".join(file.name for file in files[:5]) or "none"
        raise DataError(f"{path}: expected one COCO panoptic JSON, found {listed}; name the file itself")
    (path,) = files
    content = read_json(path, "a COCO panoptic JSON")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in _LISTS):
        raise DataError(f"{path}: expected an object with lists {', '.join(_LISTS)}, found {short(content)}")
    things = _things(content["categories"])
    pictures = {as_id(under(entry, "image_id")): entry for entry in content["annotations"]}
    folder = _folder(path, [Path(str(under(entry, "file_name"))).name for entry in content["annotations"][:_TRIES]])
    names = [str(under(entry, "file_name")) for entry in content["images"]]
    found, segments = [], {}
    for entry, place in zip(content["images"], find_images(names, path, images, without=folder), strict=True):
        own = as_id(under(entry, "id"))
        picture = pictures.get(own)
        file = None if picture is None else folder / Path(str(under(picture, "file_name"))).name
        if file is not None:
            segments[file] = under(picture, "segments_info")
        found.append(LabelledImage(short(own) if own is None else own, place, file))
    add = partial(_add_classes, things=things, categories=content["categories"])
    source = Source(found, partial(_read_picture, segments=segments, things=things), add)
    return read_source(path, source, strict=strict, hints=hints)


def _folder(path: Path, names: list[str]) -> Path:
    """The folder of the pictures, of which some names are given. Images may have the same names."""
    home = path.parent
    floors = (home, home.parent) if home.name.lower() in ANNOTATION_FOLDERS else (home,)
    around = sorted(place for floor in floors for place in floor.iterdir() if place.is_dir())
    named = [place for place in around if "panoptic" in place.name.lower()]
    tried = [home / path.stem, home.parent / path.stem, *named, home, *around]
    # os.path.isfile also answers for names that no file can have.
    return next((place for place in tried if any(os.path.isfile(place / name) for name in names)), tried[0])


def _things(categories: list[Any]) -> dict[int | str | None, bool]:
    """Whether the segments of a category are objects, by its id. Without `isthing`, all are."""
    return {as_id(under(entry, "id")): under(entry, "isthing") not in (0, False) for entry in categories}


def _add_classes(
    builder: DatasetBuilder,
    used: Mapping[Category, str],
    things: Mapping[int | str | None, bool],
    categories: list[Any],
) -> None:
    for entry in categories:
        if things[as_id(under(entry, "id"))]:
            builder.add_category(under(entry, "id"), under(entry, "name"))
    if stuff := sum(not thing for thing in things.values()):
        builder.choice(f"the segments of stuff are left out, and only things are read (categories of stuff: {stuff})")


def _read_picture(
    file: Path, picture: Picture, segments: Mapping[Path, Any], things: Mapping[int | str | None, bool]
) -> Segments:
    values = read_masks(file, picture)
    if values.ndim == 3:
        red, green, blue = np.moveaxis(values[..., :3].astype(np.int32), 2, 0)
        values = red + 256 * green + 65536 * blue
    ids, masks = label_image_to_rles(values)
    by_id = dict(zip(ids, masks, strict=True))
    entries = segments[file]
    if not isinstance(entries, list):
        raise DataError(f"expected segments_info as a list, found {short(entries)}")
    found, faults, listed = [], [], set()
    for entry in entries:
        own, category = as_id(under(entry, "id")), as_id(under(entry, "category_id"))
        listed.add(own)
        if own is None or category is None or category not in things:
            faults.append(f"segment {short(own)}: expected an id and a known category, found {short(category)}")
        elif own not in by_id:
            faults.append(f"segment {short(own)}: {file.name} has no pixel of it")
        elif things[category]:
            found.append(Segment(own, category, by_id[own], under(entry, "iscrowd") or 0))
    if others := [own for own in ids if own not in listed]:
        faults.append(f"{len(others)} ids of {file.name} are not in segments_info, first: {others[0]}")
    return Segments((int(values.shape[0]), int(values.shape[1])), found, faults)
