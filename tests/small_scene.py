"""Two images with objects of every shape that formats differ in, and what a data set holds, for tests of formats."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE

SIZE = (40, 56)  # height, width


class Thing(NamedTuple):
    """An object of the scene: its class and its (H, W) bool mask."""

    name: str
    mask: np.ndarray


def scene() -> dict[str, list[Thing]]:
    """The objects of the images `one` and `two`. Those of one image do not overlap; the first two touch."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disk = (x - 12) ** 2 + (y - 12) ** 2 < 60
    ring = (((x - 38) ** 2 + (y - 14) ** 2) < 100) & ~(((x - 38) ** 2 + (y - 14) ** 2) < 16)
    bar = (abs(y - 12) < 3) & (x > 10) & (x < 28) & ~disk
    parts = ((y > 30) & (x < 8)) | ((y > 33) & (x > 44))
    one = [Thing("cell", disk), Thing("rod", bar), Thing("cell", ring), Thing("rod", parts)]
    return {"one": one, "two": [Thing("cell", (abs(x - 55) < 6) & (abs(y - 20) < 9))]}


def save_images(folder: Path, names: tuple[str, ...] = ("one", "two"), suffix: str = ".png") -> None:
    """Saves grey images of the scene's size."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.fromarray(np.full((*SIZE, 3), 40 * number, dtype=np.uint8)).save(folder / f"{name}{suffix}")


def save_picture(path: Path, values: np.ndarray) -> None:
    """Saves an array as an image of its own type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


def objects(dataset: Dataset, index: int | str = 0) -> list[tuple[str, int, list[float]]]:
    """Class, pixels and tight box x1 y1 x2 y2 of each object of an image, given by its number or its id."""
    if isinstance(index, str):
        index = dataset.records.numbers()[index]
    found = dataset.annotations(index)
    return [
        (dataset.categories[label].name, mask.area, mask.box.tolist())
        for label, mask in zip(found.labels, map(found.rle, range(len(found))), strict=True)
    ]


def masks(dataset: Dataset, index: int | str = 0) -> list[tuple[str, RLE]]:
    """Class and mask of each object of an image, given by its number or its id, sorted."""
    if isinstance(index, str):
        index = dataset.records.numbers()[index]
    found = dataset.annotations(index)
    named = [(dataset.categories[label].name, found.rle(i)) for i, label in enumerate(found.labels)]
    return sorted(named, key=lambda entry: (entry[0], entry[1].counts))


def expected(name: str, label: str | None = None) -> list[tuple[str, RLE]]:
    """What `masks` gives for an image of the scene; `label` is the only class of formats without classes."""
    named = [(label or thing.name, RLE.from_dense(thing.mask)) for thing in scene()[name]]
    return sorted(named, key=lambda entry: (entry[0], entry[1].counts))
