"""Reads the CSV of a shapes layer of napari (https://napari.org), one file for each image.

Each row is a corner, with the last two axes y and x. Their origin is the centre of the first pixel. A rectangle and an
ellipse have the four corners of their box. There are no classes, and the image has the name of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import Labelled, Region, add_labelled, extent, image_names, place_of, rings_draw
from maskrcnn.data.pictures import add_named_categories, add_unlabelled, files_in
from maskrcnn.data.regions import ellipse, points_of
from maskrcnn.errors import DataError, omission
from maskrcnn.files.csv_table import csv_beginning, csv_rows
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.values import short

name = "napari shapes"
key = "napari"
takes = frozenset({"missing"})

_FILES_TO_RECOGNISE = 8
_INDEX, _KIND, _AXIS = "index", "shape-type", "axis-"
_COLUMNS = {_INDEX, _KIND, "vertex-index", "axis-0", "axis-1"}
_CORNERS = frozenset({"rectangle", "ellipse"})  # shapes of four corners
_NO_AREA = frozenset({"path", "line"})


class _Corners(NamedTuple):
    """The corners of a shape.

    Attributes:
        line: of its first corner in the file.
        places: of each corner, the coordinates on all axes as text.
    """

    line: int
    kind: str
    places: list[list[str]]


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder, is a table with napari's columns."""
    return any(map(_is_napari, _files(path)[:_FILES_TO_RECOGNISE]))


def _files(path: Path) -> list[Path]:
    return files_in(path, ".csv") if path.is_dir() else [path]


def _is_napari(file: Path) -> bool:
    return file.suffix.lower() == ".csv" and set((csv_beginning(file) or [[]])[0]) >= _COLUMNS


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the CSVs of a folder, or a single one.

    Args:
        path: the folder, or the file.
        images: folder of the images; default: they are searched for from the folder of the files.
        strict: raise at the first broken file or shape, instead of leaving it out.
        hints: `missing` is used for images without a file.

    Raises:
        DataError: there is no CSV of napari, or one is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    files = [file for file in _files(path) if _is_napari(file)]
    if not files:
        raise DataError(f"{path}: expected a CSV with the columns {', '.join(sorted(_COLUMNS))}, found none")
    named = image_names(builder, files, images)
    items = []
    for file in files:
        where = place_of(builder, file)
        try:
            regions, points = _regions(builder, where, _corners(file))
        except DataError as error:
            builder.problem(str(error).removeprefix(f"{builder.path}: "))
            continue
        items.append(Labelled(named[file], where, file, (named[file],), None, regions, least=extent(points)))
    add_named_categories(builder, [ONLY_CLASS])
    rest = add_labelled(builder, items, images)
    if path.is_dir():
        add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def _corners(file: Path) -> list[_Corners]:
    """The shapes of a file. Raises DataError if it is no table."""
    lines = csv_rows(file)
    header = next(lines)[1]
    axes = [header.index(column) for column in sorted(header) if column.startswith(_AXIS)]
    index, kind = header.index(_INDEX), header.index(_KIND)
    found: dict[str, _Corners] = {}
    for line, cells in lines:
        cells += [""] * (len(header) - len(cells))
        shape = found.setdefault(cells[index], _Corners(line, cells[kind], []))
        shape.places.append([cells[axis] for axis in axes])
    return list(found.values())


def _regions(builder: DatasetBuilder, where: str, found: Sequence[_Corners]) -> tuple[list[Region], list[np.ndarray]]:
    """The shapes of the first plane, and their points x, y."""
    regions: list[Region] = []
    points: list[np.ndarray] = []
    elsewhere = 0
    for shape in found:
        at = f"{where}: line {shape.line}"
        if shape.places[0][:-2] != found[0].places[0][:-2]:
            elsewhere += 1
        elif shape.kind in _NO_AREA:
            regions.append(Region(ONLY_CLASS, shape.kind, None, at))
        else:
            try:
                ring = _ring(shape)
                regions.append(Region(ONLY_CLASS, shape.kind, rings_draw([ring]), at))
                points.append(ring)
            except DataError as error:
                builder.problem(f"{at}: {error}")
    if elsewhere:
        builder.choice(f"{where}: {omission(elsewhere, 'shape', 'in another plane than the first')}")
    return regions, points


def _ring(shape: _Corners) -> np.ndarray:
    """(n, 2) points x, y of a shape. Raises DataError for a broken one."""
    if shape.kind not in (*_CORNERS, "polygon"):
        raise DataError(f"expected a known shape-type, found {short(shape.kind)}")
    corners = points_of([place[-2:] for place in shape.places], 4 if shape.kind in _CORNERS else 0)
    corners = corners[:, ::-1] + PIXEL_CENTRE
    if shape.kind != "ellipse":
        return corners
    # The unit circle, mapped to the box, which may be turned.
    axes = np.stack([corners[1] - corners[0], corners[3] - corners[0]]) / 2
    found: np.ndarray = ellipse((0, 0), (1, 1)) @ axes + corners.mean(axis=0)
    return found
