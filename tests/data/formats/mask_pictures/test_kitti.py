"""KITTI: 256 * class + object in 16 bits, and pictures that lost half of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from small_scene import SIZE, expected, masks, objects, save_images, save_picture, scene

NUMBERS = {"cell": 33, "rod": 24}
NAMES = {"cell": "bicycle", "rod": "person"}


def labels(name: str) -> np.ndarray:
    """The scene on a road. The last object of the image `one` is no single person."""
    picture = np.full(SIZE, 7 * 256, dtype=np.uint16)
    for number, thing in enumerate(scene()[name]):
        picture[thing.mask] = 256 * NUMBERS[thing.name] + (0 if number == 3 else number + 1)
    return picture


def write(folder: Path) -> None:
    save_images(folder / "training" / "image_2", ("one", "two"))
    save_images(folder / "testing" / "image_2", ("one",))
    for name in ("one", "two"):
        save_picture(folder / "training" / "instance" / f"{name}.png", labels(name))


def test_values_hold_class_and_object(tmp_path: Path) -> None:
    write(tmp_path)
    for path in (tmp_path, tmp_path / "training"):
        dataset = read_dataset(path, strict=True)
        assert dataset.format == "KITTI instances"
        names = [record.image_id.rpartition("/")[2] for record in dataset.records]  # `one` of two parts has its part
        assert names == ["one", "two"]
        for number, name in enumerate(names):
            found = sorted(((NAMES[own], mask) for own, mask in expected(name)), key=lambda e: (e[0], e[1].counts))
            assert masks(dataset, number) == found
        assert dataset.annotations(0).crowd.tolist() == [True, False, False, False]
    assert len(read_dataset(tmp_path, hints=Hints(split="train"))) == 2
    everything = read_dataset(tmp_path, hints=Hints(missing="empty"))
    assert [record.count for record in everything.records] == [4, 1, 0]


def test_a_picture_of_8_bits_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    write(tmp_path)
    save_picture(tmp_path / "training" / "instance" / "two.png", labels("two").astype(np.uint8))
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 1
    assert "image two: " in dataset.problems[0]
    assert "expected 16 bits, of which the upper 8 are the class, found 8" in dataset.problems[0]


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "kitti", strict=True)
    assert dataset.format == "KITTI instances"
    assert objects(dataset, "000030_10") == [("truck", 1, [2, 0, 3, 1]), ("truck", 2, [3, 0, 5, 1])]
    assert objects(dataset, "000030_11") == [("wall", 1, [2, 0, 3, 1]), ("train", 2, [0, 0, 2, 1])]
