"""The cache of large data sets gives what reading gives, and is ignored whenever something has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data import cache
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy

SQUARE = [10.5, 5, 18, 5, 18, 13.25, 10, 13]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A COCO JSON with two images, an annotation and a broken one; every file is large enough for the cache."""
    monkeypatch.setattr(cache, "LEAST_BYTES", 1)
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(cache.SWITCH, raising=False)
    folder = tmp_path / "data" / "set"
    folder.mkdir(parents=True)
    for number in (1, 2):
        (folder / f"{number}.png").touch()
    base = {"image_id": 2, "category_id": 3, "bbox": [10, 5, 8, 8.25]}
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": 40, "width": 50, "light": "day"} for i in (1, 2)],
        "annotations": [{**base, "id": 7, "segmentation": [SQUARE]}, {**base, "image_id": 9}],
        "categories": [{"id": 3, "name": "hand", "keypoints": ["tip", "palm"], "skeleton": [[1, 2]]}],
    }
    file = folder / "set.json"
    file.write_text(json.dumps(content))
    return file


def kept(path: Path) -> list[Path]:
    return sorted((path.parents[2] / "cache").rglob("*.safetensors"))


def everything(dataset: Dataset) -> object:
    columns = {name: as_numpy(column).tolist() for name, column in sorted(dataset.columns.items())}
    said = (dataset.path, dataset.problems, dataset.notes, dataset.choices, dataset.format, dataset.categories)
    return list(dataset.records), repr(columns), dataset.segmentations[0].tobytes(), said, dataset.records.rows.tolist()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were parsed."""
    found: list[Path] = []
    parse = coco._read

    def counted(path: Path, images: Path | None, strict: bool) -> Dataset:
        found.append(path)
        return parse(path, images, strict)

    monkeypatch.setattr(coco, "_read", counted)
    return found


def test_the_second_opening_parses_nothing_and_gives_the_same(path: Path, reads: list[Path]) -> None:
    first, second = read_dataset(path), read_dataset(path)
    assert reads == [path]
    assert everything(first) == everything(second)
    np.testing.assert_array_equal(first.annotations(1).rle(0).dense(), second.annotations(1).rle(0).dense())
    assert not list(path.parent.glob(".*")), "nothing is written beside the data"


def damaged(path: Path) -> None:
    (file,) = kept(path)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def cut_off(path: Path) -> None:
    (file,) = kept(path)
    file.write_bytes(file.read_bytes()[:-7])


def foreign(path: Path) -> None:
    (file,) = kept(path)
    file.write_bytes(b"something else")


def other_content(path: Path) -> None:
    """Of the same size and time."""
    stat = path.stat()
    path.write_text(path.read_text().replace("18, 13.25", "18, 14.25"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES: list[Callable[[Path], object]] = [
    damaged,
    cut_off,
    foreign,
    other_content,
    lambda path: os.utime(path, (1, 1)),
    lambda path: (path.parent / "1.png").rename(path.parent / "renamed.png"),
    lambda path: (path.parent / "set").mkdir(),  # a folder that may hold the images
]


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_noticed(change: Callable[[Path], object], path: Path, reads: list[Path]) -> None:
    read_dataset(path)
    change(path)
    again = read_dataset(path)
    assert reads == [path, path]
    assert everything(again) == everything(replace(coco._read(path, None, False), format=again.format))


@pytest.mark.parametrize("switch", ["off", "small", "no folder", "missing image", "text ids"])
def test_what_is_not_kept(switch: str, path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    match switch:
        case "off":
            monkeypatch.setenv(cache.SWITCH, "0")
        case "small":
            monkeypatch.setattr(cache, "LEAST_BYTES", 1 << 20)
        case "no folder":
            (path.parents[2] / "cache").touch()
        case "missing image":
            (path.parent / "2.png").unlink()
        case "text ids":
            path.write_text(path.read_text().replace('"id": 7', '"id": "seven"'))
    assert everything(read_dataset(path)) == everything(read_dataset(path))
    assert reads == [path, path]
    assert kept(path) == []


def test_strict_reading_and_other_images_are_kept_apart(path: Path, reads: list[Path]) -> None:
    read_dataset(path)
    with pytest.raises(ValueError, match="no image has this id"):
        read_dataset(path, strict=True)
    read_dataset(path, path.parent)
    assert len(reads) == 3
