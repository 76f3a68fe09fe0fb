"""Data sets written in another format and read again: equal masks, or a count of what is lost."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.convert import WRITERS, convert
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files import yolo
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.yolo_rows import read_labels, rows_of
from maskrcnn.errors import ConfigError, DataError, ImageError
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


UNLABELLED = " without objects can only be read with --missing empty"


def again(dataset: Dataset, folder: Path, to: str) -> tuple[Dataset, list[str]]:
    """The data set after it was written and read, and what was said to be lost."""
    lost = convert(dataset, folder, to)
    empty = Hints(missing="empty") if any(UNLABELLED in loss for loss in lost) else NO_HINTS
    return read_dataset(folder, strict=True, hints=empty), [loss for loss in lost if UNLABELLED not in loss]


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
    bridges = ["2 objects have parts or holes, joined by bridges that some tools draw"]
    assert lost == (bridges if to == "yolo" else [])


@pytest.mark.parametrize("to", WRITERS)
def test_polygons_come_back_as_they_are_where_the_format_has_polygons(tmp_path: Path, to: str) -> None:
    path = write_scene(tmp_path / "in", {"segmentation": POLYGON}, {"segmentation": PARTS})
    dataset, _ = again(read_dataset(path), tmp_path / "out", to)
    found = dataset.annotations([record.path.stem for record in dataset.records].index("empty"))
    drawn = [polygons_to_rle([np.reshape(part, (-1, 2)) for part in parts], SIZE) for parts in (POLYGON, PARTS)]
    assert [mask.counts for mask in found.masks() if mask] == drawn
    if to in ("coco", "labelme", "cvat"):
        assert [[p.ravel().tolist() for p in found.polygons(i)] for i in (0, 1)] == [POLYGON, PARTS]


def test_what_a_format_cannot_hold_is_counted(tmp_path: Path) -> None:
    box = {"bbox": [1, 2, 3, 4]}
    crowd = {"segmentation": RLE.from_dense(scene()["one"][0].mask).to_coco(), "iscrowd": 1}
    dataset = read_dataset(write_scene(tmp_path / "in", box, box, crowd), strict=True)
    said = ["1 crowd region is left out", "2 objects without a mask are left out"]
    for to, writer in WRITERS.items():
        lost = convert(dataset, tmp_path / to, to)
        expected_losses = [] if to == "coco" else said[:1] if "boxes" in writer.holds else said
        assert [loss for loss in lost if "bridges" not in loss and UNLABELLED not in loss] == expected_losses
        if "boxes" in writer.holds:
            found = read_dataset(tmp_path / to).annotations(2)
            np.testing.assert_allclose(found.boxes[~found.has_mask], [[1, 2, 4, 6]] * 2, rtol=1e-6)
    assert read_dataset(tmp_path / "coco").annotations(2).crowd.tolist() == [False, False, True]


@pytest.mark.parametrize("to", WRITERS)
def test_classes_that_mean_no_class_when_they_are_read_are_counted(tmp_path: Path, to: str) -> None:
    path = write_scene(tmp_path / "in", {"segmentation": POLYGON, "category_id": 11})
    content = json.loads(path.read_text())
    names = ("void", "background", "__ignore__")
    content["categories"] = [{"id": number, "name": name} for number, name in zip((4, 9, 11), names, strict=True)]
    path.write_text(json.dumps(content))
    first = read_dataset(path, strict=True)
    assert np.bincount(first.columns["labels"]).tolist() == [3, 2, 1]
    lost = [loss for loss in convert(first, tmp_path / "out", to) if "no class" in loss]
    if to not in ("labelme", "cvat", "label-studio", "geojson"):
        assert lost == []
        assert len(read_dataset(tmp_path / "out").categories) == 3
        return
    assert sorted(lost) == [
        "1 object of the class __ignore__ will not be read again, because __ignore__ means no class",
        "2 objects of the class background will not be read again, because background means no class",
        "3 objects of the class void will not be read again, because void means no class",
    ]


def test_label_images_hold_no_overlap(tmp_path: Path) -> None:
    square = {"segmentation": [[0, 0, 56, 0, 56, 40, 0, 40]]}
    path = write_scene(tmp_path / "in", square, image=2)
    dataset, lost = again(read_dataset(path), tmp_path / "out", "label-images")
    covered = scene()["two"][0].mask.sum()
    assert lost == [f"{covered} pixels of objects are covered by other objects", "1 object is covered entirely"]
    assert len(masks(dataset, "two")) == 1
    rows, _ = again(read_dataset(path), tmp_path / "rows", "rle-csv")
    assert len(masks(rows, 1)) == 2


@pytest.mark.parametrize("to", WRITERS)
def test_objects_without_a_pixel_are_only_in_coco(tmp_path: Path, to: str) -> None:
    nothing = RLE.from_dense(np.zeros(SIZE, dtype=bool)).to_coco()
    dataset = read_dataset(write_scene(tmp_path / "in", {"segmentation": nothing, "bbox": [1, 2, 3, 4]}))
    lost = [loss for loss in convert(dataset, tmp_path / "out", to) if "no pixel" in loss]
    assert lost == ([] if to == "coco" else ["1 object covers no pixel and is left out"])
    found = read_dataset(tmp_path / "out", hints=Hints(missing="empty") if to == "object-masks" else NO_HINTS)
    number = [record.path.stem for record in found.records].index("empty")
    assert len(found.annotations(number)) == (to == "coco")


def test_files_of_objects_are_told_from_images_of_similar_names(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "in")
    content = json.loads(path.read_text())
    content["images"][0]["file_name"] = "frame_000_12.png"
    content["categories"][0]["name"] = "red_cell: A/B"
    path.write_text(json.dumps(content))
    (tmp_path / "in" / "images" / "one.png").rename(tmp_path / "in" / "images" / "frame_000_12.png")
    dataset, lost = again(read_dataset(path, strict=True), tmp_path / "out", "object-masks")
    assert lost == ["1 name of a class is changed, because a file name cannot hold it"]
    assert [category.name for category in dataset.categories] == ["red-cell- A-B", "rod"]
    number = [record.path.stem for record in dataset.records].index("frame_000_12")
    assert {mask.counts for _, mask in masks(dataset, number)} == {mask.counts for _, mask in expected("one")}


def test_classes_whose_names_become_the_same_are_told_apart(tmp_path: Path) -> None:
    classes = ["a/b", "a:b", "a-b", "a|b", "rod"]
    builder = DatasetBuilder(tmp_path)
    for number, label in enumerate(classes):
        save_images(tmp_path / "in", (str(number),))
        builder.add_category(number, label)
        builder.add_image(number, tmp_path / "in" / f"{number}.png", *SIZE, {"split": ("train", "val")[number % 2]})
        builder.add_annotation(RawAnnotation(number, number, bitmap=scene()["one"][0].mask))
    dataset, lost = again(builder.build(), tmp_path / "out", "object-masks")
    assert lost == ["3 names of classes are changed, because a file name cannot hold them"]
    found = {record.path.stem: masks(dataset, index)[0][0] for index, record in enumerate(dataset.records)}
    assert found == {"0": "a-b-2", "1": "a-b-3", "2": "a-b", "3": "a-b-4", "4": "rod"}


@pytest.mark.parametrize("to", ["cvat", "label-studio"])
def test_characters_of_classes_that_xml_cannot_hold_are_changed(tmp_path: Path, to: str) -> None:
    classes = ["a\x01b", "a\x02b", "\ufffe", "\x0b", "\x7f\x85\t\U0001f642", "one\rtwo"]
    save_images(tmp_path / "in", ("one",))
    builder = DatasetBuilder(tmp_path)
    builder.add_image(1, tmp_path / "in" / "one.png", *SIZE, {})
    for number, label in enumerate(classes):
        builder.add_category(number, label)
        builder.add_annotation(RawAnnotation(1, number, bitmap=scene()["one"][0].mask))
    dataset, lost = again(builder.build(), tmp_path / "out", to)
    assert lost == ["5 names of classes are changed, because XML cannot hold them"]
    names = ["a-b", "a-b-2", "-", "--2", "\x7f\x85\t\U0001f642", "one-two"]
    assert [dataset.categories[label].name for label in dataset.annotations(0).labels] == names
    if to == "label-studio":
        interface = ElementTree.parse(tmp_path / "out" / "interface.xml")
        assert [label.get("value") for label in interface.iter("Label")] == names * 3


@pytest.mark.parametrize("to", WRITERS)
def test_odd_names_of_images_and_classes_come_back(tmp_path: Path, to: str) -> None:
    names = ["a b.png", "ü%20x.png", "q#1.png", "train_1.png", "x_mask.png", "comma,name.png", "A.png", "nan.png"]
    classes = ["red, green", 'a"quote', "x<y>&z", "ünï", "1.5", "new\nline", "semi;colon", "|"]
    builder = DatasetBuilder(tmp_path)
    for number, (name, label) in enumerate(zip(names, classes, strict=True)):
        save_images(tmp_path / "in", (name.removesuffix(".png"),))
        builder.add_category(number, label)
        builder.add_image(number, tmp_path / "in" / name, *SIZE, {})
    for number in range(len(names)):
        bitmap = np.zeros(SIZE, dtype=bool)
        bitmap[3 : 9 + number, 4:20] = True
        builder.add_annotation(RawAnnotation(number, number, bitmap=bitmap))
    dataset, lost = again(builder.build(), tmp_path / "out", to)
    changed = "4 names of classes are changed, because a file name cannot hold them"
    assert lost == ([changed] if to == "object-masks" else [])
    found = {}
    for index, record in enumerate(dataset.records):
        ((label, mask),) = masks(dataset, index)
        found[record.path.name] = (label, mask.area)
    said = [label if to != "object-masks" else re.sub('["<>|\n]', "-", label) for label in classes]
    assert found == {name: (said[i], 16 * (6 + i)) for i, name in enumerate(names)}


def test_scores_are_kept_where_the_format_has_them(tmp_path: Path) -> None:
    annotated = read_dataset(write_scene(tmp_path / "in"), strict=True)
    scores = np.linspace(0.9, 0.5, len(annotated.columns["labels"]))
    dataset = replace(annotated, columns={**annotated.columns, "scores": torch.from_numpy(scores)})
    for to, writer in WRITERS.items():
        lost = convert(dataset, tmp_path / to, to)
        assert ("5 objects lose their score" in lost) == ("scores" not in writer.holds), to
    coco = json.loads((tmp_path / "coco" / "annotations.json").read_text())
    assert [entry["score"] for entry in coco["annotations"]] == scores.tolist()
    labelme = json.loads((tmp_path / "labelme" / "one.json").read_text())
    assert [shape["score"] for shape in labelme["shapes"]] == scores[:4].tolist()
    cvat = ElementTree.parse(tmp_path / "cvat" / "annotations.xml")
    assert [float(a.text or "") for a in cvat.iter("attribute") if a.get("name") == "score"] == scores.tolist()
    tasks = json.loads((tmp_path / "label-studio" / "tasks.json").read_text())
    assert not any("annotations" in task for task in tasks)
    assert [result["score"] for result in tasks[0]["predictions"][0]["result"]] == scores[:4].tolist()
    assert read_dataset(tmp_path / "label-studio").choices[0].endswith("the predictions are read as annotations")


def test_a_better_object_covers_others_in_a_label_image(tmp_path: Path) -> None:
    square = {"segmentation": [[0, 0, 56, 0, 56, 40, 0, 40]]}
    annotated = read_dataset(write_scene(tmp_path / "in", square, image=2))
    scores = torch.linspace(0.9, 0.5, len(annotated.columns["labels"]), dtype=torch.float64)
    dataset, _ = again(
        replace(annotated, columns={**annotated.columns, "scores": scores}), tmp_path / "out", "label-images"
    )
    assert expected("two")[0] in masks(dataset, "two")
    assert len(masks(dataset, "two")) == 2


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
    (tmp_path / "in" / "t.csv").write_text("ImageId,EncodedPixels\none,1 5 41 5\none,400 3\ntwo.png,\n")
    convert(read_dataset(tmp_path / "in"), tmp_path / "out", "rle-csv")
    assert (tmp_path / "out" / "annotations.csv").read_text() == (
        "ImageId,EncodedPixels\none,1 5 41 5\none,400 3\ntwo.png,\n"
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
        assert convert(dataset, out, "rle-csv", link=link) == ["1 image has no file and was not copied"]
        images = sorted((out / "images").iterdir())
        assert [image.name for image in images] == ["one.png", "one_2.png"]
        assert [image.is_symlink() for image in images] == [link] * 2
        assert images[1].read_bytes() == (tmp_path / "in" / "more" / "one.png").read_bytes()


def test_files_that_are_no_images_are_not_copied(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "in")
    (tmp_path / "in" / "images" / "empty.png").write_text("a secret")
    dataset = read_dataset(path)
    for link in (False, True):
        (lost,) = convert(dataset, tmp_path / str(link), "coco", link=link)
        assert lost.startswith("1 file cannot be used and was not copied, first: ")
        assert "empty.png: expected an image, found a file of another kind" in lost
        assert not list((tmp_path / str(link)).rglob("empty.png"))
        with pytest.raises(ImageError, match=r"empty\.png: expected an image"):
            convert(dataset, tmp_path / "strict", "coco", link=link, strict=True)
        assert not (tmp_path / "strict").exists()


def test_images_of_another_size_than_their_record_are_not_copied(tmp_path: Path) -> None:
    path = write_small(tmp_path, "in", 2)
    content = json.loads(path.read_text())
    content["images"][1]["height"] += 1
    path.write_text(json.dumps(content))
    dataset = read_dataset(path)
    (lost,) = convert(dataset, tmp_path / "out", "yolo")
    assert lost.startswith(f"1 file cannot be used and was not copied, first: {tmp_path}/in/1.png: expected 80 x 65 ")
    assert [record.path.name for record in read_dataset(tmp_path / "out").records] == ["0.png"]
    with pytest.raises(ImageError, match=r"1\.png: expected 80 x 65 pixels, the size of image 2 .*, found 80 x 64"):
        convert(dataset, tmp_path / "strict", "yolo", strict=True)


@pytest.mark.parametrize("to", WRITERS)
def test_file_names_that_are_no_text_are_changed(tmp_path: Path, to: str) -> None:
    path = write_small(tmp_path, "in", 3)
    content = json.loads(path.read_text())
    for image, name in zip(content["images"], (b"zell\xf6.png", b"a\nb.png", b" c .png"), strict=True):
        (tmp_path / "in" / image["file_name"]).rename(tmp_path / "in" / os.fsdecode(name))
        image["file_name"] = os.fsdecode(name)
    path.write_text(json.dumps(content))
    lost = convert(read_dataset(path), tmp_path / "out", to)
    assert "3 names of images are changed: they are no text in UTF-8, or hold control codes or outer spaces" in lost
    dataset = read_dataset(tmp_path / "out")
    assert sorted(record.path.name for record in dataset.records) == ["a_b.png", "c.png", "zell_.png"]
    assert len(dataset.columns["labels"]) == len(content["annotations"])


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = read_dataset(write_scene(tmp_path / "in"))
    out = tmp_path / "out"
    out.mkdir()

    def interrupt(*_: object) -> None:
        assert list(out.rglob("*.png"))
        raise KeyboardInterrupt

    monkeypatch.setattr(WRITERS["yolo"], "write", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(dataset, out, "yolo")
    assert list(out.iterdir()) == []


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
    path.write_text("\n".join(rows_of(annotations_of([bitmap]), yolo.holds, Counter())))
    ((_, _, points),) = read_labels(path).objects
    size = (bitmap.shape[0], bitmap.shape[1])
    assert RLE(size, polygons_to_rle([points * size[::-1]], size)) == RLE.from_dense(bitmap)


def bitmaps_of_one_size(least: int, most: int) -> st.SearchStrategy[list[np.ndarray]]:
    sides = st.tuples(st.integers(2, 14), st.integers(2, 14))
    return sides.flatmap(lambda size: st.lists(arrays(np.bool_, size).filter(np.any), min_size=least, max_size=most))


@settings(max_examples=5)
@given(bitmaps_of_one_size(0, 4))
def test_any_masks_come_back_equal(tmp_path_factory: pytest.TempPathFactory, bitmaps: list[np.ndarray]) -> None:
    folder = tmp_path_factory.mktemp("any")
    size = (bitmaps[0].shape[0], bitmaps[0].shape[1]) if bitmaps else SIZE
    save_picture(folder / "a.png", np.zeros(size, dtype=np.uint8))
    builder = DatasetBuilder(folder)
    builder.add_category(1, "cell")
    builder.add_image("a", folder / "a.png", *size, {})
    for bitmap in bitmaps:
        builder.add_annotation(RawAnnotation("a", 1, bitmap=bitmap))
    own = sorted(RLE.from_dense(bitmap).counts for bitmap in bitmaps)
    unable = {"label-images"} | ({"object-masks"} if not bitmaps else set())  # overlaps; a set without objects
    for to in WRITERS.keys() - unable:
        convert(builder.build(), folder / to, to)
        # The runs of a few masks on so small an image can look like those of the other order.
        dataset = read_dataset(folder / to, hints=Hints(order="down") if to == "rle-csv" else NO_HINTS)
        found = [mask.counts for _, mask in masks(dataset)]
        assert found == (sorted(set(own)) if to == "yolo" else own), to  # a row that repeats another is one object


@pytest.mark.slow
def test_real_sets_come_back_equal(shared: Path, tmp_path: Path) -> None:
    for name in ("masks_dsb2018", "labelme/polygons", "coco/rle_crowds", "voc"):
        first = read_dataset(shared / "data" / "formats" / name)
        for to in ("coco", "rle-csv", "labelme", "yolo", "cvat", "label-studio", "geojson", "object-masks"):
            dataset, _ = again(first, tmp_path / name / to, to)
            stems = [record.path.stem for record in dataset.records]
            for index, record in enumerate(first.records):
                annotations = first.annotations(index)
                kept = np.flatnonzero(~annotations.crowd) if to != "coco" else None
                own = annotations.masks(kept)
                found = dataset.annotations(stems.index(record.path.stem)).masks()
                if to == "object-masks":  # files are sorted by class
                    found, own = (
                        sorted(masks, key=lambda mask: mask.counts if mask else b"") for masks in (found, own)
                    )
                assert found == own, (name, to)


@pytest.mark.slow
def test_training_on_every_format_gives_the_same_losses(shared: Path, tmp_path: Path) -> None:
    first = read_dataset(shared / "data" / "formats" / "masks_dsb2018")
    losses = []
    for to in ("coco", "rle-csv", "label-images", "object-masks", "labelme", "yolo"):
        dataset, _ = again(first, tmp_path / to, to)
        order = np.argsort([record.path.stem for record in dataset.records]).tolist()
        config = small_config(steps=20)
        train(config, dataset.subset(order), out=tmp_path / f"run {to}")
        losses.append((tmp_path / f"run {to}" / "metrics.jsonl").read_text().splitlines()[-1])
    found = [{key: value for key, value in json.loads(line).items() if "loss" in key} for line in losses]
    assert len(found[0]) > 4
    assert found == [found[0]] * 6
