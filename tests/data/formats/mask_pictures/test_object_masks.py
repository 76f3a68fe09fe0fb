"""Masks with one file an object: the layouts, and files that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import expected, masks, objects, save_images, save_picture, scene


def write_bowl(folder: Path) -> None:
    """The layout of the Data Science Bowl 2018."""
    for name, things in scene().items():
        save_images(folder / name / "images", (name,))
        for number, thing in enumerate(things):
            save_picture(folder / name / "masks" / f"{number:04x}.png", thing.mask.astype(np.uint8) * 255)


def write_named(folder: Path, masks_folder: str = "annotations") -> None:
    """The layout of pycococreator."""
    save_images(folder / "images", suffix=".jpg")
    for name, things in scene().items():
        for number, thing in enumerate(things):
            save_picture(folder / masks_folder / f"{name}_{thing.name}_{number}.png", thing.mask.astype(np.uint8))


def test_folders_of_images_and_masks(tmp_path: Path) -> None:
    write_bowl(tmp_path / "stage1_train")
    save_images(tmp_path / "stage1_train" / "test" / "images", ("test",))
    for path in (tmp_path / "stage1_train", tmp_path):
        dataset = read_dataset(path, strict=True)
        assert dataset.format == "masks with one file an object"
        assert masks(dataset, "one") == expected("one", "object")
        assert masks(dataset, "two") == expected("two", "object")
        assert "1 image without annotations is left out, first: test.png" in dataset.choices[0]
    empty = read_dataset(tmp_path, hints=Hints(missing="empty"))
    assert [record.count for record in empty.records] == [4, 1, 0]
    assert masks(read_dataset(tmp_path / "stage1_train" / "one", strict=True)) == expected("one", "object")


@pytest.mark.parametrize("images", [("one", "two", "test"), ("one",)])
def test_a_folder_of_masks_for_each_image(tmp_path: Path, images: tuple[str, ...]) -> None:
    save_images(tmp_path / "images", images)
    for name in scene().keys() & set(images):
        for number, thing in enumerate(scene()[name]):
            save_picture(tmp_path / "masks" / name / f"{number}.png", thing.mask.astype(np.uint8) * 255)
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "masks with one file an object"
    for number, record in enumerate(dataset.records):
        assert masks(dataset, number) == expected(record.path.stem, "object")
    assert len(dataset) == len(scene().keys() & set(images))
    assert ("1 image without annotations is left out, first: test.png" in str(dataset.choices)) == ("test" in images)


@pytest.mark.parametrize("folder", ["annotations", "images"])
def test_names_with_image_class_and_number(tmp_path: Path, folder: str) -> None:
    write_named(tmp_path, folder)
    dataset = read_dataset(tmp_path, strict=True)
    assert masks(dataset, "one") == expected("one")
    assert masks(dataset, "two") == expected("two")


def test_alpha_is_not_the_mask(tmp_path: Path) -> None:
    write_named(tmp_path)
    for path in (tmp_path / "annotations").iterdir():
        with Image.open(path) as image:
            bits = np.asarray(image) > 0
        rgba = np.stack([bits, bits, bits, np.ones_like(bits)], axis=2).astype(np.uint8) * 255
        save_picture(path, rgba)
    assert masks(read_dataset(tmp_path, strict=True), "one") == expected("one")


def test_a_mask_that_cannot_be_read_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    write_bowl(tmp_path)
    folder = tmp_path / "one" / "masks"
    (folder / "0000.png").write_bytes((folder / "0000.png").read_bytes()[:50])
    save_picture(folder / "0001.png", np.zeros((40, 56), dtype=np.uint8))
    save_picture(folder / "0002.png", np.ones((41, 56), dtype=np.uint8))
    dataset = read_dataset(tmp_path)
    assert [record.count for record in dataset.records] == [1, 1]
    words = (
        "image one: .*0000.png",
        "one:0001.* the mask covers no pixel",
        "0002.png: expected masks of 56 x 40 pixels",
    )
    assert len(dataset.problems) == len(words)
    for word in words:
        assert any(re.search(word, problem) for problem in dataset.problems)
    with pytest.raises(DataError, match="0000") as caught:
        read_dataset(tmp_path, strict=True)
    assert "\n" not in str(caught.value)


def test_no_masks_is_one_error(tmp_path: Path) -> None:
    save_images(tmp_path)
    with pytest.raises(DataError, match=r"expected folders <image>/images and <image>/masks, .* found none of these"):
        read_dataset(tmp_path, hints=Hints(format="object-masks"))


def test_real_masks(shared: Path) -> None:
    nuclei = read_dataset(shared / "data" / "formats" / "masks_dsb2018", strict=True)
    assert [record.count for record in nuclei.records] == [6, 15]
    assert objects(nuclei)[:2] == [("object", 106, [0, 228, 14, 239]), ("object", 308, [26, 198, 56, 212])]
    shapes = read_dataset(shared / "data" / "formats" / "masks_one_file_an_object", strict=True)
    assert objects(shapes, "1000") == [("square", 3721, [60, 5, 121, 66])]
    assert objects(shapes, "1001") == [
        ("circle", 1636, [10, 10, 56, 59]),
        ("circle", 2613, [49, 0, 108, 57]),
        ("square", 2650, [0, 59, 50, 112]),
        ("square", 3078, [74, 71, 128, 128]),
    ]
