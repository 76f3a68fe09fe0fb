"""Merges data sets into one. Classes of one name become one class."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from maskrcnn.config import Category
from maskrcnn.data.doubts import spelling
from maskrcnn.data.join import concatenated
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset


def merge(datasets: Sequence[Dataset], path: Path, renamed: Mapping[str, str] | None = None) -> Dataset:
    """One data set of all images and annotations, with ids from 1 for images, annotations and classes.

    Args:
        datasets: one or more. An image file of two of them becomes two images.
        path: `Dataset.path` of the result.
        renamed: new names of classes, by their old ones; several may get one name.

    Raises:
        DataError: no data set has a class to rename, all image files of a data set are files of another, too, or two
            classes of one name have different keypoints. One of them may have none; its objects have unlabelled
            keypoints then.
    """
    for one, other, both in _shared_files(datasets):
        if both == len(set(one.records.paths)):
            raise DataError(
                f"{one.path}: expected data sets of different images, found all {both} image files in {other.path}, "
                "too; name each image in one of them"
            )
    names = {category.name: None for dataset in datasets for category in dataset.categories}
    renamed = renamed or {}
    if unknown := [name for name in renamed if name not in names]:
        raise DataError(f"--map: expected classes to rename among {', '.join(names)}, found {', '.join(unknown)}")
    found: dict[str, Category] = {}
    for dataset in datasets:
        for category in dataset.categories:
            name = renamed.get(category.name, category.name)
            first = found.setdefault(name, Category(len(found) + 1, name))
            new = replace(category, id=first.id, name=name)
            if first.keypoints and new.keypoints and first != new:
                raise DataError(
                    f"{dataset.path}: expected the class {name} with the keypoints {', '.join(first.keypoints)}, as "
                    f"before, found {', '.join(new.keypoints)} or other limbs or sigmas; rename one of the two"
                )
            found[name] = new if new.keypoints else first
    categories, places = tuple(found.values()), {name: place for place, name in enumerate(found)}
    alike = [
        dataset.with_categories(
            categories, [places[renamed.get(category.name, category.name)] for category in dataset.categories]
        )
        for dataset in datasets
    ]
    images, annotations = (
        sum(counts) for counts in zip(*((len(d), len(d.columns["labels"])) for d in alike), strict=True)
    )
    return concatenated(alike, range(1, images + 1), range(1, annotations + 1), path)


def doubts(datasets: Sequence[Dataset], renamed: Mapping[str, str]) -> list[str]:
    """One sentence for each thing in data sets to merge that is probably not meant; arguments as for `merge`."""
    names = [renamed.get(category.name, category.name) for dataset in datasets for category in dataset.categories]
    spelled: dict[str, dict[str, None]] = {}
    for name in names:
        spelled.setdefault(spelling(name), {})[name] = None
    found = [
        f"the classes {', '.join(several)} differ only in spelling and stay apart; --map "
        f"{' '.join(f'{name}={next(iter(several))}' for name in list(several)[1:])} makes them one"
        for several in spelled.values()
        if len(several) > 1
    ]
    return found + [
        f"{both} image files of {one.path} are in {other.path}, too, and become two images each; a model learns the "
        "objects of one as background of the other"
        for one, other, both in _shared_files(datasets)
    ]


def _shared_files(datasets: Sequence[Dataset]) -> list[tuple[Dataset, Dataset, int]]:
    """The pairs of data sets with image files in common, the smaller one first, and the number of these."""
    files = [{os.path.realpath(path) for path in dataset.records.paths} for dataset in datasets]
    pairs = combinations(sorted(zip(datasets, files, strict=True), key=lambda pair: len(pair[0])), 2)
    return [(one, other, len(own & others)) for (one, own), (other, others) in pairs if own & others]
