"""ADE20K: classes and objects in the colours of a picture, and the names that files beside it give them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from small_scene import SIZE, expected, masks, objects, save_images, save_picture, scene

NUMBERS = {"cell": 300, "rod": 12}
BLUES = (64, 128, 191, 255)  # four objects are spread over 255 values


def picture(name: str, blues: tuple[int, ...] = BLUES) -> np.ndarray:
    values = np.zeros((*SIZE, 3), dtype=np.uint8)
    for thing, blue in zip(scene()[name], blues, strict=False):
        number = NUMBERS[thing.name]
        values[thing.mask] = (number // 256 * 10, number % 256, blue)
    return values


def lines(name: str) -> str:
    rows = [f"{number:03} # 0 # 0 # {thing.name}, body # x # ''" for number, thing in enumerate(scene()[name], start=1)]
    return "\n".join([*rows, "001 # 1 # 0 # nucleus # nucleus # ''"])


def annotation(name: str) -> str:
    entries = [{"name_ndx": NUMBERS[thing.name], "name": f"{thing.name}, body"} for thing in scene()[name]]
    return json.dumps({"annotation": {"object": [*entries, {"name_ndx": 7, "name": "nucleus"}, None]}})


def write(folder: Path, name: str, kind: str, blues: tuple[int, ...] = BLUES) -> None:
    save_images(folder, (name,), ".jpg")
    save_picture(folder / f"{name}_seg.png", picture(name, blues))
    save_picture(folder / f"{name}_parts_1.png", picture(name, blues))
    if kind == "json":
        (folder / f"{name}.json").write_text(annotation(name))
        save_picture(folder / name / f"instance_000_{name}.png", np.zeros(SIZE, dtype=np.uint8))
    elif kind == "lines":
        (folder / f"{name}_atr.txt").write_text(lines(name))


@pytest.mark.parametrize("kind", ["json", "lines"])
def test_colours_hold_class_and_object(tmp_path: Path, kind: str) -> None:
    write(tmp_path / "images" / "training" / "b" / "bar", "one", kind)
    write(tmp_path / "images" / "validation" / "b" / "bar", "two", kind, (1,))
    save_images(tmp_path / "images" / "testing", ("three",), ".jpg")
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "ADE20K"
    assert [(category.id, category.name) for category in dataset.categories] == [(12, "rod"), (300, "cell")]
    assert [masks(dataset, name) for name in ("one", "two")] == [expected(name) for name in ("one", "two")]
    assert "parts of objects are left out" in dataset.choices[0]
    assert "1 image without annotations is left out, first: three.jpg" in dataset.choices[1]
    assert [len(read_dataset(tmp_path, hints=Hints(split=part))) for part in ("train", "val")] == [1, 1]


def test_two_classes_with_one_first_name_keep_all_names(tmp_path: Path) -> None:
    write(tmp_path, "one", "json")
    file = tmp_path / "one.json"
    file.write_text(file.read_text().replace("rod, body", "cell, bar"))
    assert [category.name for category in read_dataset(tmp_path).categories] == ["cell, bar", "cell, body"]


def test_names_come_from_other_images_or_are_numbers(tmp_path: Path) -> None:
    write(tmp_path, "one", "lines")
    write(tmp_path, "two", "nothing")
    assert masks(read_dataset(tmp_path), "two") == expected("two")
    (tmp_path / "one_atr.txt").unlink()
    dataset = read_dataset(tmp_path)
    assert [category.name for category in dataset.categories] == ["class 12", "class 300"]


def test_the_line_of_an_object_is_not_guessed_if_others_are_hidden(tmp_path: Path) -> None:
    write(tmp_path, "two", "lines", (2,))
    (tmp_path / "two_atr.txt").write_text("001 # 0 # 0 # door # d # ''\n002 # 0 # 0 # wall # w # ''\n")
    assert [category.name for category in read_dataset(tmp_path).categories] == ["wall"]  # a small number says it
    write(tmp_path, "two", "nothing", (128,))
    assert [category.name for category in read_dataset(tmp_path).categories] == ["class 300"]


def test_what_is_broken_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    write(tmp_path, "one", "json")
    write(tmp_path, "two", "json")
    (tmp_path / "two.json").write_text("{")
    save_images(tmp_path, ("three",), ".jpg")
    save_picture(tmp_path / "three_seg.png", np.zeros(SIZE, dtype=np.uint8))
    (tmp_path / "three_atr.txt").write_text("")
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one", "two"]
    assert masks(dataset, "two") == expected("two")  # its class has a name in the other image
    three, two = sorted(dataset.problems)
    assert "image three: " in three
    assert "expected red, green and blue" in three
    assert "image two: the names of its classes are not known: " in two


def test_another_json_beside_a_label_image_is_not_ade20k(tmp_path: Path) -> None:
    save_images(tmp_path, ("one",), ".png")
    values = sum(number * thing.mask for number, thing in enumerate(scene()["one"], start=1))
    save_picture(tmp_path / "one_seg.png", np.asarray(values, dtype=np.uint8))
    (tmp_path / "one.json").write_text('{"size": 3}')
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "label images"
    assert masks(dataset, "one") == expected("one", "object")


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "ade20k"
    dataset = read_dataset(folder / "2021", strict=True)
    assert dataset.format == "ADE20K"
    assert (dataset.records[0].width, dataset.records[0].height) == (2200, 1650)
    found = objects(dataset, "ADE_train_00016900")
    assert len(found) == 34
    pixels = [(name, area) for name, area, _ in found]
    named = [("tree", 410189), ("car", 202449), ("sidewalk", 1213681), ("sky", 31428), ("building", 257212)]
    assert {*named, ("awning", 9835)} <= set(pixels)
    totals = {name: sum(area for other, area in pixels if other == name) for name, _ in pixels}
    assert (totals["tree"], totals["car"], totals["sidewalk"], totals["building"]) == (912402, 284535, 1245079, 715123)
    numbers = {category.name: category.id for category in dataset.categories}
    assert (numbers["tree"], numbers["car"], numbers["awning"]) == (2855, 401, 77)
    small = read_dataset(folder / "made_up_ade20k2017", strict=True)
    assert objects(small, "1") == [("person", 6, [2, 0, 4, 3]), ("sky", 3, [1, 0, 2, 3])]
    assert [own[:2] for own in objects(small, "2")] == [("person", 3), ("sky", 6)]
