"""Reads tables of run lengths: `ImageId,EncodedPixels[,ClassId]` and its variants.

A row is one object, `start length start length ...`, with pixels counted from 1 down the columns. Competitions differ
in the names of the columns, in the order of pixels, in the number of the first pixel, and in starts that count from the
end of the last run. All but the names is found from the runs (`data/run_coding.py`).
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskrcnn.data.annotation import RawAnnotation, Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.pictures import (
    Picture,
    add_named_categories,
    add_picture,
    add_unlabelled,
    files_in,
    find_pictures,
    image_files_in,
)
from maskrcnn.data.regions import Order, as_drawn, connected_parts, spans_to_rle
from maskrcnn.data.run_coding import RunCoding, commonest_step, encoded_pixels, find_coding, is_relative
from maskrcnn.data.writing import Holds, Lost, objects_to_write
from maskrcnn.errors import DataError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.csv_table import csv_beginning, csv_rows
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import MOST_PIXELS
from maskrcnn.structures.records import Record
from maskrcnn.structures.values import is_int, short

name = "run-length CSV"
key = "rle-csv"
image_folder = "images"
takes = frozenset({"order", "columns", "parts", "missing"})
holds: Holds = frozenset()

# The columns of the known sets in lower case. `image_class` holds both, as in `x.jpg_Fish` and `x.jpg_3`.
_COLUMNS = {
    "image": "imageid image_id img_id id img image fname filename file_name",
    "image_class": "imageid_classid image_id_class_id image_label",
    "mask": "encodedpixels encoded_pixels rle_mask rle mask_rle encoding annotation segmentation mask",
    "class": "classid class_id class cell_type category_id label",
    "height": "height img_height image_height",
    "width": "width img_width image_width",
}
_UW_MADISON = {"id", "class", "segmentation"}
# Sartorius, Carvana and UW-Madison count along the rows, which square images do not show.
_ALONG_ROWS = ({"id", "annotation", "cell_type"}, {"img", "rle_mask"}, _UW_MADISON)
_IMAGE_AND_CLASS = set(_COLUMNS["image_class"].split())
_LISTS_NO_EMPTY_IMAGES = {"imageid", "classid", "encodedpixels"}  # Severstal
_EMPTY = frozenset({"", "-1", "nan", "none", "null"})
_RUNS = re.compile(r"\d+\s+\d+")
_ROWS_TO_RECOGNISE = 20
_WITH_ATTRIBUTES = re.compile(r"\d+(_\d+)+")  # iMaterialist: the class, then attributes of the object
_EXCEL_CELL = 32_767  # characters, after which Excel cuts a cell


class _Row(NamedTuple):
    line: int
    image: str
    label: str | None  # None if the table has no classes
    runs: np.ndarray  # (2 K,) int64 start, length, ...; empty for an image without objects
    size: Size | None  # of the row's own columns


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder, is a table with columns for an image and for run lengths."""
    return bool(_tables(path, ()))


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads a run-length CSV.

    Args:
        path: the table, or a folder with exactly one.
        images: folder of the images; default: they are searched for from the folder of the table.
        strict: raise at the first broken row, instead of leaving it out.
        hints: `order`, `columns`, `parts` and `missing` are used.

    Raises:
        DataError: the table cannot be used, or a row is broken and `strict` is set.
    """
    path = _only_table(path, hints.columns)
    builder = DatasetBuilder(path, strict=strict)
    header, rows = _read_rows(path, hints.columns, builder)
    category_of = _add_categories(builder, rows, path.parent)
    files = _slices(images or path.parent) if header >= _UW_MADISON else {}
    found = find_pictures((files.get(row.image, row.image) for row in rows), path, images)
    pictures = {row.image: found[files.get(row.image, row.image)] for row in rows}
    sizes = _add_images(builder, rows, pictures)
    masked = [row for row in rows if len(row.runs) and row.image in sizes]
    usual: Order = "right" if any(columns <= header for columns in _ALONG_ROWS) else "down"
    coding, note = _find_coding(path, masked, sizes, hints.order, usual)
    if note:
        builder.choice(note)
    for row in masked:
        if row.label in category_of:
            _add_masks(builder, row, category_of[row.label], coding, sizes[row.image], hints.parts)
        else:
            builder.problem(f"line {row.line}: expected the number of a class, found {short(row.label or '')}")
    once = len({(row.image, row.label) for row in rows}) == len(rows)
    semantic = header == _LISTS_NO_EMPTY_IMAGES or bool(header & _IMAGE_AND_CLASS)
    if semantic and once and not hints.parts:
        builder.choice("a row holds all objects of a class in an image; --parts makes each connected part an object")
    listed = {picture.path for picture in pictures.values()}
    others = [
        file for folder in {path.parent for path in listed} for file in image_files_in(folder) if file not in listed
    ]
    add_unlabelled(builder, others, hints.missing or ("empty" if header == _LISTS_NO_EMPTY_IMAGES else None))
    return builder.build()


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes `annotations.csv` beside the images of each part: a row for each object, and one for an empty image.

    There is a column of classes unless the only one is that of formats without classes.
    """
    lost: Lost = Counter()
    for part, dataset in parts.items():
        names = [category.name for category in dataset.categories]
        with (
            atomic_write(folder / part / "annotations.csv") as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            rows = csv.writer(file)
            rows.writerow(["ImageId", "EncodedPixels", *(["ClassId"] if names != [ONLY_CLASS] else [])])
            for index, record in enumerate(dataset.records):
                annotations = dataset.annotations(index)
                numbers = objects_to_write(annotations, holds, lost)
                for number, mask in zip(numbers, annotations.masks(numbers), strict=True):
                    if mask is not None:
                        label = names[annotations.labels[number]]
                        rows.writerow(
                            [_image_name(record), encoded_pixels(mask), *([label] if names != [ONLY_CLASS] else [])]
                        )
                if not numbers:
                    rows.writerow([_image_name(record), "", *([""] if names != [ONLY_CLASS] else [])])
    return lost


def _image_name(record: Record) -> str:
    """The name of the file, without its suffix if the id of the image is that: so a table keeps the names of its images
    when it is read and written."""
    return record.path.stem if record.image_id == record.path.stem else record.path.name


def _tables(path: Path, columns: Sequence[str]) -> list[Path]:
    return [file for file in _texts(path) if _is_table(file, columns)]


def _texts(path: Path) -> list[Path]:
    return files_in(path, ".csv", ".tsv") if path.is_dir() else [path]


def _is_table(file: Path, columns: Sequence[str]) -> bool:
    header, *rows = csv_beginning(file) or [[]]
    position = _positions(header, columns)
    if not {"image", "mask"} <= position.keys():
        return False
    cells = [row[position["mask"]] for row in rows[:_ROWS_TO_RECOGNISE] if len(row) > position["mask"]]
    filled = [cell for cell in cells if cell.lower() not in _EMPTY]
    return not filled or any(map(_RUNS.match, filled))


def _only_table(path: Path, columns: Sequence[str]) -> Path:
    found = _texts(path)
    if len(found) > 1:
        found = _tables(path, columns)
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:5]) or "none"
        raise DataError(f"{path}: expected one {name} in the folder, found {listed}; name the file itself")
    return found[0]


def _positions(header: Sequence[str], given: Sequence[str]) -> dict[str, int]:
    """The position of each column that we know, by what it holds; `given` are pairs such as image=file."""
    place = {column.lower(): i for i, column in reversed(list(enumerate(header)))}
    found = {}
    for holds, names in _COLUMNS.items():
        fitting = [place[column] for column in names.split() if column in place]
        if fitting:
            found[holds] = fitting[0]
    if "image_class" in found:
        found["image"] = found["image_class"]
    for pair in given:
        holds, _, column = pair.partition("=")
        if holds not in _COLUMNS or column.lower() not in place:
            raise DataError(
                f"--columns: expected one of {', '.join(_COLUMNS)}, = and one of the columns {', '.join(header)}, "
                f"found {pair}"
            )
        found[holds] = place[column.lower()]
    return found


def _read_rows(path: Path, given: Sequence[str], builder: DatasetBuilder) -> tuple[set[str], list[_Row]]:
    """The names of the columns in lower case, and the rows. Broken rows are recorded as problems."""
    lines = csv_rows(path)
    _, header = next(lines, (0, []))
    position = _positions(header, given)
    lacking = {"image", "mask"} - position.keys()
    if lacking:
        raise DataError(
            f"{path}: expected a column with the {' and one with the '.join(sorted(lacking))}, found "
            f"{', '.join(header[:12])}; say which they are with --columns image=NAME mask=NAME"
        )
    rows = []
    for line, cells in lines:
        try:
            rows.append(_row(line, cells, position))
        except DataError as error:
            builder.problem(f"line {line}: {error}")
    return {column.lower() for column in header}, rows


def _row(line: int, cells: Sequence[str], position: Mapping[str, int]) -> _Row:
    if len(cells) <= max(position["image"], position["mask"]):
        raise DataError(f"expected {max(position.values()) + 1} or more cells, found {len(cells)}")
    cell = {holds: cells[place] for holds, place in position.items() if place < len(cells)}
    image, label = cell["image"], cell.get("class")
    if "image_class" in position:
        image, _, label = image.rpartition("_")  # names of images may contain it, too
    if not image:
        raise DataError(f"expected the name of an image, found {short(cell['image'])}")
    if label is not None and _WITH_ATTRIBUTES.fullmatch(label):
        label = label.partition("_")[0]
    size = None
    if "height" in cell and "width" in cell:
        try:
            size = int(float(cell["height"])), int(float(cell["width"]))
        except (ValueError, OverflowError):
            raise DataError(f"expected a height and a width, found {cell['height']}, {cell['width']}") from None
    return _Row(line, image, label, _runs(cell["mask"]), size)


def _runs(cell: str) -> np.ndarray:
    """(2 K,) int64 numbers of a cell; empty if it says that there is no object."""
    if cell.lower() in _EMPTY:
        return np.zeros(0, dtype=np.int64)
    if len(cell) == _EXCEL_CELL:
        raise DataError(
            f"the run lengths end after {_EXCEL_CELL} characters, where Excel cuts a cell; export them again"
        )
    try:
        runs = np.array(cell.split(), dtype=np.int64)
    except (ValueError, OverflowError):
        raise DataError(f"expected run lengths as whole numbers, found {short(cell)}") from None
    if len(runs) % 2:
        raise DataError(f"expected pairs of start and length, found {len(runs)} numbers; the row may be cut off")
    if runs.min() < 0 or runs.max() > MOST_PIXELS:
        raise DataError(f"expected numbers from 0 to {MOST_PIXELS}, found {runs.min()} to {runs.max()}")
    return runs


def _slices(folder: Path) -> dict[str, str]:
    """The names of UW-Madison's files below a folder by the ids in its table: `case2/case2_day3/scans/
    slice_0004_266_266_1.50_1.50.png` has the id `case2_day3_slice_0004`. The numbers behind it are sizes."""
    files = folder.rglob("case*_day*/scans/slice_*.png")
    return {f"{file.parts[-3]}_{'_'.join(file.stem.split('_')[:2])}": str(file.relative_to(folder)) for file in files}


def _add_images(builder: DatasetBuilder, rows: Sequence[_Row], pictures: Mapping[str, Picture]) -> dict[str, Size]:
    """Height and width of each image: of the table, else of the file, else as the runs of all images show."""
    given = {row.image: row.size for row in rows if row.size is not None}
    guessed = None
    if not given and not any(picture.size for picture in pictures.values()) and (guessed := _guessed_size(rows)):
        builder.choice(f"no image was found: {guessed[1]} x {guessed[0]} pixels are assumed, as the run lengths show")
    sizes = {}
    for image, picture in pictures.items():
        if size := add_picture(builder, image, picture, given.get(image, guessed)):
            sizes[image] = size
    return sizes


def _guessed_size(rows: Sequence[_Row]) -> Size | None:
    """The size of square images, whose side is the distance of successive runs; None if runs lie beyond."""
    runs = [row.runs for row in rows if len(row.runs)]
    relative = is_relative(runs)
    side = commonest_step(runs, relative)
    ends = [int(sum(pair[-1] for pair in RunCoding("down", relative, 1).spans(numbers))) for numbers in runs]
    return (side, side) if ends and max(ends) <= side * side else None


def _add_categories(builder: DatasetBuilder, rows: Sequence[_Row], folder: Path) -> dict[str | None, int | str]:
    """Adds the classes of the rows, and returns the id of each label.

    Numbers get the names of iMaterialist's `label_descriptions.json` beside the table, if there is one.
    """
    labels = {row.label for row in rows if row.label}
    if not labels or not all(label.isdecimal() for label in labels):
        add_named_categories(builder, labels)
        return {None: ONLY_CLASS, "": ONLY_CLASS, **{label: label for label in labels}}
    names: dict[int, str] = {}
    described = folder / "label_descriptions.json"
    content = read_json(described, "the names of classes") if described.is_file() else {}
    for entry in content.get("categories", []) if isinstance(content, Mapping) else []:
        if isinstance(entry, Mapping) and is_int(entry.get("id")) and isinstance(entry.get("name"), str):
            names[entry["id"]] = entry["name"]
    for number in sorted(names.keys() | set(map(int, labels))):
        builder.add_category(number, names.get(number, str(number)))
    return {label: int(label) for label in labels}


def _find_coding(
    path: Path, rows: Sequence[_Row], sizes: Mapping[str, Size], order: Order | None, usual: Order
) -> tuple[RunCoding, str]:
    try:
        return find_coding([row.runs for row in rows], [sizes[row.image] for row in rows], order, usual)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _add_masks(
    builder: DatasetBuilder, row: _Row, category: int | str, coding: RunCoding, size: Size, parts: bool
) -> None:
    try:
        mask = spans_to_rle(*coding.spans(row.runs), size, coding.order)
    except DataError as error:
        builder.problem(f"line {row.line}: {error}")
        return
    for part in connected_parts(mask) if parts else [mask]:
        builder.add_annotation(RawAnnotation(row.image, category, draw=as_drawn(part)))
