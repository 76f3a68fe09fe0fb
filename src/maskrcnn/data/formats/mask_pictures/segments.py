"""Images with a file that names class and object of every pixel. Several formats differ only in where these files are
and in how their numbers are made up; each gives a `Source`, which is read here."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.data.annotation import RawAnnotation, Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import Hints
from maskrcnn.data.image_places import Place, splits_in
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.data.pictures import (
    Picture,
    add_picture,
    add_unlabelled,
    image_files_in,
    open_picture,
    read_masks,
)
from maskrcnn.data.regions import as_drawn, label_image_to_rles
from maskrcnn.errors import DataError, ImageError
from maskrcnn.files.images import IMAGE_SUFFIXES
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

_ENTRIES, _FILES = 50, 5000  # of a folder and of all, that are looked at to recognise a format

Category = int | str
Skips = Callable[[str, frozenset[str]], bool]  # whether not to visit a folder, by its name and the files beside it


@dataclass(frozen=True)
class LabelledImage:
    """An image and the file of its objects.

    Attributes:
        part: train, val, test, or empty.
        labels: None for an image without such a file.
    """

    id: int | str
    image: Place
    labels: Path | None
    part: str = ""


class Segment(NamedTuple):
    """An object, or a crowd region.

    Attributes:
        own: its number among those of its image.
        crowd: as in `RawAnnotation`.
        name: of its class; empty if the files of the image do not say it.
    """

    own: int | str
    category: Category
    mask: RLE
    crowd: Any = False
    name: str = ""


class Segments(NamedTuple):
    """What the file of an image holds.

    Attributes:
        size: height and width; None if the file cannot be used.
        faults: what is left out, and why.
        labelled: whether anyone has labelled the image.
    """

    size: Size | None
    found: Sequence[Segment]
    faults: Sequence[str] = ()
    labelled: bool = True


class Meaning(NamedTuple):
    """What a number in a picture stands for."""

    category: Category
    crowd: bool = False


class Source(NamedTuple):
    """A data set of this kind.

    Attributes:
        images: with and without a file of objects.
        read: the objects of a file; an image that is missing or broken has no size. It may raise ImageError and
            DataError.
        add_classes: adds the classes, given those that occur, with the commonest name of each.
    """

    images: Sequence[LabelledImage]
    read: Callable[[Path, Picture], Segments]
    add_classes: Callable[[DatasetBuilder, Mapping[Category, str]], None]


def read_source(path: Path, source: Source, *, strict: bool, hints: Hints) -> Dataset:
    """Reads a data set; arguments and errors as for `read_dataset`. The hints `split` and `missing` are used."""
    images = _told_apart(_of_part(path, _once(source.images), hints.split))
    labelled = [one for one in images if one.labels is not None]
    if not labelled:
        raise DataError(f"{path}: expected pictures of objects, found none for its {len(images)} images")
    builder = DatasetBuilder(path, strict=strict)
    pictures = of_each(open_picture, [one.image for one in labelled], "images")
    found = of_each(partial(_read_one, source.read), list(zip(labelled, pictures, strict=True)), "label files")
    source.add_classes(builder, _names(segment for segments in found for segment in segments.found))
    unlabelled = [one.image.path for one in images if one.labels is None]
    for one, picture, segments in zip(labelled, pictures, found, strict=True):
        for fault in segments.faults:
            builder.problem(f"image {one.id}: {fault}")
        if not segments.labelled:
            unlabelled.append(picture.path)
        elif segments.size is not None and add_picture(builder, one.id, picture, segments.size) is not None:
            for own, category, mask, crowd, _ in segments.found:
                raw = RawAnnotation(one.id, category, f"{one.id}:{own}", crowd=crowd, draw=as_drawn(mask))
                builder.add_annotation(raw)
    add_unlabelled(builder, unlabelled, hints.missing)
    return builder.build()


def read_numbers(file: Path, picture: Picture) -> np.ndarray:
    """(H, W) integers of a picture of one channel.

    Raises:
        ImageError: it cannot be read, or has another size than its image.
        DataError: it has several channels, or fractions.
    """
    values = read_masks(file, picture)
    if values.ndim != 2 or values.dtype.kind not in "iub":
        found = f"{values.shape[2]} channels" if values.ndim == 3 else f"values of the type {values.dtype}"
        raise DataError(f"{file}: expected a whole number for each pixel, found {found}")
    return values


def coded_segments(values: np.ndarray, meaning: Callable[[int], Sequence[Meaning]], background: int = 0) -> Segments:
    """The objects of an (H, W) integer picture.

    Args:
        meaning: what a number other than `background` stands for; nothing for a region without objects. It may raise
            DataError.
    """
    found, faults = [], []
    for number, mask in zip(*label_image_to_rles(values, background), strict=True):
        try:
            meanings = meaning(number)
        except DataError as error:
            faults.append(str(error))
            continue
        for place, (category, crowd) in enumerate(meanings):
            found.append(Segment(f"{number}.{place}" if place else number, category, mask, crowd))
    return Segments((int(values.shape[0]), int(values.shape[1])), found, faults)


def paired(images: Path, labels: Path, root: Path) -> list[LabelledImage]:
    """The images of a folder and the pictures of the same names in another one; either folder may be missing."""
    pictures, files = _by_stem(images), _by_stem(labels)
    part = part_of(labels / "labels", root)
    return [
        LabelledImage(
            stem, Place(pictures[stem]) if stem in pictures else missing(images / stem), files.get(stem), part
        )
        for stem in dict.fromkeys((*files, *pictures))
    ]


def _by_stem(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in image_files_in(folder)} if folder.is_dir() else {}


def part_of(file: Path, root: Path) -> str:
    """The part of a data set, train, val or test, that a folder between `root` and a file names; empty if none does."""
    named = (splits_in(name) for name in file.parent.relative_to(root).parts)
    return next((said.pop() for said in named if len(said) == 1), "")


def files_below(folder: Path, skips: Skips = lambda name, files: False) -> Iterator[Path]:
    """The files of a folder and of all folders below, sorted, also of folders that are links. None is visited twice."""
    visited = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, followlinks=True):
        names = frozenset(files)
        real = {name: os.path.realpath(os.path.join(place, name)) for name in sorted(folders) if not skips(name, names)}
        folders[:] = [name for name, own in real.items() if own not in visited]
        visited |= set(real.values())
        yield from (Path(place, file) for file in sorted(files))


def images_below(folder: Path, skips: Skips = lambda name, files: False) -> Iterator[Path]:
    """The image files among `files_below`."""
    return (file for file in files_below(folder, skips) if file.suffix.lower() in IMAGE_SUFFIXES)


def any_below(folder: Path, fits: Callable[[Path], bool], depth: int) -> bool:
    """Whether a file fits, among the first of a folder and of the folders down to a depth below it."""
    return any(fits(file) for file in islice(_first_files(folder, depth), _FILES))


def _first_files(folder: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(folder) as opened:
            entries = sorted(islice(opened, _ENTRIES), key=lambda entry: entry.name)
    except OSError:
        return
    yield from (Path(entry.path) for entry in entries if entry.is_file())
    for entry in entries:
        if depth and entry.is_dir():
            yield from _first_files(Path(entry.path), depth - 1)


def missing(path: Path) -> Place:
    """The place of an image that is not there."""
    return Place(path, "no such file; name the folder with --images")


def _read_one(read: Callable[[Path, Picture], Segments], job: tuple[LabelledImage, Picture]) -> Segments:
    one, picture = job
    try:
        return read(Path(one.labels or ""), picture)
    except (ImageError, DataError) as error:
        return Segments(None, [], [str(error)])


def _names(segments: Iterable[Segment]) -> dict[Category, str]:
    names: dict[Category, Counter[str]] = {}
    for segment in segments:
        names.setdefault(segment.category, Counter())[segment.name] += bool(segment.name)
    return {category: times.most_common(1)[0][0] for category, times in names.items()}


def _of_part(path: Path, images: Sequence[LabelledImage], part: str | None) -> list[LabelledImage]:
    if part is None:
        return list(images)
    found = [one for one in images if one.part == part]
    if not found:
        parts = ", ".join(sorted({one.part for one in images} - {""})) or "none of train, val and test"
        raise DataError(f"{path}: expected --split to be a part of the data set ({parts}), found {part}")
    return found


def _once(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """The images, without those of which only another entry has labels."""
    labelled = {one.image.path for one in images if one.labels is not None}
    rest = {one.image.path: one for one in images if one.image.path not in labelled}
    return [one for one in images if one.labels is not None] + list(rest.values())


def _told_apart(images: Sequence[LabelledImage]) -> list[LabelledImage]:
    """The images, with the names of their parts before ids that occur twice."""
    times = Counter(one.id for one in images)
    return [replace(one, id=f"{one.part}/{one.id}") if one.part and times[one.id] > 1 else one for one in images]
