"""Hasty: polygons, masks in both orders of pixels, boxes, backgrounds, images that nobody has begun, broken labels."""

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

CORNERS = [[4, 6], [14, 6], [14, 20], [4, 20]]
WHOLE = (140, [4.0, 6.0, 14.0, 20.0])


def label(name: str = "a", **fields: Any) -> dict[str, Any]:
    empty = {"id": "f00d", "polygon": None, "mask": None, "z_index": 0, "attributes": {}}
    return {**empty, "class_name": name, "bbox": [4, 6, 14, 20], **fields}


def masked(name: str, mask: np.ndarray, order: str) -> dict[str, Any]:
    """A label with the runs of an (H, W) bool mask inside its box."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    inside = mask[y1:y2, x1:x2].ravel(order="C" if order == "right" else "F")
    changes = np.flatnonzero(np.diff(np.concatenate([[False], inside])))
    runs = np.diff(np.concatenate([[0], changes, [inside.size]]))
    return label(name, bbox=[int(x1), int(y1), int(x2), int(y2)], mask=runs.tolist())


def image(name: str, *labels: Any, **fields: Any) -> dict[str, Any]:
    size = {"height": SIZE[0], "width": SIZE[1]}
    return {"image_name": name, "dataset_name": "Default", **size, "image_status": "DONE", "labels": labels, **fields}


def write(folder: Path, *images: Any) -> Path:
    save_images(folder / "images")
    classes = [{"class_name": "a", "class_type": "object"}, {"class_name": "sky", "class_type": "background"}]
    content = {"project_name": "p", "export_format_version": "1.1", "label_classes": classes, "images": images}
    (folder / "export.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("order", ["right", "down"])
def test_masks_of_both_orders(tmp_path: Path, order: str) -> None:
    images = [image(f"{own}.png", *(masked(*thing, order) for thing in things)) for own, things in scene().items()]
    dataset = read_dataset(write(tmp_path, *images), strict=True)
    assert dataset.format == "Hasty JSON"
    assert {own: masks(dataset, f"{own}.png") for own in scene()} == {own: expected(own) for own in scene()}
    assert [category.name for category in dataset.categories] == ["a", "cell", "rod"]


def test_polygons_boxes_and_backgrounds(tmp_path: Path) -> None:
    labels = [label(polygon=CORNERS), label("box"), label("sky", polygon=CORNERS)]
    dataset = read_dataset(write(tmp_path, image("one.png", *labels), image("two.png", image_status="NEW")))
    assert objects(dataset) == [("a", *WHOLE), ("box", *WHOLE)]
    assert dataset.annotations(0).has_mask.tolist() == [True, False]
    assert len(dataset) == 1
    assert len(dataset.choices) == 2
    assert len(read_dataset(tmp_path / "export.json", hints=Hints(missing="empty"))) == 2


def test_sets_are_parts(tmp_path: Path) -> None:
    images = [image("one.png", label(), dataset_name="train"), image("two.png", label(), dataset_name="val")]
    dataset = read_dataset(write(tmp_path, *images), hints=Hints(split="val"))
    assert [record.image_id for record in dataset.records] == ["two.png"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mask": [3, 4]}, "expected mask as runs of all 140 pixels of bbox"),
        ({"mask": [-1, 141]}, "expected mask as runs of all 140 pixels"),
        ({"mask": ["a"]}, "expected mask as runs of all 140 pixels"),
        ({"mask": [1], "bbox": [0, 0, 10**6, 10**6]}, "expected bbox as x1, y1, x2, y2 around a mask"),
        ({"mask": [1], "bbox": [4, 6, 2, 4]}, "expected bbox as x1, y1, x2, y2 around a mask"),
        ({"bbox": [1, 2, 3]}, "expected bbox as x1, y1, x2, y2, found"),
        ({"polygon": [[1, 2]]}, "expected a polygon of at least 3 points"),
        ({"class_name": None}, "expected a class_name"),
    ],
)
def test_a_broken_label_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    dataset = read_dataset(write(tmp_path, image("one.png", label(**fields), label(polygon=CORNERS))))
    assert objects(dataset) == [("a", *WHOLE)]
    (problem,) = dataset.problems
    assert f"images[0]: labels[0]: {message}" in problem
    with pytest.raises(DataError, match="labels"):
        read_dataset(tmp_path, strict=True)


def test_an_image_without_a_name_is_named(tmp_path: Path) -> None:
    dataset = read_dataset(write(tmp_path, image("one.png"), image("")))
    assert dataset.problems[0].partition(": ")[2].startswith("images[1]: expected an image with")
