"""Formats that are known and not read are named, with the way to one that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError

JSONS = {
    "an Encord export": [{"label_hash": "1", "data_hash": "2", "data_units": {"2": {"labels": {"objects": []}}}}],
    "a Segments.ai release": {"name": "v1", "dataset": {"task_type": "segmentation-bitmap", "samples": []}},
    "FiftyOne": {"samples": []},
    "Label Studio's JSON-MIN": [{"image": "a.png", "id": 1, "label": [], "annotator": 1, "annotation_id": 1}],
}


@pytest.mark.parametrize("name", JSONS)
def test_a_json_is_known_by_its_keys(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "project" / "annotations"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps(JSONS[name]))
    for path in (folder / "train.json", folder, tmp_path):
        with pytest.raises(DataError, match=rf"expected .* that is read, found {name}: \w+") as caught:
            read_dataset(path)
        assert "\n" not in str(caught.value)


FILES = {
    "train.tfrecord": (b"", "TFRecord"),
    "coco_train.record-00003-of-00010": (b"", "TFRecord"),
    "train-00000-of-00002.parquet": (b"PAR1", "a table of Hugging Face's datasets"),
    "data-00000-of-00001.arrow": (b"", "a table of Hugging Face's datasets"),
    "metadata.jsonl": (b'{"file_name": "a.png", "objects": {"bbox": []}}\n{}', "a Hugging Face image folder"),
    "heart.nii.gz": (b"", "NIfTI, a volume"),
    "labels.xlsx": (b"PK", "a spreadsheet"),
    "export.zip": (b"PK", "an archive"),
    "set.tar.gz": (b"", "an archive"),
    "a.dcm": (b"", "DICOM, a volume"),
    "1.2.840.113619": (bytes(128) + b"DICM", "DICOM, a volume"),
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


REAL = {
    "dicom_seg": "DICOM, a volume",
    "tfrecord": "TFRecord",
}


@pytest.mark.parametrize("folder", REAL)
def test_real_files(shared: Path, folder: str) -> None:
    with pytest.raises(DataError, match=f"found {REAL[folder]}: "):
        read_dataset(shared / "data" / "formats" / folder)
