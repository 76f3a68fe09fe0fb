"""Darwin JSON: both versions, even-odd paths, raster layers, slots, and broken annotations and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, expected, masks, objects, save_images, scene

SQUARE = [{"x": x, "y": y} for x, y in ((4, 6), (14, 6), (14, 20), (4, 20))]
HOLE = [{"x": x, "y": y} for x, y in ((6, 8), (10, 8), (10, 12), (6, 12))]
WHOLE = (140, [4.0, 6.0, 14.0, 20.0])


def annotation(label: str, kind: str, value: Any, own: str = "1", **fields: Any) -> dict[str, Any]:
    return {"id": own, "name": label, "slot_names": ["0"], kind: value, **fields}


def polygon(label: str, *paths: Any, **fields: Any) -> dict[str, Any]:
    return annotation(label, "polygon", {"paths": list(paths)}, **fields)


def item(name: str = "one.png", slots: tuple[str, ...] = ("0",), **fields: Any) -> dict[str, Any]:
    sizes = {"type": "image", "width": SIZE[1], "height": SIZE[0]}
    own = [{**sizes, "slot_name": slot, "source_files": [{"file_name": name}]} for slot in slots]
    return {"name": name, "path": "/", "slots": own, **fields}


def write(folder: Path, *annotations: Any, **content: Any) -> Path:
    save_images(folder / "images")
    path = folder / "annotations" / "one.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"version": "2.0", "item": item(), "annotations": list(annotations), **content}))
    return path


def layer(numbered: dict[str, np.ndarray]) -> dict[str, Any]:
    """A raster layer of masks by id, by a plain loop."""
    values = np.zeros(SIZE, dtype=int)
    for number, mask in enumerate(numbered.values(), start=1):
        values[mask] = number
    runs: list[int] = []
    for value in values.ravel().tolist():
        if runs[-2:-1] != [value]:
            runs += [value, 0]
        runs[-1] += 1
    mapping = {own: number for number, own in enumerate(numbered, start=1)}
    content = {"dense_rle": runs, "mask_annotation_ids_mapping": mapping, "total_pixels": values.size}
    return annotation("__raster_layer__", "raster_layer", content, own="layer")


def test_shapes(tmp_path: Path) -> None:
    write(
        tmp_path,
        polygon("a", SQUARE, bounding_box={"x": 0, "y": 0, "w": 1, "h": 1}),
        polygon("ring", HOLE, SQUARE),  # the outer path need not be first
        annotation("box", "bounding_box", {"x": 4, "y": 6, "w": 10, "h": 14}),
        annotation("round", "ellipse", {"center": SQUARE[3], "radius": {"x": 3, "y": 3}, "angle": 0.2}),
        annotation("a", "line", {"path": SQUARE}),
        annotation("a", "tag", {}),
        polygon("background", SQUARE),
    )
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "Darwin JSON"
    found = objects(dataset, "one.png")
    assert found[:3] == [("a", *WHOLE), ("ring", 124, WHOLE[1]), ("box", *WHOLE)]
    assert found[3][2] == [1.0, 17.0, 7.0, 23.0]
    assert dataset.annotations(0).has_mask.tolist() == [True, True, False, True]
    assert [record.path for record in dataset.records] == [tmp_path / "images" / "one.png"]
    assert len(dataset.choices) == 4


def test_masks_of_a_raster_layer(tmp_path: Path) -> None:
    things = {str(number): thing for number, thing in enumerate(scene()["one"])}
    named = [annotation(thing.name, "mask", {}, own=number) for number, thing in things.items()]
    write(tmp_path, *named, layer({number: thing.mask for number, thing in things.items()}))
    assert masks(read_dataset(tmp_path, strict=True)) == expected("one")


def test_version_1(tmp_path: Path) -> None:
    pieces = [
        annotation("a", "polygon", {"path": SQUARE}),
        annotation("ring", "complex_polygon", {"path": [SQUARE, HOLE]}),
        annotation("more", "polygon", {"path": SQUARE, "additional_paths": [HOLE]}),
    ]
    path = write(tmp_path)
    image = {"filename": "one.png", "width": SIZE[1], "height": SIZE[0], "workview_url": "https://example.org"}
    path.write_text(json.dumps({"dataset": "d", "image": image, "annotations": pieces}))
    dataset = read_dataset(tmp_path, strict=True)
    assert objects(dataset) == [("a", *WHOLE), ("ring", 124, WHOLE[1]), ("more", 124, WHOLE[1])]


def test_folders_and_slots(tmp_path: Path) -> None:
    save_images(tmp_path / "images" / "street" / "north", ("one",))
    write(tmp_path, polygon("a", SQUARE), item=item(path="/street/north"))
    assert read_dataset(tmp_path, strict=True).records[0].path.parent.name == "north"
    both = item(slots=("left", "right"))
    for slot, name in zip(both["slots"], ("one.png", "two.png"), strict=True):
        slot["source_files"] = [{"file_name": name}]
    write(tmp_path, polygon("a", SQUARE), polygon("b", SQUARE, slot_names=["right"]), item=both)
    dataset = read_dataset(tmp_path, strict=True)
    assert [[own[0] for own in objects(dataset, i)] for i in (0, 1)] == [[], ["b"]]
    assert [record.image_id for record in dataset.records] == ["one.png", "two.png"]


def test_an_image_without_a_file_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, polygon("a", SQUARE))
    assert "1 image without annotations is left out" in read_dataset(path.parent, strict=True).choices[0]
    kept = read_dataset(tmp_path, hints=Hints(missing="empty"))
    assert [(record.image_id, record.count) for record in kept.records] == [("one.png", 1), ("two.png", 0)]


BAD_RUNS = {"dense_rle": [0, 5], "mask_annotation_ids_mapping": {"1": 1}}
LISTED = {"dense_rle": [1, SIZE[0] * SIZE[1]], "mask_annotation_ids_mapping": {"1": [1, 2]}}
BROKEN: dict[str, tuple[list[Any], str]] = {
    "no class": ([{**polygon("a", SQUARE), "name": 3}], "annotations[0]: expected the name of a class, found 3"),
    "no path": ([polygon("a")], "annotations[0]: expected points as pairs of finite numbers, found []"),
    "words": ([polygon("a", [{"x": "left"}])], "annotations[0]: expected points as pairs of finite numbers"),
    "unknown": ([annotation("a", "blob", {})], "annotations[0]: expected a polygon, mask, ellipse or bounding_box"),
    "video": ([polygon("a", SQUARE, frames={})], "annotations[0]: expected an annotation of an image, found frames"),
    "no layer": ([annotation("a", "mask", {})], "annotations[0]: expected a raster layer with the mask '1'"),
    "short runs": (
        [annotation("a", "mask", {}), annotation("r", "raster_layer", BAD_RUNS)],
        f"annotations[0]: expected dense_rle of {SIZE[0] * SIZE[1]} pixels, found 5",
    ),
    "two values": (
        [annotation("a", "mask", {}), annotation("r", "raster_layer", LISTED)],
        "annotations[0]: expected mask_annotation_ids_mapping to give whole numbers, found [1, 2]",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_annotation_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    path = write(tmp_path, *broken, polygon("good", SQUARE))
    dataset = read_dataset(path)
    assert objects(dataset) == [("good", *WHOLE)]
    assert dataset.problems[0].startswith(f"{path}: one.json: {words}")
    with pytest.raises(DataError, match=r"annotations\[0\]: ") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "3", '{"item": {}, "annotations": []}', '{"item": 3, "annotations": []}'])
def test_a_broken_file_is_named_and_does_not_stop_the_rest(tmp_path: Path, content: str) -> None:
    path = write(tmp_path, polygon("a", SQUARE))
    path.with_name("two.json").write_text(content)
    dataset = read_dataset(path.parent)
    assert len(dataset) == 1
    assert "two.json: " in dataset.problems[0]
    path.write_text(content)
    with pytest.raises(DataError, match=r"found none that can be used; first: one\.json: "):
        read_dataset(path.parent, hints=Hints(format="darwin"))


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "darwin" / "image_2", strict=True)
    boxes = {"image_1.jpg": [273, 149, 302, 176], "image_2.jpg": [326, 145, 357, 168]}
    for name, pixels, point in (("image_1.jpg", 435, (308, 190)), ("image_2.jpg", 474, (347, 195))):
        found = objects(dataset, name)
        assert [own[0].removeprefix("test_") for own in found] == [
            *("polygon_basic", "ellipse_basic", "bounding_box_basic", "mask_basic", "mask_basic"),
        ]
        assert found[0][2] == [19, 135, 110, 208]
        assert found[3][1:] == (pixels, boxes[name])
        assert found[4][1:] == (1, [*point, *(end + 1 for end in point)])
    assert [(record.height, record.width) for record in dataset.records] == [(1080, 1920)] * 2
