"""COCO JSON: what is read, what is derived, and what each kind of bad input is told."""

from __future__ import annotations

import copy
import gc
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import pytest

from maskrcnn.config import Category, Config, ModelConfig, config_from_dict, config_to_dict
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.errors import DataError, ImageError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from small_data import small_coco, write_small
from small_people import people_coco


def write(folder: Path, content: Any) -> Path:
    path = folder / "train.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_images_annotations_and_categories(tmp_path: Path) -> None:
    content, images = small_coco(3)
    path = write_small(tmp_path, "train", 3)
    dataset = read_dataset(path)
    assert len(dataset) == 3
    assert dataset.problems == ()
    assert dataset.categories == (Category(3, "blue"), Category(7, "red"))
    for i, image in enumerate(images):
        np.testing.assert_array_equal(dataset.read(i), image)
        own = [a for a in content["annotations"] if a["image_id"] == i + 1]
        found = dataset.annotations(i)
        np.testing.assert_array_equal(found.boxes[:, :2], [a["bbox"][:2] for a in own])
        np.testing.assert_array_equal(found.boxes[:, 2:] - found.boxes[:, :2], [a["bbox"][2:] for a in own])
        assert [dataset.categories[label].id for label in found.labels] == [a["category_id"] for a in own]
        assert found.ids.tolist() == [a["id"] for a in own]
        truth = dataset.instances(i)
        assert truth.masks is not None
        assert truth.masks.areas().tolist() == [a["area"] for a in own]
        np.testing.assert_array_equal(truth.masks.boxes(), found.boxes)
    assert [record.image_id for record in dataset.subset([2, 0]).records] == [3, 1]
    assert dataset.subset([2]).annotations(0).ids.tolist() == dataset.annotations(2).ids.tolist()


def test_polygons_of_several_parts_and_both_kinds_of_rle_are_the_same_mask(tmp_path: Path) -> None:
    content, _ = small_coco(1)
    content["images"][0].update(height=40, width=50)
    parts = [[5, 5, 15, 5, 15, 20], [20.5, 8, 30, 8, 30, 25, 22, 30]]
    rle = hotcoco.mask.merge(hotcoco.mask.frPyObjects(parts, 40, 50))
    dense = hotcoco.mask.decode(rle)
    flat = dense.T.reshape(-1)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flat, [0]])))
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    counts = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
    kinds: list[Any] = [parts, {"size": [40, 50], "counts": runs}, {"size": [40, 50], "counts": counts}]
    content["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 7, "segmentation": kind} for i, kind in enumerate(kinds)
    ]
    dataset = read_dataset(write(tmp_path, content))
    assert dataset.problems == ()
    for i in range(3):
        np.testing.assert_array_equal(dataset.annotations(0).rle(i).dense(), dense.astype(bool))
        bitmap, (x, y) = dataset.annotations(0).rle(i).crop()
        np.testing.assert_array_equal(bitmap, dense[y : y + bitmap.shape[0], x : x + bitmap.shape[1]])
        assert bitmap.sum() == dense.sum()
    found = dataset.annotations(0)
    for own, number in zip(found.crops([2, 0]), (2, 0), strict=True):
        np.testing.assert_array_equal(own[0], found.rle(number).crop()[0])
        assert own[1] == found.rle(number).crop()[1]
    # The boxes were missing: they are the masks' own.
    np.testing.assert_array_equal(found.boxes, [RLE((40, 50), found.rle(0).counts).box] * 3)


@pytest.mark.parametrize("searching", [True, False])
def test_the_search_for_circles_rests_while_a_file_is_read(
    searching: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, build = [], DatasetBuilder.build

    def built(self: DatasetBuilder) -> Dataset:
        seen.append(gc.isenabled())
        return build(self)

    monkeypatch.setattr(DatasetBuilder, "build", built)
    (gc.enable if searching else gc.disable)()
    try:
        read_dataset(write_small(tmp_path, "train", 1))
        assert (seen, gc.isenabled()) == ([False], searching)
        (tmp_path / "broken.json").write_text('{"images": [], "annotations": [], "categories": []}')
        with pytest.raises(DataError):
            read_dataset(tmp_path / "broken.json")
        assert gc.isenabled() == searching
    finally:
        gc.enable()


def test_crowds_boxes_without_masks_empty_images_and_odd_ids(tmp_path: Path) -> None:
    content, _ = small_coco(2)
    content["annotations"] = [
        {"id": "a", "image_id": 1, "category_id": 3, "bbox": [2, 3, 10, 5]},
        {"id": "b", "image_id": 1, "category_id": 3, "iscrowd": 1, "bbox": [0, 0, 80, 64], "segmentation": []},
    ]
    dataset = read_dataset(write(tmp_path, content))
    found = dataset.annotations(0)
    assert found.crowd.tolist() == [False, True]
    assert found.has_mask.tolist() == [False, False]
    assert len(dataset.annotations(1).labels) == 0
    bitmap, origin = found.rle(0).crop()
    assert (bitmap.shape, origin, int(bitmap.sum())) == ((5, 10), (2, 3), 50)
    assert [crop[0].shape for crop in found.crops([0])] == [(0, 0)]  # nothing to learn a mask from
    assert len(dataset.instances(0)) == 1
    content["images"][0]["id"] = content["annotations"][0]["image_id"] = "street"
    content["annotations"].pop()
    assert read_dataset(write(tmp_path, content)).records[0].image_id == "street"


def test_cocos_own_folders(tmp_path: Path) -> None:
    """`annotations/instances_val2017.json` is about the images of `val2017/`."""
    written = write_small(tmp_path / "flat", "val2017", 1)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "flat" / "val2017").rename(tmp_path / "val2017")
    path = written.rename(tmp_path / "annotations" / "instances_val2017.json")
    assert read_dataset(path).records[0].path.parent == tmp_path / "val2017"


def test_folders(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 1)
    assert read_dataset(tmp_path).path == path
    (tmp_path / "more.json").write_text(path.read_text())
    with pytest.raises(DataError, match=r"expected one COCO JSON in the folder, found more.json, train.json"):
        read_dataset(tmp_path)
    (tmp_path / "annotations.json").write_text(path.read_text())
    assert read_dataset(tmp_path).path.name == "annotations.json"
    (tmp_path / "train").rename(tmp_path / "images")
    assert read_dataset(path).read(0).shape == (64, 80, 3)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    assert read_dataset(path, tmp_path / "elsewhere").read(0).shape == (64, 80, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "found a file that is not JSON; train.json: the file is empty; write it again"),
        ('{"images": [', "not JSON"),
        ("[1, 2]", "found a JSON list without keys"),
        ('{"hello": 1}', "found a JSON object with the keys hello"),
        ({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}, "the data set is empty"),
    ],
)
def test_files_that_are_not_coco(tmp_path: Path, content: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(write(tmp_path, content))
    assert "train.json" in str(caught.value)


def test_an_image_in_the_place_of_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(DataError, match=r"a.jpg: expected a data set, or a folder with one, found a file .jpg"):
        read_dataset(tmp_path / "a.jpg")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.json: no such file"):
        read_dataset(tmp_path / "none.json")
    with pytest.raises(DataError, match="found a folder with nothing"):
        read_dataset(tmp_path)


def test_other_jsons_beside_the_only_coco_json_are_passed_over(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 2)
    (tmp_path / "settings.json").write_text('{"colour": 1}')
    assert read_dataset(tmp_path, strict=True).path == path
    write_small(tmp_path, "more", 1)
    with pytest.raises(DataError, match=r"expected one COCO JSON in the folder, found more\.json, train\.json; name"):
        read_dataset(tmp_path)


def change(key: str, value: Any, **more: Any) -> Callable[[dict[str, Any]], None]:
    def apply(content: dict[str, Any]) -> None:
        content["annotations"][0].update({key: value, **more})

    return apply


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "unknown image": (change("image_id", 99), r"annotation 1 of image 99: no image has this id"),
    "unknown category": (change("category_id", 4), r"annotation 1 of image 1: no category has id 4"),
    "no category": (change("category_id", None), r"no category has id None"),
    "crowd": (change("iscrowd", "some"), r"expected iscrowd as 0 or 1, found 'some'"),
    "two points": (change("segmentation", [[1, 1, 5, 5]]), r"at least 3 points, found 4 numbers"),
    "odd numbers": (change("segmentation", [[1, 1, 5, 5, 9, 9, 3]]), r"at least 3 points, found 7 numbers"),
    "not numbers": (change("segmentation", [["a", "b"]]), r"expected polygons as lists of numbers"),
    "no list": (change("segmentation", "mask"), r"expected segmentation as polygons or run lengths"),
    "nan": (change("segmentation", [[1, 1, float("nan"), 5, 9, 9]]), r"not a finite number"),
    "no area": (change("segmentation", [[1, 1, 5, 5, 9, 9]], bbox=None), r"the mask covers no pixel"),
    "rle size": (
        change("segmentation", {"size": [10, 10], "counts": [0, 100]}),
        r"expected a mask of the image's height, width .*, found \(10, 10\)",
    ),
    "rle sum": (change("segmentation", {"size": [64, 80], "counts": [0, 100]}), r"5120 pixels .* found 100"),
    "rle empty": (change("segmentation", {"size": [64, 80], "counts": [5120]}, bbox=[]), r"the mask covers no pixel"),
    "rle string": (change("segmentation", {"size": [64, 80], "counts": "\x7f"}), r"run-length string"),
    "box numbers": (change("bbox", [1, 2, 3], segmentation=[]), r"expected bbox as four finite numbers"),
    "box nan": (change("bbox", [1, 2, 3, float("inf")], segmentation=[]), r"expected bbox as four finite numbers"),
    "box area": (change("bbox", [5, 2, 3, 0], segmentation=[]), r"bbox \[5, 2, 3, 0\] has no area"),
    "no object": (
        lambda content: content["annotations"].__setitem__(0, 3),
        r"expected annotations as objects, found 3",
    ),
    "only a box outside": (
        change("bbox", [200, 2, 3, 3], segmentation=[]),
        r"no area inside the image of 80 x 64",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_annotation_is_skipped_and_named_or_refused(tmp_path: Path, name: str) -> None:
    content, _ = small_coco(2)
    total = len(content["annotations"])
    breaks, words = BROKEN[name]
    breaks(content)
    path = write(tmp_path, content)
    dataset = read_dataset(path)
    assert len(dataset.problems) == 1
    assert sum(record.count for record in dataset.records) == total - 1
    with pytest.raises(DataError, match=words) as caught:
        read_dataset(path, strict=True)
    assert str(caught.value) == dataset.problems[0]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_objects_survive_flags_of_text_bad_parts_and_one_id_for_all(tmp_path: Path) -> None:
    content, _ = small_coco(3)
    for annotation in content["annotations"]:
        annotation.update(id=1, iscrowd="false", bbox=[0, 0, 0, 0])
        annotation["segmentation"].append([3, 3, 4, 4])
    dataset = read_dataset(write(tmp_path, content))
    expected, _ = small_coco(3)
    crowd, boxes = (
        np.concatenate([getattr(dataset.annotations(i), key) for i in range(3)]) for key in ("crowd", "annotated_boxes")
    )
    assert not crowd.any()
    assert boxes.tolist() == [annotation["bbox"] for annotation in expected["annotations"]]
    assert dataset.problems == ()
    assert len(dataset.notes) == 3


def test_broken_image_entries_and_categories(tmp_path: Path) -> None:
    content, _ = small_coco(2)
    good = copy.deepcopy(content)
    content["annotations"] = []
    for broken, words in (
        ({"file_name": "a.png", "height": 64, "width": 80}, "expected images with an id, found None for a.png"),
        ({"id": 1, "file_name": "a.png", "height": 64}, "image 1: expected a positive integer height and width"),
        (
            {"id": 1, "height": 1 << 31, "width": 64},
            "width, of at most 4294967295 pixels together, found 2147483648, ",
        ),
        ({"id": 1, "height": -1, "width": -64}, "image 1: expected a positive integer height and width, of at most"),
        (3, "expected images as objects, found 3"),
    ):
        content["images"][0] = broken
        path = write(tmp_path, content)
        dataset = read_dataset(path)
        assert [record.image_id for record in dataset.records] == [2]
        assert words in dataset.problems[0]
        with pytest.raises(DataError, match=words):
            read_dataset(path, strict=True)
    content["images"][1]["height"] = 0
    with pytest.raises(DataError, match=r"the data set is empty: none of its images can be used; first: .*found 3"):
        read_dataset(write(tmp_path, content))
    content = copy.deepcopy(good)
    content["images"][1]["id"] = 1
    with pytest.raises(DataError, match="two images have id 1"):
        read_dataset(write(tmp_path, content))
    for categories, words in (
        ([], "at least one category"),
        ([{"name": "a"}], "an id and a name"),
        ([{"id": 1, "name": 3}], "category 1: expected a name as text, found 3; write it in quotation marks"),
        ([3], "as objects"),
    ):
        with pytest.raises(DataError, match=words):
            read_dataset(write(tmp_path, dict(good, categories=categories)))
    with pytest.raises(DataError, match="two categories have id 7"):
        read_dataset(write(tmp_path, dict(good, categories=good["categories"][:1] * 2)))


def test_an_image_without_a_file_name_counts_and_cannot_be_read(tmp_path: Path) -> None:
    content, _ = small_coco(2)
    del content["images"][0]["file_name"]
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert len(dataset.annotations(0).labels) > 0
    with pytest.raises(ImageError, match=r"no file_name.*: expected an image, found no such file"):
        dataset.read(0)


def test_sizes_that_no_entry_gives_are_read_from_the_images(tmp_path: Path) -> None:
    path = write_small(tmp_path, "all", 3)
    whole = read_dataset(path)
    content = json.loads(path.read_text())
    for image in content["images"]:
        del image["height"], image["width"]
    content["images"][2]["file_name"] = "lost.png"
    path.write_text(json.dumps(content))
    dataset = read_dataset(path)
    assert dataset.records.sizes_hw.tolist() == whole.records.sizes_hw[:2].tolist()
    assert dataset.choices == (f"{path}: images without height and width, which are read from their files: 2",)
    assert "expected a positive integer height and width" in dataset.problems[0]


def test_an_image_of_another_size_than_its_record(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 1)
    content = json.loads(path.read_text())
    content["images"][0]["height"] = 63
    content["annotations"] = []
    path.write_text(json.dumps(content))
    with pytest.raises(ImageError, match=r"expected 80 x 63 pixels, the size of image 1 in train.json, found 80 x 64"):
        read_dataset(path).read(0)


def test_real_data_is_read_whole(shared: Path) -> None:
    for name, images, objects in (("nuclei/val", 74, 3123), ("coco/train", 150, 1293), ("person/val", 40, 137)):
        dataset = read_dataset(shared / "data" / f"{name}.json")
        assert len(dataset) == images
        assert dataset.problems == ()
        assert sum(record.count for record in dataset.records) == objects


def test_real_masks_equal_hotcoco(shared: Path) -> None:
    path = shared / "data" / "coco" / "val.json"
    content = json.loads(path.read_text())
    dataset = read_dataset(path)
    by_id = {annotation["id"]: annotation for annotation in content["annotations"]}
    for i, record in enumerate(dataset.records[:20]):
        for j, number in enumerate(dataset.annotations(i).ids):
            rle = hotcoco.mask.frPyObjects(by_id[number]["segmentation"], record.height, record.width)
            dense = hotcoco.mask.decode(hotcoco.mask.merge(rle) if isinstance(rle, list) else rle)
            np.testing.assert_array_equal(dataset.annotations(i).rle(j).dense(), dense.astype(bool))


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    content, _ = people_coco(3)
    content["categories"].append({"id": "b", "name": "ball"})
    content["categories"][0]["sigmas"] = [0.05] * 5
    content["images"][1]["light"] = {"day": True}
    mask = RLE.from_dense(np.pad(np.ones((5, 6), dtype=bool), ((3, 56), (4, 70))))
    del content["annotations"][0]["area"]
    content["annotations"] += [
        {"id": "x", "image_id": 2, "category_id": "b", "segmentation": mask.to_coco(), "iscrowd": 1},
        {"image_id": 0, "category_id": "b", "segmentation": [[1, 1, 9.5, 1, 9.5, 7], [20, 2, 30, 2, 30, 9]]},
    ]
    first = read_dataset(write(tmp_path, content), strict=True)
    coco.write_json(first, tmp_path / "again.json")
    second = read_dataset(tmp_path / "again.json", strict=True)
    assert second.categories == first.categories
    assert [replace(record, fault="") for record in second.records] == [
        replace(record, fault="") for record in first.records
    ]
    for i in range(len(first)):
        before, after = first.annotations(i), second.annotations(i)
        assert after.ids.tolist() == before.ids.tolist()
        assert after.masks() == before.masks()
        assert [p.tolist() for p in after.polygons(0)] == [p.tolist() for p in before.polygons(0)]
        for name in ("annotated_boxes", "labels", "crowd", "kinds", "keypoints"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    written = json.loads((tmp_path / "again.json").read_text())["annotations"]
    assert written[0]["area"] == 31 * 55, "that of the box"
    assert [entry["area"] for entry in written if entry["category_id"] == "b"][-1] == 30, "pixels of the mask"


def test_real_data_is_written_as_it_was_read(shared: Path, tmp_path: Path) -> None:
    """But for the order: annotations of one image side by side."""
    path = shared / "data" / "person" / "val.json"
    coco.write_json(read_dataset(path), tmp_path / "val.json")
    original, written = json.loads(path.read_text()), json.loads((tmp_path / "val.json").read_text())
    by_id = {entry["id"]: entry for entry in written["annotations"]}
    assert len(by_id) == len(original["annotations"])
    for entry in original["annotations"]:
        assert {key: by_id[entry["id"]][key] for key in ("image_id", "category_id", "iscrowd", "num_keypoints")} == {
            key: entry[key] for key in ("image_id", "category_id", "iscrowd", "num_keypoints")
        }
        for key in ("bbox", "area", "keypoints"):
            np.testing.assert_allclose(by_id[entry["id"]][key], entry[key], rtol=1e-12)
        mask = entry["segmentation"]
        canonical = mask if isinstance(mask, list) else RLE.from_coco(mask).to_coco()
        assert by_id[entry["id"]]["segmentation"] == canonical
    assert [record.path.resolve() for record in read_dataset(tmp_path / "val.json").records] == [
        record.path.resolve() for record in read_dataset(path).records
    ]


def test_halves_of_characters_in_names_are_replaced_because_model_files_cannot_hold_them(tmp_path: Path) -> None:
    content, _ = small_coco(1)
    content["categories"][0] |= {"name": "red \ud83d", "keypoints": ["\udcff left"]}
    dataset = read_dataset(write(tmp_path, content))
    assert [(c.name, c.keypoints) for c in dataset.categories] == [("blue", ()), ("red ?", ("? left",))]
    config = Config(model=ModelConfig(num_classes=2), categories=dataset.categories)
    assert config_from_dict(config_to_dict(config)) == config
