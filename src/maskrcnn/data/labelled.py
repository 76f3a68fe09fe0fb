"""Images and their objects as files of annotations describe them, and how they become a data set.

A reader turns the words of its format into `Labelled` images with `Region`s. The rest is the same for all formats:
finding the images, their sizes, drawing, and what is said of shapes that are left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from maskrcnn.data.annotation import Box, Draw, RawAnnotation, Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.image_places import splits_in
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.data.pictures import NO_CLASS, Picture, add_picture, find_pictures, image_files_in
from maskrcnn.data.regions import counted, even_odd, joined
from maskrcnn.errors import DataError, omission
from maskrcnn.errors import counted as number_of
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import is_int, short, under

_OME = ".ome"  # before the suffix of a microscope's TIFF, which programs drop with it

Parsed = TypeVar("Parsed")


class Region(NamedTuple):
    """A shape that a file describes.

    Attributes:
        label: the id of its class.
        kind: what the tool calls it, such as "polygon".
        draw: None for a shape without an area.
        where: its place in the file, for messages.
    """

    label: int | str
    kind: str
    draw: Draw | None
    where: str = ""


class Labelled(NamedTuple):
    """An image of a file.

    Attributes:
        id: the id of the image, if no other image has it; else `where` is.
        where: the place of the image in the file, or the file of the image, for messages.
        file: the file of annotations.
        names: of the image's file, the best first.
        size: upright height and width; None if the file does not say it.
        least: the smallest size that holds all shapes, which is used if neither the file nor an image says the size.
        split: the part of the data set; empty if there are no parts.
    """

    id: int | str
    where: str
    file: Path
    names: Sequence[str]
    size: Size | None
    regions: Sequence[Region]
    least: Size | None = None
    split: str = ""


def box_draw(x: float, y: float, width: float, height: float) -> Draw:
    """Draws an object that has only a box."""
    return partial(_box, (x, y, width, height))


def _box(box: Box, size: Size) -> dict[str, Any]:
    return {"box": box}


def parts_draw(parts: Sequence[np.ndarray | RLE]) -> Draw:
    """Draws the union of (n, 2) polygons and masks."""
    return partial(joined, parts)


def rings_draw(rings: Sequence[np.ndarray]) -> Draw:
    """Draws the pixels that an odd number of (n, 2) rings encloses. A single ring stays a polygon.

    Raises:
        DataError: there is no ring, or one has fewer than three points.
    """
    if not rings or min(map(len, rings)) < 3:
        found = min(map(len, rings), default=0)
        raise DataError(f"expected a polygon of at least 3 points, found {found}")
    return parts_draw(rings) if len(rings) == 1 else partial(_rings, rings)


def _rings(rings: Sequence[np.ndarray], size: Size) -> dict[str, Any]:
    return counted(even_odd(rings, size))


def extent(points: Iterable[np.ndarray]) -> Size | None:
    """The smallest height and width that hold (n, 2) points x, y; None if there are no points."""
    ends = [part.max(axis=0) for part in points if len(part)]
    if not ends:
        return None
    x, y = np.max(ends, axis=0).tolist()
    return max(1, math.ceil(y)), max(1, math.ceil(x))


def only_file(path: Path, found: Sequence[Path], name: str) -> Path:
    """The one file of annotations in a folder. Raises DataError if there are several, or none."""
    if len(found) != 1:
        listed = ", ".join(file.name for file in found[:5]) or "none"
        raise DataError(f"{path}: expected one {name} in the folder, found {listed}; name the file itself")
    return found[0]


def place_of(builder: DatasetBuilder, file: Path) -> str:
    """The name of a file in messages: below the folder that is read."""
    return file.relative_to(builder.path).as_posix() if builder.path in file.parents else file.name


def of_jsons(
    builder: DatasetBuilder,
    files: Sequence[Path],
    expected: str,
    parse: Callable[[DatasetBuilder, Path, str, Any], Iterable[Parsed]],
) -> list[Parsed]:
    """What `parse` makes of a file and its content, for all JSONs in turn. It also gets the place of the file for
    messages, and a builder for problems. A JSON that is broken or raises DataError is recorded as a problem."""
    return of_files(builder, files, partial(_parsed, parse, expected))


def _parsed(
    parse: Callable[[DatasetBuilder, Path, str, Any], Iterable[Parsed]],
    expected: str,
    builder: DatasetBuilder,
    file: Path,
) -> list[Parsed]:
    try:
        content = read_json(file, expected)
    except DataError as error:
        fault = str(error).removeprefix(f"{file}: ")
        builder.problem(fault if file == builder.path else f"{place_of(builder, file)}: {fault}")
        return []
    where = place_of(builder, file)
    try:
        return list(parse(builder, file, where, content))
    except DataError as error:
        fault = str(error)
    builder.problem(f"{where}: {fault}")
    return []


def of_files(
    builder: DatasetBuilder, files: Sequence[Path], read: Callable[[DatasetBuilder, Path], Iterable[Parsed]]
) -> list[Parsed]:
    """What `read` makes of each file, in order, by several processes if there are many. Its builder takes problems."""
    found: list[Parsed] = []
    for parsed, problems in of_each(partial(_read_alone, builder.path, builder.strict, read), files, "label files"):
        builder.repeat(problems)
        found += parsed
    return found


def _read_alone(
    path: Path, strict: bool, read: Callable[[DatasetBuilder, Path], Iterable[Parsed]], file: Path
) -> tuple[list[Parsed], tuple[str, ...]]:
    own = DatasetBuilder(path, strict=strict)
    return list(read(own, file)), own.problems


def entries(content: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key, which may be missing. Raises DataError for anything else."""
    value = content.get(key)
    if value is not None and not isinstance(value, list):
        raise DataError(f"expected {key} as a list, found {short(value)}")
    return value or []


def size_of(value: Any) -> Size | None:
    """The upright height and width in an object with these keys; None if it does not hold them."""
    height, width = under(value, "height"), under(value, "width")
    return (height, width) if is_int(height) and is_int(width) and height > 0 and width > 0 else None


def regions_of(
    builder: DatasetBuilder, where: str, objects: Iterable[Any], parse: Callable[[Mapping[str, Any]], Region | None]
) -> list[Region]:
    """The shapes that `parse` makes of objects; it passes over one with None. A broken one is recorded as a problem."""
    found = []
    for number, entry in enumerate(objects):
        at = f"{where}[{number}]"
        try:
            if not isinstance(entry, Mapping):
                raise DataError(f"expected an object, found {short(entry)}")
            shape = parse(entry)
        except DataError as error:
            builder.problem(f"{at}: {error}")
            continue
        if shape is not None:
            found.append(shape._replace(where=at))
    return found


def labels_of(items: Iterable[Labelled]) -> set[str]:
    """The names of the classes of all shapes with an area."""
    labels = {str(shape.label) for item in items for shape in item.regions if shape.draw is not None}
    return labels - NO_CLASS


def split_of(name: str) -> str:
    """The part of a data set that a name says: train, val or test; empty if it says none or several."""
    said = splits_in(name)
    return said.pop() if len(said) == 1 else ""


def chosen(builder: DatasetBuilder, items: Sequence[Labelled], split: str | None) -> list[Labelled]:
    """The images of a part of the data set, or all.

    Raises:
        DataError: the data set has no such part.
    """
    parts = Counter(item.split for item in items)
    if split is None:
        if len(parts) > 1:
            listed = ", ".join(f"{part or 'none'} {number}" for part, number in parts.items())
            builder.choice(f"parts: {listed}; --split reads only one")
        return list(items)
    if split not in parts or not split:
        listed = ", ".join(sorted(filter(None, parts))) or "train, val and test, but there are no parts"
        raise DataError(f"{builder.path}: expected --split to be one of {listed}, found {split}")
    return [item for item in items if item.split == split]


def add_labelled(builder: DatasetBuilder, items: Sequence[Labelled], images: Path | None) -> list[Path]:
    """Adds images and their objects, whose classes have been added.

    Args:
        images: folder of the images; default: they are searched for from the files of annotations.

    Returns:
        The other images of the folders in which the images lie.
    """
    pictures = _pictures(items, images)
    times = Counter(item.id for item in items)
    left_out: Counter[str] = Counter()
    lost: list[str] = []
    for item, picture in zip(items, pictures, strict=True):
        number = item.id if times[item.id] == 1 else item.where
        size = item.size
        if size is None and picture.size is None and item.least is not None:
            size = item.least
            lost.append(f"{number}, {size[1]} x {size[0]}")
        size = add_picture(builder, number, picture, size, {"split": item.split} if item.split else None)
        if size is not None:
            _add_regions(builder, number, item, left_out)
    for reason, count in left_out.items():
        builder.choice(f"{omission(count, 'shape')}, because {reason}")
    if lost:
        number = number_of(len(lost), "image")
        builder.choice(f"{number} without a file: the size is that of the objects, first: {lost[0]}")
    listed = {picture.path for picture in pictures}
    folders = sorted({picture.path.parent for picture in pictures if not picture.fault})
    return [file for folder in folders for file in image_files_in(folder) if file not in listed]


def _pictures(items: Sequence[Labelled], images: Path | None) -> list[Picture]:
    """The picture of each image. The images of one part that files in one folder describe are looked for together."""
    together: dict[tuple[Path, str], list[Labelled]] = {}
    for item in items:
        together.setdefault((item.file.parent, item.split), []).append(item)
    found = {
        own: find_pictures((name for item in group for name in item.names), group[0].file, images)
        for own, group in together.items()
    }
    named = [[found[item.file.parent, item.split][name] for name in item.names] for item in items]
    return [next((picture for picture in tried if not picture.fault), tried[0]) for tried in named]


def _add_regions(builder: DatasetBuilder, number: int | str, item: Labelled, left_out: Counter[str]) -> None:
    for own, shape in enumerate(item.regions):
        if shape.draw is None:
            left_out[f"{shape.kind} has no area"] += 1
        elif shape.label in NO_CLASS:
            left_out[f"{shape.label} is no class"] += 1
        else:
            own_id = f"{number}:{own}"
            builder.add_annotation(RawAnnotation(number, shape.label, own_id, draw=shape.draw, where=shape.where))


def image_names(
    builder: DatasetBuilder, files: Sequence[Path], images: Path | None, affix: str = ""
) -> dict[Path, str]:
    """The name of the image of each file, for formats that do not say it: that of the file without its suffix.

    If no file has an image of its own, and there is only one image beside them, it is that of all files.

    Args:
        affix: a regular expression of the word that programs add to the names of such files, at an end.
    """
    own = re.compile(rf"^{affix}[ _-]+|[ _-]+{affix}$", re.IGNORECASE)
    stems = {file: own.sub("", file.stem) if affix else file.stem for file in files}
    found = find_pictures([stem + ome for stem in stems.values() for ome in ("", _OME)], files[0], images)
    for file, stem in stems.items():
        if found[stem].fault and not found[stem + _OME].fault:
            stems[file] = stem + _OME
    beside = image_files_in(images or files[0].parent)
    if all(picture.fault for picture in found.values()) and len(beside) == 1:
        builder.choice(f"the objects are read as those of {beside[0].name}, the only image there")
        return dict.fromkeys(files, beside[0].name)
    return stems
