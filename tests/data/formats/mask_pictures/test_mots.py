"""MOTS: 1000 * class + object, regions to ignore, and sequences."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from small_scene import SIZE, save_images, save_picture, scene

NUMBERS = {"cell": 1, "rod": 2}


def labels(name: str) -> np.ndarray:
    picture = np.zeros(SIZE, dtype=np.uint16)
    for number, thing in enumerate(scene()[name]):
        picture[thing.mask] = 10000 if number == 3 else 1000 * NUMBERS[thing.name] + number
    return picture


@pytest.mark.parametrize("layout", ["training/image_02/{}", "images/{}", "train/{}/img1"])
def test_every_sequence_has_its_frames(tmp_path: Path, layout: str) -> None:
    for sequence, name in (("0002", "one"), ("0005", "two")):
        save_images(tmp_path / layout.format(sequence), ("000000", "000001"), ".png")
        save_picture(tmp_path / "instances" / sequence / "000000.png", labels(name))
        save_picture(tmp_path / "instances" / sequence / "000001.png", np.zeros(SIZE, dtype=np.uint16))
    save_images(tmp_path / "testing" / "image_02" / "0002", ("000000",))
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "MOTS"
    assert [category.name for category in dataset.categories] == ["car", "pedestrian"]
    frames = [f"{sequence}/00000{frame}" for sequence in ("0002", "0005") for frame in (0, 1)]
    assert [record.image_id.removeprefix("train/") for record in dataset.records] == frames
    assert [record.count for record in dataset.records] == [5, 0, 1, 0]
    assert not any("testing" in record.path.parts for record in dataset.records)
    found = dataset.annotations(0)
    things = scene()["one"]
    objects = [(int(found.labels[i]), found.rle(i).area) for i in range(5) if not found.crowd[i]]
    assert objects == [(NUMBERS[own.name] - 1, int(own.mask.sum())) for own in (things[0], things[2], things[1])]
    ignored = [(int(found.labels[i]), found.rle(i).area) for i in range(5) if found.crowd[i]]
    assert ignored == [(label, int(things[3].mask.sum())) for label in (0, 1)]
    assert len(read_dataset(tmp_path, hints=Hints(missing="empty"))) == 5


def test_a_value_without_a_class_is_named(tmp_path: Path) -> None:
    save_images(tmp_path / "images" / "0002", ("000000",))
    save_picture(tmp_path / "instances" / "0002" / "000000.png", np.where(labels("two") > 0, 7003, 0).astype(np.uint16))
    dataset = read_dataset(tmp_path)
    assert [record.count for record in dataset.records] == [0]
    assert "image 0002/000000: expected values 1000 * class + object" in dataset.problems[0]
