"""The parts of a data set: which folders and files they are, one of them, and all together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_data import small_coco, write_small
from small_people import people_coco


def write_parts(
    folder: Path, names: tuple[str, ...] = ("train", "valid"), file: str = "_annotations.coco.json"
) -> None:
    """As Roboflow writes them: a folder for each part, with annotations beside its images. Ids begin anew in each."""
    for number, name in enumerate(names, start=1):
        path = write_small(folder, name, number)
        path.rename(folder / name / file)


def test_folders_of_parts_are_one_data_set(tmp_path: Path) -> None:
    write_parts(tmp_path, ("test", "train", "valid"))
    dataset = read_dataset(tmp_path, strict=True)
    assert [record.image_id for record in dataset.records] == [
        *("train/1", "train/2", "val/1", "val/2", "val/3", "test/1"),
    ]
    assert [record.fields["split"] for record in dataset.records] == ["train"] * 2 + ["val"] * 3 + ["test"]
    assert dataset.choices[0].endswith(
        "its parts are read together: train (2 images), val (3 images), test (1 image); --split reads only one"
    )
    alone = read_dataset(tmp_path / "valid")
    for index in range(3):
        own, joined = alone.annotations(index), dataset.annotations(2 + index)
        assert joined.ids.tolist() == [f"val/{number}" for number in own.ids]
        assert joined.masks() == own.masks()
        for field in ("annotated_boxes", "labels", "crowd", "areas", "kinds"):
            np.testing.assert_array_equal(getattr(joined, field), getattr(own, field))
        np.testing.assert_array_equal(dataset.read(2 + index), alone.read(index))


def test_one_part_is_read_as_it_is(tmp_path: Path) -> None:
    write_parts(tmp_path)
    dataset = read_dataset(tmp_path, strict=True, hints=Hints(split="val"))
    assert [record.image_id for record in dataset.records] == [1, 2]
    assert dataset.path == tmp_path / "valid" / "_annotations.coco.json"
    with pytest.raises(DataError, match="expected --split to be one of train, val, found test"):
        read_dataset(tmp_path, hints=Hints(split="test"))
    with pytest.raises(DataError, match="found COCO JSON, for which --split means nothing; leave it out"):
        read_dataset(tmp_path / "train", hints=Hints(split="train"))


def test_files_of_parts_in_a_folder_of_annotations(tmp_path: Path) -> None:
    for number, name in enumerate(("train2017", "val2017"), start=1):
        path = write_small(tmp_path, name, number)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path.rename(tmp_path / "annotations" / f"instances_{name}.json")
    for path in (tmp_path, tmp_path / "annotations"):
        dataset = read_dataset(path, strict=True)
        assert [record.path.parent.name for record in dataset.records] == ["train2017", "val2017", "val2017"]
    (tmp_path / "annotations" / "instances_train2014.json").write_text("{}")
    with pytest.raises(DataError, match=r"expected one COCO JSON in the folder, found instances_train2017.json"):
        read_dataset(tmp_path)


def test_ids_that_differ_are_kept_and_categories_are_united(tmp_path: Path) -> None:
    write_parts(tmp_path)
    file = tmp_path / "valid" / "_annotations.coco.json"
    content, _ = small_coco(2)
    content["categories"] = [{"id": 5, "name": "green"}, content["categories"][0]]
    content["annotations"] = [content["annotations"][0] | {"id": 99, "category_id": 5, "image_id": 12}]
    for image in content["images"]:
        image["id"] += 10
    file.write_text(json.dumps(content))
    dataset = read_dataset(tmp_path, strict=True)
    assert [record.image_id for record in dataset.records] == [1, 11, 12]
    assert [category.name for category in dataset.categories] == ["blue", "green", "red"]
    found = dataset.annotations(2)
    assert [dataset.categories[label].name for label in found.labels] == ["green"]
    assert found.ids.tolist() == [99]
    content["categories"][0] = {"id": 3, "name": "azure"}
    content["annotations"] = []
    file.write_text(json.dumps(content))
    with pytest.raises(
        DataError, match="expected the same categories in its parts, found id 3 as blue in train and as"
    ):
        read_dataset(tmp_path)


def test_keypoints_are_joined(tmp_path: Path) -> None:
    write_parts(tmp_path)
    people, _ = people_coco(1)
    for category in people["categories"]:
        category["id"] += 100
    for entry in people["annotations"]:
        entry["category_id"] += 100
    (tmp_path / "valid" / "_annotations.coco.json").write_text(json.dumps(people))
    alone = read_dataset(tmp_path / "valid").annotations(0).keypoints
    dataset = read_dataset(tmp_path)
    joined = dataset.annotations(1).keypoints
    assert alone is not None
    assert joined is not None
    np.testing.assert_array_equal(joined, alone)
    assert not np.asarray(dataset.annotations(0).keypoints).any()


def test_folders_that_are_no_parts_are_asked_about(tmp_path: Path) -> None:
    write_parts(tmp_path, ("monday", "tuesday"))
    with pytest.raises(DataError, match=r"found COCO JSON in .*monday, .*tuesday; name one of the folders"):
        read_dataset(tmp_path)
