"""The Places Challenge: the class in red, the object in green."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from small_scene import SIZE, expected, masks, save_images, save_picture, scene

NUMBERS = {"cell": 1, "rod": 100}
NAMES = {"cell": "bed", "rod": "flag"}


def picture(name: str, objects: int = 4) -> np.ndarray:
    values = np.zeros((*SIZE, 3), dtype=np.uint8)
    for number, thing in enumerate(scene()[name][:objects], start=1):
        values[thing.mask] = (NUMBERS[thing.name], number, 9)
    return values


def test_colours_hold_class_and_object(tmp_path: Path) -> None:
    for part, name in (("training", "one"), ("validation", "two")):
        save_images(tmp_path / "images" / part, (name,), ".jpg")
        save_picture(tmp_path / "annotations_instance" / part / f"{name}.png", picture(name))
    save_images(tmp_path / "images" / "testing", ("three",), ".jpg")
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "ADE20K instances of the Places Challenge"
    assert len(dataset.categories) == 100
    for name in ("one", "two"):
        assert masks(dataset, name) == sorted(
            ((NAMES[label], mask) for label, mask in expected(name)), key=lambda entry: (entry[0], entry[1].counts)
        )
    assert [len(read_dataset(tmp_path, hints=Hints(split=part))) for part in ("train", "val")] == [1, 1]
    assert len(read_dataset(tmp_path, hints=Hints(missing="empty"))) == 3
    named = read_dataset(tmp_path, tmp_path / "images" / "training")
    assert not named.records[named.records.numbers()["one"]].fault


def test_a_broken_picture_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    save_picture(tmp_path / "annotations_instance" / "one.png", np.where(picture("one") == 100, 101, picture("one")))
    save_picture(tmp_path / "annotations_instance" / "two.png", picture("two")[..., 0])
    dataset = read_dataset(tmp_path)
    assert [record.count for record in dataset.records] == [2]
    assert "image one: expected classes from 1 to 100 in red, found 101" in dataset.problems[0]
    assert "expected red, green and blue, found 2 dimensions" in dataset.problems[-1]
