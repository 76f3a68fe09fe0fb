"""Whether a model of some categories can be judged on a data set, and which labels these are."""

from __future__ import annotations

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset

ONLY_CLASS = "object"  # the class of objects in formats without classes

_TRAIN = "`maskrcnn train --weights` trains your model on the categories of this data set"


def match_categories(
    categories: tuple[Category, ...], dataset: Dataset, owner: str = "the model", todo: str = _TRAIN
) -> Dataset:
    """The data set with the categories of a model.

    Formats without numbers of classes know them by name, and often only those of their objects. If such a data set is
    on either side, names alone have to agree, and the data set may lack some. Formats without classes have
    `ONLY_CLASS`. If that is the only class of one side, and the other side has only one as well, they agree. Keypoints
    may be missing on either side. If both sides name them, names and order must be the same.

    Args:
        owner: what has the categories, for messages.
        todo: what to do if they do not agree.

    Raises:
        DataError: the categories do not agree.
    """
    if fault := disagreement(categories, dataset, owner):
        raise DataError(f"{dataset.path}: {fault}; {todo}")
    if _by_one_class(categories, dataset):
        return dataset.with_categories(categories, [0])
    places = {category.name: place for place, category in enumerate(categories)}
    if _by_names_alone(categories, dataset):
        return dataset.with_categories(categories, [places[category.name] for category in dataset.categories])
    return dataset


def disagreement(categories: tuple[Category, ...], dataset: Dataset, owner: str) -> str:
    """Why categories do not agree with those of a data set, by the rules of `match_categories`; empty if they do."""
    if _by_one_class(categories, dataset) or _by_names_alone(categories, dataset):
        return ""
    ours = {(category.id, category.name) for category in categories}
    theirs = {(category.id, category.name) for category in dataset.categories}
    if ours != theirs:
        return (
            f"expected the categories of {owner}, with the same ids and names; only the data set has "
            f"{_words(theirs - ours) or 'nothing'}, and only {owner} has {_words(ours - theirs) or 'nothing'}"
        )
    known = {category.id: category.keypoints for category in categories}
    for category in dataset.categories:
        trained = known[category.id]
        if trained and category.keypoints and trained != category.keypoints:
            return (
                f"expected the keypoints of {owner} for {category.name}, in the same order: {', '.join(trained)}; "
                f"found {', '.join(category.keypoints)}"
            )
    return ""


def _by_one_class(categories: tuple[Category, ...], dataset: Dataset) -> bool:
    """Whether both sides have one class without keypoints, and one of them does not say which."""
    sides = (categories, dataset.categories)
    single = all(len(side) == 1 and not side[0].keypoints for side in sides)
    return single and any(side[0].name == ONLY_CLASS for side in sides)


def _by_names_alone(categories: tuple[Category, ...], dataset: Dataset) -> bool:
    """Whether names are enough and agree: one side has no numbers, and the data set has no other name."""
    ours, theirs = ([category.name for category in side] for side in (categories, dataset.categories))
    unique = len(set(ours)) == len(ours) and len(set(theirs)) == len(theirs)
    return unique and set(ours) >= set(theirs) and (_by_name(categories) or _by_name(dataset.categories))


def _by_name(categories: tuple[Category, ...]) -> bool:
    return all(str(category.id) == category.name for category in categories)


def _words(categories: set[tuple[int | str, str]]) -> str:
    listed = [f"{name} (id {number})" for number, name in sorted(categories, key=str)]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
