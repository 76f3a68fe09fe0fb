"""Images and shapes of files of annotations: sizes, ids, names of images, parts, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.labelled import (
    Labelled,
    Region,
    add_labelled,
    box_draw,
    chosen,
    extent,
    image_names,
    rings_draw,
    size_of,
)
from maskrcnn.errors import DataError
from small_scene import SIZE, objects, save_images

SQUARE = np.array([[4, 6], [14, 6], [14, 20], [4, 20]], dtype=float)


def labelled(folder: Path, own: str = "one.png", **fields: Any) -> Labelled:
    region = Region(1, "polygon", rings_draw([SQUARE]), "shape 0")
    return Labelled(
        **{
            "id": own,
            "where": f"at {own}",
            "file": folder / "a.json",
            "names": (own,),
            "size": SIZE,
            "regions": [region],
            **fields,
        }
    )


@pytest.fixture
def builder(tmp_path: Path) -> DatasetBuilder:
    """A builder for the folder of two images, with one class."""
    save_images(tmp_path)
    (tmp_path / "a.json").touch()
    builder = DatasetBuilder(tmp_path)
    builder.add_category(1, "a")
    return builder


def test_an_id_that_repeats_gives_way_to_the_place(builder: DatasetBuilder, tmp_path: Path) -> None:
    items = [labelled(tmp_path), labelled(tmp_path, where="again"), labelled(tmp_path, "two.png")]
    assert add_labelled(builder, items, None) == []
    assert [record.image_id for record in builder.build().records] == ["at one.png", "again", "two.png"]


def test_sizes(builder: DatasetBuilder, tmp_path: Path) -> None:
    """A side that is swapped, an image that the camera held sideways, another size, and no size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIZE[0], SIZE[1])).save(tmp_path / "camera.jpg", exif=exif)
    names = ("one.png", "camera.jpg", "two.png", "gone.png", "lost.png")
    sizes = (SIZE[::-1], SIZE, (9, 9), None, None)
    least = (None, None, None, (20, 14), None)
    items = [labelled(tmp_path, n, size=size, least=small) for n, size, small in zip(names, sizes, least, strict=True)]
    add_labelled(builder, items, None)
    dataset = builder.build()
    assert {r.image_id: (r.height, r.width) for r in dataset.records} == {
        "one.png": SIZE,
        "camera.jpg": SIZE,
        "gone.png": (20, 14),
    }
    assert [problem.partition("image ")[2][:8] for problem in dataset.problems] == ["two.png:", "lost.png"]
    assert "swapped" in dataset.choices[0]
    assert "1 image without a file: the size is that of the objects, first: gone.png, 14 x 20" in dataset.choices[1]


def test_what_is_left_out_is_counted_and_what_is_broken_is_named(builder: DatasetBuilder, tmp_path: Path) -> None:
    def broken(size: tuple[int, int]) -> dict[str, Any]:
        raise DataError("no mask")

    regions = [
        Region(1, "line", None),
        Region("void", "polygon", rings_draw([SQUARE])),
        Region(1, "mask", broken, "mask 2"),
        Region(1, "box", box_draw(4, 6, 10, 14)),
        Region(1, "rings", rings_draw([SQUARE, SQUARE[:, ::-1]])),
    ]
    add_labelled(builder, [labelled(tmp_path, regions=regions)], None)
    dataset = builder.build()
    assert [own[1] for own in objects(dataset)] == [140, 2 * 140 - 2 * 64]
    assert dataset.problems == (f"{tmp_path}: mask 2: no mask",)
    assert [choice.partition(": ")[2] for choice in dataset.choices] == [
        "1 shape is left out, because line has no area",
        "1 shape is left out, because void is no class",
    ]


def test_the_first_name_that_is_a_file_counts(builder: DatasetBuilder, tmp_path: Path) -> None:
    rest = add_labelled(builder, [labelled(tmp_path, "x", names=("gone.png", "C:\\a\\two.png", "one.png"))], None)
    assert builder.build().records[0].path == tmp_path / "two.png"
    assert rest == [tmp_path / "one.png"]


def test_parts(builder: DatasetBuilder, tmp_path: Path) -> None:
    items = [labelled(tmp_path, split="train"), labelled(tmp_path, "two.png", split="val")]
    assert chosen(builder, items, None) == items
    assert chosen(builder, items, "val") == items[1:]
    with pytest.raises(DataError, match="expected --split to be one of train, val, found test"):
        chosen(builder, items, "test")
    with pytest.raises(DataError, match="but there are no parts, found train"):
        chosen(builder, [labelled(tmp_path)], "train")


def test_names_of_images(builder: DatasetBuilder, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("one.x", "one.png.x", "set_two.x", "other.x")]
    assert list(image_names(builder, files, None, "set").values()) == ["one", "one.png", "two", "other"]
    (tmp_path / "two.png").rename(tmp_path / "two.ome.tif")
    assert image_names(builder, files[2:3], None, "set") == {files[2]: "two.ome"}
    (tmp_path / "two.ome.tif").unlink()
    assert image_names(builder, files[3:], None) == {files[3]: "one.png"}


def test_extents_and_sizes() -> None:
    assert extent([SQUARE, SQUARE + 0.25]) == (21, 15)
    assert extent([np.zeros((0, 2))]) is None
    assert extent([-SQUARE]) == (1, 1)
    assert size_of({"height": 3, "width": 4}) == (3, 4)
    for wrong in ({"height": 0, "width": 4}, {"height": "3", "width": 4}, {"width": 4}, None):
        assert size_of(wrong) is None
