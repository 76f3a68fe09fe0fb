"""Label Studio JSON: every region, brush masks, which annotation counts, and broken results and files."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, scene

SQUARE = (140, [4.0, 6.0, 14.0, 20.0])
WIDTH, HEIGHT = 100 / SIZE[1], 100 / SIZE[0]  # percent of a pixel


def percent(points: list[tuple[float, float]]) -> list[list[float]]:
    return [[x * WIDTH, y * HEIGHT] for x, y in points]


def result(kind: str, label: str | None, number: str = "r1", **value: Any) -> dict[str, Any]:
    named = {kind: [label]} if label else {}
    sizes = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"id": number, "type": kind, "value": value | named, **sizes}


def polygon(label: str | None = "a", number: str = "r1") -> dict[str, Any]:
    return result("polygonlabels", label, number, points=percent([(4, 6), (14, 6), (14, 20), (4, 20)]), closed=True)


def rectangle(label: str, x: float, y: float, width: float, height: float, rotation: float = 0) -> dict[str, Any]:
    lengths = {"x": x * WIDTH, "y": y * HEIGHT, "width": width * WIDTH, "height": height * HEIGHT}
    return result("rectanglelabels", label, rotation=rotation, **lengths)


def task(*results: Any, number: int = 7, image: str = "one.png", **fields: Any) -> dict[str, Any]:
    annotations = [{"id": 1, "was_cancelled": False, "result": list(results)}]
    return {"id": number, "data": {"image": f"/data/upload/3/ab12cd34-{image}"}, "annotations": annotations, **fields}


def write(folder: Path, *tasks: Any) -> Path:
    save_images(folder / "images")
    path = folder / "project-1.json"
    path.write_text(json.dumps(tasks))
    return path


def brush(mask: np.ndarray, soft: int = 255) -> list[int]:
    """A mask in Label Studio's coding, by a plain loop: whole RGBA pixels, repeated or one by one."""
    values = np.repeat(np.where(mask.ravel(), soft, 0), 4).astype(int).tolist()
    bits = [f"{len(values):032b}", f"{7:05b}", *(f"{n - 1:04b}" for n in (3, 4, 8, 16))]
    start = 0
    while start < len(values):
        end = start
        while end < len(values) and values[end] == values[start] and end - start < 1 << 16:
            end += 1
        bits += ["1", "11", f"{end - start - 1:016b}", f"{values[start]:08b}"]
        start = end
        if start == 4 * SIZE[1]:  # the second row, one by one
            row = values[start : start + 8]
            bits += ["0", "00", f"{len(row) - 1:03b}", *(f"{value:08b}" for value in row)]
            start += len(row)
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return [int(text[i : i + 8], 2) for i in range(0, len(text), 8)]


def test_every_region_with_an_area(tmp_path: Path) -> None:
    lengths = {"x": 30 * WIDTH, "y": 20 * HEIGHT}
    regions = [
        polygon(),
        rectangle("box", 4, 6, 10, 14),
        rectangle("turned", 14, 6, 14, 10, 90),  # about its top left corner
        result("ellipselabels", "round", radiusX=10 * WIDTH, radiusY=5 * HEIGHT, rotation=0, **lengths),
        result("ellipselabels", "round", radiusX=5 * WIDTH, radiusY=10 * HEIGHT, rotation=90, **lengths),
        result("keypointlabels", "dot", x=1, y=1, width=1),
        {"type": "relation", "from_id": "r1", "to_id": "r2"},
        polygon("background"),
    ]
    path = write(tmp_path, task(*({**region, "id": f"r{number}"} for number, region in enumerate(regions))))
    dataset = read_dataset(path, strict=True)
    assert dataset.format == "Label Studio JSON"
    found = objects(dataset)
    assert [own for own in found if own[0] != "round"] == [("a", *SQUARE), ("box", *SQUARE), ("turned", *SQUARE)]
    first, second = (own for own in found if own[0] == "round")
    assert first == second
    assert first[2] == [20.0, 15.0, 40.0, 25.0]
    assert first[1] == pytest.approx(50 * math.pi, rel=0.02)
    assert dataset.annotations(0).has_mask.tolist() == [True, False, True, True, True]
    assert dataset.records[0].path == tmp_path / "images" / "one.png"


def test_brush_masks(tmp_path: Path) -> None:
    results = [
        result("brushlabels", thing.name, f"r{n}", format="rle", rle=brush(thing.mask))
        for n, thing in enumerate(scene()["one"])
    ]
    dataset = read_dataset(write(tmp_path, task(*results)), strict=True)
    assert masks(dataset) == expected("one")
    faint = result("brushlabels", "a", format="rle", rle=brush(scene()["one"][0].mask, soft=127))
    assert "covers no pixel" in read_dataset(write(tmp_path, task(polygon(), faint))).problems[0]


def test_labels_of_a_tag_of_their_own_have_the_id_of_their_region(tmp_path: Path) -> None:
    bare = {**polygon(None), "type": "polygon"}
    labels = {**polygon(None), "type": "labels", "value": {**bare["value"], "labels": ["b"]}}
    assert objects(read_dataset(write(tmp_path, task(bare, labels)), strict=True)) == [("b", *SQUARE)]
    two = {**labels, "value": {**bare["value"], "labels": ["b", "c"]}}
    assert (
        "task 7: result r1: expected one class, found b, c"
        in read_dataset(write(tmp_path, task(polygon(number="r0"), bare, two))).problems[0]
    )


def test_the_newest_annotation_counts_that_is_not_cancelled(tmp_path: Path) -> None:
    versions = [
        {"result": [polygon("old")], "updated_at": "2024-01-01T00:00:00Z"},
        {"result": [polygon("new")], "updated_at": "2024-03-01T00:00:00Z"},
        {"result": [polygon("cancelled")], "updated_at": "2024-05-01T00:00:00Z", "was_cancelled": True},
    ]
    dataset = read_dataset(write(tmp_path, task(annotations=versions)), strict=True)
    assert [own[0] for own in objects(dataset)] == ["new"]


def test_predictions_count_if_nothing_is_annotated(tmp_path: Path) -> None:
    guess = [{"result": [polygon("guess")], "score": 0.4}]
    only = read_dataset(write(tmp_path, task(annotations=[], predictions=guess)), strict=True)
    assert [own[0] for own in objects(only)] == ["guess"]
    assert "no task is annotated: the predictions are read as annotations" in only.choices[0]
    both = [task(polygon()), task(number=8, image="two.png", annotations=[], predictions=guess)]
    dataset = read_dataset(write(tmp_path, *both), strict=True)
    assert [record.image_id for record in dataset.records] == [7]
    assert "1 task without annotations is left out; --missing empty keeps such tasks" in dataset.choices[0]
    assert [record.count for record in read_dataset(tmp_path, hints=Hints(missing="empty")).records] == [1, 0]


def test_an_annotation_without_results_is_an_empty_image(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, task(polygon()), task(number=8, image="two.png")), strict=True)
    assert [(record.image_id, record.count) for record in dataset.records] == [(7, 1), (8, 0)]


@pytest.mark.parametrize(
    "where",
    [
        {"file_upload": "ab12cd34-one.png", "data": {"image": "/data/upload/other"}},
        {"data": {"title": "a street", "photo": "https://example.org/x/one.png?signature=1"}},
        {"data": {"image": "/data/local-files/?d=some/folder/one.png"}},
        {"data": {"image": "s3://bucket/one.png"}},
        {"data": {"image": "C:\\photos\\one.png"}},
    ],
)
def test_the_image_is_found_by_its_name(tmp_path: Path, where: dict[str, Any]) -> None:
    dataset = read_dataset(write(tmp_path, task(polygon(), **where)), strict=True)
    assert dataset.records[0].path == tmp_path / "images" / "one.png"
    assert dataset.read(0).shape == (*SIZE, 3)


GOOD = brush(scene()["one"][0].mask)
BROKEN = {
    "two points": (
        result("polygonlabels", "a", points=[[1, 1], [2, 2]]),
        "expected a polygon of at least 3 points, found 2",
    ),
    "words": (result("polygonlabels", "a", points=[["x", 1]] * 3), "expected points as pairs of finite numbers"),
    "no height": (
        result("rectanglelabels", "a", x=1, y=1, height="2"),
        "expected x, y, width, height as numbers in percent",
    ),
    "a turned image": (
        {**polygon(), "image_rotation": 90},
        "expected an image without a turn, found image_rotation 90",
    ),
    "a short brush": (
        result("brushlabels", "a", rle=GOOD[:-9]),
        "the brush mask ends too early; the file may be cut off",
    ),
    "another size": (
        result("brushlabels", "a", rle=[0, 0, 0, 4, *GOOD[4:]]),
        "expected a brush mask of 8960 bytes (RGBA), found 4",
    ),
    "a huge size": (
        result("brushlabels", "a", rle=[255] * 4 + GOOD[4:]),
        "expected a brush mask of 8960 bytes (RGBA), found 4294967295",
    ),
    "no bytes": (result("brushlabels", "a", rle=["a"]), "expected rle as a list of bytes, found ['a']"),
    "nothing": (result("brushlabels", "a", rle=[]), "the brush mask ends too early; the file may be cut off"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_result_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    path = write(tmp_path, task({**broken, "id": "bad"}, polygon("good")))
    dataset = read_dataset(path)
    assert objects(dataset) == [("good", *SQUARE)]
    assert dataset.problems[0].startswith(f"{path}: task 7: result bad: {words}")
    with pytest.raises(DataError, match="task 7: result bad: ") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


def test_a_broken_task_or_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, task(polygon()), "task")
    assert "task 1: expected an object with data, found 'task'" in read_dataset(path).problems[0]
    path.write_text("{}")
    with pytest.raises(DataError, match=r"expected a list of tasks, found \{\}"):
        read_dataset(path, hints=Hints(format="label-studio"))


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "label_studio"
    plane = read_dataset(folder / "polygons", strict=True)
    assert objects(plane) == [("Airplane", 19268, [384, 63, 579, 357])]
    people = read_dataset(folder / "brush_predictions", strict=True)
    assert objects(people) == [
        ("Person", 12104, [689, 41, 768, 271]),
        ("Person", 5716, [593, 108, 674, 257]),
        ("Person", 11709, [122, 31, 214, 252]),
    ]
