"""Divides a data set into train, val and test, so that each part has its share of the images of every class.

Images of one group stay together. Otherwise a model would be judged on what it has learned by heart, such as another
frame of one film or another version of one photograph.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from maskrcnn.config.ranges import check_seed
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import Record, Records, as_numpy

FOLDER = "folder"  # groups by the folder of the image file
ROBOFLOW = re.compile(r"\.rf\.[0-9a-zA-Z]+$")  # `<name>.rf.<hash>.jpg` are versions of one photograph


def split(
    dataset: Dataset,
    shares: Mapping[str, float],
    *,
    group_by: str | None = None,
    together: Sequence[tuple[int, int]] = (),
    seed: int = 0,
) -> Dataset:
    """The data set whose images have their part as the field `split`.

    Args:
        shares: of the images, by the name of the part: train, val or test. They sum to 1.
        group_by: a field of the images whose equal values stay together, or `FOLDER`. Versions of one photograph from
            Roboflow stay together in any case.
        together: pairs of images, by number, that stay together, such as equal pictures.

    Raises:
        ConfigError: there is one part, a share is not above 0, the shares do not sum to 1, or the seed is below 0.
        DataError: an image lacks the field, or there are fewer groups of images than parts.
    """
    if len(shares) < 2 or not all(share > 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-9:
        listed = ", ".join(f"{part} {share:g}" for part, share in shares.items())
        raise ConfigError(f"expected a share above 0 for each of two or three parts, 1 in all, found {listed}")
    check_seed(seed)
    keys = [[_source(record) for record in dataset.records]]
    if group_by is not None:
        keys.append([_value(dataset, record, group_by) for record in dataset.records])
    groups = _groups(keys, np.array(together, dtype=np.int64).reshape(-1, 2))
    number = int(groups.max()) + 1
    if number < len(shares):
        raise DataError(
            f"{dataset.path}: expected {len(shares)} or more groups of images for {', '.join(shares)}, found {number} "
            f"in {len(dataset)} images; add some, or keep fewer together (--group-by, --group-copies, names with .rf.)"
        )
    counts = np.zeros((number, len(dataset.categories) + 2))
    np.add.at(counts, groups, _presence(dataset))
    parts = _stratified(counts, np.array(list(shares.values())), np.random.default_rng(seed))[groups]
    names = list(shares)
    records = (
        replace(record, fields={**record.fields, "split": names[part]})
        for record, part in zip(dataset.records, parts.tolist(), strict=True)
    )
    return replace(dataset, records=Records(records))


def _source(record: Record) -> Hashable:
    """What versions of one photograph have in common."""
    stem = record.path.stem
    return (ROBOFLOW.sub("", stem),) if ROBOFLOW.search(stem) else record.image_id


def _value(dataset: Dataset, record: Record, field: str) -> Hashable:
    if field == FOLDER:
        return str(record.path.parent)
    if field not in record.fields:
        found = ", ".join(record.fields) or "none"
        raise DataError(
            f"{dataset.path}: image {record.image_id}: expected the field {field} for --group-by, found {found}; "
            f"--group-by {FOLDER} takes the folder of the image"
        )
    return str(record.fields[field])


def _groups(keys: Sequence[Sequence[Hashable]], pairs: np.ndarray) -> np.ndarray:
    """(N,) int64 number of the group of each of N images. Images with an equal key of any kind are in one group, and so
    are those of one of (M, 2) pairs."""
    group = np.arange(len(keys[0]))
    numbered = [_numbers(kind) for kind in keys]
    while True:  # every image takes the smallest number among those it belongs to, until nothing changes
        before = group.copy()
        for one, other in (pairs.T, pairs.T[::-1]):
            np.minimum.at(group, one, group[other])
        for number in numbered:
            smallest = np.full(number.max() + 1, len(group))
            np.minimum.at(smallest, number, group)
            group = smallest[number]
        if np.array_equal(group, before):
            return np.unique(group, return_inverse=True)[1]


def _numbers(keys: Sequence[Hashable]) -> np.ndarray:
    """(N,) int64: equal for equal keys, from 0."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def _presence(dataset: Dataset) -> np.ndarray:
    """(N, K + 2) 0 or 1: which of K classes each image has objects of, whether it has none, and 1 for the image."""
    rows, counts = dataset.records.rows, dataset.records.counts
    found = np.zeros((len(dataset), len(dataset.categories) + 2))
    found[np.repeat(np.arange(len(dataset)), counts), as_numpy(dataset.columns["labels"])[rows]] = 1
    found[:, -2] = counts == 0
    found[:, -1] = 1
    return found


def _stratified(counts: np.ndarray, shares: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The part of each of G groups: an iterative stratification, as Sechidis et al. (2011).

    The groups with the rarest class come first, and of these the largest. Each goes to the part in which it brings the
    numbers of images closest to their shares, as the chi-square statistic measures it. All images weigh as much as all
    classes together.

    Args:
        counts: (G, C) images of each class in each group; the last column counts all images.
        shares: (P,) of each part.
    """
    expected = shares[:, None] * counts.sum(axis=0)
    lacking = expected.copy()
    weights = np.divide(1.0, expected, out=np.zeros_like(expected), where=expected > 0)
    weights[:, -1] *= counts.shape[1] - 1
    parts = np.full(len(counts), -1)
    order = random.permutation(len(counts))
    order = order[np.argsort(-counts[order, -1], kind="stable")]
    while (left := order[parts[order] < 0]).size:
        images = counts[left].sum(axis=0)
        rarest = int(np.argmin(np.where(images > 0, images, np.inf)))
        for group in left[counts[left, rarest] > 0]:
            own = counts[group]
            parts[group] = np.argmin((weights * own * (own - 2 * lacking)).sum(axis=1))
            lacking[parts[group]] -= own
    return _none_empty(parts, counts[:, -1], len(shares))


def _none_empty(parts: np.ndarray, images: np.ndarray, count: int) -> np.ndarray:
    """The parts of groups, after each part without any has taken the smallest group of a part with several.

    Args:
        images: (G,) of each group.
        count: of the parts.
    """
    for part in np.setdiff1d(np.arange(count), parts):
        several = np.flatnonzero(np.bincount(parts, minlength=count)[parts] > 1)
        if len(several):
            parts[several[np.argmin(images[several])]] = part
    return parts
