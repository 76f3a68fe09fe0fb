"""Merging data sets: classes by name, new ids, every object at its image."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.editing.merge import merge
from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset


def dataset_of(name: str, classes: dict[int, str], keypoints: tuple[str, ...] = ()) -> Dataset:
    """An image for each class, with one object whose width is the id of the class, and an image without objects."""
    builder = DatasetBuilder(Path(name))
    for number, label in classes.items():
        builder.add_category(number, label, keypoints)
    for number, _ in [*classes.items(), (99, "")]:
        builder.add_image(number, Path(name) / f"{number}.png", 20, 20, {})
        if number in classes:
            points = [3, 4, 2] * len(keypoints)
            builder.add_annotation(RawAnnotation(number, number, number, box=[1, 1, number, 5], keypoints=points))
    return builder.build()


def objects(dataset: Dataset) -> list[tuple[str, list[tuple[str, float]]]]:
    found = []
    for index, record in enumerate(dataset.records):
        own = dataset.annotations(index)
        labels = [dataset.categories[label].name for label in own.labels]
        found.append((str(record.path), list(zip(labels, own.annotated_boxes[:, 2].tolist(), strict=True))))
    return found


def test_classes_of_one_name_become_one_and_ids_are_new() -> None:
    first, second = dataset_of("a", {3: "car", 5: "dog"}), dataset_of("b", {3: "dog", 7: "truck", 9: "van"})
    dataset = merge([first, second], Path("out"), {"truck": "vehicle", "van": "vehicle", "car": "vehicle"})
    assert [(category.id, category.name) for category in dataset.categories] == [(1, "vehicle"), (2, "dog")]
    assert objects(dataset) == [
        ("a/3.png", [("vehicle", 3)]),
        ("a/5.png", [("dog", 5)]),
        ("a/99.png", []),
        ("b/3.png", [("dog", 3)]),
        ("b/7.png", [("vehicle", 7)]),
        ("b/9.png", [("vehicle", 9)]),
        ("b/99.png", []),
    ]
    assert [record.image_id for record in dataset.records] == [*range(1, 8)]
    assert [number for index in range(7) for number in dataset.annotations(index).ids] == [1, 2, 3, 4, 5]
    assert merge([first], Path("out")).categories != first.categories  # ids are new


def test_keypoints_are_merged_with_objects_that_have_none() -> None:
    for first, keypoints in (("car", [(), ("thumb",)]), ("hand", [("thumb",)])):
        dataset = merge([dataset_of("a", {3: first}), dataset_of("b", {3: "hand"}, ("thumb",))], Path("out"))
        assert [category.keypoints for category in dataset.categories] == keypoints
        found = [dataset.annotations(index).keypoints for index in (0, 2)]
        assert [None if points is None else points.tolist() for points in found] == [[[[0, 0, 0]]], [[[3, 4, 2]]]]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="expected classes to rename among car, dog, found cat"):
        merge([dataset_of("a", {3: "car", 5: "dog"})], Path("out"), {"cat": "dog"})
    with pytest.raises(DataError, match="b: expected the class hand with the keypoints wrist, as before, found thumb"):
        merge([dataset_of("a", {3: "hand"}, ("wrist",)), dataset_of("b", {3: "hand"}, ("thumb",))], Path("out"))
