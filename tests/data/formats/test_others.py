"""Formats that are known and not read are named, with the way to one that is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError
from small_scene import save_images, save_picture

JSONS = {
    "COCO panoptic JSON": {"images": [], "annotations": [{"segments_info": []}], "categories": []},
    "ADE20K JSON": {"annotation": {"filename": "a.jpg", "folder": "b"}},
    "a Hasty export": {"export_format_version": "1.0", "label_classes": [], "images": []},
    "FiftyOne": {"samples": []},
}


@pytest.mark.parametrize("name", JSONS)
def test_a_json_is_known_by_its_keys(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "project" / "annotations"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps(JSONS[name]))
    for path in (folder / "train.json", folder, tmp_path):
        with pytest.raises(DataError, match=rf"expected .* that is read \(coco, .*\), found {name}: \w+") as caught:
            read_dataset(path)
        assert "\n" not in str(caught.value)


FILES = {
    "cell_seg.npy": (b"\x93NUMPY", "Cellpose _seg.npy"),
    "a_atr.txt": (b"", "ADE20K"),
    "train.tfrecord": (b"", "TFRecord"),
    "a.dcm": (b"", "DICOM, a volume"),
    "boxes.xml": (b"<annotation><object><bndbox></bndbox></object></annotation>", "Pascal VOC boxes"),
    "polygons.xml": (
        b"<annotation><object><polygon><pt></pt></polygon></object></annotation>",
        "XML of the old LabelMe",
    ),
}


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_known_by_its_name_or_its_beginning(tmp_path: Path, file: str) -> None:
    content, name = FILES[file]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=f"found {name}: "):
        read_dataset(tmp_path)


def test_the_classes_of_ade20k_are_no_label_images(tmp_path: Path) -> None:
    save_images(tmp_path, ("1",), ".jpg")
    save_picture(tmp_path / "1_seg.png", np.zeros((40, 56, 3), dtype=np.uint8))
    save_picture(tmp_path / "1_parts_1.png", np.zeros((40, 56, 3), dtype=np.uint8))
    (tmp_path / "1_atr.txt").write_text("")
    with pytest.raises(DataError, match="found ADE20K: "):
        read_dataset(tmp_path)


REAL = {
    "ade20k/2021": "ADE20K JSON",
    "ade20k/made_up_ade20k2017": "ADE20K",
    "cellpose_seg_npy": "Cellpose _seg.npy",
    "coco_panoptic": "COCO panoptic JSON",
    "dicom_seg": "DICOM, a volume",
    "tfrecord": "TFRecord",
}


@pytest.mark.parametrize("folder", REAL)
def test_real_files(shared: Path, folder: str) -> None:
    with pytest.raises(DataError, match=f"found {REAL[folder]}: "):
        read_dataset(shared / "data" / "formats" / folder)
