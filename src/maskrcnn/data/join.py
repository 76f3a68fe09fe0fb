"""Joins data sets, such as the parts train, val and test of one data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from maskrcnn.config import Category
from maskrcnn.errors import DataError, counted
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import PackedBytes, Record, Records, as_numpy, pack_ids


def join(parts: Mapping[str, Dataset], path: Path) -> Dataset:
    """One data set of all images, whose field `split` is the name of their part.

    If two parts have an image id in common, every id becomes `part/id`, and annotations are numbered anew in the same
    way.

    Args:
        parts: data sets by name.
        path: `Dataset.path` of the result.

    Raises:
        DataError: two parts have different categories with one id.
    """
    datasets = list(parts.values())
    categories = _joined_categories(parts, path)
    datasets = [d.with_categories(categories, [categories.index(own) for own in d.categories]) for d in datasets]
    names = [name for name, dataset in parts.items() for _ in range(len(dataset))]
    image_ids = _told_apart([r.image_id for d in datasets for r in d.records], names)
    owners = [name for name, dataset in parts.items() for _ in range(_count(dataset))]
    annotation_ids = _told_apart([own for d in datasets for own in as_numpy(d.columns["ids"]).tolist()], owners)
    named = [
        replace(d, records=Records(replace(r, fields={**r.fields, "split": name}) for r in d.records))
        for name, d in zip(parts, datasets, strict=True)
    ]
    joined = concatenated(named, image_ids, annotation_ids, path)
    return replace(joined, choices=(f"{path}: {_said(parts)}", *joined.choices))


def concatenated(
    datasets: Sequence[Dataset], image_ids: Sequence[int | str], annotation_ids: Sequence[int | str], path: Path
) -> Dataset:
    """The images of data sets with the same categories, one after the other.

    Args:
        image_ids, annotation_ids: new ids of all images, and of all rows of their columns.
        path: `Dataset.path` of the result.
    """
    categories = datasets[0].categories
    firsts = np.cumsum([0, *map(_count, datasets)]).tolist()
    records: list[Record] = []
    for dataset, first in zip(datasets, firsts, strict=False):
        for record in dataset.records:
            records.append(replace(record, image_id=image_ids[len(records)], first=record.first + first))
    columns = {
        name: torch.cat([torch.as_tensor(dataset.columns[name]) for dataset in datasets])
        for name in datasets[0].columns
        if name not in ("ids", "keypoints")
    }
    columns |= _joined_keypoints(datasets, max(len(category.keypoints) for category in categories))
    return Dataset(
        path,
        Records(records),
        categories,
        tuple(problem for dataset in datasets for problem in dataset.problems),
        {"ids": pack_ids(annotation_ids), **columns},
        PackedBytes([s.tobytes() for d in datasets for s in d.segmentations.between(0, _count(d))]),
        tuple(note for dataset in datasets for note in dataset.notes),
        tuple(choice for dataset in datasets for choice in dataset.choices),
    )


def _said(parts: Mapping[str, Dataset]) -> str:
    images = ", ".join(f"{name} ({counted(len(dataset), 'image')})" for name, dataset in parts.items())
    return f"its parts are read together: {images}; --split reads only one"


def _count(dataset: Dataset) -> int:
    return len(dataset.columns["labels"])


def _joined_categories(parts: Mapping[str, Dataset], path: Path) -> tuple[Category, ...]:
    """The categories of all parts, sorted by id, integers before strings."""
    found: dict[int | str, tuple[str, Category]] = {}
    for name, dataset in parts.items():
        for category in dataset.categories:
            first, other = found.setdefault(category.id, (name, category))
            if other != category:
                raise DataError(
                    f"{path}: expected the same categories in its parts, found id {category.id!r} as {other.name} in "
                    f"{first} and as {category.name} in {name}; read one part with --split"
                )
    return tuple(category for _, category in sorted(found.values(), key=lambda f: (isinstance(f[1].id, str), f[1].id)))


def _told_apart(ids: Sequence[int | str], names: Sequence[str]) -> list[int | str]:
    """The ids, with the names of their parts if one occurs twice."""
    if len(set(ids)) == len(ids):
        return list(ids)
    return [f"{name}/{own}" for own, name in zip(ids, names, strict=True)]


def _joined_keypoints(datasets: Sequence[Dataset], most: int) -> dict[str, torch.Tensor]:
    """The column of keypoints, if any category names some; parts without keypoints have unlabelled ones."""
    if not most:
        return {}
    joined = torch.zeros(sum(map(_count, datasets)), most, 3, dtype=torch.float64)
    first = 0
    for dataset in datasets:
        points = torch.as_tensor(dataset.columns.get("keypoints", joined[:0]))
        joined[first : first + len(points), : points.shape[1]] = points
        first += _count(dataset)
    return {"keypoints": joined}
