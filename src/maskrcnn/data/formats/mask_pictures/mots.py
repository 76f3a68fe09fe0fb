"""Reads MOTS (https://www.vision.rwth-aachen.de/page/mots): a picture for each frame, of values 1000 * class + object.

Class 1 is a car and 2 a pedestrian. 10000 is to be ignored, whatever it shows. So it is a crowd region of both classes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats.mask_pictures.segments import (
    Category,
    LabelledImage,
    Meaning,
    Segments,
    Source,
    coded_segments,
    images_below,
    missing,
    part_of,
    read_numbers,
    read_source,
)
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place
from maskrcnn.data.pictures import Picture
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset

name = "MOTS"
key = "mots"
takes = frozenset({"split", "missing"})

_LABELS = "instances"
_SEQUENCE = re.compile(r"(?:MOTS\d*-)?\d{2,4}")
_CLASSES = {1: "car", 2: "pedestrian"}
_IGNORED = 10000


def recognise(path: Path) -> bool:
    """Whether a folder, or one in it, has `instances` with a folder for each sequence."""
    return any(_sequences(folder) for folder in _label_folders(path))


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads MOTS.

    Args:
        path: the folder that holds `instances` and, below, a folder of images for each sequence.
        images: folder of the sequences' images, which may be in folders below; default: `path`.
        strict: raise at the first broken picture, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there are no pictures of instances, or one is broken and `strict` is set.
    """
    folders = _label_folders(path)
    labels = [(file, folder) for folder in folders for place in _sequences(folder) for file in images_below(place)]
    pictures: dict[str, list[Path]] = {}
    for file in images_below(images or path):
        if not any(folder in file.parents for folder in folders):
            pictures.setdefault(_frame(file), []).append(file)
    found = []
    for file, folder in labels:
        frame, part = _frame(file), part_of(folder, path)
        # The sequences of the test set have no labels, and the same names.
        parts = {part_of(own, images or path): own for own in pictures.get(frame, [])}
        chosen = next((own for own in (part, "", "train", "val") if own in parts), None)
        place = missing(path / "images" / frame) if chosen is None else Place(parts[chosen])
        found.append(LabelledImage(frame, place, file, part or chosen or ""))
    found += [
        LabelledImage(frame, Place(own), None, part_of(own, images or path))
        for frame, files in pictures.items()
        for own in files
    ]
    return read_source(path, Source(found, _read_labels, _add_classes), strict=strict, hints=hints)


def _label_folders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [path / _LABELS] if (path / _LABELS).is_dir() else sorted(path.glob(f"*/{_LABELS}"))


def _sequences(folder: Path) -> list[Path]:
    return [place for place in sorted(folder.iterdir()) if place.is_dir() and _SEQUENCE.fullmatch(place.name)]


def _frame(file: Path) -> str:
    """The sequence and the number of a frame, such as `0002/000010`."""
    folder = file.parent.parent if file.parent.name == "img1" else file.parent
    return f"{folder.name}/{file.stem}"


def _add_classes(builder: DatasetBuilder, used: Mapping[Category, str]) -> None:
    for number, label in _CLASSES.items():
        builder.add_category(number, label)


def _read_labels(file: Path, picture: Picture) -> Segments:
    return coded_segments(read_numbers(file, picture), _meaning)


def _meaning(value: int) -> Sequence[Meaning]:
    if value == _IGNORED:
        return [Meaning(number, crowd=True) for number in _CLASSES]
    if value // 1000 not in _CLASSES:
        raise DataError(f"expected values 1000 * class + object of the classes 1 and 2, or {_IGNORED}, found {value}")
    return [Meaning(value // 1000)]
