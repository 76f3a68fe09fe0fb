"""labelme: every shape, groups, masks in base64, images inside the JSON, and broken shapes and files."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from maskrcnn.structures.masks import RLE
from small_scene import SIZE, masks, objects, save_images


def png(values: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def shape(label: str, points: list[list[float]], kind: str | None = "polygon", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"label": label, "points": points, "group_id": None, "flags": {}, **fields}
    return found | ({"shape_type": kind} if kind else {})


def write(folder: Path, *shapes: Any, name: str = "one", **fields: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"{name}.png",
        "imageData": None,
        "imageHeight": SIZE[0],
        "imageWidth": SIZE[1],
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content | fields))
    return path


SQUARE = [[4, 6], [14, 6], [14, 20], [4, 20]]
CORNERS = np.array([[1, 0], [1, 1]], dtype=np.uint8)


def test_every_shape_with_an_area(tmp_path: Path) -> None:
    save_images(tmp_path)
    write(
        tmp_path,
        shape("old", SQUARE, None),
        shape("box", [[14, 20], [4, 6]], "rectangle"),
        shape("turned", SQUARE, "oriented_rectangle"),
        shape("four", SQUARE, "rectangle"),
        shape("round", [[30, 20], [30, 10]], "circle"),
        shape("mask", [[49.6, 8], [51, 9]], "mask", mask=png(CORNERS)),
        shape("mask 255", [[50, 8], [51, 9]], "mask", mask=png(CORNERS * 255)),
        shape("path", [[1, 1], [9, 9]], "line"),
        shape("dot", [[1, 1]], "point"),
        shape("_background_", SQUARE),
        shape("__ignore__", SQUARE),
    )
    dataset = read_dataset(tmp_path, strict=True)
    square = (140, [4.0, 6.0, 14.0, 20.0])
    assert [own for own in objects(dataset) if own[0] != "round"] == [
        *((name, *square) for name in ("old", "box", "turned", "four")),
        ("mask", 3, [50.0, 8.0, 52.0, 10.0]),
        ("mask 255", 3, [50.0, 8.0, 52.0, 10.0]),
    ]
    (circle,) = (own for own in objects(dataset) if own[0] == "round")
    assert circle[1] == pytest.approx(100 * math.pi, rel=0.02)
    assert circle[2] == [20.0, 10.0, 40.0, 30.0]
    assert sorted(choice.partition(": ")[2] for choice in dataset.choices) == [
        "1 image without annotations is left out, first: two.png; --missing empty keeps such images",
        "1 shape is left out, because __ignore__ is no class",
        "1 shape is left out, because _background_ is no class",
        "1 shape is left out, because line has no area",
        "1 shape is left out, because point has no area",
    ]


def test_shapes_of_one_label_and_group_are_one_object(tmp_path: Path) -> None:
    save_images(tmp_path)
    other = [[30, 6], [34, 6], [34, 10], [30, 10]]
    write(
        tmp_path,
        shape("a", SQUARE, group_id=1),
        shape("b", SQUARE, group_id=1),
        shape("a", other, group_id=1),
        shape("a", [[50, 8], [51, 9]], "mask", mask=png(CORNERS), group_id=2),
        shape("a", other, group_id=2),
    )
    dataset = read_dataset(tmp_path, strict=True)
    assert objects(dataset) == [
        ("a", 156, [4.0, 6.0, 34.0, 20.0]),
        ("b", 140, [4.0, 6.0, 14.0, 20.0]),
        ("a", 19, [30.0, 6.0, 52.0, 10.0]),
    ]
    assert [len(dataset.annotations(0).polygons(i)) for i in range(3)] == [2, 1, 0]  # polygons stay polygons


def test_a_mask_with_a_hole_keeps_it_and_what_leaves_the_image_is_cut_off(tmp_path: Path) -> None:
    save_images(tmp_path)
    ring = np.ones((6, 6), dtype=np.uint8)
    ring[2:4, 2:4] = 0
    write(
        tmp_path,
        shape("ring", [[10, 10], [15, 15]], "mask", mask=png(ring)),
        shape("corner", [[-3, -2], [2, 3]], "mask", mask=png(ring)),
    )
    whole = np.zeros(SIZE, dtype=bool)
    whole[10:16, 10:16] = ring
    cut = np.zeros(SIZE, dtype=bool)
    cut[:4, :3] = ring[2:, 3:]
    assert masks(read_dataset(tmp_path, strict=True)) == [
        ("corner", RLE.from_dense(cut)),
        ("ring", RLE.from_dense(whole)),
    ]


def test_images_are_found_by_the_name_of_the_json_and_inside_it(tmp_path: Path) -> None:
    save_images(tmp_path, ("one",))
    write(tmp_path, shape("a", SQUARE), imagePath="..\\somewhere\\else.png")
    picture = png(np.full((*SIZE, 3), 9, dtype=np.uint8))
    write(tmp_path, shape("a", SQUARE), name="within", imageData=picture, imageHeight=None)
    dataset = read_dataset(tmp_path, strict=True)
    assert [record.path.name for record in dataset.records] == ["one.png", "within.json"]
    assert dataset.read(1).tolist() == np.full((*SIZE, 3), 9).tolist()
    assert dataset.records[1].size == SIZE


def test_an_image_without_shapes_is_empty_and_one_without_json_unlabelled(tmp_path: Path) -> None:
    save_images(tmp_path, ("one", "two", "three"))
    write(tmp_path)
    write(tmp_path, shape("a", SQUARE), name="two")
    assert [record.count for record in read_dataset(tmp_path).records] == [0, 1]
    assert [record.count for record in read_dataset(tmp_path, hints=Hints(missing="empty")).records] == [0, 1, 0]


def test_sizes_of_the_turned_image_are_used_and_others_refused(tmp_path: Path) -> None:
    save_images(tmp_path)
    write(tmp_path, shape("a", SQUARE), imageHeight=SIZE[1], imageWidth=SIZE[0])
    write(tmp_path, shape("a", SQUARE), name="two", imageHeight=30)
    dataset = read_dataset(tmp_path)
    assert objects(dataset) == [("a", 140, [4.0, 6.0, 14.0, 20.0])]
    assert "image one: width and height are swapped in its annotations; the image is 56 x 40" in dataset.choices[0]
    assert "image two: expected 56 x 30 pixels, as its annotations say, found 56 x 40" in dataset.problems[0]


BROKEN = {
    "two points": (shape("a", SQUARE[:2]), "expected a polygon of at least 3 points, found 2"),
    "words": (shape("a", [["x", "y"]] * 3), "expected points as pairs of finite numbers"),
    "no points": ({"label": "a"}, "expected points as pairs of finite numbers, found None"),
    "a text": ("shape", "expected an object with label and points, found 'shape'"),
    "a kind of the future": (shape("a", SQUARE, "spline"), "expected a known shape_type, found 'spline'"),
    "a circle of three": (shape("a", SQUARE[:3], "circle"), "expected a circle of 2 points, found 3"),
    "no mask": (shape("a", SQUARE[:2], "mask"), "expected a PNG in base64, found None"),
    "no base64": (shape("a", SQUARE[:2], "mask", mask="%%%"), "expected a PNG in base64, found '%%%'"),
    "no picture": (
        shape("a", SQUARE[:2], "mask", mask="AAAA"),
        "mask: expected an image, found a file of",
    ),
    "a huge mask": (
        shape("a", SQUARE[:2], "mask", mask=png(np.zeros((1100, 1000), dtype=np.uint8))),
        "mask: 1000 x 1100 pixels are more than the limit of 1048576",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_shape_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    save_images(tmp_path)
    broken, words = BROKEN[fault]
    write(tmp_path, broken, shape("good", SQUARE))
    dataset = read_dataset(tmp_path)
    assert [own[0] for own in objects(dataset)] == ["good"]
    assert dataset.problems[0].startswith(f"{tmp_path}: one.json: shapes[0]: {words}")
    with pytest.raises(DataError, match=r"shapes\[0\]") as caught:
        read_dataset(tmp_path, strict=True)
    assert "\n" not in str(caught.value)


def test_a_shape_without_a_label_is_no_class(tmp_path: Path) -> None:
    save_images(tmp_path)
    others = (None, "", ["a"], {"a": 1}, True)
    write(tmp_path, shape("cat", SQUARE), *({**shape("", SQUARE), "label": label} for label in others))
    dataset = read_dataset(tmp_path)
    assert [category.name for category in dataset.categories] == ["cat"]
    assert [problem.partition(": ")[2] for problem in dataset.problems] == [
        f"one.json: shapes[{number}]: expected a label as text, found {label!r}; label the shape or remove it"
        for number, label in enumerate(others, start=1)
    ]


def test_the_reason_is_given_if_no_file_can_be_read(tmp_path: Path) -> None:
    write(tmp_path).write_text('{"shapes": [')
    with pytest.raises(DataError, match=r"found none among 1 JSONs; first: one\.json: not JSON .* may be truncated$"):
        read_dataset(tmp_path, hints=Hints(format="labelme"))


def test_a_number_as_a_label_is_a_class(tmp_path: Path) -> None:
    save_images(tmp_path)
    write(tmp_path, {**shape("", SQUARE), "label": 5})
    assert [category.name for category in read_dataset(tmp_path, strict=True).categories] == ["5"]


def test_a_shape_that_cannot_be_drawn_is_named_by_its_place(tmp_path: Path) -> None:
    save_images(tmp_path)
    far = [[x + 900, y] for x, y in SQUARE]
    write(tmp_path, shape("dot", [[1, 1]], "point"), shape("cat", SQUARE), shape("cat", far))
    (problem,) = read_dataset(tmp_path).problems
    assert problem == f"{tmp_path}: one.json: shapes[2]: the mask covers no pixel of its image"


def test_a_broken_file_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    save_images(tmp_path, ("one", "two", "three"))
    write(tmp_path, shape("good", SQUARE))
    (tmp_path / "two.json").write_text('{"shapes": [')
    write(tmp_path, name="three").write_text('{"shapes": 5, "imagePath": "three.png"}')
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one"]
    assert len(dataset.problems) == 2
    assert "three.json: expected shapes as a list, found 5" in dataset.problems[0]
    assert "two.json: not JSON" in dataset.problems[1]


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "labelme"
    photographs = read_dataset(folder / "polygons", strict=True)
    assert [own[:2] for own in objects(photographs, "2011_000003")] == [
        ("person", 15448),
        ("person", 16966),
        ("bottle", 815),
    ]
    assert [own[:2] for own in objects(photographs, "2011_000006")] == [
        ("person", 14935),
        ("person", 11554),
        ("person", 7399),
        ("chair", 44276),
        ("person", 964),
        ("sofa", 13701),
    ]
    shapes = read_dataset(folder / "shapes", strict=True)
    found = {(name, area) for name, area, _ in objects(shapes)}
    assert found == {
        ("rectangle", 10000),
        ("circle", 8106),
        ("rectangle", 15402),
        ("polygon", 10997),
        ("octagon", 7275),
    }
    assert objects(shapes)[4] == ("octagon", 7275, [417, 305, 517, 405])
