"""What can be used in a data set but is probably not meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from maskrcnn.config import Category
from maskrcnn.data.loading.transforms import MOST_MASK_PIXELS
from maskrcnn.errors import agreeing, counted
from maskrcnn.structures.annotations import NO_MASK
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy
from maskrcnn.structures.values import as_id

T = TypeVar("T")

_NAMED = 4  # classes that a sentence lists


def spelling(name: str) -> str:
    """What names that differ only in upper case, spaces and signs have in common."""
    return "".join(re.findall(r"[^\W_]+", name.casefold())) or name


def repeated_names(categories: Iterable[Category], paths: Iterable[str]) -> list[str]:
    """One sentence if categories share a name, and one if images share a file."""
    doubts = []
    ids: dict[str, list[int | str]] = {}
    for category in categories:
        ids.setdefault(category.name, []).append(category.id)
    shared = {name: numbers for name, numbers in ids.items() if len(numbers) > 1}
    if shared:
        name, numbers = next(iter(shared.items()))
        doubts.append(
            f"categories that share a name are different classes (names: {len(shared)}), first: {name!r} is the name "
            f"of the ids {', '.join(map(repr, numbers))}; merge the ids or rename one of them"
        )
    times = Counter(paths)
    twice = [path for path, count in times.items() if count > 1]
    if twice:
        doubts.append(
            f"image files are listed more than once (files: {len(twice)}), first: {twice[0]} is listed "
            f"{times[twice[0]]} times; if its objects are spread over the entries, each entry teaches the objects of "
            "the others as background"
        )
    return doubts


def crowded_images(dataset: Dataset, max_detections: int) -> list[str]:
    """One sentence if images hold more objects than a model predicts on each.

    Args:
        max_detections: the largest number of detections on one image.
    """
    images = np.repeat(np.arange(len(dataset)), dataset.records.counts)
    objects = ~as_numpy(dataset.columns["crowd"])[dataset.records.rows]
    counts = np.bincount(images[objects], minlength=len(dataset))
    more = int((counts > max_detections).sum())
    if not more:
        return []
    return [
        f"{more} of {len(dataset)} images hold more than {max_detections} objects, up to {counts.max()}; a model that "
        f"predicts at most {max_detections} on an image cannot find them all; train with "
        f"--model.detect.max-detections {counts.max()}"
    ]


def limited_images(dataset: Dataset, max_objects: int) -> list[str]:
    """One sentence if images hold more than `transforms.within_limits` keeps for a training step."""
    counts = dataset.records.counts
    images, rows = np.repeat(np.arange(len(dataset)), counts), dataset.records.rows
    sizes = as_numpy(dataset.columns["annotated_boxes"])[rows, 2:].clip(0, dataset.records.sizes_hw[images, ::-1])
    masked = as_numpy(dataset.columns["kinds"])[rows] != NO_MASK
    pixels = np.bincount(images, sizes.prod(axis=1) * masked, minlength=len(dataset))
    more = (counts > max_objects) | (pixels > MOST_MASK_PIXELS)
    if not more.any():
        return []
    return [
        f"{more.sum()} of {len(dataset)} images hold up to {counts[more].max()} annotations; a step learns at most "
        f"{max_objects} of an image (--train.max-objects), whose boxes have at most {MOST_MASK_PIXELS >> 20} million "
        "pixels; the others are left out at random, each time anew; --augment.crop shows fewer at once"
    ]


def unused_classes(dataset: Dataset) -> list[str]:
    """One sentence if classes have no object to learn from."""
    rows = dataset.records.rows
    labels = as_numpy(dataset.columns["labels"])[rows[~as_numpy(dataset.columns["crowd"])[rows]]]
    counts = np.bincount(labels, minlength=len(dataset.categories)).tolist()
    names = [category.name for category, count in zip(dataset.categories, counts, strict=True) if not count]
    if not names:
        return []
    listed = f"{', '.join(names[:_NAMED])}{' and others' if len(names) > _NAMED else ''}"
    return [
        f"{len(names)} of {counted(len(counts), 'class')} {'has' if len(names) == 1 else 'have'} no object to learn "
        f"from, so the model will not find any: {listed}; add objects, or remove the class from the annotations"
    ]


def labelled_keypoints(dataset: Dataset) -> list[str]:
    """One sentence, for a model without a branch for keypoints, if objects have them."""
    column = dataset.columns.get("keypoints")
    if column is None:
        return []
    objects = int((as_numpy(column)[dataset.records.rows, :, 2] > 0).any(axis=1).sum())
    if not objects:
        return []
    return [
        f"{agreeing(objects, '{object has|objects have} keypoints')}, which this model does not learn; --preset "
        "keypoint_rcnn_R_50_FPN has a branch for them"
    ]


def first_of(problems: Sequence[str], path: Path) -> str:
    """The end of an error that has its reason in problems of a file or folder: the first of them; empty without any."""
    return "".join(f"; first: {problem.removeprefix(f'{path}: ')}" for problem in problems[:1])


def no_image(given: int | str | None, known: Container[int | str], left_out: Container[int | str]) -> str:
    """Why an annotation with this id of an image has none: `known` are the ids of images, `left_out` of broken ones."""
    if given in left_out:
        return "its image is left out"
    return "no image has this id"


def with_id(given: Any, known: Mapping[int | str, T]) -> T | None:
    """What has an id that is given as a number or as its text; None if nothing has it."""
    own = as_id(given)
    other: int | str | None = str(own) if isinstance(own, int) else None
    if isinstance(own, str) and own.strip().isdecimal() and len(own) < 20:
        other = int(own)
    return next((known[number] for number in (own, other) if number is not None and number in known), None)
