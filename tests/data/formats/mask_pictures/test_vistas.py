"""Mapillary Vistas: 256 * label + object, the JSON of the labels, versions and parts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, save_picture, scene

LABELS = [
    {"name": "cell", "readable": "Cell", "instances": True, "evaluate": True, "color": [1, 2, 3]},
    {"name": "ground", "readable": "Ground", "instances": False, "evaluate": True, "color": [1, 2, 3]},
    {"name": "rod", "readable": "Rod", "instances": True, "evaluate": True, "color": [1, 2, 3]},
]


def labels(name: str) -> np.ndarray:
    picture = np.full(SIZE, 256, dtype=np.uint16)
    for number, thing in enumerate(scene()[name]):
        picture[thing.mask] = (0 if thing.name == "cell" else 512) + number
    return picture


def write(folder: Path, version: str, config: str, names: list[dict[str, object]] | None = None) -> None:
    for part, name in (("training", "one"), ("validation", "two")):
        save_images(folder / part / "images", (name,), ".jpg")
        save_picture(folder / part / version / "instances" / f"{name}.png", labels(name))
        save_picture(folder / part / version / "labels" / f"{name}.png", labels(name).astype(np.uint8))
    save_images(folder / "testing" / "images", ("three",), ".jpg")
    (folder / config).write_text(json.dumps({"labels": names or LABELS, "version": "1", "mapping": "public"}))


@pytest.mark.parametrize(("version", "config"), [("", "config.json"), ("v2.0", "config_v2.0.json")])
def test_values_hold_label_and_object(tmp_path: Path, version: str, config: str) -> None:
    write(tmp_path, version, config)
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "Mapillary Vistas"
    assert [(category.id, category.name) for category in dataset.categories] == [(0, "cell"), (2, "rod")]
    assert [masks(dataset, name) for name in ("one", "two")] == [expected(name) for name in ("one", "two")]
    assert "1 image without annotations is left out, first: three.jpg" in dataset.choices[0]
    assert [len(read_dataset(tmp_path, hints=Hints(split=part))) for part in ("train", "val")] == [1, 1]
    assert masks(read_dataset(tmp_path / "training", strict=True), "one") == expected("one")


def test_the_newest_version_is_read_with_its_labels(tmp_path: Path) -> None:
    write(tmp_path, "v1.2", "config_v1.2.json", [{"name": "old", "instances": True}] * 3)
    write(tmp_path, "v2.0", "config_v2.0.json")
    dataset = read_dataset(tmp_path, strict=True)
    assert masks(dataset, "one") == expected("one")


def test_what_is_broken_is_named(tmp_path: Path) -> None:
    write(tmp_path, "v1.2", "config_v1.2.json")
    pictures = tmp_path / "training" / "v1.2" / "instances"
    save_picture(pictures / "four.png", labels("one").astype(np.uint8))
    odd = labels("two")
    odd[0, 0] = 9 * 256
    save_picture(tmp_path / "validation" / "v1.2" / "instances" / "two.png", odd)
    dataset = read_dataset(tmp_path)
    assert masks(dataset, "two") == expected("two")
    four, two = sorted(dataset.problems)
    assert "image four: " in four
    assert "found 8" in four
    assert "image two: expected one of the 3 labels of the JSON, found number 9" in two
    (tmp_path / "config_v1.2.json").write_text('{"labels": {"name": 1, "instances": 2}}')
    with pytest.raises(DataError, match=r"config_v1\.2\.json: expected a list of labels"):
        read_dataset(tmp_path, hints=Hints(format="mapillary-vistas"))
    (tmp_path / "config_v1.2.json").unlink()
    with pytest.raises(DataError, match=r"expected the labels in a file such as config_v1\.2\.json"):
        read_dataset(tmp_path, hints=Hints(format="mapillary-vistas"))


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "mapillary_vistas", strict=True)
    bird, curb, human = "animal--bird", "construction--barrier--curb", "human--person"
    assert dataset.format == "Mapillary Vistas"
    assert [category.name for category in dataset.categories] == [bird, curb, human]
    assert objects(dataset, "1") == [(bird, 10, [0, 0, 2, 5]), (bird, 5, [4, 0, 5, 5]), (curb, 10, [2, 0, 4, 5])]
    assert objects(dataset, "0") == [(bird, 10, [0, 0, 2, 5]), (curb, 10, [2, 0, 4, 5]), (human, 5, [4, 0, 5, 5])]
