"""The formats of data sets on disk. Each is one module; docs/architecture.md shows how to add one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import islice
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple, Protocol

from maskrcnn.data.cache import cached_folder
from maskrcnn.data.coco_dialects import of_instances
from maskrcnn.data.formats.annotation_files import (
    coco,
    cvat,
    darwin,
    datumaro,
    geojson,
    hasty,
    hubmap,
    imagej,
    label_studio,
    labelbox,
    labelme,
    napari,
    open_images,
    rle_csv,
    supervisely,
    via,
    vott,
    yolo,
)
from maskrcnn.data.formats.mask_pictures import (
    ade20k,
    ade20k_challenge,
    cityscapes,
    kitti,
    label_images,
    mots,
    object_masks,
    panoptic,
    vistas,
    voc,
)
from maskrcnn.data.formats.others import recognise_other
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import IMAGE_FOLDERS, SPLITS
from maskrcnn.data.join import join
from maskrcnn.data.labelled import split_of
from maskrcnn.data.pictures import files_in
from maskrcnn.errors import DataError
from maskrcnn.files.csv_table import csv_beginning, text_fault
from maskrcnn.files.json_file import json_outline, read_json
from maskrcnn.structures.dataset import Dataset

_SUFFIXES = (".json", ".ndjson", ".csv", ".xml")  # of annotation files
_TEXTS = (*_SUFFIXES, ".jsonl", ".geojson", ".tsv", ".yaml", ".yml")  # of files that people write as text
_TABLES = (".csv", ".tsv")
_MOST_FOLDERS = 50  # of one level below a folder, in which a data set is searched for
_LEVELS = 3  # of folders below
_MOST_BYTES = 1 << 24  # of a JSON that is read to say what is wrong with it


class Format(Protocol):
    """The interface of a format's module. `data/convert.py` describes what a format has that can be written."""

    name: str
    """Name in messages, such as "COCO JSON"."""
    key: str
    """Name for `Hints.format` and `--format`, such as "coco"."""
    takes: frozenset[str]
    """Names of the other hints that `read` uses."""

    def recognise(self, path: Path) -> bool:
        """Whether an existing file or folder looks like this format. It reads only the beginning of a file."""
        ...

    def read(self, path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
        """Reads the data set with a `DatasetBuilder`; arguments and errors as for `read_dataset`."""
        ...


FORMATS: tuple[Format, ...] = (
    *(coco, rle_csv, label_images, object_masks, labelme, yolo, voc, cvat, label_studio, via),
    *(cityscapes, kitti, mots, vistas, ade20k, ade20k_challenge, panoptic, hubmap),
    *(supervisely, darwin, geojson, imagej, napari, labelbox, vott, datumaro, open_images, hasty),
)


class Found(NamedTuple):
    """The data set at a path.

    Attributes:
        places: the file or folder of each part, by the name of the part: train, val or test. A data set without parts,
            or whose format knows them itself, has one with an empty name.
    """

    format: Format
    places: dict[str, Path]

    @property
    def has_parts(self) -> bool:
        """Whether `Hints.split` can choose one."""
        return "split" in self.format.takes or len(self.places) > 1


def read_dataset(
    path: Path | str, images: Path | str | None = None, *, strict: bool = False, hints: Hints = NO_HINTS
) -> Dataset:
    """Reads a data set of any format.

    Args:
        path: the annotation file, or the folder that holds it, itself or in a folder below. Files or folders that are
            named like train, val and test are the parts of one data set.
        images: folder of the images; None for the default folder of the format.
        strict: raise at the first broken image or annotation, instead of leaving it out.
        hints: what the files do not say, such as the format if two fit.

    Raises:
        DataError: the path does not exist, not exactly one format recognises it, `images` is no folder, or the data set
            cannot be used.
    """
    path = Path(path)
    if images is not None and not os.path.isdir(images):
        raise DataError(f"{images}: expected the folder of the images, found no folder there; correct --images")
    images = Path(images) if images else None
    return cached_folder(path, (images, strict, hints), lambda: _read(path, images, strict, hints))


def _read(path: Path, images: Path | None, strict: bool, hints: Hints) -> Dataset:
    format, places = found = find_format(path, hints)
    takes = format.takes | ({"split"} if found.has_parts else set())
    given = {field.name for field in fields(hints) if getattr(hints, field.name) != field.default}
    if idle := sorted(given - takes - {"format"}):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise DataError(f"{path}: found {format.name}, for which {flags} means nothing; leave it out")
    if hints.split is not None and "" not in places:
        if hints.split not in places:
            raise DataError(f"{path}: expected --split to be one of {', '.join(places)}, found {hints.split}")
        places = {hints.split: places[hints.split]}
    parts = {
        split: format.read(
            place,
            images or _images_above(path, place),
            strict=strict,
            hints=replace(hints, split=None) if split else hints,
        )
        for split, place in places.items()
    }
    return replace(next(iter(parts.values())) if len(parts) == 1 else join(parts, path), format=format.name)


def _images_above(path: Path, place: Path) -> Path | None:
    """The images of annotations that lie so far below the folder of the data set that no reader would look there.

    Darwin has `images` and `releases/latest/annotations`, and others have `images/train` and `labels/train`.
    """
    above = path / IMAGE_FOLDERS[0]
    far = place.is_dir() and len(place.relative_to(path).parts) > 1
    if not far or not above.is_dir() or above in place.parents or (place.parent / above.name).is_dir():
        return None
    return above / place.name if (above / place.name).is_dir() else above


def find_format(path: Path, hints: Hints = NO_HINTS) -> Found:
    """The format of the data set at a path, and the files or folders to read.

    Raises:
        DataError: the path does not exist, or not exactly one format recognises it.
    """
    if not path.exists():
        raise DataError(
            f"{path}: no such file or folder, expected a data set: annotations or the folder that holds them"
        )
    wanted = hints.format or (rle_csv.key if hints.columns else None)
    candidates = [format for format in FORMATS if wanted in (None, format.key)]
    fitting = [(path, format) for format in candidates if format.recognise(path)]
    below = _folders_in([path]) if path.is_dir() else []
    if not fitting:
        fitting = _in_folders(below, candidates)
    elif len(fitting) == 1:
        fitting = _beside(fitting[0], below, candidates) or fitting
    if not fitting and wanted is not None:
        fitting = [(path, candidates[0])]  # a person said so: its reader knows best what is missing
    if not fitting:
        raise DataError(_not_found(path))
    formats = [format for format in candidates if any(fits is format for _, fits in fitting)]
    if len(formats) > 1:
        found = " and ".join(f"{format.name} in {place}" for place, format in fitting[:4])
        raise DataError(
            f"{path}: expected one data set, found {found}; name one of them, or say --format "
            f"{' or '.join(f.key for f in formats)}"
        )
    return Found(formats[0], _parts(path, formats[0], [place for place, _ in fitting]))


def _folders_in(places: Sequence[Path]) -> list[Path]:
    """The first folders in folders, without hidden ones."""
    found = (inner for place in places for inner in sorted(place.iterdir()) if inner.is_dir())
    return list(islice((folder for folder in found if not folder.name.startswith((".", "__"))), _MOST_FOLDERS))


def _in_folders(folders: Sequence[Path], candidates: Sequence[Format]) -> list[tuple[Path, Format]]:
    """The data sets in folders, or else in the folders below them, of which those of the fewest levels count."""
    for _ in range(_LEVELS):
        if found := [(folder, format) for folder in folders for format in candidates if format.recognise(folder)]:
            return found
        folders = _folders_in(folders)
    return []


def _beside(
    fitting: tuple[Path, Format], below: Sequence[Path], candidates: Sequence[Format]
) -> list[tuple[Path, Format]]:
    """The data sets in the folders below, if a format fits because it searches them, and another fits some of them.

    Then the folder is one of many data sets, and a reader that took its own would leave the others out in silence.
    """
    _, format = fitting
    own = [folder for folder in below if format.recognise(folder)]
    others = [folder for folder in below if folder not in own] if own else []
    found = [(folder, other) for folder in others for other in candidates if other.recognise(folder)]
    return [*((folder, format) for folder in own), *found] if found else []


def _parts(path: Path, format: Format, places: Sequence[Path]) -> dict[str, Path]:
    """The parts of a data set in several folders, or in several files of one folder.

    Raises:
        DataError: there are several folders, and their names are not those of different parts.
    """
    if len(places) == 1:
        (place,) = places
        files = of_instances(files_in(place, *_SUFFIXES, ".json.gz"))
        named = {split_of(file.name): file for file in files}
        one_each = len(files) == len(named) > 1 and "" not in named
        return _in_order(named) if one_each and all(map(format.recognise, files)) else {"": place}
    named = {split_of(str(place.relative_to(path))): place for place in places}
    if len(named) < len(places) or "" in named:
        listed = ", ".join(str(place) for place in places[:4])
        raise DataError(
            f"{path}: expected one data set, found {format.name} in {listed}; name one of the folders, or call them "
            "train, val and test if they are parts"
        )
    return _in_order(named)


def _in_order(named: Mapping[str, Path]) -> dict[str, Path]:
    return {split: named[split] for split in dict.fromkeys(SPLITS.values()) if split in named}


def _not_found(path: Path) -> str:
    """Says what is at a path that fits no format."""
    if other := recognise_other(path):
        return f"{path}: expected a data set in a format that is read, found {other.name}: {other.way}"
    return f"{path}: expected a data set, or a folder with one, found {_contents(path)}; {_todo(path)}"


def _todo(path: Path) -> str:
    """What to do about a path at which there is no data set."""
    texts = _texts(path)
    if broken := next((f"{file.name}: {fault}" for file in texts if (fault := _fault(file))), ""):
        return broken
    if path.is_dir() and not any(path.iterdir()):
        return "name another folder"
    inside = f"{texts[0].name} is {_contents(texts[0])}; " if path.is_dir() and texts else ""
    if texts and texts[0].suffix.lower() in _TABLES:
        return f"{inside}if the table holds run lengths, name its columns with --columns image=NAME mask=NAME"
    keys = ", ".join(format.key for format in FORMATS)
    return f"{inside}if it is one of these formats, say which with --format: {keys}"


def _texts(path: Path) -> list[Path]:
    """The files with the suffix of annotations: the path itself, or the first ones of a folder."""
    files = islice(sorted(path.iterdir()), _MOST_FOLDERS) if path.is_dir() else [path]
    return [file for file in files if file.suffix.lower() in _TEXTS and file.is_file()]


def _fault(file: Path) -> str:
    """Why a file that should hold annotations is neither text in UTF-8 nor JSON, and what to do; empty if it may be."""
    if file.suffix.lower() == ".json" and json_outline(file):
        try:
            if file.stat().st_size <= _MOST_BYTES:
                read_json(file, "annotations")
        except DataError as error:
            return str(error).removeprefix(f"{file}: ")
        return ""
    with file.open("rb") as opened:
        fault = text_fault(opened.read(1 << 16))
    return fault or ("JSON begins with { or [, this does not; write it again" if file.suffix.lower() == ".json" else "")


def _contents(path: Path) -> str:
    """What is at a path, in a few words."""
    if path.is_dir():
        entries = sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in path.iterdir())
        return f"a folder with {', '.join(entries[:6]) or 'nothing'}" + (" and more" if len(entries) > 6 else "")
    if outline := json_outline(path):
        keys = ", ".join(sorted(outline.keys[0])[:8])
        return f"a JSON {'list' if outline.is_list else 'object'} {f'with the keys {keys}' if keys else 'without keys'}"
    if path.suffix.lower() == ".json":
        return "a file that is not JSON"
    if path.suffix.lower() in _TABLES and (rows := csv_beginning(path)):
        return f"a CSV with the columns {', '.join(shorten(name, 40, placeholder='...') for name in rows[0][:8])}"
    return f"a file {path.suffix or 'without suffix'}"
