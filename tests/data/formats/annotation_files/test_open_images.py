"""Open Images: masks of another size than their images, names of classes, parts, and broken rows and masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, save_picture, scene

HEADER = "MaskPath,ImageID,LabelName,BoxID,BoxXMin,BoxXMax,BoxYMin,BoxYMax,PredictedIoU,Clicks\n"
CLASSES = {"cell": "/m/01", "rod": "/m/02"}


def table(folder: Path, part: str, *rows: str) -> Path:
    path = folder / "annotations" / f"{part}-annotations-object-segmentation.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text(HEADER + "".join(f"{row},x,0.1,0.9,0.1,0.9,0.8,0.1 0.2 1;0.3 0.4 0\n" for row in rows))
    return path


def write(folder: Path, scale: int = 1) -> Path:
    """The scene as a data set whose masks are larger than the images by a factor."""
    rows = []
    for part, image in (("train", "one"), ("validation", "two")):
        save_images(folder / "images" / part, (image,), ".jpg")
        rows = []
        for number, thing in enumerate(scene()[image]):
            name = f"{image}_m0{number}.png"
            large = np.kron(thing.mask, np.ones((scale, scale), dtype=bool))
            (folder / "masks" / part).mkdir(parents=True, exist_ok=True)
            Image.fromarray(large).convert("1").save(folder / "masks" / part / name)
            rows.append(f"{name},{image},{CLASSES[thing.name]}")
        path = table(folder, part, *rows)
    (folder / "annotations" / "oidv6-class-descriptions.csv").write_text(
        "LabelName,DisplayName\n" + "".join(f"{own},{name}\n" for name, own in CLASSES.items())
    )
    (folder / "annotations" / "train-annotations-bbox.csv").write_text("ImageID,LabelName,XMin\none,/m/01,0.1\n")
    return path


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_masks_are_scaled_to_their_images(tmp_path: Path, scale: int) -> None:
    write(tmp_path, scale)
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "Open Images"
    for image in ("one", "two"):
        assert masks(dataset, image) == expected(image)
    assert [category.id for category in dataset.categories] == ["/m/01", "/m/02"]


def test_the_folders_of_fiftyone(tmp_path: Path) -> None:
    write(tmp_path)
    labels = tmp_path / "set" / "labels"
    (tmp_path / "masks").mkdir(exist_ok=True)
    labels.parent.mkdir()
    (tmp_path / "masks" / "train").rename(labels.parent / "masks")
    (tmp_path / "annotations").rename(labels)
    (tmp_path / "images" / "train").rename(labels.parent / "data")
    (labels / "validation-annotations-object-segmentation.csv").unlink()
    (labels.parent / "metadata").mkdir()
    (labels / "oidv6-class-descriptions.csv").rename(labels.parent / "metadata" / "classes.csv")
    assert masks(read_dataset(tmp_path / "set", strict=True), "one") == expected("one")


def test_masks_whose_names_end_in_digits_are_not_those_of_another_format(tmp_path: Path) -> None:
    save_images(tmp_path, ("one",))
    save_picture(tmp_path / "train-masks" / "one_m01_01234567.png", np.array([[0, 255]], dtype=np.uint8))
    table(tmp_path, "train", "one_m01_01234567.png,one,/m/01")
    assert read_dataset(tmp_path).format == "Open Images"


def test_a_small_mask_fills_its_part_of_the_image(tmp_path: Path) -> None:
    save_images(tmp_path / "images", ("one",))
    save_picture(tmp_path / "m.png", np.array([[0, 255]], dtype=np.uint8))
    dataset = read_dataset(table(tmp_path, "train", "m.png,one,/m/01"), strict=True)
    assert objects(dataset) == [("/m/01", SIZE[0] * SIZE[1] // 2, [SIZE[1] / 2, 0.0, SIZE[1], SIZE[0]])]


def test_tables_are_the_parts_of_a_data_set(tmp_path: Path) -> None:
    path = write(tmp_path)
    whole = read_dataset(tmp_path, strict=True)
    assert [record.fields["split"] for record in whole.records] == ["train", "val"]
    part = read_dataset(tmp_path / "annotations", hints=Hints(split="val"), strict=True)
    assert [record.image_id for record in part.records] == ["two"]
    assert len(part.categories) == 2
    assert masks(read_dataset(path, strict=True), "two") == expected("two")
    with pytest.raises(DataError, match="expected --split to be one of train, val, found test"):
        read_dataset(tmp_path, hints=Hints(split="test"))


def test_an_image_without_masks_is_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    save_images(tmp_path / "images" / "train", ("three",))
    assert "1 image without annotations is left out" in read_dataset(tmp_path, strict=True).choices[-1]
    assert len(read_dataset(tmp_path, hints=Hints(missing="empty"))) == 3


def test_what_is_broken_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    write(tmp_path)
    save_picture(tmp_path / "masks" / "huge.png", np.zeros((1100, 1100), dtype=np.uint8))
    (tmp_path / "masks" / "text.png").write_text("no picture")
    names = ("../../etc/gone.png", "huge.png", "text.png", "")
    table(tmp_path, "train", *(f"{name},one,/m/01" for name in names), "one_m00.png,one,/m/01")
    dataset = read_dataset(tmp_path)
    assert [own[2] for own in objects(dataset, "one")] == [[5.0, 5.0, 20.0, 20.0]]
    words = (
        "line 5: expected MaskPath, ImageID, LabelName",
        "line 2: ",
        "line 3: mask: 1100 x 1100 pixels are more than the limit",
        "line 4: mask: expected an image, found a file of another kind",
    )
    for problem, expected_words in zip(dataset.problems, words, strict=True):
        assert f"segmentation.csv: {expected_words}" in problem
        with pytest.raises(DataError):
            read_dataset(tmp_path, strict=True)


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "open_images", strict=True)
    assert [(record.image_id, record.height, record.width) for record in dataset.records] == [("b", 2, 8)]
    assert objects(dataset) == [("Generic label #0", 4, [0, 0, 2, 2])]
