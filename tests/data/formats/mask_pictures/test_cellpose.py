"""Cellpose's `_seg.npy`: a pickled dictionary, of which only arrays and plain values are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, save_picture, scene


def labels(name: str) -> np.ndarray:
    picture = np.zeros(SIZE, dtype=np.uint16)
    for number, thing in enumerate(scene()[name], start=1):
        picture[thing.mask] = number
    return picture


def save(path: Path, **changes: Any) -> None:
    """Writes what Cellpose writes, with other values for some keys."""
    own = labels("one")
    whole = {
        "outlines": own,
        "masks": own,
        "flows": [np.zeros((2, *SIZE), np.float32), [], np.array([None, "x"], dtype=object)],
        "ismanual": np.zeros(4, bool),
        "filename": Path("/data/one.png"),
        "diameter": np.float64(30),
        "chan_choose": [0, 0],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, {**whole, **changes}, allow_pickle=True)  # type: ignore[arg-type]


@pytest.mark.parametrize(("images", "files"), [("", ""), ("images", "masks"), ("images", "images")])
def test_masks_are_a_label_image(tmp_path: Path, images: str, files: str) -> None:
    save_images(tmp_path / images)
    save(tmp_path / files / "one_seg.npy")
    save(tmp_path / files / "two_seg.npy", masks=labels("two"))
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "label images"
    assert len(dataset) == 2
    assert [masks(dataset, name) for name in ("one", "two")] == [expected(name, "object") for name in ("one", "two")]


def test_a_file_of_numpy_1_is_read_too(tmp_path: Path) -> None:
    save_images(tmp_path, ("one",))
    save(tmp_path / "one_seg.npy", filename="one.png")
    file = tmp_path / "one_seg.npy"
    longer, shorter = b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray"
    content = file.read_bytes()
    assert longer in content
    head, frame = content.split(b"\x80\x04", 1)
    file.write_bytes(head + b"\x80\x04" + frame[9:].replace(longer, shorter))  # without the length of the frame
    assert masks(read_dataset(tmp_path, strict=True)) == expected("one", "object")


def test_a_picture_beside_it_comes_first(tmp_path: Path) -> None:
    save_images(tmp_path, ("one",))
    save(tmp_path / "one_seg.npy", masks=labels("two"))
    save_picture(tmp_path / "one_cp_masks.tif", labels("one"))
    dataset = read_dataset(tmp_path, strict=True)
    assert masks(dataset) == expected("one", "object")


class Command:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch canary",)


def test_code_in_it_is_never_run_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_images(tmp_path, ("one", "two", "three", "four", "five", "six", "seven"))
    save(tmp_path / "one_seg.npy")
    save(tmp_path / "two_seg.npy", flows=Command())
    save(tmp_path / "three_seg.npy", masks=np.zeros((3, *SIZE), np.uint16))
    save(tmp_path / "four_seg.npy", masks=labels("one")[1:])
    np.save(tmp_path / "five_seg.npy", labels("one"))
    (tmp_path / "six_seg.npy").write_bytes((tmp_path / "one_seg.npy").read_bytes()[:400])
    save(tmp_path / "seven_seg.npy")
    header = (tmp_path / "seven_seg.npy").read_bytes()
    (tmp_path / "seven_seg.npy").write_bytes(header.replace(b"'shape': ()", b"'shape': (("))
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one"]
    assert not (tmp_path / "canary").exists()
    five, four, seven, six, three, two = sorted(dataset.problems)
    assert "five_seg.npy: expected a dictionary, found an array of uint16" in five
    assert "expected masks of 56 x 40 pixels, the size of the image, found 56 x 39" in four
    assert "seven_seg.npy: not a whole .npy file" in seven
    assert "six_seg.npy: the pickle in it cannot be read" in six
    assert "expected masks of one image, found the shape (3, 40, 56)" in three
    assert "two_seg.npy: refused, because it asks for " in two
    assert two.endswith("no code in it was run; save the masks in Cellpose as PNG or TIFF")
    with pytest.raises(DataError, match=r"image (two|three|four|five|six|seven): "):
        read_dataset(tmp_path, strict=True)


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "cellpose_seg_npy", strict=True)
    assert (dataset.records[0].width, dataset.records[0].height) == (310, 281)
    found = objects(dataset, "caulo_15")
    assert len(found) == 21
    assert sum(area for _, area, _ in found) == 310 * 281 - 73570
    assert found[:3] == [
        ("object", 626, [47, 0, 88, 64]),
        ("object", 269, [184, 0, 214, 14]),
        ("object", 675, [162, 0, 240, 85]),
    ]
