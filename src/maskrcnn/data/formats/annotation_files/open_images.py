"""Reads the segmentations of Open Images (https://storage.googleapis.com/openimages/web): tables that name PNGs.

A mask may be smaller or larger than its image, to which it is scaled. The tables are named like `train`, `validation`
and `test`, which are the parts of the data set. Another table gives the classes their names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.image_places import Place, find_images
from maskrcnn.data.labelled import Labelled, Region, add_labelled, chosen, place_of, split_of
from maskrcnn.data.pictures import add_unlabelled, files_in
from maskrcnn.data.regions import counted, foreground, mask_values
from maskrcnn.errors import DataError
from maskrcnn.files.csv_table import csv_beginning, csv_rows
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

name = "Open Images"
key = "open-images"
takes = frozenset({"split", "missing"})

_COLUMNS = ("MaskPath", "ImageID", "LabelName")
_FOLDERS = ("", "annotations", "labels", "csv", "metadata")  # below a data set, in which tables may lie


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder or in `annotations`, is a table of masks of Open Images."""
    return bool(_tables(path))


def _tables(path: Path) -> list[Path]:
    """The tables of masks."""
    return [file for file in _csvs(path) if set(_COLUMNS) <= set((csv_beginning(file) or [[]])[0])]


def _csvs(path: Path) -> list[Path]:
    return [file for folder in _FOLDERS for file in files_in(path / folder, ".csv")] if path.is_dir() else [path]


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads Open Images.

    Args:
        path: the data set, the folder of its tables, or one table.
        images: folder of the images; default: they are searched for from the folder of the tables.
        strict: raise at the first broken row, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there is no table of masks, or a row is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    tables = _tables(path)
    if not tables:
        raise DataError(f"{path}: expected a CSV with the columns {', '.join(_COLUMNS)}, found none")
    rows = {table: _rows(builder, table) for table in tables}
    names = _class_names(path if path.is_dir() else path.parent)
    for label in sorted({row.label for found in rows.values() for row in found}):
        builder.add_category(label, names.get(label, label))
    items = [item for table, found in rows.items() for item in _images(builder, table, found)]
    rest = add_labelled(builder, chosen(builder, items, hints.split), images)
    add_unlabelled(builder, rest, hints.missing)
    return builder.build()


class _Row(NamedTuple):
    line: int
    mask: str
    image: str
    label: str


def _rows(builder: DatasetBuilder, table: Path) -> list[_Row]:
    lines = csv_rows(table)
    header = next(lines)[1]
    places = [header.index(column) for column in _COLUMNS]
    found = []
    for line, cells in lines:
        if len(cells) <= max(places) or not all(cells[place] for place in places):
            builder.problem(f"{place_of(builder, table)}: line {line}: expected {', '.join(_COLUMNS)}, found {cells}")
        else:
            found.append(_Row(line, *(cells[place] for place in places)))
    return found


def _class_names(folder: Path) -> dict[str, str]:
    """The name of each class by its id, from `oidv6-class-descriptions.csv` or a similar file, or FiftyOne's."""
    files = [file for file in _csvs(folder) if "class-descriptions" in file.name or file.name == "classes.csv"]
    return {cells[0]: cells[1] for file in files for _, cells in csv_rows(file) if len(cells) > 1 and cells[1]}


def _images(builder: DatasetBuilder, table: Path, rows: Sequence[_Row]) -> list[Labelled]:
    """The images of a table with their masks, whose files are looked for under their names alone."""
    masks = dict(zip(rows, find_images([Path(row.mask).name for row in rows], table), strict=True))
    where, split = place_of(builder, table), split_of(table.stem)
    items: dict[str, list[Region]] = {}
    for row, place in masks.items():
        region = Region(row.label, "mask", partial(_mask, place), f"{where}: line {row.line}")
        items.setdefault(row.image, []).append(region)
    return [
        Labelled(image, f"{where}: {image}", table, (image,), None, regions, split=split)
        for image, regions in items.items()
    ]


def _mask(place: Place, size: Size) -> dict[str, Any]:
    """The mask in a file, scaled to the size of its image. Raises DataError if it cannot be read."""
    if place.fault:
        raise DataError(f"{place.path}: expected a mask, found {place.fault}")
    try:
        content = place.path.read_bytes()
    except OSError as error:
        raise DataError(f"{place.path}: cannot be read ({error.strerror}), expected a mask") from None
    bitmap = foreground(mask_values(content, size))
    height, width = bitmap.shape
    # The nearest pixel of the mask for the centre of each pixel of the image.
    rows = (2 * np.arange(size[0]) + 1) * height // (2 * size[0])
    columns = (2 * np.arange(size[1]) + 1) * width // (2 * size[1])
    return counted(RLE.from_dense(bitmap[rows[:, None], columns]))
