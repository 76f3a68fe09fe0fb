"""Supervisely: bitmaps of every kind, polygons with holes, rectangles of pixels, parts of a project, broken files."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, scene

SQUARE = [[4, 6], [14, 6], [14, 20], [4, 20]]
PALETTE, OPAQUE, GREY = "palette", "opaque", "grey"


def bitmap(label: str, mask: np.ndarray, kind: str = PALETTE, *, compressed: bool = True) -> dict[str, Any]:
    """A mask cut to its box, as programs of Supervisely write it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    crop = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.uint8)
    if kind == OPAQUE:  # black, so that only alpha tells
        picture = Image.fromarray(np.stack([crop * 0, crop * 0, crop * 0, crop * 255], axis=2))
    else:
        picture = Image.fromarray(crop * (255 if kind == GREY else 1))
    buffer = io.BytesIO()
    if kind == PALETTE:
        picture.putpalette([0, 0, 0, 255, 255, 255])
        picture.save(buffer, "PNG", transparency=0)
    else:
        picture.save(buffer, "PNG")
    data = zlib.compress(buffer.getvalue()) if compressed else buffer.getvalue()
    origin = [int(columns[0]), int(rows[0])]
    return {
        "classTitle": label,
        "geometryType": "bitmap",
        "bitmap": {"data": base64.b64encode(data).decode(), "origin": origin},
    }


def figure(kind: str, points: list[Any], *holes: Any, label: str = "a") -> dict[str, Any]:
    return {"classTitle": label, "geometryType": kind, "points": {"exterior": points, "interior": list(holes)}}


def write(project: Path, *figures: Any, dataset: str = "ds", meta: Any = None) -> Path:
    """A project with two images, of which the second has no objects; returns the file of the first."""
    save_images(project / dataset / "img")
    (project / dataset / "ann").mkdir(exist_ok=True)
    (project / "meta.json").write_text(json.dumps(meta or {"classes": [], "tags": [], "projectType": "images"}))
    for name, own in (("two", ()), ("one", figures)):
        path = project / dataset / "ann" / f"{name}.png.json"
        size = {"height": SIZE[0], "width": SIZE[1]}
        path.write_text(json.dumps({"description": "", "tags": [], "size": size, "objects": list(own)}))
    return path


@pytest.mark.parametrize("kind", [PALETTE, OPAQUE, GREY])
@pytest.mark.parametrize("compressed", [True, False])
def test_bitmaps_of_every_kind(tmp_path: Path, kind: str, compressed: bool) -> None:
    write(tmp_path, *(bitmap(t.name, t.mask, kind, compressed=compressed) for t in scene()["one"]))
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "Supervisely"
    assert masks(dataset, "one.png") == expected("one")
    assert [record.count for record in dataset.records] == [4, 0]
    for other in (tmp_path / "ds", tmp_path / "ds" / "ann", tmp_path / "ds" / "ann" / "one.png.json"):
        assert masks(read_dataset(other, strict=True), "one.png") == expected("one")


def test_files_of_macos_are_no_annotations(tmp_path: Path) -> None:
    path = write(tmp_path, *(bitmap(t.name, t.mask, GREY) for t in scene()["one"]))
    path.with_name(f"._{path.name}").write_bytes(b"of macOS")
    path.rename(path.with_suffix(".JSON"))
    assert masks(read_dataset(tmp_path, strict=True), "one.png") == expected("one")


def test_shapes_and_classes(tmp_path: Path) -> None:
    hole = [[6, 8], [10, 8], [10, 12], [6, 12]]
    old = figure("", SQUARE, label="old")
    del old["geometryType"]  # the class says it
    titles = {"old": "polygon", "never": "bitmap", "path": "line", "free": "any"}
    meta = {"classes": [{"title": title, "shape": shape} for title, shape in titles.items()]}
    write(
        tmp_path,
        figure("polygon", SQUARE, hole),
        figure("rectangle", [[13, 19], [4, 6]], label="pixels"),
        figure("rectangle", [[4.0, 6.0], [14.0, 20.0]], label="edges"),
        figure("point", [[1, 1]]),
        figure("polygon", SQUARE, label="background"),
        {**figure("", SQUARE, label="free"), "geometryType": None, "bitmap": None},
        old,
        meta=meta,
    )
    dataset = read_dataset(tmp_path, strict=True)
    square = (140, [4.0, 6.0, 14.0, 20.0])
    assert objects(dataset, "one.png") == [
        ("a", 124, square[1]),
        ("pixels", *square),
        ("edges", *square),
        ("free", *square),
        ("old", *square),
    ]
    assert dataset.annotations(0).has_mask.tolist() == [True, False, False, True, True]
    assert [category.name for category in dataset.categories] == ["a", "edges", "free", "never", "old", "pixels"]
    assert len(dataset.choices) == 2


def test_folders_of_a_project_are_its_parts(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path, bitmap("cell", scene()["one"][0].mask), dataset=part)
    whole = read_dataset(tmp_path, strict=True)
    assert [record.fields["split"] for record in whole.records] == ["train", "train", "val", "val"]
    assert [record.path.parent.parent.name for record in whole.records] == ["train", "train", "val", "val"]
    part = read_dataset(tmp_path, hints=Hints(split="val"), strict=True)
    assert [record.image_id for record in part.records] == ["one.png", "two.png"]
    with pytest.raises(DataError, match="expected --split to be one of train, val, found test"):
        read_dataset(tmp_path, hints=Hints(split="test"))
    inside = tmp_path / "nested"
    write(inside, bitmap("cell", scene()["one"][0].mask), dataset="a/datasets/b")
    assert [record.count for record in read_dataset(inside, strict=True).records] == [1, 0]


def test_an_image_without_a_file_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, figure("polygon", SQUARE))
    save_images(tmp_path / "ds" / "img", ("three",))
    assert len(read_dataset(tmp_path)) == 2
    assert "1 image without annotations is left out" in read_dataset(tmp_path).choices[0]
    assert len(read_dataset(tmp_path, hints=Hints(missing="empty"))) == 3


GOOD = bitmap("a", scene()["one"][0].mask)
HUGE = base64.b64encode(zlib.compress(bytes(1 << 24))).decode()
BROKEN = {
    "no class": (
        {**figure("polygon", SQUARE), "classTitle": None},
        "objects[0]: expected a classTitle, found None",
    ),
    "another kind": (figure("blob", SQUARE), "objects[0]: expected a known geometryType, found 'blob'"),
    "two points": (figure("polygon", SQUARE[:2]), "objects[0]: expected a polygon of at least 3 points, found 2"),
    "no base64": (
        {**GOOD, "bitmap": {"data": "!!", "origin": [0, 0]}},
        "objects[0]: expected a bitmap in base64, found '!!'",
    ),
    "no PNG": (
        {**GOOD, "bitmap": {"data": "abcd", "origin": [0, 0]}},
        "objects[0]: mask: expected an image, found a file of another kind",
    ),
    "a bomb": ({**GOOD, "bitmap": {"data": HUGE, "origin": [0, 0]}}, "objects[0]: expected a whole bitmap of at most"),
    "no place": ({**GOOD, "bitmap": {**GOOD["bitmap"], "origin": None}}, "objects[0]: expected points as pairs"),
    "no object": ("figure", "objects[0]: expected an object, found 'figure'"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_object_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    write(tmp_path, broken, figure("polygon", SQUARE))
    dataset = read_dataset(tmp_path)
    assert objects(dataset, "one.png") == [("a", 140, [4.0, 6.0, 14.0, 20.0])]
    assert dataset.problems[0].startswith(f"{tmp_path}: ds/ann/one.png.json: {words}")
    with pytest.raises(DataError, match=r"objects\[0\]: ") as caught:
        read_dataset(tmp_path, strict=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[]", '{"objects": 3, "size": {}}'])
def test_a_broken_file_is_named_and_does_not_stop_the_rest(tmp_path: Path, content: str) -> None:
    write(tmp_path, figure("polygon", SQUARE)).with_name("two.png.json").write_text(content)
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one.png"]
    assert "two.png.json: " in dataset.problems[0]
    for file in tmp_path.rglob("*.png.json"):
        file.write_text(content)
    with pytest.raises(DataError, match=r"in folders `ann`, found none; first: ds/ann/one\.png\.json: "):
        read_dataset(tmp_path, hints=Hints(format="supervisely"))


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "supervisely"
    bitmaps = read_dataset(folder / "bitmap", strict=True)
    assert objects(bitmaps, "cat2.jpg") == [
        ("cat", 404403, [244, 109, 1054, 732]),
        ("cat", 9284, [100, 74, 173, 284]),
    ]
    assert objects(bitmaps, "dog2.jpg") == [("dog", 86616, [110, 34, 407, 467])]
    drawn = read_dataset(folder / "vector", strict=True)
    assert objects(drawn, "dog1.jpg") == [("dog2", 22376, [184, 86, 442, 470]), ("dog2", 88584, [179, 81, 653, 469])]
    assert objects(drawn, "cat3.jpg") == [("cat", 418439, [10, 32, 539, 823])]
    assert drawn.choices == (f"{folder / 'vector'}: 2 shapes are left out, because point has no area",)
