"""Data sets written in another format and read again: equal masks, or a count of what is lost."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn.data.convert import WRITERS, convert
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.yolo_rows import read_labels, rows_of
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.annotations import RUN_LENGTHS, Annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.training.loop import train
from small_data import small_config, write_small
from small_people import people_coco
from small_scene import SIZE, expected, masks, save_images, save_picture, scene

POLYGON = [[4.5, 6.25, 14.75, 6.5, 14, 20, 4, 20.5]]
PARTS = [[30, 5, 40, 5, 40, 9], [30, 12, 40, 12, 40, 18]]


def write_scene(folder: Path, *more: dict[str, Any], split: str | None = None, image: int = 3) -> Path:
    """The scene as COCO JSON, and an image without objects. More annotations belong to `image`."""
    save_images(folder / "images", ("one", "two", "empty"))
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 4, "name": "cell"}, {"id": 9, "name": "rod"}],
    }
    for number, name in enumerate(("one", "two", "empty"), start=1):
        own = {"id": number, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
        content["images"].append(own | ({"split": split} if split else {}))
        for thing in scene().get(name, []):
            category = 4 if thing.name == "cell" else 9
            entry = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": category}
            content["annotations"].append(entry | {"segmentation": RLE.from_dense(thing.mask).to_coco()})
    for number, entry in enumerate(more, start=len(content["annotations"]) + 1):
        content["annotations"].append({"id": number, "image_id": image, "category_id": 4, **entry})
    path = folder / "all.json"
    path.write_text(json.dumps(content))
    return path


def again(dataset: Dataset, folder: Path, to: str) -> tuple[Dataset, list[str]]:
    """The data set after it was written and read, and what was said to be lost."""
    lost = convert(dataset, folder, to)
    return read_dataset(folder, strict=True), lost


@pytest.mark.parametrize("to", WRITERS)
def test_masks_with_parts_and_holes_come_back_equal(tmp_path: Path, to: str) -> None:
    first = read_dataset(write_scene(tmp_path / "in"), strict=True)
    dataset, lost = again(first, tmp_path / "out", to)
    names = [record.path.stem for record in dataset.records]
    assert sorted(names) == ["empty", "one", "two"]
    for name, things in (("one", expected("one")), ("two", expected("two")), ("empty", [])):
        assert masks(dataset, names.index(name)) == things
        np.testing.assert_array_equal(dataset.read(names.index(name)), first.read(("one", "two", "empty").index(name)))
    assert [category.name for category in dataset.categories] == ["cell", "rod"]
    bridges = ["2 objects have parts or holes, joined by bridges that some programs draw"]
    assert lost == (bridges if to == "yolo" else [])


@pytest.mark.parametrize("to", WRITERS)
def test_polygons_come_back_as_they_are_where_the_format_has_polygons(tmp_path: Path, to: str) -> None:
    path = write_scene(tmp_path / "in", {"segmentation": POLYGON}, {"segmentation": PARTS})
    dataset, _ = again(read_dataset(path), tmp_path / "out", to)
    found = dataset.annotations([record.path.stem for record in dataset.records].index("empty"))
    drawn = [polygons_to_rle([np.reshape(part, (-1, 2)) for part in parts], SIZE) for parts in (POLYGON, PARTS)]
    assert [mask.counts for mask in found.masks() if mask] == drawn
    if to in ("coco", "labelme"):
        assert [[p.ravel().tolist() for p in found.polygons(i)] for i in (0, 1)] == [POLYGON, PARTS]


def test_what_a_format_cannot_hold_is_counted(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 3, 4]}
    crowd = {"segmentation": RLE.from_dense(scene()["one"][0].mask).to_coco(), "iscrowd": 1}
    dataset = read_dataset(write_scene(tmp_path / "in", box, box, crowd), strict=True)
    said = ["1 crowd regions are left out", "2 objects without a mask are left out"]
    for to in WRITERS:
        lost = convert(dataset, tmp_path / to, to)
        assert [loss for loss in lost if "bridges" not in loss] == ([] if to == "coco" else said)
    assert read_dataset(tmp_path / "coco").annotations(2).crowd.tolist() == [False, False, True]


def test_label_images_hold_no_overlap(tmp_path: Path) -> None:
    square = {"segmentation": [[0, 0, 56, 0, 56, 40, 0, 40]]}
    path = write_scene(tmp_path / "in", square, image=2)
    dataset, lost = again(read_dataset(path), tmp_path / "out", "label-images")
    covered = scene()["two"][0].mask.sum()
    assert lost == [f"{covered} pixels of objects are covered by other objects", "1 objects are covered entirely"]
    assert len(masks(dataset, "two")) == 1
    rows, _ = again(read_dataset(path), tmp_path / "rows", "rle-csv")
    assert len(masks(rows, 1)) == 2


def test_keypoints_are_only_in_coco(tmp_path: Path) -> None:
    content, images = people_coco(2)
    (tmp_path / "in").mkdir()
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        entry["segmentation"] = [[x, y, x + w, y, x + w, y + h]]
    (tmp_path / "in" / "people.json").write_text(json.dumps(content))
    for image, entry in zip(images, content["images"], strict=True):
        save_picture(tmp_path / "in" / entry["file_name"], image)
    first = read_dataset(tmp_path / "in")
    dataset, lost = again(first, tmp_path / "out", "coco")
    assert lost == []
    np.testing.assert_array_equal(dataset.annotations(0).keypoints, first.annotations(0).keypoints)
    assert any("objects lose their keypoints" in loss for loss in convert(first, tmp_path / "yolo", "yolo"))


def test_texts_as_ids_become_numbers_in_coco(tmp_path: Path) -> None:
    save_images(tmp_path / "in" / "images")
    (tmp_path / "in" / "t.csv").write_text("ImageId,EncodedPixels,ClassId\none,1 5,rod\ntwo,7 3,cell\n")
    dataset, _ = again(read_dataset(tmp_path / "in"), tmp_path / "out", "coco")
    assert [(category.id, category.name) for category in dataset.categories] == [(1, "cell"), (2, "rod")]
    assert [record.image_id for record in dataset.records] == [1, 2]
    assert dataset.annotations(1).ids.tolist() == [2]
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["images/one.png", "images/two.png"]


@pytest.mark.parametrize("to", WRITERS)
def test_parts_stay_parts(tmp_path: Path, to: str) -> None:
    for part in ("train", "valid"):
        write_small(tmp_path / "in", part, 2).rename(tmp_path / "in" / part / "a.json")
    dataset, _ = again(read_dataset(tmp_path / "in"), tmp_path / "out", to)
    assert Counter(record.fields["split"] for record in dataset.records) == {"train": 2, "val": 2}
    assert all(record.path.is_relative_to(tmp_path / "out" / record.fields["split"]) for record in dataset.records)


def test_the_yaml_of_ultralytics_names_folders_and_classes(tmp_path: Path) -> None:
    dataset = read_dataset(write_scene(tmp_path / "in"))
    convert(dataset, tmp_path / "out", "yolo")
    content = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert content == {"train": "images", "val": "images", "names": ["cell", "rod"]}
    assert (tmp_path / "out" / "labels" / "empty.txt").read_text() == ""


def test_the_table_has_no_column_for_the_only_class(tmp_path: Path) -> None:
    save_images(tmp_path / "in" / "images")
    (tmp_path / "in" / "t.csv").write_text("ImageId,EncodedPixels\none,1 5 41 5\none,400 3\ntwo,\n")
    convert(read_dataset(tmp_path / "in"), tmp_path / "out", "rle-csv")
    assert (tmp_path / "out" / "annotations.csv").read_text() == (
        "ImageId,EncodedPixels\none.png,1 5 41 5\none.png,400 3\ntwo.png,\n"
    )


def test_images_are_copied_or_linked_and_told_apart(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "in")
    content = json.loads(path.read_text())
    (tmp_path / "in" / "more").mkdir()
    (tmp_path / "in" / "images" / "two.png").rename(tmp_path / "in" / "more" / "one.png")
    (tmp_path / "in" / "images" / "empty.png").unlink()
    content["images"][1]["file_name"] = "more/one.png"
    path.write_text(json.dumps(content))
    dataset = read_dataset(path)
    for link in (False, True):
        out = tmp_path / str(link)
        assert convert(dataset, out, "rle-csv", link=link) == ["1 images have no file"]
        images = sorted((out / "images").iterdir())
        assert [image.name for image in images] == ["one.png", "one_2.png"]
        assert [image.is_symlink() for image in images] == [link] * 2
        assert images[1].read_bytes() == (tmp_path / "in" / "more" / "one.png").read_bytes()


def test_where_nothing_may_be_written(tmp_path: Path) -> None:
    dataset = read_dataset(write_scene(tmp_path / "in"))
    with pytest.raises(DataError, match=r"in: expected no folder or an empty one, found all.json in it"):
        convert(dataset, tmp_path / "in", "coco")
    with pytest.raises(ConfigError, match="expected a folder to write to, found a file"):
        convert(dataset, tmp_path / "in" / "all.json", "coco")
    with pytest.raises(DataError, match=r"expected a format that can be written \(coco, .*\), found via"):
        convert(dataset, tmp_path / "out", "via")


def annotations_of(bitmaps: list[np.ndarray]) -> Annotations:
    count = len(bitmaps)
    return Annotations(
        image_hw=(bitmaps[0].shape[0], bitmaps[0].shape[1]),
        ids=np.arange(count),
        annotated_boxes=np.zeros((count, 4)),
        labels=np.zeros(count, dtype=np.int64),
        crowd=np.zeros(count, dtype=bool),
        areas=np.full(count, np.nan),
        kinds=np.full(count, RUN_LENGTHS, dtype=np.uint8),
        segmentations=[np.frombuffer(RLE.from_dense(bitmap).counts, dtype=np.uint8) for bitmap in bitmaps],
    )


@given(st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: arrays(np.bool_, size)).filter(np.any))
def test_a_row_of_yolo_draws_the_same_mask(tmp_path_factory: pytest.TempPathFactory, bitmap: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "row.txt"
    path.write_text("\n".join(rows_of(annotations_of([bitmap]), Counter())))
    ((_, _, points),) = read_labels(path).objects
    size = (bitmap.shape[0], bitmap.shape[1])
    assert RLE(size, polygons_to_rle([points * size[::-1]], size)) == RLE.from_dense(bitmap)


def test_real_sets_come_back_equal(shared: Path, tmp_path: Path) -> None:
    for name in ("masks_dsb2018", "labelme/polygons", "coco/rle_crowds", "voc"):
        first = read_dataset(shared / "data" / "formats" / name)
        for to in ("coco", "rle-csv", "labelme", "yolo"):
            dataset, _ = again(first, tmp_path / name / to, to)
            stems = [record.path.stem for record in dataset.records]
            for index, record in enumerate(first.records):
                annotations = first.annotations(index)
                kept = np.flatnonzero(~annotations.crowd) if to != "coco" else None
                own = annotations.masks(kept)
                assert dataset.annotations(stems.index(record.path.stem)).masks() == own, (name, to)


@pytest.mark.slow
def test_training_on_every_format_gives_the_same_losses(shared: Path, tmp_path: Path) -> None:
    first = read_dataset(shared / "data" / "formats" / "masks_dsb2018")
    losses = []
    for to in WRITERS:
        dataset, _ = again(first, tmp_path / to, to)
        order = np.argsort([record.path.stem for record in dataset.records]).tolist()
        config = small_config(steps=6)
        train(config, dataset.subset(order), out=tmp_path / f"run {to}")
        losses.append((tmp_path / f"run {to}" / "metrics.jsonl").read_text().splitlines()[-1])
    found = [{key: value for key, value in json.loads(line).items() if "loss" in key} for line in losses]
    assert len(found[0]) > 4
    assert found == [found[0]] * len(WRITERS)
