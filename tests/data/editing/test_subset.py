"""Cutting a data set down: the objects that stay are the same ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.editing.subset import subset
from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.structures.dataset import Dataset
from small_data import write_small
from small_people import people_coco


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Twelve images; red and blue objects."""
    return read_dataset(write_small(tmp_path, "images", 12))


def objects(dataset: Dataset) -> dict[tuple[str, int], tuple[str, bytes]]:
    """Name and mask of each object, by the name of its image and its id."""
    found = {}
    for index, record in enumerate(dataset.records):
        own = dataset.annotations(index)
        for number, label in enumerate(own.labels):
            name = dataset.categories[label].name
            found[record.path.name, int(own.ids[number])] = (name, own.rle(number).counts)
    return found


def test_objects_of_some_classes(dataset: Dataset) -> None:
    red = subset(dataset, classes=("red",))
    assert [category.name for category in red.categories] == ["red"]
    assert len(red) == 12
    assert objects(red) == {key: value for key, value in objects(dataset).items() if value[0] == "red"} != {}
    without = subset(dataset, classes=("red",), no_empty=True)
    assert objects(without) == objects(red)
    assert [record.path.name for record in without.records] == list(dict.fromkeys(name for name, _ in objects(red)))
    assert subset(dataset, classes=("red", "blue")).categories == dataset.categories


def test_images_by_name_and_number(dataset: Dataset) -> None:
    named = subset(dataset, names=("1*.png", "images/7.*"))
    assert [record.path.name for record in named.records] == ["1.png", "7.png", "10.png", "11.png"]
    assert objects(named).items() <= objects(dataset).items()
    few, again, others = (subset(dataset, number=5, seed=seed) for seed in (0, 0, 1))
    names = [[record.path.name for record in chosen.records] for chosen in (few, again, others)]
    assert names[0] == names[1] != names[2]
    assert [len(set(chosen)) for chosen in names] == [5] * 3
    assert len(subset(dataset, number=50)) == 12


def test_keypoints_go_with_their_class(tmp_path: Path) -> None:
    content, _ = people_coco(2)
    content["categories"].append({"id": 50, "name": "ball"})
    box = {"bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}
    content["annotations"].append({"id": 900, "image_id": content["images"][0]["id"], "category_id": 50, **box})
    (tmp_path / "people.json").write_text(json.dumps(content))
    people = read_dataset(tmp_path / "people.json")
    assert subset(people, classes=("ball",)).annotations(0).keypoints is None
    name = people.categories[0].name
    kept = subset(people, classes=(name,))
    for index in range(2):
        own = people.annotations(index)
        np.testing.assert_array_equal(kept.annotations(index).keypoints, own.keypoints[own.labels == 0])


def test_nothing_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="expected classes among blue, red, found green"):
        subset(dataset, classes=("green",))
    with pytest.raises(DataError, match=r"images with a name like \*.jpg or b, found none among its 12 images"):
        subset(dataset, names=("*.jpg", "b"))
    empty = dataset.with_annotations(np.zeros(len(dataset.columns["labels"]), dtype=bool))
    with pytest.raises(DataError, match="expected images with objects of red, found none among its 12 images"):
        subset(empty, classes=("red",), no_empty=True)
    with pytest.raises(ConfigError, match="--number: expected 1 or more images to keep, found 0"):
        subset(dataset, number=0)
    for pattern in ("", "."):
        with pytest.raises(ConfigError, match=rf"--names: expected patterns .*, found '{pattern}'"):
            subset(dataset, names=("*.png", pattern))
