"""Writes a data set in another format, with its images."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Protocol

from PIL import Image

from maskrcnn.data.formats import Format
from maskrcnn.data.formats.annotation_files import coco, cvat, geojson, label_studio, labelme, rle_csv, yolo
from maskrcnn.data.formats.mask_pictures import label_images, object_masks
from maskrcnn.data.image_places import SPLITS
from maskrcnn.data.pictures import in_threads
from maskrcnn.data.writing import Holds, Lost
from maskrcnn.errors import DataError, ImageError, agreeing
from maskrcnn.files.atomic import atomic_write, check_folder
from maskrcnn.files.images import image_size
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import Records

# Characters of file names that not every file of annotations can hold: parts of a name in another encoding, and control
# codes. Nor do tables keep the spaces at an end.
_NOT_TEXT = re.compile(r"[\0-\x1f\x7f\ud800-\udfff]")
_PART_LOST = "{image is no longer in its|images are no longer in their} part, because other images are in none"
_NAMES_CHANGED = (
    "{name of an image is|names of images are} changed: {it is|they are} no text in UTF-8, or {holds|hold} control "
    "codes or outer spaces"
)


class Writer(Format, Protocol):
    """The interface of a format that can be written."""

    image_folder: str
    """The folder of the images in the folder of a part."""
    holds: Holds
    """What it can hold besides masks of objects."""

    def write(self, parts: Mapping[str, Dataset], folder: Path) -> Lost:
        """Writes annotations, and counts what the format cannot hold.

        Args:
            parts: data sets by the name of their part, whose images are already in `folder / part / image_folder`. A
                data set without parts has an empty name.
        """
        ...


WRITERS: dict[str, Writer] = {
    writer.key: writer
    for writer in (coco, rle_csv, yolo, labelme, cvat, label_studio, geojson, label_images, object_masks)
}


def convert(dataset: Dataset, out: Path, to: str, *, link: bool = False, strict: bool = False) -> list[str]:
    """Writes a data set and its images to a new folder. Images with a field `split` go to a folder for each part.

    Args:
        out: a folder that is missing or empty.
        to: a key of `WRITERS`.
        link: make symbolic links to the images instead of copies.
        strict: refuse files that are no images or have another size, instead of leaving them out.

    Returns:
        A sentence for each kind of thing that is lost, with its number.

    Raises:
        DataError: the folder is not empty, the format cannot be written, or no image can be copied.
        ImageError: with `strict`, a file that is no image or has another size than its record.
    """
    if to not in WRITERS:
        raise DataError(f"expected a format that can be written ({', '.join(WRITERS)}), found {to}")
    check_new_folder(out)
    lost: Lost = Counter()
    parts, broken = {}, []
    divided = _parts(dataset)
    if len(divided) == 1:
        named = [record.fields.get("split") in SPLITS.values() for record in dataset.records]
        lost[_PART_LOST] += 0 if all(named) else sum(named)
    with _whole_or_nothing(out):
        for part, numbers in divided.items():
            own = dataset.subset(numbers)
            parts[part] = _placed(own, out / part / WRITERS[to].image_folder, lost)
            broken += _copy_images(own, parts[part], link, strict, lost)
        if len(broken) == len(dataset):
            first = f"; first: {broken[0]}" if broken else ""
            raise DataError(f"{dataset.path}: expected images to copy, found none among its {len(dataset)}{first}")
        lost += WRITERS[to].write(parts, out)
    return [agreeing(number, what) for what, number in lost.items() if number]


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[None]:
    """Empties the folder, which was empty or missing before, if what writes it does not come to its end."""
    there = out.is_dir()
    try:
        yield
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        if there:
            out.mkdir(exist_ok=True)
        raise


def check_new_folder(out: Path, *sources: Path | None) -> None:
    """Checks before the work that a data set can be written to a folder.

    Args:
        sources: what the command reads.

    Raises:
        DataError: the folder is not empty.
        ConfigError: no folder can be written there, or it lies in a folder that is read.
    """
    check_folder(out, *sources)
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: expected no folder or an empty one, found {min(out.iterdir()).name} in it")


def _parts(dataset: Dataset) -> dict[str, list[int]]:
    """The images of each part; one part without a name if there is only one, or if an image belongs to none."""
    found: dict[str, list[int]] = {}
    for number, record in enumerate(dataset.records):
        found.setdefault(str(record.fields.get("split")), []).append(number)
    several = len(found) > 1 and found.keys() <= set(SPLITS.values())
    return found if several else {"": list(range(len(dataset)))}


def _placed(dataset: Dataset, folder: Path, lost: Lost) -> Dataset:
    """The data set with its images in a folder, under their names. Names that repeat another, but for the suffix, get a
    number. An image inside a JSON of labelme becomes a PNG."""
    taken: set[str] = set()
    records = []
    for record in dataset.records:
        stem, suffix = _NOT_TEXT.sub("_", record.path.stem).strip() or "_", record.path.suffix
        lost[_NAMES_CHANGED] += stem != record.path.stem
        names = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
        free = next(name for name in names if name not in taken)
        taken.add(free)
        records.append(replace(record, path=folder / (free + (".png" if suffix.lower() == ".json" else suffix))))
    return replace(dataset, records=Records(records))


def _copy_images(dataset: Dataset, placed: Dataset, link: bool, strict: bool, lost: Lost) -> list[str]:
    """Copies the files that are images of the size of their record, and says why the others were not copied. A name in
    the annotations may be that of any other file."""

    def copy(number: int) -> ImageError | None:
        source, target = dataset.records[number].path, placed.records[number].path
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix != target.suffix:
            with atomic_write(target) as temporary:
                Image.fromarray(dataset.read(number)).save(temporary, format="PNG")
            return None
        try:
            dataset.require_size(dataset.records[number], image_size(source))
        except ImageError as error:
            return error
        if link:
            target.symlink_to(os.path.abspath(source))
        else:
            shutil.copyfile(source, target)
        return None

    there = [number for number in range(len(dataset)) if number not in dataset.records.faults]
    lost["{image has no file and was|images have no file and were} not copied"] += len(dataset) - len(there)
    broken = [error for error in in_threads(copy, there) if error is not None]
    if broken and strict:
        raise broken[0]
    if broken:
        which = "{file cannot be used and was|files cannot be used and were}"
        lost[f"{which} not copied, first: {broken[0]}"] += len(broken)
    missing = (f"{dataset.records[number].path.name}: {fault}" for number, fault in dataset.records.faults.items())
    return [*map(str, broken), *missing]
