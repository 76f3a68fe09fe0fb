"""A data set is known by its images and annotations, wherever it lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.training.fingerprint import fingerprint
from small_data import write_small


def test_another_folder_and_another_order_of_reading_change_nothing(tmp_path: Path) -> None:
    one, two = (read_dataset(write_small(tmp_path / name, "train", 5)) for name in "ab")
    assert fingerprint(one) == fingerprint(two)
    assert fingerprint(one)["images"] == 5


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], object], set[str]]] = {
    "an image less": (lambda c: c["images"].pop(), {"images", "image_ids", "annotations", "content"}),
    "a moved box": (lambda c: c["annotations"][0]["bbox"].__setitem__(0, 1), {"content"}),
    "another mask": (lambda c: c["annotations"][0]["segmentation"][0].__setitem__(0, 3), {"content"}),
    "another class": (lambda c: c["annotations"][0].update(category_id=3), {"content"}),
    "another id of an image": (
        lambda c: (
            [a.update(image_id=99) for a in [*c["annotations"]] if a["image_id"] == 1] + [c["images"][0].update(id=99)]
        ),
        {"image_ids"},
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_training_learns_from_changes_it(tmp_path: Path, change: str) -> None:
    path = write_small(tmp_path, "train", 5, seed=1)
    before = fingerprint(read_dataset(path))
    content = json.loads(path.read_text())
    if content["annotations"][0]["category_id"] == 3:
        content["annotations"][0]["category_id"] = 7
        path.write_text(json.dumps(content))
        before = fingerprint(read_dataset(path))
    CHANGES[change][0](content)
    path.write_text(json.dumps(content))
    after = fingerprint(read_dataset(path))
    assert {name for name in before if before[name] != after[name]} == CHANGES[change][1]


def test_a_part_of_a_data_set_is_another_one(tmp_path: Path) -> None:
    dataset = read_dataset(write_small(tmp_path, "train", 5))
    assert fingerprint(dataset) != fingerprint(dataset.subset([0, 1, 2, 4]))
    assert fingerprint(dataset.subset([0, 2])) != fingerprint(dataset.subset([0, 1]))
