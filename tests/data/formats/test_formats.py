"""Finding the format of a data set, and a new format added as docs/architecture.md says."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from maskrcnn.config import Category
from maskrcnn.data import formats
from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.convert import WRITERS
from maskrcnn.data.formats import find_format, read_dataset
from maskrcnn.data.hints import NO_HINTS, FormatName, Hints, WritableName
from maskrcnn.errors import DataError
from maskrcnn.evaluation.coco import evaluate_results
from maskrcnn.files.images import read_image
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.evaluate import evaluate
from maskrcnn.training.loop import train
from small_data import random_predictor, small_coco, small_config, write_small


class BoxTable:
    """The toy format: a CSV with the columns file, label, x, y, width, height. A module of these names does as well."""

    name = "box table"
    key = "box-table"
    takes = frozenset[str]()

    def recognise(self, path: Path) -> bool:
        return path.suffix == ".csv"

    def read(self, path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        builder = DatasetBuilder(path, strict=strict)
        for label in {row["label"] for row in rows}:
            builder.add_category(label, label)
        folder = images or path.parent
        for name in dict.fromkeys(row["file"] for row in rows):
            builder.add_image(name, folder / name, *read_image(folder / name).shape[:2], {})
        for row in rows:
            box = [float(row[key]) for key in ("x", "y", "width", "height")]
            builder.add_annotation(RawAnnotation(row["file"], row["label"], box=box))
        return builder.build()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small data set in the toy format, which is added to the formats."""
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, BoxTable()))
    content, images = small_coco(4)
    names = {category["id"]: category["name"] for category in content["categories"]}
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    path = tmp_path / "boxes.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "x", "y", "width", "height"])
        for entry in content["annotations"]:
            writer.writerow([f"{entry['image_id'] - 1}.png", names[entry["category_id"]], *entry["bbox"]])
    return path


@pytest.mark.slow
def test_a_new_format_is_read_trained_and_evaluated(table: Path, tmp_path: Path) -> None:
    dataset = read_dataset(table, strict=True)
    assert dataset.categories == (Category("blue", "blue"), Category("red", "red"))
    assert len(dataset) == 4
    config = small_config(steps=2)
    boxes_only = replace(config, model=replace(config.model, mask_head=None))
    summary = train(boxes_only, table, val=table, out=tmp_path / "run")
    assert summary.finished
    assert summary.report is not None
    assert evaluate(summary.model, dataset) == summary.report
    found = [
        {"image_id": record.image_id, "category_id": dataset.categories[label].id, "bbox": box, "score": 1.0}
        for i, record in enumerate(dataset.records)
        for label, box in zip(
            dataset.annotations(i).labels, dataset.annotations(i).annotated_boxes.tolist(), strict=True
        )
    ]
    assert evaluate_results(dataset, found).boxes["AP"] == pytest.approx(1)


def test_what_fits_no_format_or_two_is_refused(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (table.parent / "notes.txt").write_text("nothing")
    with pytest.raises(
        DataError,
        match=r"notes\.txt: expected a data set, .*, found a file \.txt; .*--format: coco, .*box-table",
    ):
        read_dataset(table.parent / "notes.txt")
    with pytest.raises(
        DataError, match=r"gone\.csv: no such file or folder, expected a data set: annotations or the .{20,30}$"
    ):
        read_dataset(table.parent / "gone.csv")
    monkeypatch.setattr(formats, "FORMATS", (BoxTable(), BoxTable()))
    with pytest.raises(DataError, match=r"found box table in .* and box table in "):
        read_dataset(table)


def test_a_folder_of_many_data_sets_is_not_the_one_that_lies_deepest(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 3), 10, np.uint8)
    for folder in ("one/scene/deep", "images"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / folder / "a.png")
    Image.fromarray(pixels).save(tmp_path / "one/scene/deep/a_seg.png")
    (tmp_path / "one/scene/deep/a_atr.txt").write_text("")
    assert find_format(tmp_path).format.key == "ade20k"
    write_small(tmp_path / "two", "train", 2)
    with pytest.raises(DataError, match=r"found ADE20K in .*one and COCO JSON in .*two; name one of them, or say"):
        find_format(tmp_path)
    assert find_format(tmp_path, Hints(format="ade20k")).places == {"": tmp_path}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"", "a.json: the file is empty; write it again"),
        ("a.json", b"hello", "a.json: JSON begins with { or [, this does not; write it again"),
        ("a.geojson", b"", "a.geojson: the file is empty; write it again"),
        ("a.csv", "image,mask\n".encode("utf-16"), "a.csv: its text is UTF-16; save it as UTF-8"),
        ("a.xml", "<annotations/>".encode("utf-16"), "a.xml: its text is UTF-16; save it as UTF-8"),
    ],
)
def test_a_file_that_is_no_text_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / "images").mkdir()
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError) as caught:
            read_dataset(path)
        assert str(caught.value).startswith(f"{path}: expected a data set, or a folder with one, found a f")
        assert str(caught.value).endswith(f"; {said}")


def test_what_lies_in_a_folder_without_a_data_set_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found a folder with nothing; name another folder"):
        read_dataset(tmp_path)
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(
        DataError, match=r"with a\.json, unpacked/; a\.json is a JSON list without keys; if it is one of"
    ):
        read_dataset(tmp_path)
    (tmp_path / "a.json").write_text('{"shapes": [], "imagePath')
    with pytest.raises(DataError, match=r"; a\.json: not JSON .*line 1 column 16 .*; the file may be truncated$"):
        read_dataset(tmp_path)


def test_a_data_set_may_lie_some_folders_below(tmp_path: Path) -> None:
    write_small(tmp_path / ".hidden", "train", 2)
    write_small(tmp_path / "archive" / "set", "train", 1)
    assert len(read_dataset(tmp_path)) == 1
    write_small(tmp_path / "archive" / "valid", "other", 3)
    with pytest.raises(DataError, match=r"found COCO JSON in .*archive/set, .*archive/valid; name one of the folders"):
        read_dataset(tmp_path)
    (tmp_path / "archive" / "set").rename(tmp_path / "archive" / "train")
    assert len(read_dataset(tmp_path)) == 4
    assert len(read_dataset(tmp_path, hints=Hints(split="val"))) == 3


def test_images_may_lie_beside_the_first_folder_of_annotations_far_below(tmp_path: Path) -> None:
    for split, count in (("train", 1), ("val", 2)):
        path = write_small(tmp_path / "images", split, count)
        (tmp_path / "labels" / split).mkdir(parents=True)
        path.rename(tmp_path / "labels" / split / "all.json")
    dataset = read_dataset(tmp_path)
    assert [record.path.relative_to(tmp_path / "images").as_posix() for record in dataset.records] == [
        "train/0.png",
        "val/0.png",
        "val/1.png",
    ]
    assert not any(record.fault for record in dataset.records)


def test_suffixes_may_be_in_upper_case_and_files_of_macos_are_no_data(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 1)
    path.rename(tmp_path / "LABELS.JSON")
    (tmp_path / "._LABELS.JSON").write_bytes(b"\0\5\x16\7")
    assert len(read_dataset(tmp_path)) == 1


def test_the_files_of_cocos_other_tasks_are_not_read(tmp_path: Path) -> None:
    for split, count in (("train", 1), ("val", 2)):
        path = write_small(tmp_path, f"{split}2017", count)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        for task in ("captions", "person_keypoints", "instances"):
            (tmp_path / "annotations" / f"{task}_{split}2017.json").write_bytes(path.read_bytes())
        path.unlink()
    assert len(read_dataset(tmp_path)) == len(read_dataset(tmp_path / "annotations")) == 3
    assert len(read_dataset(tmp_path, hints=Hints(split="val"))) == 2


def test_a_json_of_another_name_is_recognised_by_how_it_begins(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 1)
    assert len(read_dataset(path.rename(tmp_path / "annotations.coco"), tmp_path / "train")) == 1


def test_a_model_is_evaluated_on_a_data_set_or_its_path(tmp_path: Path) -> None:
    path = write_small(tmp_path, "val", 2)
    model = random_predictor()
    assert evaluate(model, path) == evaluate(model, read_dataset(path))


# The data sets in folders of real files, and how many of them there are.
REAL = {
    "ade20k": ("ade20k", 2),
    "cellpose_seg_npy": ("label-images", 1),
    "cityscapes": ("cityscapes", 1),
    "coco": ("coco", 7),
    "coco_panoptic": ("coco-panoptic", 1),
    "cvat": ("cvat", 3),
    "darwin": ("darwin", 1),
    "datumaro": ("datumaro", 1),
    "geojson": ("geojson", 1),
    "imagej_roi": ("imagej", 1),
    "kitti": ("kitti", 1),
    "label_studio": ("label-studio", 2),
    "labelbox": ("labelbox", 1),
    "labelme": ("labelme", 2),
    "lvis": ("coco", 1),
    "mapillary_vistas": ("mapillary-vistas", 1),
    "masks_colour": ("label-images", 1),
    "masks_dsb2018": ("object-masks", 1),
    "masks_label_image": ("label-images", 2),
    "masks_one_file_an_object": ("object-masks", 1),
    "napari_shapes": ("napari", 1),
    "open_images": ("open-images", 1),
    "rle_csv": ("rle-csv", 4),
    "segment_anything": ("coco", 1),
    "supervisely": ("supervisely", 2),
    "via": ("via", 2),
    "voc": ("voc", 1),
    "vott": ("vott", 1),
    "yolo_seg": ("yolo", 1),
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_folder_is_recognised_as_what_it_is_and_as_no_other(shared: Path, name: str) -> None:
    key, count = REAL[name]
    sources = sorted((shared / "data" / "formats" / name).rglob("SOURCE.txt"))
    assert [find_format(source.parent).format.key for source in sources] == [key] * count


def test_every_real_folder_is_tested(shared: Path) -> None:
    folders = {folder.name for folder in (shared / "data" / "formats").iterdir() if folder.is_dir()}
    assert folders == {*REAL, "dicom_seg", "tfrecord"}  # tests/data/formats/test_others.py has these two


def test_a_folder_of_images_must_be_one(tmp_path: Path) -> None:
    path = write_small(tmp_path, "val", 1)
    assert read_dataset(path, str(tmp_path / "val")).records[0].path == tmp_path / "val" / "0.png"
    for wrong in (tmp_path / "no", path):
        with pytest.raises(DataError, match="expected the folder of the images, found no folder there"):
            read_dataset(path, wrong)


def test_every_format_can_be_named() -> None:
    assert set(get_args(FormatName)) == {format.key for format in formats.FORMATS}
    assert set(get_args(WritableName)) == set(WRITERS)


def test_columns_say_that_a_table_has_run_lengths(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("a,b\n1.png,1 2\n")
    with pytest.raises(DataError, match=r"table\.csv: expected a data set, .* found a CSV with the columns a, b"):
        find_format(tmp_path / "table.csv")
    assert find_format(tmp_path / "table.csv", Hints(columns=("image=a", "mask=b"))).format.key == "rle-csv"
