"""Label images: every layout and kind of picture, masks of classes, and pictures that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import expected, masks, objects, save_images, save_picture, scene

COLOURS = np.array([[0, 0, 0], [200, 10, 0], [200, 10, 1], [0, 0, 255], [255, 255, 255]], dtype=np.uint8)


def labels(name: str, dtype: str = "uint16", ids: tuple[int, ...] = (7, 3, 900, 12)) -> np.ndarray:
    """A picture of the scene in which each object has its own id, with gaps between the ids."""
    picture = np.zeros(scene()["one"][0].mask.shape, dtype=dtype)
    for number, thing in zip(ids, scene()[name], strict=False):
        picture[thing.mask] = number
    return picture


LAYOUTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "folders": ("images", lambda name: f"masks/{name}.png"),
    "stardist": ("images", lambda name: f"masks/{name}.tif"),
    "raw and gt": ("raw", lambda name: f"gt/{name}.tif"),
    "penn fudan": ("PNGImages", lambda name: f"PedMasks/{name}_mask.png"),
    "cellpose": ("", lambda name: f"{name}_cp_masks.tif"),
    "cellpose's own set": ("", lambda name: f"{name}_masks.png"),
    "beside": ("", lambda name: f"{name}_masks.png"),
    "capitals": ("Images", lambda name: f"Masks/{name}.png"),
    "folders below": ("images/a", lambda name: f"labels/a/{name}_label.png"),
    "labels beside": ("img", lambda name: f"img/{name}_label.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_masks(tmp_path: Path, layout: str) -> None:
    folder, label_of = LAYOUTS[layout]
    save_images(tmp_path / folder)
    for name in ("one", "two"):
        save_picture(tmp_path / label_of(name), labels(name))
        if layout == "cellpose's own set":
            (tmp_path / f"{name}.png").rename(tmp_path / f"{name}_img.png")
        (tmp_path / label_of(f"._{name}")).write_bytes(b"of macOS")
        (tmp_path / folder / f"._{name}.png").write_bytes(b"of macOS")
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "label images"
    inner = "a/" if layout == "folders below" else ""
    assert masks(dataset, f"{inner}one") == expected("one", "object")
    assert masks(dataset, f"{inner}two") == expected("two", "object")
    assert sorted(dataset.annotations(0).ids.tolist()) == [f"{inner}one:{number}" for number in (12, 3, 7, 900)]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_every_kind_of_number(tmp_path: Path, dtype: str) -> None:
    save_images(tmp_path / "images", ("one",))
    picture = labels("one", dtype, (7, 3, 255 if dtype == "uint8" else 300, 12))
    if dtype in ("int32", "float32"):
        picture[0, 0] = -1  # what is below 0 is background
    save_picture(tmp_path / "labels" / "one.tif", picture)
    assert masks(read_dataset(tmp_path, strict=True)) == expected("one", "object")


def test_colours_and_palettes(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    picture = labels("one", "uint8", (1, 2, 3, 4))
    save_picture(tmp_path / "masks" / "one.png", COLOURS[picture])
    indexed = Image.fromarray(labels("two", "uint8"), mode="P")
    indexed.putpalette([value for i in range(256) for value in (i, 255 - i, i)])
    indexed.save(tmp_path / "masks" / "two.png")
    dataset = read_dataset(tmp_path, strict=True)
    assert masks(dataset, "one") == expected("one", "object")
    assert masks(dataset, "two") == expected("two", "object")


def test_the_background_of_colours_without_black_is_the_commonest(tmp_path: Path) -> None:
    save_images(tmp_path / "images", ("one",))
    picture = np.concatenate([[[255, 255, 255]], COLOURS[1:4], [[9, 9, 9]]]).astype(np.uint8)
    save_picture(tmp_path / "masks" / "one.png", picture[labels("one", "uint8", (1, 2, 3, 4))])
    assert masks(read_dataset(tmp_path, strict=True)) == expected("one", "object")


def test_the_cell_tracking_challenge_has_gold_and_silver_truth(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two", "three")):
        save_images(tmp_path / "01", (name,), ".tif")
        (tmp_path / "01" / f"{name}.tif").rename(tmp_path / "01" / f"t00{number}.tif")
    save_picture(tmp_path / "01_GT" / "SEG" / "man_seg000.tif", labels("one"))
    save_picture(tmp_path / "01_ST" / "SEG" / "man_seg000.tif", labels("two"))
    save_picture(tmp_path / "01_ST" / "SEG" / "man_seg001.tif", labels("two"))
    save_picture(tmp_path / "01_GT" / "TRA" / "man_track002.tif", labels("two"))  # markers, not masks
    dataset = read_dataset(tmp_path, strict=True)
    assert [record.image_id for record in dataset.records] == ["01/t000", "01/t001"]
    assert masks(dataset, "01/t000") == expected("one", "object")
    assert masks(dataset, "01/t001") == expected("two", "object")


def test_images_without_labels_are_left_out_or_empty(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    save_picture(tmp_path / "masks" / "one.png", labels("one"))
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one"]
    assert "1 image without annotations is left out, first: two.png" in dataset.choices[0]
    assert [record.count for record in read_dataset(tmp_path, hints=Hints(missing="empty")).records] == [4, 0]


def test_masks_of_classes_are_asked_about(tmp_path: Path) -> None:
    save_images(tmp_path / "images")
    for name in ("one", "two"):
        save_picture(tmp_path / "masks" / f"{name}.png", labels(name, "uint8", (255,) * 4))
    with pytest.raises(DataError, match=r"found only 255 in all of 2, .* --format label-images .* --parts"):
        read_dataset(tmp_path)
    parts = read_dataset(tmp_path, hints=Hints(parts=True))
    assert [record.count for record in parts.records] == [4, 1]  # two objects touch, and one has two parts
    assert len(read_dataset(tmp_path, hints=Hints(format="label-images")).columns["labels"]) == 2


def test_a_picture_that_cannot_be_read_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    names = ("one", "two", "jpeg", "cut", "fractions", "photo", "smaller")
    save_images(tmp_path / "images", names)
    save_picture(tmp_path / "masks" / "one.png", labels("one"))
    save_picture(tmp_path / "masks" / "two.png", labels("two"))
    save_picture(tmp_path / "masks" / "jpeg.jpg", labels("one", "uint8", (1, 2, 3, 4)))
    (tmp_path / "masks" / "cut.png").write_bytes((tmp_path / "masks" / "one.png").read_bytes()[:60])
    save_picture(tmp_path / "masks" / "fractions.tif", labels("one", "float32") + np.float32(0.5))
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    save_picture(tmp_path / "masks" / "photo.png", noise)
    save_picture(tmp_path / "masks" / "smaller.png", labels("one")[1:])
    dataset = read_dataset(tmp_path)
    assert masks(dataset, "one") == expected("one", "object")
    assert masks(dataset, "two") == expected("two", "object")
    smaller = tmp_path / "masks" / "smaller.png"
    words = (
        "image cut: ",
        "image fractions: fractions.tif: expected whole numbers as ids, found fractions",
        "image jpeg: jpeg.jpg: a JPEG changes the values of a label image; save it as PNG or TIFF",
        "image photo: photo.png: expected a value for each object, found 2240, as in a photograph",
        f"image smaller: {smaller}: expected masks of 56 x 40 pixels, the size of the image, found 56 x 39",
    )
    assert len(dataset.problems) == len(words)
    for problem, start in zip(sorted(dataset.problems), words, strict=True):
        assert problem.startswith(f"{tmp_path}: {start}")
    with pytest.raises(DataError, match=r"image (jpeg|cut|fractions|photo|smaller): ") as caught:
        read_dataset(tmp_path, strict=True)
    assert "\n" not in str(caught.value)


def test_no_pairs_is_one_error(tmp_path: Path) -> None:
    save_images(tmp_path)
    with pytest.raises(DataError, match=r"expected images with label images .* found no pair"):
        read_dataset(tmp_path, hints=Hints(format="label-images"))


def test_real_pictures(shared: Path) -> None:
    folder = shared / "data" / "formats"
    cells = read_dataset(folder / "masks_label_image" / "cellpose_cp_masks", strict=True)
    assert [record.count for record in cells.records] == [116, 21]
    assert objects(cells, "Sample000033")[:2] == [
        ("object", 233, [104, 20, 123, 47]),
        ("object", 203, [110, 30, 123, 58]),
    ]
    assert objects(cells, "caulo_15")[2] == ("object", 675, [162, 0, 240, 85])
    nuclei = read_dataset(folder / "masks_label_image" / "stardist_tif16", strict=True)
    assert objects(nuclei)[1] == ("object", 46, [175, 125, 182, 133])
    assert nuclei.records[0].count == 65
    coloured = read_dataset(folder / "masks_colour", strict=True)
    assert coloured.records[0].count == 15
    assert {("object", 198, (185, 43, 198, 62)), ("object", 389, (158, 116, 184, 152))} <= {
        (*own[:2], tuple(own[2])) for own in objects(coloured)
    }
