"""Reads regions of ImageJ and Fiji: files `.roi`, and archives such as `RoiSet.zip` of them.

A file or archive belongs to the image of its name. A composite is even-odd: a path inside another is a hole. The name
of a region is its class, without the number after it; names that ImageJ makes of coordinates are none. Lines, points
and angles have no area. The layout is that of ImageJ's `ij.io.RoiDecoder`.
"""

from __future__ import annotations

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import (
    Labelled,
    Region,
    add_labelled,
    extent,
    image_names,
    labels_of,
    of_files,
    place_of,
    rings_draw,
)
from maskrcnn.data.pictures import add_named_categories, add_unlabelled, files_in
from maskrcnn.data.regions import ellipse, rectangle
from maskrcnn.errors import DataError, omission
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import short

name = "ImageJ ROIs"
key = "imagej"
takes = frozenset({"missing"})

_FILES_TO_RECOGNISE = 8
_MAGIC = b"Iout"
_AFFIX = r"roi(?:[ _-]?set|s)?"  # in `cellsRoiSet.zip` and `RoiSet_cells.zip`
_MOST_EXPANSION = 200  # times the size of an archive
_NUMBER = re.compile(r"[ _#.-]*\d+$")
_MOST_CLASSES = 100  # more names are names of objects

_HEADER = struct.Struct(">4xhBx4hH4f2xi8xhh4xii")  # 64 bytes; colours and arrows are passed over
_SECOND_HEADER = struct.Struct(">4xiiiii")  # its beginning: channel, slice, frame, place and length of the name
_KINDS = (
    "polygon",
    "rectangle",
    "oval",
    "line",
    "freeline",
    "polyline",
    "none",
    "freehand",
    "traced",
    "angle",
    "point",
)
_POLYGONS = frozenset({"polygon", "freehand", "traced"})
_NO_AREA = frozenset({"line", "freeline", "polyline", "none", "angle", "point", "text"})
_TEXT, _SUBPIXEL = 1, 128  # a subtype, and a bit of the options
_LEAST = -5000  # smaller edges have overflown their 16 bits
_CURVE_STEPS = 16
# Commands of a path with how many numbers follow them: move, line, quadratic curve, cubic curve, close.
_MOVE, _CLOSE = 0, 4
_PATH_NUMBERS: dict[float, int] = {_MOVE: 2, 1: 2, 2: 4, 3: 6, _CLOSE: 0}


class Roi(NamedTuple):
    """A region.

    Attributes:
        plane: channel, slice and frame; all 0 if it belongs to every plane.
        rings: (n, 2) float64 points x, y each, in continuous pixel edges.
    """

    name: str
    kind: str
    plane: tuple[int, ...]
    rings: list[np.ndarray]


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder, is a region, or an archive of regions."""
    return any(map(_is_rois, _files(path)[:_FILES_TO_RECOGNISE]))


def _files(path: Path) -> list[Path]:
    return [file for suffix in ("roi", "zip") for file in files_in(path, f".{suffix}")] if path.is_dir() else [path]


def _is_rois(file: Path) -> bool:
    try:
        if file.suffix.lower() == ".zip":
            with zipfile.ZipFile(file) as archive:
                return any(entry.lower().endswith(".roi") for entry in archive.namelist())
        with file.open("rb") as opened:
            return opened.read(len(_MAGIC)) == _MAGIC
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the regions and archives of regions of a folder, or a single one.

    Args:
        path: the folder, or the file.
        images: folder of the images; default: they are searched for from the folder of the files.
        strict: raise at the first broken file or region, instead of leaving it out.
        hints: `missing` is used for images without a file.

    Raises:
        DataError: there are no regions, or one is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    files = _files(path)
    if not files:
        raise DataError(f"{path}: expected files .roi, or an archive .zip of them, found none")
    named = image_names(builder, files, images, _AFFIX)
    found: dict[str, list[tuple[str, Roi]]] = {image: [] for image in named.values()}
    first = {image: file for file, image in reversed(named.items())}
    for file, own in of_files(builder, list(named), _rois):
        found[named[file]] += own
    class_of = _classes([roi.name for own in found.values() for _, roi in own])
    items = [
        Labelled(
            image,
            place_of(builder, first[image]),
            first[image],
            (image,),
            None,
            [_region(roi, class_of[roi.name], where) for where, roi in _one_plane(builder, image, own)],
            least=extent(ring for _, roi in own for ring in roi.rings),
        )
        for image, own in found.items()
        if own  # else all its files are broken, or of another kind
    ]
    add_named_categories(builder, labels_of(items))
    rest = add_labelled(builder, items, images)
    if path.is_dir():
        add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def _rois(builder: DatasetBuilder, file: Path) -> Iterator[tuple[Path, list[tuple[str, Roi]]]]:
    """A file or an archive, and its regions, each with its place for messages. Broken ones are recorded as problems."""
    where = place_of(builder, file)
    try:
        contents = list(_archive(file)) if file.suffix.lower() == ".zip" else [(file.name, file.read_bytes())]
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError, zlib.error) as error:
        builder.problem(f"{where}: expected regions of ImageJ, found a file that cannot be read ({error})")
        return
    found = []
    for own, content in contents:
        at = where if own == file.name else f"{where}: {own}"
        try:
            found.append((at, parse_roi(content, Path(own).stem)))
        except DataError as error:
            builder.problem(f"{at}: {error}")
    yield file, found


def _archive(file: Path) -> Iterator[tuple[str, bytes]]:
    """The regions in an archive. Raises ValueError if they are implausibly large."""
    with zipfile.ZipFile(file) as archive:
        infos = [entry for entry in archive.infolist() if entry.filename.lower().endswith(".roi")]
        if sum(entry.file_size for entry in infos) > _MOST_EXPANSION * file.stat().st_size:
            raise ValueError(f"it expands to more than {_MOST_EXPANSION} times its size")
        for entry in infos:
            yield entry.filename, archive.read(entry)


def _one_plane(builder: DatasetBuilder, image: str, found: list[tuple[str, Roi]]) -> list[tuple[str, Roi]]:
    """The regions of the first plane of a stack that has any, and those of all planes."""
    planes = {roi.plane for _, roi in found if any(roi.plane)}
    kept = [entry for entry in found if not any(entry[1].plane) or entry[1].plane == min(planes)]
    if len(kept) < len(found):
        builder.choice(f"image {image}: {omission(len(found) - len(kept), 'region', 'in other planes')}")
    return kept


def _classes(names: list[str]) -> dict[str, str]:
    """The class of each name. Many different names are names of objects and not of classes."""
    found = {own: _NUMBER.sub("", own) for own in names}
    found = {own: label if re.search(r"[^\W\d]", label) else ONLY_CLASS for own, label in found.items()}
    return found if len(set(found.values())) <= _MOST_CLASSES else dict.fromkeys(found, ONLY_CLASS)


def _region(roi: Roi, label: str, where: str) -> Region:
    return Region(label, roi.kind, None if roi.kind in _NO_AREA else rings_draw(roi.rings), where)


def parse_roi(content: bytes, name: str) -> Roi:
    """A region from its bytes. `name` is its name if it has none itself. Raises DataError for broken bytes."""
    if len(content) < 64 or not content.startswith(_MAGIC):
        raise DataError(f"expected a region of ImageJ, found {short(content[:8])}")
    header = _HEADER.unpack_from(content)
    version, code, *edges, count = header[:7]
    floats, (paths, subtype, options, plane, second) = header[7:11], header[11:]
    if code >= len(_KINDS):
        raise DataError(f"expected a type below {len(_KINDS)}, found {code}")
    kind = "text" if subtype == _TEXT else _KINDS[code]
    top, left, bottom, right = (edge + (1 << 16 if edge < _LEAST else 0) for edge in edges)
    planes = (0, plane, 0)
    if 0 < second <= len(content) - _SECOND_HEADER.size:
        channel, slice_, frame, start, length = _SECOND_HEADER.unpack_from(content, second)
        planes = (channel, slice_ or plane, frame)
        if start > 0 and length > 0 and start + 2 * length <= len(content):
            name = content[start : start + 2 * length].decode("utf-16-be", "replace")
    subpixel = version >= 222 and bool(options & _SUBPIXEL)
    box = floats if subpixel and version >= 223 else (left, top, right - left, bottom - top)
    if kind in _NO_AREA:
        rings = []
    elif paths > 0:
        rings = _paths(_numbers(content, ">f4", paths, 64))
    elif kind in _POLYGONS:
        rings = [_points(content, count or struct.unpack_from(">i", content, 18)[0], (left, top), subpixel)]
    else:
        x, y, width, height = box
        corner = rectangle(x, y, x + width, y + height)
        round_ = kind == "oval"
        rings = [ellipse((x + width / 2, y + height / 2), (width / 2, height / 2)) if round_ else corner]
    if any(not np.isfinite(ring).all() for ring in rings):
        raise DataError("expected finite coordinates, found others")
    return Roi(name, kind, planes, rings)


def _numbers(content: bytes, kind: str, count: int, start: int) -> np.ndarray:
    """(count,) float64 numbers of a kind from a place on. Raises DataError if there are fewer."""
    dtype = np.dtype(kind)
    if count < 0 or start + count * dtype.itemsize > len(content):
        raise DataError(f"expected {count} numbers from byte {start} on, found {len(content)} bytes; it may be cut off")
    return np.frombuffer(content, dtype, count, start).astype(np.float64)


def _points(content: bytes, count: int, corner_xy: tuple[int, int], subpixel: bool) -> np.ndarray:
    """The (count, 2) points x, y of a polygon: all x, then all y, as whole numbers from the corner of its box, and once
    more as fractions of the image if there are any."""
    if subpixel:
        return _numbers(content, ">f4", 2 * count, 64 + 4 * count).reshape(2, -1).T
    return _numbers(content, ">u2", 2 * count, 64).reshape(2, -1).T + corner_xy


def _paths(numbers: np.ndarray) -> list[np.ndarray]:
    """The rings of a composite, in which curves become short lines. Raises DataError for a broken path."""
    rings: list[list[np.ndarray]] = []
    at = 0
    while at < len(numbers):
        command = float(numbers[at])
        end = at + 1 + _PATH_NUMBERS.get(command, len(numbers))
        if end > len(numbers) or (command and not rings):
            raise DataError(f"expected a path of moves, lines and curves, found {command} at its place {at}")
        points = numbers[at + 1 : end].reshape(-1, 2)
        if command == _MOVE:
            rings.append([points])
        elif command != _CLOSE:
            rings[-1].append(points if len(points) == 1 else _curve(rings[-1][-1][-1:], points))
        at = end
    return [np.concatenate(ring) for ring in rings if sum(map(len, ring)) > 2]


def _curve(start: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(n, 2) points on a Bezier curve from (1, 2) `start` to the last of (2 or 3, 2) points."""
    t = np.linspace(0, 1, _CURVE_STEPS + 1)[1:, None, None]
    control = np.repeat(np.concatenate([start, points])[None], _CURVE_STEPS, axis=0)
    while control.shape[1] > 1:
        control = control[:, :-1] * (1 - t) + control[:, 1:] * t
    found: np.ndarray = control[:, 0]
    return found
