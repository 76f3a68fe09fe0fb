"""Pascal VOC instances: borders, classes from pictures and from XML, labelme2voc, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import masks, objects, save_images, save_picture, scene

CLASSES = {"cell": 15, "rod": 8}  # person and cat
NAMES = {"cell": "person", "rod": "cat"}


def write(folder: Path, named: bool = True, suffix: str = "") -> None:
    """The scene as VOC, with a border of 255 around every object that is cut from it."""
    save_images(folder / "JPEGImages", suffix=".jpg")
    for name, things in scene().items():
        values, kinds = np.zeros((2, 40, 56), dtype=np.uint8)
        for number, thing in enumerate(things, start=1):
            values[thing.mask], kinds[thing.mask] = number, CLASSES[thing.name]
        values[38:, 50:] = kinds[38:, 50:] = 255
        save_picture(folder / f"SegmentationObject{suffix}" / f"{name}.png", values)
        save_picture(folder / f"SegmentationClass{suffix}" / f"{name}.png", kinds)
        entries = "".join(
            f"<object><name>{NAMES[t.name]}</name><difficult>{int(n == 3)}</difficult><bndbox/></object>"
            for n, t in enumerate(things)
        )
        if named:
            (folder / "Annotations").mkdir(exist_ok=True)
            (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{entries}</annotation>")
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("one\n")
    (lists / "val.txt").write_text("two\ngone\n")


def without_border() -> list[int]:
    corner = np.s_[38:, 50:]
    return [int(thing.mask.sum() - thing.mask[corner].sum()) for thing in scene()["one"]]


@pytest.mark.parametrize("named", [True, False])
def test_values_are_objects_and_255_is_nobodys(tmp_path: Path, named: bool) -> None:
    write(tmp_path, named)
    dataset = read_dataset(tmp_path, strict=True)
    assert len(dataset.categories) == 20
    assert [own[:2] for own in objects(dataset, "one")] == [
        (NAMES[thing.name], pixels) for thing, pixels in zip(scene()["one"], without_border(), strict=True)
    ]
    assert dataset.annotations(0).crowd.tolist() == [False, False, False, named]
    assert [record.path.suffix for record in dataset.records] == [".jpg", ".jpg"]
    assert len(dataset.choices) == named


def test_objects_whose_classes_nothing_says_are_of_one_class(tmp_path: Path) -> None:
    write(tmp_path, named=False)
    for file in (tmp_path / "SegmentationClass").iterdir():
        file.unlink()
    dataset = read_dataset(tmp_path, strict=True)
    assert [own[:2] for own in objects(dataset, "one")] == [("object", pixels) for pixels in without_border()]
    assert "all objects are of one class, because neither SegmentationClass nor an XML" in dataset.choices[0]


def test_a_part_is_a_list_of_names(tmp_path: Path) -> None:
    write(tmp_path)
    dataset = read_dataset(tmp_path, hints=Hints(split="val"))
    assert [record.image_id for record in dataset.records] == ["two"]
    with pytest.raises(DataError, match=r"expected a list test\.txt, found train, val"):
        read_dataset(tmp_path, hints=Hints(split="test"))


def test_folders_are_parts_also_of_a_format_that_names_its_own(tmp_path: Path) -> None:
    write(tmp_path / "train")
    write(tmp_path / "val")
    dataset = read_dataset(tmp_path, hints=Hints(split="val"))
    assert len(dataset) == 2
    assert all(tmp_path / "val" in record.path.parents for record in dataset.records)


def test_other_names_in_the_xml_are_the_classes(tmp_path: Path) -> None:
    write(tmp_path)
    for file in (tmp_path / "Annotations").iterdir():
        file.write_text(file.read_text().replace("cat", "rod"))
    dataset = read_dataset(tmp_path, strict=True)
    assert [category.name for category in dataset.categories] == ["person", "rod"]
    assert [own[0] for own in objects(dataset, "one")] == ["person", "rod", "person", "rod"]


def test_labelme2voc_lists_the_names(tmp_path: Path) -> None:
    write(tmp_path, named=False, suffix="PNG")
    names = ["__ignore__", "_background_", *(f"class {n}" for n in range(1, 21))]
    (tmp_path / "class_names.txt").write_text("\n".join(names))
    dataset = read_dataset(tmp_path, strict=True)
    assert [own[0] for own in objects(dataset, "one")] == ["class 15", "class 8", "class 15", "class 8"]


def test_a_file_that_cannot_be_read_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    write(tmp_path)
    good = masks(read_dataset(tmp_path), "one")
    picture = tmp_path / "SegmentationObject" / "two.png"
    for number, words in enumerate(("a palette, found 3", "found a file of another kind")):
        if number == 0:
            save_picture(picture, np.zeros((40, 56, 3), dtype=np.uint8))
        else:
            picture.write_bytes(b"PNG")
        dataset = read_dataset(tmp_path)
        assert masks(dataset, "one") == good
        assert words in dataset.problems[0]
        assert dataset.problems[0].startswith(f"{tmp_path}: image two: ")
        with pytest.raises(DataError, match="image two: "):
            read_dataset(tmp_path, strict=True)


@pytest.mark.parametrize(
    ("xml", "words"),
    [
        ("<annotation><object>", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "found <!DOCTYPE; remove it"),
        ("<a>" * 99, "found elements more than 64 deep"),
    ],
)
def test_a_broken_xml_is_named(tmp_path: Path, xml: str, words: str) -> None:
    write(tmp_path)
    (tmp_path / "Annotations" / "one.xml").write_text(xml)
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 1
    assert words in dataset.problems[0]
    assert "one.xml" in dataset.problems[0]


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "voc", strict=True)
    assert objects(dataset, "2007_000032") == [
        ("aeroplane", 4083, [105, 106, 375, 183]),
        ("aeroplane", 651, [134, 87, 196, 119]),
        ("person", 417, [198, 179, 212, 228]),
        ("person", 449, [24, 188, 42, 237]),
    ]
    assert objects(dataset, "2009_000006") == [("bus", 66008, [38, 11, 281, 328])]
    assert not dataset.annotations(0).crowd.any()
