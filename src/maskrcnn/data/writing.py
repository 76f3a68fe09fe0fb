"""What the writers of formats share: the objects that a format can hold, and the count of what it cannot."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np

from maskrcnn.data.pictures import NO_CLASS
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.dataset import Dataset

Lost = Counter[str]  # how often; the keys follow the number in a sentence (`errors.agreeing`)
Holds = frozenset[Literal["boxes", "scores"]]  # what a format can hold besides masks of objects


def objects_to_write(annotations: Annotations, holds: Holds, lost: Lost) -> list[int]:
    """The numbers of the annotations that a format without crowd regions and keypoints can hold; counts the others.

    Args:
        holds: with `boxes`, objects that have only a box are kept.
    """
    crowd, masked = annotations.crowd, annotations.has_mask
    lost["crowd {region is|regions are} left out"] += int(crowd.sum())
    if "boxes" not in holds:
        lost["{object|objects} without a mask {is|are} left out"] += int((~crowd & ~masked).sum())
    kept = np.flatnonzero(~crowd & (masked | ("boxes" in holds)))
    empty = [number for number, mask in zip(kept, annotations.masks(kept), strict=True) if mask and not mask.area]
    lost["{object covers|objects cover} no pixel and {is|are} left out"] += len(empty)
    kept = np.setdiff1d(kept, empty)
    if annotations.keypoints is not None:
        labelled = (annotations.keypoints[kept, :, 2] > 0).any(axis=1)
        lost["{object loses its|objects lose their} keypoints"] += int(labelled.sum())
    if annotations.scores is not None and "scores" not in holds:
        lost["{object loses its|objects lose their} score"] += len(kept)
    numbers: list[int] = kept.tolist()
    return numbers


def class_name(dataset: Dataset, annotations: Annotations, number: int, lost: Lost) -> str:
    """The class of an object, for formats whose readers leave out what is called `void` and the like; counts those."""
    name = dataset.categories[annotations.labels[number]].name
    if name in NO_CLASS:
        lost[f"{{object|objects}} of the class {name} will not be read again, because {name} means no class"] += 1
    return name


def with_names(dataset: Dataset, unable: re.Pattern[str], holder: str, lost: Lost) -> Dataset:
    """The data set with `-` in the place of characters in the names of its classes that a format cannot hold.

    A name that would then be that of another class gets a number, so that no two classes become one.

    Args:
        unable: matches such a character.
        holder: what cannot hold it, such as "a file name".
    """
    names = [category.name for category in dataset.categories]
    kept = {name: name for name in names if name and not unable.search(name)}
    for name in names:
        if name in kept:
            continue
        plain = unable.sub("-", name) or "-"
        tries = (plain if number == 1 else f"{plain}-{number}" for number in count(1))
        kept[name] = next(tried for tried in tries if tried not in kept.values())
    categories = tuple(replace(category, name=kept[category.name]) for category in dataset.categories)
    # All parts of a data set have the same classes, which count once.
    lost[f"{{name of a class is|names of classes are}} changed, because {holder} cannot hold {{it|them}}"] = sum(
        new.name != old.name for new, old in zip(categories, dataset.categories, strict=True)
    )
    return replace(dataset, categories=categories)


def new_file(path: Path) -> Path:
    """The path, after its folder was made. For one of many files of a new data set, which replace nothing.

    `atomic_write` waits for the disk, some milliseconds a file, which is ten minutes for the 118,000 images of COCO.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def shares(points: np.ndarray, whole_xy: tuple[float, float]) -> np.ndarray:
    """(n, 2) shares of a whole, such as percent of an image, that a reader turns into the same points, and never into
    smaller ones.

    COCO's way of drawing rounds coordinates, and those of one decimal often lie where it rounds to the next number.
    """
    found: np.ndarray = points / whole_xy
    for _ in range(2):
        found = np.where(found * whole_xy < points, np.nextafter(found, np.inf), found)
    return found
