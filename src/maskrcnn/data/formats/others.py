"""Formats that are recognised and not read, each with the way from it to one that is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from maskrcnn.files.json_file import json_outline

_ENTRIES = 200  # of a folder, that are looked at
_DEPTH = 8  # folders below
_FILES = 1000
_BYTES = 1 << 16  # of an XML, that are looked at
_DATUMARO = "convert it to COCO with datumaro: `datum convert -i PATH -if {} -f coco_instances -o OUT`"
_HUGGING_FACE = "write it as COCO JSON with the `datasets` library of Hugging Face"
_SEGMENTS_AI = "export it with `segments.utils.export_dataset(dataset, export_format='coco-instance')`"
_SLICES = "save its slices as images and label images"


class Other(NamedTuple):
    """A format, and how to get from it to one that is read."""

    name: str
    way: str


# Keys of a JSON at the depths 1 and 2.
_BY_KEYS: tuple[tuple[frozenset[str], Other], ...] = tuple(
    (frozenset(keys.split()), other)
    for keys, other in (
        ("label_hash data_units", Other("an Encord export", "write it as COCO JSON with Encord's SDK")),
        ("dataset task_type samples", Other("a Segments.ai release", _SEGMENTS_AI)),
        ("annotation_id annotator", Other("Label Studio's JSON-MIN", "export the project as JSON")),
        ("file_name objects", Other("a Hugging Face image folder", _HUGGING_FACE)),
        ("samples", Other("FiftyOne", "export it in FiftyOne with `dataset_type=fo.types.COCODetectionDataset`")),
    )
)
_BY_ELEMENT = (
    (b"<bndbox>", Other("Pascal VOC boxes", "masks need SegmentationObject; for boxes alone, write COCO JSON")),
    (b"<pt>", Other("XML of the old LabelMe", _DATUMARO.format("label_me"))),
)
_BY_NAME = (
    (r"\.(tf)?records?(-\d+-of-\d+)?$", Other("TFRecord", _DATUMARO.format("tf_detection_api"))),
    (r"\.(parquet|arrow)$", Other("a table of Hugging Face's datasets", _HUGGING_FACE)),
    (r"\.(xlsx?|ods)$", Other("a spreadsheet", "save its table as CSV in UTF-8")),
    (r"\.nii(\.gz)?$", Other("NIfTI, a volume", _SLICES)),
    (r"\.(zip|tar|tar\.\w+|tgz|7z|rar)$", Other("an archive", "unpack it, and name its folder")),
)
_DICOM = Other("DICOM, a volume", _SLICES)


def recognise_other(path: Path) -> Other | None:
    """The format of a file, or of the first known file in a folder; None if there is none."""
    files = islice(_files(path, _DEPTH), _FILES)
    return next((other for file in files if (other := _of_file(file))), None)


def _files(path: Path, depth: int) -> Iterator[Path]:
    """The file, or the first files of a folder and of the folders below."""
    if not path.is_dir():
        yield path
        return
    entries = sorted(islice(path.iterdir(), _ENTRIES))
    yield from (entry for entry in entries if entry.is_file())
    for entry in entries:
        if entry.is_dir() and depth:
            yield from _files(entry, depth - 1)


def _of_file(file: Path) -> Other | None:
    for ending, other in _BY_NAME:
        if re.search(ending, file.name.lower()):
            return other
    suffix = file.suffix.lower()
    unnamed = suffix in ("", ".ima") or suffix[1:].isdecimal()  # files of a DICOM server are named by numbers and dots
    if suffix == ".dcm" or (unnamed and _beginning(file)[128:132] == b"DICM"):
        return _DICOM
    if suffix == ".xml":
        beginning = _beginning(file)
        return next((other for element, other in _BY_ELEMENT if element in beginning), None)
    if suffix not in (".json", ".jsonl", ".ndjson"):
        return None
    outline = json_outline(file)
    if outline is None:
        return None
    keys = {key.replace(" ", "_") for key in outline.keys[0] | outline.keys[1]}
    return next((other for wanted, other in _BY_KEYS if wanted <= keys), None)


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_BYTES)
    except OSError:
        return b""
