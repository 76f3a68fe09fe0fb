"""Merges data sets into one. Classes of one name become one class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from maskrcnn.config import Category
from maskrcnn.data.join import concatenated
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset


def merge(datasets: Sequence[Dataset], path: Path, renamed: Mapping[str, str] | None = None) -> Dataset:
    """One data set of all images and annotations, with ids from 1 for images, annotations and classes.

    Args:
        datasets: one or more. An image that is in two of them becomes two images.
        path: `Dataset.path` of the result.
        renamed: new names of classes, by their old ones; several may get one name.

    Raises:
        DataError: no data set has a class to rename, or two classes of one name have different keypoints. One of them
            may have none; its objects have unlabelled keypoints then.
    """
    names = {category.name: None for dataset in datasets for category in dataset.categories}
    renamed = renamed or {}
    if unknown := [name for name in renamed if name not in names]:
        raise DataError(f"expected classes to rename among {', '.join(names)}, found {', '.join(unknown)}")
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
