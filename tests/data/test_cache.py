"""The cache of large data sets gives what reading gives, and is ignored whenever something has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data import cache
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.formats.annotation_files import coco, labelme
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


@pytest.mark.parametrize("switch", ["off", "small", "no folder", "missing image"])
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
    assert everything(read_dataset(path)) == everything(read_dataset(path))
    assert reads == [path, path]
    assert kept(path) == []


def test_strict_reading_and_other_images_are_kept_apart(path: Path, reads: list[Path]) -> None:
    read_dataset(path)
    with pytest.raises(ValueError, match="no image has this id"):
        read_dataset(path, strict=True)
    read_dataset(path, path.parent)
    assert len(reads) == 3


def test_ids_that_are_texts_are_kept(path: Path, reads: list[Path]) -> None:
    path.write_text(path.read_text().replace('"id": 7', '"id": "seven"'))
    assert everything(read_dataset(path)) == everything(read_dataset(path))
    assert reads == [path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of labelme files, whose reading counts as long, and its images in a folder beside it."""
    monkeypatch.setattr(cache, "LEAST_SECONDS", 0.0)
    monkeypatch.setenv("MASKRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(cache.SWITCH, raising=False)
    home = tmp_path / "data" / "set" / "json"
    home.mkdir(parents=True)
    (home.parent / "images").mkdir()
    for number in (1, 2):
        Image.new("RGB", (50, 40)).save(home.parent / "images" / f"{number}.png")
        shapes = [{"label": "hand", "points": [SQUARE[:2], SQUARE[2:4], SQUARE[4:6]]}, {"label": "hand"}]
        content = {"imagePath": f"{number}.png", "shapes": shapes, "imageHeight": 40, "imageWidth": 50}
        (home / f"{number}.json").write_text(json.dumps(content))
    for file in tmp_path.rglob("*.*"):
        os.utime(file, (1, 1))
    return home


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders of labelme files that were read."""
    found: list[Path] = []
    read = labelme.read

    def counted(path: Path, *given: Any, **named: Any) -> Dataset:
        found.append(path)
        return read(path, *given, **named)

    monkeypatch.setattr(labelme, "read", counted)
    return found


def test_the_second_opening_of_a_folder_reads_no_file_of_it(folder: Path, opened: list[Path]) -> None:
    first, second = read_dataset(folder), read_dataset(folder)
    assert opened == [folder]
    assert everything(first) == everything(second)
    assert len(first.problems) == 2
    assert len(kept(folder)) == 1


def larger(path: Path) -> None:
    Image.new("RGB", (60, 40)).save(path.parent / "images" / "1.png")
    os.utime(path.parent / "images" / "1.png", (1, 1))


FOLDER_CHANGES: list[Callable[[Path], object]] = [
    larger,
    lambda path: os.utime(path / "2.json", (2, 2)),
    lambda path: (path / "1.json").unlink(),
    lambda path: (path / "1.json").rename(path / "3.json"),
    lambda path: (path.parent / "meta.json").touch(),  # a JSON above may belong to the data set
    lambda path: (path.parent / "images" / "2.png").unlink(),
    lambda path: (path.parent / "imgs").mkdir(),  # a folder that may hold the images
]


@pytest.mark.parametrize("change", FOLDER_CHANGES)
def test_any_change_in_a_folder_is_noticed(
    change: Callable[[Path], object], folder: Path, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_dataset(folder)
    change(folder)
    again = read_dataset(folder)
    assert opened == [folder, folder]
    monkeypatch.setenv(cache.SWITCH, "0")
    assert everything(again) == everything(read_dataset(folder))


@pytest.mark.parametrize("switch", ["off", "quick", "changing", "missing image"])
def test_which_folders_are_not_kept(
    switch: str, folder: Path, opened: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    match switch:
        case "off":
            monkeypatch.setenv(cache.SWITCH, "0")
        case "quick":
            monkeypatch.setattr(cache, "LEAST_SECONDS", 60.0)
        case "changing":
            os.utime(folder / "1.json", (2**33, 2**33))
        case "missing image":
            (folder.parent / "images" / "1.png").unlink()
    read_dataset(folder)
    assert kept(folder) == []
    read_dataset(folder)
    assert opened == [folder, folder]
