"""What programs write in place of plain COCO JSON, read as the same objects."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.structures.masks import RLE
from small_scene import SIZE, expected, masks, objects, save_images, scene

CELL, ROD = {"id": 1, "name": "cell"}, {"id": 2, "name": "rod"}


def plain() -> dict[str, Any]:
    """The scene as COCO JSON with compressed run lengths."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [CELL, ROD]}
    for number, (name, things) in enumerate(scene().items()):
        content["images"].append({"id": number, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]})
        for thing in things:
            mask, category = RLE.from_dense(thing.mask), 1 if thing.name == "cell" else 2
            own = {"id": len(content["annotations"]), "image_id": number, "category_id": category}
            content["annotations"].append(own | {"segmentation": mask.to_coco(), "iscrowd": 0})
    return content


def write(folder: Path, content: Any) -> Path:
    save_images(folder / "images")
    path = folder / "all.json"
    path.write_text(json.dumps(content), encoding="utf-8-sig")  # with a byte order mark
    return path


def test_annotations_by_id_as_in_livecell(tmp_path: Path) -> None:
    content = plain()
    content["annotations"] = {str(entry["id"]): entry for entry in content["annotations"]}
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert masks(dataset, 0) == expected("one")
    assert masks(dataset, 1) == expected("two")


def test_one_json_for_each_image_as_in_segment_anything(tmp_path: Path) -> None:
    content = plain()
    image = {**content["images"][0], "image_id": 7}
    entries = [
        {k: v for k, v in a.items() if k == "segmentation"} for a in content["annotations"] if a["image_id"] == 0
    ]
    dataset = read_dataset(write(tmp_path, {"image": image, "annotations": entries}), strict=True)
    assert dataset.records[0].image_id == 7
    assert masks(dataset) == expected("one", "object")


def test_a_folder_of_files_of_segment_anything(tmp_path: Path) -> None:
    content = plain()
    save_images(tmp_path / "images")
    for image in content["images"]:
        entries = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        one = {"image": {**image, "image_id": image["id"]}, "annotations": entries}
        (tmp_path / f"sa_{image['id']}.json").write_text(json.dumps(one))
    (tmp_path / "sa_9.json").write_text('{"image": 1, "annotations": []')
    dataset = read_dataset(tmp_path)
    assert masks(dataset, 0) == expected("one", "object")
    assert masks(dataset, 1) == expected("two", "object")
    assert len(dataset.problems) == 1
    assert "sa_9.json: not JSON that can be read" in dataset.problems[0]


def test_descriptions_of_classes_are_no_coco_json(tmp_path: Path) -> None:
    (tmp_path / "label_descriptions.json").write_text('{"categories": [{"id": 0, "name": "shirt"}], "attributes": []}')
    assert not coco.recognise(tmp_path)


@pytest.mark.parametrize("mode", [0, 1])
def test_detectron2s_list_of_images(tmp_path: Path, mode: int) -> None:
    content = plain()
    box = [3, 4, 13, 24] if mode == 0 else [3, 4, 10, 20]
    listed = [
        {
            "file_name": f"/somewhere/{image['file_name']}",
            "image_id": f"image {image['id']}",
            "height": SIZE[0],
            "width": SIZE[1],
            "annotations": [
                {"bbox": box, "bbox_mode": mode, "category_id": a["category_id"] - 1, "segmentation": a["segmentation"]}
                for a in content["annotations"]
                if a["image_id"] == image["id"]
            ],
        }
        for image in content["images"]
    ]
    dataset = read_dataset(write(tmp_path, listed), strict=True)
    assert [category.name for category in dataset.categories] == ["0", "1"]
    assert dataset.annotations(0).annotated_boxes.tolist() == [[3, 4, 10, 20]] * 4
    assert [mask for _, mask in masks(dataset, "image 0")] == [mask for _, mask in expected("one")]
    assert dataset.records[0].path == tmp_path / "images" / "one.png"


def test_categories_that_are_no_classes_are_left_out_and_said(tmp_path: Path) -> None:
    content = plain()
    content["categories"] += [
        {"id": 0, "name": "rod", "supercategory": "none"},  # the project may be called like a class
        {"id": 9, "name": "_background_"},
    ]
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert [category.id for category in dataset.categories] == [1, 2]
    assert [choice.partition(": ")[2] for choice in dataset.choices] == [
        "a category is left out: rod, which is the project of Roboflow",
        "a category is left out: _background_, which means no class",
    ]
    content["annotations"][0]["category_id"], content["annotations"][1]["category_id"] = 0, 9
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert len(dataset.categories) == 4  # what has objects is a class
    assert dataset.choices == ()


def test_masks_that_are_all_crowd_regions_are_objects(tmp_path: Path) -> None:
    content = plain()
    for entry in content["annotations"]:
        entry["iscrowd"] = 1
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert not dataset.annotations(0).crowd.any()
    assert "masks with iscrowd 1 are read as objects" in dataset.choices[0]


def one_an_image(content: dict[str, Any]) -> None:
    content["annotations"] = [content["annotations"][0], content["annotations"][-1]]


def with_an_object(content: dict[str, Any]) -> None:
    for category in (1, 2):
        content["annotations"].append(
            content["annotations"][0] | {"id": 90 + category, "category_id": category, "iscrowd": 0}
        )


def beside_masks_of_another_class(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["iscrowd"] = int(entry["category_id"] == 1)
    content["annotations"].append(content["annotations"][0] | {"id": 99, "image_id": 0})


def as_polygons(content: dict[str, Any]) -> None:
    for entry in content["annotations"]:
        entry["segmentation"] = [[4, 6, 14, 6, 14, 20]]


@pytest.mark.parametrize("change", [one_an_image, with_an_object, beside_masks_of_another_class, as_polygons])
def test_crowd_regions_as_coco_writes_them_stay_crowd_regions(tmp_path: Path, change: Any) -> None:
    content = plain()
    for entry in content["annotations"]:
        entry["iscrowd"] = 1
    change(content)
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert dataset.annotations(0).crowd[0]
    assert dataset.choices == ()


def test_the_address_of_an_image_is_tried_after_its_name(tmp_path: Path) -> None:
    content = plain()
    for image in content["images"]:
        image["coco_url"] = f"http://images.cocodataset.org/images/{image['file_name']}"
        image["file_name"] = f"COCO_val2014_{image['file_name']}"
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert [record.path for record in dataset.records] == [tmp_path / "images" / f"{name}.png" for name in scene()]


def test_broken_entries_of_dialects_are_named(tmp_path: Path) -> None:
    content = plain()
    entry = {"bbox_mode": 0, "bbox": ["a", 1, 2, 3], "category_id": 0}
    images = [
        {**content["images"][0], "annotations": [entry, "mask"]},
        "image",
        {**content["images"][1], "annotations": 5},
    ]
    dataset = read_dataset(write(tmp_path, images))
    assert len(dataset.problems) == 3
    assert len(dataset) == 2
    broken = copy.deepcopy(plain())
    broken["annotations"] = {"1": 5, "2": broken["annotations"][0]}
    dataset = read_dataset(write(tmp_path, broken))
    assert dataset.problems[0].endswith("expected annotations as objects, found 5")
    assert dataset.records[0].count == 1


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "coco"
    upright = read_dataset(folder / "exif_upright", strict=True)
    assert objects(upright) == [("dog", 94792, [107, 3, 411, 459])]
    assert upright.read(0).shape == (480, 640, 3)
    fruit = read_dataset(folder / "labelme2coco", strict=True)
    assert [record.count for record in fruit.records] == [12, 9, 8]
    assert objects(fruit)[0] == ("date", 15573, [101, 119, 238, 285])
    street = read_dataset(folder / "labelme_example", strict=True)
    assert len(street.categories) == 20
    assert objects(street, 1)[1] == ("bus", 15670, [0, 97, 109, 284])
    crowds = read_dataset(folder / "rle_crowds", strict=True)
    assert crowds.annotations(0).crowd.sum() == 1
    assert objects(crowds)[0] == ("person", 32885, [3, 199, 598, 425])
    cars = read_dataset(folder / "sahi", strict=True)
    assert objects(cars)[0] == ("car", 35742, [218, 448, 440, 609])
    nuclei = read_dataset(folder / "written_by_datumaro")
    assert [record.count for record in nuclei.records] == [6, 15]
    assert not nuclei.annotations(0).crowd.any()
    assert objects(nuclei)[0] == ("nucleus", 106, [0, 228, 14, 239])
    facades = read_dataset(folder / "roboflow", strict=True)
    counts = dict.fromkeys(("train", "val", "test"), 0)
    for record in facades.records:
        counts[record.fields["split"]] += record.count
    assert counts == {"train": 50, "val": 25, "test": 25}
    assert objects(facades)[0] == ("window", 1983, [336, 220, 380, 283])
    lvis = read_dataset(shared / "data" / "formats" / "lvis", strict=True)
    assert lvis.read(0).shape == (640, 306, 3)
    anything = read_dataset(shared / "data" / "formats" / "segment_anything", strict=True)
    assert objects(anything) == [("object", 4, [3, 1, 4, 5])]
