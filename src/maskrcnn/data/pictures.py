"""The image files of formats that do not give their sizes, and classes that are known only by name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.image_places import Place, find_images
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.errors import ImageError, omission
from maskrcnn.files.images import IMAGE_SUFFIXES, MOST_PIXELS, image_size, read_values
from maskrcnn.structures.classes import ONLY_CLASS

# Labels that mean no class: labelme's, and those of common tools for the rest of the image.
NO_CLASS = frozenset({"_background_", "__ignore__", "background", "void"})

_THREADS = 8  # reading a small file is mostly waiting

T = TypeVar("T")
R = TypeVar("R")


class Picture(NamedTuple):
    """An image file.

    Attributes:
        path: the file, or where it was expected.
        fault: what was found instead, as in `Record`.
        size: upright height and width; None if the file is missing or no image.
    """

    path: Path
    fault: str
    size: Size | None


def find_pictures(names: Iterable[str], annotations: Path, images: Path | None) -> dict[str, Picture]:
    """The files that belong to names in annotations, with their sizes. Names may lack the suffix or have another one.

    Args:
        annotations, images: as for `find_images`.
    """
    named = list(dict.fromkeys(names))
    places = dict(zip(named, find_images(named, annotations, images), strict=True))
    tries = [(name, _stem(name) + suffix) for name, place in places.items() if place.fault for suffix in IMAGE_SUFFIXES]
    for (name, _), place in zip(tries, find_images([tried for _, tried in tries], annotations, images), strict=True):
        if not place.fault:
            places[name] = place
    return dict(zip(named, of_each(open_picture, list(places.values()), "images"), strict=True))


def _stem(name: str) -> str:
    suffix = Path(name).suffix
    return name[: -len(suffix)] if suffix.lower() in IMAGE_SUFFIXES else name


def open_picture(place: Place) -> Picture:
    """The image file at a place with its size."""
    if place.fault:
        return Picture(place.path, place.fault, None)
    try:
        return Picture(place.path, "", image_size(place.path))
    except ImageError as error:
        return Picture(place.path, str(error).rpartition("found ")[2], None)


def read_masks(file: Path, picture: Picture) -> np.ndarray:
    """The values of a picture of masks, as `read_values` gives them.

    Raises:
        ImageError: it cannot be read, or has another size than its image. Then nothing is decoded.
    """
    height, width = image_size(file)
    if picture.size is not None and picture.size != (height, width):
        expected = f"{picture.size[1]} x {picture.size[0]}"
        raise ImageError(
            f"{file}: expected masks of {expected} pixels, the size of the image, found {width} x {height}"
        )
    return read_values(file, str(file))


def has_suffix(name: str, suffixes: Iterable[str]) -> bool:
    """Whether the name of a file has one of these suffixes, in upper or lower case.

    Files `._name` do not count: macOS puts one beside every file of an archive. It has the suffix of the other file and
    nothing of its content.
    """
    return name.lower().endswith(tuple(suffixes)) and not name.startswith("._")


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """The files of a folder with one of these suffixes, in upper or lower case, sorted by name.

    Folders below are left out. A folder that does not exist has no files.
    """
    try:
        names = os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(folder / name for name in names if has_suffix(name, suffixes))


def image_files_in(folder: Path) -> list[Path]:
    """The image files of a folder, as `files_in` gives them."""
    return [path for path in files_in(folder, *IMAGE_SUFFIXES) if path.is_file()]


def in_threads(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` of every item, in order, by several threads if there are many items."""
    if len(items) < _THREADS:
        return [work(item) for item in items]
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(work, items))


def add_named_categories(builder: DatasetBuilder, names: Iterable[str]) -> None:
    """Adds classes that have no numbers. Their ids are their names, so that two files of one project agree."""
    for name in sorted(set(names)) or [ONLY_CLASS]:
        builder.add_category(name, name)


def add_unlabelled(builder: DatasetBuilder, files: Iterable[Path], missing: str | None) -> None:
    """Adds images without annotations as empty images if `missing` is "empty"; else says that they are left out."""
    rest = list(files)
    if missing != "empty":
        if rest:
            builder.choice(
                f"{omission(len(rest), 'image', 'without annotations')}, first: {rest[0].name}; "
                "--missing empty keeps such images"
            )
        return
    times = Counter(path.name for path in rest)
    for picture in of_each(open_picture, [Place(path) for path in rest], "images"):
        own = picture.path.name
        if times[own] > 1 and picture.path.is_relative_to(builder.path):
            own = picture.path.relative_to(builder.path).as_posix()
        add_picture(builder, own, picture, None)


def add_picture(
    builder: DatasetBuilder,
    number: int | str,
    picture: Picture,
    size: Size | None,
    fields: Mapping[str, Any] | None = None,
) -> Size | None:
    """Adds an image with the size that its annotations give, else with the size of its file; returns the size.

    Annotators show images upright. Some write width and height in the order of the file, which is turned; such an image
    is used, with the upright size. An image of any other size than its annotations say, or of none, is recorded as a
    problem, and so is one that is too large to be read.
    """
    size = size or picture.size
    if size is None:
        place = f"at {picture.path}, which shows its size"
        builder.problem(f"image {number}: expected an image {place}, found {picture.fault}")
        return None
    if picture.size is not None and picture.size != size:
        found = f"{picture.size[1]} x {picture.size[0]}"
        if picture.size != size[::-1]:
            builder.problem(
                f"image {number}: expected {size[1]} x {size[0]} pixels, as its annotations say, found {found} in "
                f"{picture.path}; correct one of the two"
            )
            return None
        builder.choice(f"image {number}: width and height are swapped in its annotations; the image is {found}")
        size = picture.size
    if size[0] * size[1] > MOST_PIXELS:
        builder.problem(f"image {number}: expected at most {MOST_PIXELS} pixels, found {size[1]} x {size[0]}")
        return None
    builder.add_image(number, picture.path, *size, fields or {}, picture.fault)
    return size
