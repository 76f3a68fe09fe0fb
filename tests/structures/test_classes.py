"""Which categories agree with those of a data set: by ids and names, by names alone, and by their keypoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn.config import Category
from maskrcnn.data.editing.subset import of_classes
from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError
from maskrcnn.structures.classes import disagreement, match_categories
from small_data import write_small
from small_people import KEYPOINTS, write_people


def test_categories_agree_by_ids_and_names(tmp_path: Path) -> None:
    dataset = read_dataset(write_small(tmp_path, "val", 2))
    assert match_categories(dataset.categories, dataset) is dataset
    others = (Category(3, "blue"), Category(8, "red"))
    assert disagreement(others, dataset, "the model") == (
        "expected the categories of the model, with the same ids and names; only the data set has red (id 7), and only "
        "the model has red (id 8)"
    )
    with pytest.raises(DataError, match=r"val\.json: expected the categories of the model, .* categories of this data"):
        match_categories(others, dataset)


def test_names_alone_agree_if_one_side_has_no_numbers(tmp_path: Path) -> None:
    dataset = read_dataset(write_small(tmp_path, "val", 2))
    named = (Category("red", "red"), Category("green", "green"), Category("blue", "blue"))
    matched = match_categories(named, dataset)
    assert matched.categories == named
    before, after = dataset.columns["labels"].tolist(), matched.columns["labels"].tolist()
    assert [named[label].name for label in after] == [dataset.categories[label].name for label in before]
    assert "only the data set has blue (id 3), red (id 7), and" in disagreement(named[1:], dataset, "the model")


def test_a_class_without_a_name_agrees_with_the_only_class_of_a_model(tmp_path: Path) -> None:
    dataset = of_classes(read_dataset(write_small(tmp_path, "val", 2)), ["red"])
    model = (Category(1, "nucleus"),)
    assert "only the data set has red (id 7)" in disagreement(model, dataset, "the model")
    nameless = replace(dataset, categories=(Category("object", "object"),))
    assert match_categories(model, nameless).categories == model
    assert match_categories(nameless.categories, dataset).categories == nameless.categories
    assert disagreement((*model, Category(2, "cell")), nameless, "the model")
    assert disagreement((Category(1, "nucleus", KEYPOINTS),), nameless, "the model")


def test_keypoints_of_other_names_are_refused(tmp_path: Path) -> None:
    dataset = read_dataset(write_people(tmp_path, "val", 1))
    for same in (KEYPOINTS, ()):
        match_categories((Category(4, "person", same),), dataset)
    with pytest.raises(DataError, match=r"keypoints of the model for person, .* right_foot, .*; found nose, left_hand"):
        match_categories((Category(4, "person", KEYPOINTS[::-1]),), dataset)
