"""YOLO segmentation: folders, lists and YAMLs of every tool, bridges, and bad rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, objects, save_images

SQUARE = "1 0.25 0.25 0.5 0.25 0.5 0.75 0.25 0.75"  # 14 x 20 pixels from (14, 10)
FOUND = ("cat", 280, [14.0, 10.0, 28.0, 30.0])


def write(folder: Path, names: object = ("dog", "cat"), rows: str = SQUARE, inner: str = "", **fields: object) -> Path:
    """Images `one` and `two`, of which the second has an empty label file, and a YAML unless `names` is None."""
    save_images(folder / inner / "images")
    labels = folder / inner / "labels"
    labels.mkdir(parents=True)
    (labels / "one.txt").write_text(rows + "\n")
    (labels / "two.txt").write_text("")
    path = folder / "data.yaml"
    if names is not None:
        path.write_text(
            yaml.safe_dump({"names": names, **(fields or {"path": ".", "train": f"{inner}/images".lstrip("/")})})
        )
    return path


@pytest.mark.parametrize("names", [["dog", "cat"], {0: "dog", 1: "cat"}])
def test_names_are_a_list_or_have_numbers(tmp_path: Path, names: object) -> None:
    path = write(tmp_path, names)
    for place in (path, tmp_path):
        dataset = read_dataset(place, strict=True)
        assert [(category.id, category.name) for category in dataset.categories] == [(0, "dog"), (1, "cat")]
        assert objects(dataset, "one") == [FOUND]
        assert dataset.annotations(1).ids.tolist() == []
        assert dataset.choices == ()


LAYOUTS = {
    "ultralytics": {"path": "/elsewhere/datasets/x", "train": "images"},
    "roboflow": {"train": "../train/images", "val": "../valid/images"},
    "several folders": {"train": ["train/images", "gone/images"]},
    "backwards": {"path": ".", "val": "train/images"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_folders_that_tools_write(tmp_path: Path, layout: str) -> None:
    inner = "" if layout == "ultralytics" else "train"
    dataset = read_dataset(write(tmp_path, inner=inner, **LAYOUTS[layout]), strict=True)
    assert len(dataset) == 2
    assert objects(dataset, "one") == [FOUND]


def test_a_list_of_images_and_folders_below(tmp_path: Path) -> None:
    path = write(tmp_path, train="train.txt", val="images/val")
    (tmp_path / "train.txt").write_text("./images/one.png\nimages/two.png\n")
    save_images(tmp_path / "images" / "val", ("one",))
    (tmp_path / "labels" / "val").mkdir()
    (tmp_path / "labels" / "val" / "one.txt").write_text(SQUARE)
    dataset = read_dataset(path, strict=True)
    assert [record.image_id for record in dataset.records] == ["images/one", "two", "images/val/one"]
    assert [record.fields["split"] for record in dataset.records] == ["train", "train", "val"]
    assert "parts: train 2, val 1; --split reads only one" in dataset.choices[0]
    assert objects(read_dataset(path, hints=Hints(split="val"))) == [FOUND]
    with pytest.raises(DataError, match="found none"):
        read_dataset(path, hints=Hints(split="test"))


def test_without_a_yaml_the_numbers_or_the_lines_of_a_file_are_the_names(tmp_path: Path) -> None:
    write(tmp_path, None)
    assert objects(read_dataset(tmp_path, strict=True)) == [("1", *FOUND[1:])]
    (tmp_path / "classes.txt").write_text("dog\ncat\n")
    assert objects(read_dataset(tmp_path, strict=True)) == [FOUND]


def test_a_broken_yaml_is_named_where_its_classes_are_missing(tmp_path: Path) -> None:
    write(tmp_path).write_text("names: [dog, cat\n")
    dataset = read_dataset(tmp_path)
    assert [category.name for category in dataset.categories] == ["1"]
    assert "data.yaml" in dataset.problems[0]
    assert "so that the classes have only their numbers" in dataset.problems[0]


def test_folders_that_a_yaml_names_in_vain_are_said(tmp_path: Path) -> None:
    path = write(tmp_path, path="/of/another/machine", train="photos")
    with pytest.raises(DataError, match=r"found none; train: found no photos below .*; move the YAML"):
        read_dataset(path)
    path = write(tmp_path / "other", path=".", train="images", val="photos")
    assert "val: found no photos below" in " ".join(read_dataset(path).choices)


@pytest.mark.parametrize("root", ["../../outside", "{outside}"])
def test_no_name_leads_far_out_of_the_data_set(tmp_path: Path, root: str) -> None:
    outside = tmp_path / "outside"
    write(outside)
    root = root.format(outside=outside)
    path = write(tmp_path / "here" / "set", path=root, train="images/one.txt", val=f"{root}/images", test="near.txt")
    (outside / "images" / "one.txt").write_text("one.png\n")
    near = path.parent / "near.txt"
    near.write_text(f"images/one.png\n{root}/images/two.png\n")
    dataset = read_dataset(path)
    assert [record.path for record in dataset.records] == [path.parent / "images" / "one.png"]
    assert f"1 image is left out, outside of {tmp_path / 'here'}" in " ".join(dataset.choices)
    assert sum("found no" in choice for choice in dataset.choices) == 2


def test_a_list_may_begin_with_folders_of_another_machine(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "list.txt").write_text("data/images/one.png\n/content/set/images/two.png\n")
    path.write_text("train: list.txt\nnames: [a, b, c]\n")
    assert [record.path.name for record in read_dataset(path, strict=True).records] == ["one.png", "two.png"]


def test_the_names_of_classes_may_lie_among_the_labels(tmp_path: Path) -> None:
    write(tmp_path).unlink()
    (tmp_path / "labels" / "classes.txt").write_text("a\nb\nc\n")
    assert [category.name for category in read_dataset(tmp_path, strict=True).categories] == ["a", "b", "c"]


def test_an_image_without_a_label_file_is_empty(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "labels" / "two.txt").unlink()
    dataset = read_dataset(path, strict=True)
    assert [record.count for record in dataset.records] == [1, 0]
    assert "1 image without a label file: read as empty; --missing leave-out" in dataset.choices[0]
    assert len(read_dataset(path, hints=Hints(missing="leave-out"))) == 1


def test_parts_and_holes_joined_by_bridges_keep_their_pixels(tmp_path: Path) -> None:
    outer, hole = [(4, 4), (20, 4), (20, 20), (4, 20)], [(8, 8), (8, 16), (16, 16), (16, 8)]
    other = [(30, 5), (40, 5), (40, 9), (30, 9)]
    walk = [*outer, outer[0], *hole, hole[0], outer[0], *other, other[0], outer[0]]
    numbers = " ".join(f"{x / SIZE[1]:.8f} {y / SIZE[0]:.8f}" for x, y in walk)
    dataset = read_dataset(write(tmp_path, rows=f"0 {numbers}"), strict=True)
    bitmap = np.zeros(SIZE, dtype=bool)
    bitmap[4:20, 4:20], bitmap[8:16, 8:16], bitmap[5:9, 30:40] = True, False, True
    assert np.array_equal(dataset.annotations(0).rle(0).dense(), bitmap)


def test_points_just_outside_are_clipped_doubles_left_out_and_boxes_named(tmp_path: Path) -> None:
    rows = f"{SQUARE}\n{SQUARE}\n0 0.5 0.5 0.2 0.2\n0 -0.005 0 0.5 0 0.5 1.009 0 1"
    dataset = read_dataset(write(tmp_path, rows="\ufeff" + rows))
    assert objects(dataset) == [FOUND, ("dog", 28 * 40, [0.0, 0.0, 28.0, 40.0])]
    assert "1 row is left out, because the same row of the image is there before" in dataset.choices[0]
    assert "1 row is left out: boxes (5 numbers) and no polygons" in dataset.problems[0]


def test_images_are_read_upright(tmp_path: Path) -> None:
    path = write(tmp_path)
    turned = Image.new("RGB", SIZE)  # 40 wide, 56 high, and shown 56 wide
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images" / "one.png").unlink()
    turned.save(tmp_path / "images" / "one.jpg", exif=exif)
    dataset = read_dataset(path, strict=True)
    assert objects(dataset, "one") == [FOUND]
    assert dataset.read(0).shape == (*SIZE, 3)


BROKEN = {
    "words": ("1 a b c d e f", "one.txt: line 2: expected a class and fractions of the image, found '1 a b c d e f'"),
    "an odd number": ("1 0 0 1 0 1 1 0", "one.txt: line 2: expected a class and 3 or more points x y, found 8 numbers"),
    "two points": ("1 0 0 1", "one.txt: line 2: expected a class and 3 or more points x y, found 4 numbers"),
    "half a class": ("0.5 0 0 1 0 1 1", "one.txt: line 2: expected a class and 3 or more points x y, found 7 numbers"),
    "not a number": ("1 0 0 1 0 1 nan", "one.txt: line 2: expected a class and 3 or more points x y"),
    "pixels": ("1 0 0 50 0 50 30", "one.txt: line 2: expected fractions from 0 to 1, found 0 to 50"),
    "an unknown class": ("7 0 0 1 0 1 1", "annotation 'one:2' of image 'one': no category has id 7"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_row_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    row, words = BROKEN[fault]
    path = write(tmp_path, rows=f"{SQUARE}\n{row}")
    dataset = read_dataset(path)
    assert objects(dataset) == [FOUND]
    assert dataset.problems[0].startswith(f"{path}: {words}")
    with pytest.raises(DataError) as caught:
        read_dataset(path, strict=True)
    assert str(caught.value) == dataset.problems[0]


def test_only_boxes_are_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.yaml: expected rows of a class and a polygon, found only boxes"):
        read_dataset(write(tmp_path, rows="0 0.5 0.5 0.2 0.2"))


def test_no_images_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected images in it, found none"):
        read_dataset(write(tmp_path, train="gone"))


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "yolo_seg" / "ultralytics", strict=True)
    assert objects(dataset, "000000036086") == [
        ("sports ball", 2238, [110, 482, 165, 534]),
        ("person", 35664, [219, 82, 423, 541]),
    ]
    assert objects(dataset, "000000109005") == [("elephant", 6950, [264, 160, 386, 251])]
