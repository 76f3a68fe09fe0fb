"""Cuts a data set down by class, by the name of images, and to a number of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePath

import numpy as np

from maskrcnn.config.ranges import check_seed
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy


def subset(
    dataset: Dataset,
    *,
    classes: Sequence[str] = (),
    names: Sequence[str] = (),
    no_empty: bool = False,
    number: int | None = None,
    seed: int = 0,
) -> Dataset:
    """The data set with only what is chosen, in the same order and with the same ids. Choices are made in this order.

    Args:
        classes: keep only objects of these classes; empty for all.
        names: keep only images whose paths end as one of these patterns says; empty for all.
        no_empty: leave out images in which no object is left.
        number: keep so many images at most, chosen at random.
        seed: of this choice.

    Raises:
        ConfigError: the number of images is below 1, a pattern is empty, or the seed is below 0.
        DataError: there is no such class, or no image is left.
    """
    if number is not None and number < 1:
        raise ConfigError(f"--number: expected 1 or more images to keep, found {number}")
    if idle := [pattern for pattern in names if not PurePath(pattern).parts]:
        raise ConfigError(f"--names: expected patterns such as *.png or night/*, found {idle[0]!r}")
    check_seed(seed)
    if classes:
        dataset = of_classes(dataset, classes)
    kept = np.ones(len(dataset), dtype=np.bool_)
    if names:
        kept &= [any(record.path.match(pattern) for pattern in names) for record in dataset.records]
    if no_empty:
        kept &= dataset.records.counts > 0
    chosen = np.flatnonzero(kept)
    if number is not None and number < len(chosen):
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, number, replace=False))
    if not len(chosen):
        asked = [f"a name like {' or '.join(names)}"] if names else []
        if no_empty:
            asked.append(f"objects of {', '.join(classes)}" if classes else "objects")
        raise DataError(
            f"{dataset.path}: expected images with {' and '.join(asked)}, found none among its {len(dataset)} images; "
            "ask for others"
        )
    return dataset.subset(chosen.tolist())


def of_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """The data set with all images, and only the annotations of some classes.

    Raises:
        DataError: there is no such class.
    """
    known = [category.name for category in dataset.categories]
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"{dataset.path}: expected classes among {', '.join(known)}, found {', '.join(unknown)}")
    labels = [label for label, name in enumerate(known) if name in names]
    dataset = dataset.with_annotations(np.isin(as_numpy(dataset.columns["labels"]), labels))
    places = np.zeros(len(known), dtype=np.int64)
    places[labels] = np.arange(len(labels))
    categories = tuple(dataset.categories[label] for label in labels)
    dataset = dataset.with_categories(categories, places.tolist())
    points = dataset.columns.get("keypoints")
    if points is not None:
        most = max(len(category.keypoints) for category in categories)
        columns = {name: column for name, column in dataset.columns.items() if name != "keypoints"}
        dataset = replace(dataset, columns=columns | ({"keypoints": points[:, :most]} if most else {}))
    return dataset
