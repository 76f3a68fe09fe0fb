"""Reads the instances of KITTI, whose values are 256 * class + object with the classes of Cityscapes.

The pixels of object 0 belong to no single object. In a class that has objects, they become a crowd region. Source:
http://www.cvlibs.net/datasets/kitti/eval_instance_seg.php
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskrcnn.data.formats.mask_pictures.cityscapes import THINGS, add_classes
from maskrcnn.data.formats.mask_pictures.segments import (
    Meaning,
    Segments,
    Source,
    coded_segments,
    paired,
    read_numbers,
    read_source,
)
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.pictures import Picture
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset

name = "KITTI instances"
key = "kitti"
takes = frozenset({"split", "missing"})

_LABELS, _IMAGES = "instance", "image_2"
_VOID = 3  # the last class of Cityscapes that is neither an object nor a region


def recognise(path: Path) -> bool:
    """Whether a folder, or one in it, has the folders `instance` and `image_2`."""
    return any((part / _LABELS).is_dir() and (part / _IMAGES).is_dir() for part in _parts(path))


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the instances of KITTI.

    Args:
        path: the folder that holds `training`, or `training` itself.
        images: folder of the images; default: `image_2` beside `instance`.
        strict: raise at the first broken picture, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there are no pictures of instances, or one is broken and `strict` is set.
    """
    found = [one for part in _parts(path) for one in paired(images or part / _IMAGES, part / _LABELS, path)]
    return read_source(path, Source(found, _read_labels, add_classes), strict=strict, hints=hints)


def _parts(path: Path) -> list[Path]:
    """The folder, and those in it, that hold images or labels of KITTI."""
    folders = (path, *sorted(path.iterdir())) if path.is_dir() else ()
    return [part for part in folders if (part / _LABELS).is_dir() or (part / _IMAGES).is_dir()]


def _read_labels(file: Path, picture: Picture) -> Segments:
    return coded_segments(deep_numbers(file, picture), _meaning)


def deep_numbers(file: Path, picture: Picture) -> np.ndarray:
    """`read_numbers` of a picture whose classes begin at 256. One of 8 bits has lost them.

    Raises:
        ImageError, DataError: as for `read_numbers`, or it has 8 bits.
    """
    values = read_numbers(file, picture)
    if values.dtype.itemsize == 1 and values.any():
        raise DataError(f"{file}: expected 16 bits, of which the upper 8 are the class, found 8; get the file again")
    return values


def _meaning(value: int) -> Sequence[Meaning]:
    number, own = divmod(value, 256)
    if own:
        return [Meaning(number)] if number > _VOID else []
    return [Meaning(number, crowd=True)] if number in THINGS else []
