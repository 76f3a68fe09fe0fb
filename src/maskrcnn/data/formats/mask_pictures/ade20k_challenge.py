"""Reads the instance segmentation of the Places Challenge 2017, which are images of ADE20K with 100 classes.

In the pictures of `annotations_instance`, red is the class and green tells the objects of an image apart. Source:
https://github.com/CSAILVision/placeschallenge/tree/master/instancesegmentation
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats.mask_pictures.segments import (
    Category,
    Meaning,
    Segments,
    Source,
    coded_segments,
    paired,
    read_source,
)
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.pictures import Picture, read_masks
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset

name = "ADE20K instances of the Places Challenge"
key = "ade20k-challenge"
takes = frozenset({"split", "missing"})

_LABELS, _IMAGES = "annotations_instance", "images"
_CLASSES = (
    *("bed", "windowpane", "cabinet", "person", "door", "table", "curtain", "chair", "car", "painting", "sofa"),
    *("shelf", "mirror", "armchair", "seat", "fence", "desk", "wardrobe", "lamp", "bathtub", "railing", "cushion"),
    *("box", "column", "signboard", "chest of drawers", "counter", "sink", "fireplace", "refrigerator", "stairs"),
    *("case", "pool table", "pillow", "screen door", "bookcase", "coffee table", "toilet", "flower", "book", "bench"),
    *("countertop", "stove", "palm", "kitchen island", "computer", "swivel chair", "boat", "arcade machine", "bus"),
    *("towel", "light", "truck", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane"),
    *("apparel", "pole", "bannister", "ottoman", "bottle", "van", "ship", "fountain", "washer", "plaything", "stool"),
    *("barrel", "basket", "bag", "minibike", "oven", "ball", "food", "step", "trade name", "microwave", "pot"),
    *("animal", "bicycle", "dishwasher", "screen", "sculpture", "hood", "sconce", "vase", "traffic light", "tray"),
    *("ashcan", "fan", "plate", "monitor", "bulletin board", "radiator", "glass", "clock", "flag"),
)


def recognise(path: Path) -> bool:
    """Whether a folder has the folder `annotations_instance`."""
    return (path / _LABELS).is_dir()


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the instances of the Places Challenge.

    Args:
        path: the folder that holds `annotations_instance`, with a folder for each part.
        images: folder of the images or of the parts' folders; default: `images`.
        strict: raise at the first broken picture, instead of leaving it out.
        hints: `split` and `missing` are used.

    Raises:
        DataError: there are no pictures of instances, or one is broken and `strict` is set.
    """
    home = images or path / _IMAGES
    folders = [place for place in (path / _LABELS, home) if place.is_dir()]
    parts = sorted({own.name for place in folders for own in place.iterdir() if own.is_dir()}) or [""]
    found = [
        one
        for part in parts
        for one in paired(home / part if (home / part).is_dir() else home, path / _LABELS / part, path)
    ]
    return read_source(path, Source(found, _read_labels, _add_classes), strict=strict, hints=hints)


def _add_classes(builder: DatasetBuilder, used: Mapping[Category, str]) -> None:
    for number, label in enumerate(_CLASSES, start=1):
        builder.add_category(number, label)


def _read_labels(file: Path, picture: Picture) -> Segments:
    values = read_masks(file, picture)
    if values.ndim != 3 or values.shape[2] < 3:
        raise DataError(f"{file}: expected red, green and blue, found {values.ndim} dimensions of {values.dtype}")
    red, green = values[..., 0].astype(np.int32), values[..., 1].astype(np.int32)
    return coded_segments(np.where(green > 0, 256 * red + green, 0), _meaning)


def _meaning(value: int) -> Sequence[Meaning]:
    number = value // 256
    if not 1 <= number <= len(_CLASSES):
        raise DataError(f"expected classes from 1 to {len(_CLASSES)} in red, found {number}")
    return [Meaning(number)]
