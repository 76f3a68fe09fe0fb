"""Reads Mapillary Vistas, whose values are 256 * label + object. Labels count from 0 in the list of a JSON, which says
which of them have objects. Of several versions of the labels, the newest is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats.mask_pictures.kitti import deep_numbers
from maskrcnn.data.formats.mask_pictures.segments import (
    Category,
    Meaning,
    Segments,
    Source,
    coded_segments,
    paired,
    read_source,
)
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.pictures import Picture, files_in
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import short

name = "Mapillary Vistas"
key = "mapillary-vistas"
takes = frozenset({"split", "missing"})

_LABELS, _IMAGES = "instances", "images"
_VERSION = re.compile(r"v(\d+)\.(\d+)")
_ABOVE = 2  # folders above, in which the JSON of the labels may lie

_MOST_CONFIGS = 50  # JSONs of a folder, which else holds the labels of images


def recognise(path: Path) -> bool:
    """Whether a folder holds pictures of instances, with the JSON of the labels there or up to two folders above."""
    return bool(_configs(path)) and bool(_label_folders(path))


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads Mapillary Vistas.

    Args:
        path: the folder that holds `training` and `config_v2.0.json`, or `training` itself.
        images: folder of the images; default: `images` in the folder of each part.
        strict: raise at the first broken picture, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there are no pictures of instances or no JSON of labels, or one is broken and `strict` is set.
    """
    folders = _label_folders(path)
    if not folders:
        raise DataError(f"{path}: expected pictures in folders {_LABELS}, found none")
    version = max(map(_version, folders))
    labels = {_part(folder): folder for folder in folders if _version(folder) == version}
    parts = (*labels, *(place.parent for place in sorted(path.glob(f"*/{_IMAGES}")) if place.parent not in labels))
    found = [one for part in parts for one in paired(images or part / _IMAGES, labels.get(part, part / _LABELS), path)]
    names = _read_labels(path, version)
    source = Source(found, partial(_read_picture, labels=names), partial(_add_classes, labels=names))
    return read_source(path, source, strict=strict, hints=hints)


def _label_folders(path: Path) -> list[Path]:
    """The folders of pictures of instances: of a part, of a version of a part, or the given one."""
    if not path.is_dir():
        return []
    return [folder for depth in ("", "*/", "*/*/") for folder in sorted(path.glob(f"{depth}{_LABELS}"))]


def _version(folder: Path) -> tuple[int, int]:
    """The version of a folder of labels, which the folder around it names in newer releases."""
    match = _VERSION.fullmatch(folder.parent.name)
    return _numbers(match) if match else (0, 0)


def _numbers(match: re.Match[str]) -> tuple[int, int]:
    return int(match[1]), int(match[2])


def _part(folder: Path) -> Path:
    return folder.parent if _version(folder) == (0, 0) else folder.parent.parent


def _configs(path: Path) -> list[Path]:
    """The JSON files of labels in the nearest folder that has one."""
    for folder in (path, *path.absolute().parents[:_ABOVE]):
        found = [file for file in files_in(folder, ".json")[:_MOST_CONFIGS] if _is_config(file)]
        if found:
            return found
    return []


def _is_config(file: Path) -> bool:
    outline = json_outline(file)
    return outline is not None and "labels" in outline.keys[0] and {"instances", "name"} <= outline.keys[1]


def _read_labels(path: Path, version: tuple[int, int]) -> list[Any]:
    """The name of each label; None for one without objects."""
    files = _configs(path)
    named = [file for file in files if (match := _VERSION.search(file.stem)) and _numbers(match) == version]
    file = next(iter(named or files), None)
    if file is None:
        raise DataError(f"{path}: expected the labels in a file such as config_v1.2.json, found none there or above")
    labels = read_json(file, "the labels of Mapillary Vistas")["labels"]
    if not isinstance(labels, list) or not all(isinstance(label, Mapping) for label in labels):
        raise DataError(f"{file}: expected a list of labels with name and instances, found {short(labels)}")
    return [label.get("name", "") if label.get("instances") else None for label in labels]


def _add_classes(builder: DatasetBuilder, used: Mapping[Category, str], labels: Sequence[Any]) -> None:
    for number, label in enumerate(labels):
        if label is not None:
            builder.add_category(number, label)


def _read_picture(file: Path, picture: Picture, labels: Sequence[Any]) -> Segments:
    # 0 is the first object of the first label, and no background.
    values = deep_numbers(file, picture).astype(np.int32)
    return coded_segments(values, partial(_meaning, labels=labels), background=-1)


def _meaning(value: int, labels: Sequence[Any]) -> Sequence[Meaning]:
    number = value // 256
    if number >= len(labels):
        raise DataError(f"expected one of the {len(labels)} labels of the JSON, found number {number}")
    return [Meaning(number)] if labels[number] is not None else []
