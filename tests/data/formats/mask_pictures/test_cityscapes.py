"""Cityscapes: pictures of instances, groups, polygons that cover each other, parts and cities, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, save_picture, scene

NUMBERS = {"cell": 26, "rod": 24}
NAMES = {"cell": "car", "rod": "person"}


def labels(name: str) -> np.ndarray:
    """The scene on a road, without its last object, which is a group of persons."""
    picture = np.full(SIZE, 7, dtype=np.uint16)
    for number, thing in enumerate(scene()[name]):
        picture[thing.mask] = 24 if number == 3 else 1000 * NUMBERS[thing.name] + number
    return picture


def write(folder: Path, part: str, city: str, names: tuple[str, ...] = ("one",), labelled: bool = True) -> None:
    for name in names:
        save_images(folder / "leftImg8bit" / part / city, (f"{name}_leftImg8bit",))
        if labelled:
            save_picture(folder / "gtFine" / part / city / f"{name}_gtFine_instanceIds.png", labels(name))
            save_picture(folder / "gtFine" / part / city / f"{name}_gtFine_labelIds.png", np.ones(SIZE, np.uint8))


def named(name: str) -> list[tuple[str, object]]:
    return sorted(((NAMES[label], mask) for label, mask in expected(name)), key=lambda e: (e[0], e[1].counts))


@pytest.mark.parametrize("below", ["", "gtFine", "gtFine/val"])
def test_values_hold_class_and_object(tmp_path: Path, below: str) -> None:
    write(tmp_path, "val", "bonn", ("one", "two"))
    dataset = read_dataset(tmp_path / below, strict=True)
    assert dataset.format == "Cityscapes"
    assert [category.id for category in dataset.categories] == list(range(24, 34))
    assert masks(dataset, "one") == named("one")
    assert masks(dataset, "two") == named("two")
    crowd = dataset.annotations(dataset.records.numbers()["one"]).crowd
    assert crowd.tolist() == [True, False, False, False]  # the group
    assert {record.path.parent.name for record in dataset.records} == {"bonn"}


def test_parts_and_cities_and_the_test_set_without_labels(tmp_path: Path) -> None:
    write(tmp_path, "train", "bonn")
    write(tmp_path, "train_extra", "ulm", ("three",), labelled=False)
    write(tmp_path, "val", "ulm", ("two",))
    write(tmp_path, "test", "kiel", ("four",), labelled=False)
    nobody = np.full(SIZE, 3, dtype=np.uint8)  # all of it is out of the region of interest
    save_picture(tmp_path / "gtFine" / "test" / "kiel" / "four_gtFine_instanceIds.png", nobody)
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one", "two"]
    assert "2 images without annotations are left out" in dataset.choices[0]
    assert [len(read_dataset(tmp_path, hints=Hints(split=part))) for part in ("train", "val")] == [1, 1]
    assert len(read_dataset(tmp_path, hints=Hints(missing="empty"))) == 4
    with pytest.raises(DataError, match="the data set is empty: it has no images"):
        read_dataset(tmp_path / "gtFine", hints=Hints(split="test"))


def test_polygons_cover_those_before_them(tmp_path: Path) -> None:
    save_images(tmp_path / "leftImg8bit" / "val" / "bonn", ("one_leftImg8bit",))
    square = [[10, 10], [30, 10], [30, 30], [10, 30]]
    entries = [
        {"label": "road", "polygon": [[0, 0], [56, 0], [56, 40], [0, 40]]},
        {"label": "car", "polygon": square},
        {"label": "person", "polygon": [[20, 10], [30, 10], [30, 30], [20, 30]]},
        {"label": "pole", "polygon": [[22, 10], [24, 10], [24, 30], [22, 30]]},
        {"label": "cargroup", "polygon": [[40, 0], [50, 0], [50, 10], [40, 10]]},
        {"label": "polegroup", "polygon": [[40, 0], [42, 0], [42, 10], [40, 10]]},
        {"label": "camel", "polygon": [[0, 30], [4, 30], [4, 40], [0, 40]]},
        {"label": "bus", "polygon": square, "deleted": 1},
        {"label": "bus", "polygon": [[1, 2], [3, "x"]]},
    ]
    content = {"imgHeight": 40, "imgWidth": 56, "objects": entries}
    folder = tmp_path / "gtFine" / "val" / "bonn"
    folder.mkdir(parents=True)
    (folder / "one_gtFine_polygons.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path)
    assert objects(dataset) == [
        ("car", 200, [10, 10, 20, 30]),
        ("person", 160, [20, 10, 30, 30]),
        ("car", 80, [42, 0, 50, 10]),
        ("camel", 40, [0, 30, 4, 40]),
    ]
    assert dataset.annotations(0).crowd.tolist() == [False, False, True, False]
    assert len(dataset.problems) == 1
    assert "one_gtFine_polygons.json: expected points as pairs of finite numbers" in dataset.problems[0]
    write(tmp_path, "val", "bonn")  # the picture of the same image comes first
    assert masks(read_dataset(tmp_path), "one") == named("one")


def test_folders_may_be_links_and_paths_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "disk", "val", "bonn")
    for name in ("gtFine", "leftImg8bit"):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / name).symlink_to(tmp_path / "disk" / name)
    (tmp_path / "disk" / "gtFine" / "val" / "round").symlink_to(tmp_path / "disk" / "gtFine")
    monkeypatch.chdir(tmp_path / "set")
    for path in (Path(), Path("gtFine")):
        dataset = read_dataset(path, strict=True)
        assert masks(dataset, "one") == named("one")
        assert not dataset.records[0].fault
    monkeypatch.chdir(tmp_path / "disk" / "gtFine")
    assert not read_dataset(Path("val"), strict=True).records[0].fault


def test_a_broken_picture_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    write(tmp_path, "val", "bonn", ("one", "two"))
    folder = tmp_path / "gtFine" / "val" / "bonn"
    save_picture(folder / "two_gtFine_instanceIds.png", np.zeros((*SIZE, 3), dtype=np.uint8))
    save_picture(folder / "three_gtFine_instanceIds.png", labels("one"))  # without its image
    (folder / "four_gtFine_instanceIds.png").write_bytes(b"\x89PNG")
    (folder / "five_gtFine_polygons.json").write_text('{"imgHeight": 99999999, "imgWidth": 99999999, "objects": []}')
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one", "three"]
    assert "no such file; name the folder with --images" in dataset.records[1].fault
    five, four, two = sorted(dataset.problems)
    assert "image five: " in five
    assert "imgHeight and imgWidth" in five
    assert "image four: " in four
    assert "image two: " in two
    assert "expected a whole number for each pixel, found 3 channels" in two


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "cityscapes", strict=True)
    assert dataset.format == "Cityscapes"
    assert not dataset.annotations(0).crowd.any()
    assert objects(dataset, "frankfurt_000000_000294") == [
        ("person", 6, [119, 51, 121, 56]),
        ("person", 42, [145, 47, 150, 59]),
        ("person", 27, [150, 47, 153, 58]),
        ("person", 32, [153, 47, 157, 59]),
        ("car", 6, [126, 51, 128, 54]),
        ("car", 224, [128, 46, 146, 63]),
        ("car", 1572, [156, 38, 221, 72]),
    ]
