"""COCO panoptic: things and stuff, crowds, where the pictures lie, and segments that do not fit them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, save_picture, scene

CATEGORIES = [
    {"id": 5, "name": "cell", "isthing": 1},
    {"id": 9, "name": "rod", "isthing": 1},
    {"id": 90, "name": "ground", "isthing": 0},
]
IDS = (3, 300, 70_000, 8_000_000)
GROUND = 65_537


def content(names: tuple[str, ...] = ("one", "two")) -> dict[str, Any]:
    annotations = []
    for name in names:
        numbers = {"cell": 5, "rod": 9}
        entries = [
            {
                "id": own,
                "category_id": numbers[thing.name],
                "iscrowd": int(own == IDS[3]),
                "bbox": [0, 0, 1, 1],
                "area": 1,
            }
            for own, thing in zip(IDS, scene()[name], strict=False)
        ]
        entries.append({"id": GROUND, "category_id": 90, "iscrowd": 0, "bbox": [0, 0, 1, 1]})
        annotations.append({"image_id": name, "file_name": f"{name}.png", "segments_info": entries})
    images = [{"id": name, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]} for name in names]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def picture(name: str) -> np.ndarray:
    values = np.full(SIZE, GROUND, dtype=np.int64)
    values[:, -1:] = 0  # nobody's
    for own, thing in zip(IDS, scene()[name], strict=False):
        values[thing.mask] = own
    return np.stack([values % 256, values // 256 % 256, values // 65536], axis=2).astype(np.uint8)


def write(folder: Path, file: str, pictures: str, images: str) -> Path:
    save_images(folder / images)
    for name in ("one", "two"):
        save_picture(folder / pictures / f"{name}.png", picture(name))
    path = folder / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content()))
    return path


LAYOUTS = [
    ("panoptic_val.json", "panoptic_val", "images"),
    ("annotations/panoptic_val2017.json", "annotations/panoptic_val2017", "val2017"),
    ("annotations/panoptic_val.json", "panoptic_val", "images"),
    ("all.json", "panoptic", "input"),
    ("all.json", "ids", "images"),
]


@pytest.mark.parametrize(("file", "pictures", "images"), LAYOUTS)
def test_things_are_objects_wherever_the_pictures_lie(tmp_path: Path, file: str, pictures: str, images: str) -> None:
    path = write(tmp_path / "own", file, pictures, images)
    save_images(tmp_path / "a stranger's")
    for place in (path, path.parent):
        dataset = read_dataset(place, None if pictures != "ids" else tmp_path / "own" / images, strict=True)
        assert dataset.format == "COCO panoptic"
        assert [(category.id, category.name) for category in dataset.categories] == [(5, "cell"), (9, "rod")]
        assert [masks(dataset, name) for name in ("one", "two")] == [expected(name) for name in ("one", "two")]
        assert dataset.annotations(0).crowd.tolist() == [False, False, False, True]
        assert {record.path.parent for record in dataset.records} == {tmp_path / "own" / images}
        assert not any(record.fault for record in dataset.records)
        assert "only things are read (categories of stuff: 1)" in dataset.choices[0]


def test_a_large_file_is_known_by_its_end(tmp_path: Path) -> None:
    path = write(tmp_path, "large.json", "panoptic", "images")
    many = content()
    many["images"] += [{"id": n, "file_name": "x" * 100, "height": 1, "width": 1} for n in range(9000)]
    path.write_text(json.dumps(many))
    assert read_dataset(path).format == "COCO panoptic"


def test_files_of_parts_are_parts(tmp_path: Path) -> None:
    write(tmp_path, "panoptic_train.json", "panoptic_train", "train")
    write(tmp_path, "panoptic_val.json", "panoptic_val", "val")
    dataset = read_dataset(tmp_path, hints=Hints(split="val"))
    assert {record.path.parent for record in dataset.records} == {tmp_path / "val"}


@pytest.mark.parametrize("name", ["x" * 300 + ".png", "a\0b.png"])
def test_a_picture_whose_name_no_file_can_have_is_a_fault_of_its_image(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "all.json", "panoptic", "images")
    broken = content()
    broken["annotations"][0]["file_name"] = name
    path.write_text(json.dumps(broken))
    dataset = read_dataset(path)
    assert len(dataset.problems) == 1
    assert [record.image_id for record in dataset.records] == ["two"]


def test_what_does_not_fit_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, "all.json", "panoptic", "images")
    broken = content()
    broken["images"].append({**broken["images"][0], "id": "three"})
    broken["annotations"].append({**broken["annotations"][0], "image_id": "three", "file_name": "three.png"})
    entries = broken["annotations"][0]["segments_info"]
    entries[0]["category_id"] = 77
    entries[1]["id"] = 999
    broken["annotations"][1]["segments_info"] = None
    path.write_text(json.dumps(broken))
    dataset = read_dataset(path)
    assert [record.image_id for record in dataset.records] == ["one"]
    assert [own[0] for own in objects(dataset)] == ["cell", "rod"]
    words = (
        "image one: segment 3: expected an id and a known category, found 77",
        "image one: segment 999: one.png has no pixel of it",
        "image one: 1 ids of one.png are not in segments_info, first: 300",
        "image two: expected segments_info as a list, found None",
        "image three: ",
    )
    assert len(dataset.problems) == len(words)
    for problem, start in zip(dataset.problems, words, strict=True):
        assert problem.startswith(f"{path}: {start}")
    with pytest.raises(DataError, match="image one: segment 3: "):
        read_dataset(path, strict=True)


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "coco_panoptic", strict=True)
    assert dataset.format == "COCO panoptic"
    assert len(dataset.categories) == 80
    assert [record.image_id for record in dataset.records] == [142238, 439180]
    assert [record.count for record in dataset.records] == [15, 28]
    assert [int(dataset.annotations(index).crowd.sum()) for index in (0, 1)] == [1, 2]
    assert objects(dataset, 0)[:3] == [
        ("person", 3528, [282, 207, 330, 356]),
        ("person", 3751, [420, 183, 469, 356]),
        ("person", 2301, [271, 118, 324, 259]),
    ]
    assert objects(dataset, 1)[:3] == [
        ("person", 3512, [200, 160, 253, 300]),
        ("person", 797, [520, 160, 563, 237]),
        ("person", 538, [0, 205, 13, 268]),
    ]
