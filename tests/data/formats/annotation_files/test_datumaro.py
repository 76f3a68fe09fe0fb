"""Datumaro JSON: masks and shapes, groups, crowds, classes by position, parts of a data set, broken annotations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from maskrcnn.structures.masks import RLE
from small_scene import SIZE, expected, masks, objects, save_images, scene

SQUARE = [4, 6, 14, 6, 14, 20, 4, 20]
WHOLE = (140, [4.0, 6.0, 14.0, 20.0])
NAMES = ("rod", "cell", "cell", "background")  # two classes of one name


def annotation(kind: str, label: Any = 1, **fields: Any) -> dict[str, Any]:
    return {"id": 0, "type": kind, "label_id": label, "group": 0, "attributes": {}, "z_order": 0, **fields}


def item(*annotations: Any, own: str = "one", **fields: Any) -> dict[str, Any]:
    return {"id": own, "annotations": list(annotations), "image": {"path": f"{own}.png", "size": list(SIZE)}, **fields}


def write(folder: Path, *items: Any, part: str = "train", names: tuple[str, ...] = NAMES, **fields: Any) -> Path:
    save_images(folder / "images" / part)
    path = folder / "annotations" / f"{part}.json"
    path.parent.mkdir(exist_ok=True)
    labels = [{"name": name, "parent": ""} for name in names]
    content = {"dm_format_version": "1.0", "infos": {}, "categories": {"label": {"labels": labels}}, **fields}
    path.write_text(json.dumps({**content, "items": list(items)}))
    return path


def test_masks(tmp_path: Path) -> None:
    things = scene()["one"]
    own = [annotation("mask", NAMES.index(t.name), rle=RLE.from_dense(t.mask).to_coco()) for t in things]
    dataset = read_dataset(write(tmp_path, item(*own), item(own="two")), strict=True)
    assert dataset.format == "Datumaro JSON"
    assert masks(dataset, "one") == expected("one")
    assert [(category.id, category.name) for category in dataset.categories] == [(0, "rod"), (1, "cell"), (2, "cell")]
    assert [record.path.parent.name for record in dataset.records] == ["train", "train"]


def test_shapes_groups_and_crowds(tmp_path: Path) -> None:
    right = [20, 6, 24, 6, 24, 10, 20, 10]
    path = write(
        tmp_path,
        item(
            annotation("polygon", points=SQUARE, group=1),
            annotation("bbox", bbox=[0, 0, 50, 30], group=1),  # the box of the group
            annotation("polygon", points=right, group=1),
            annotation("bbox", 0, bbox=[4, 6, 10, 14]),
            annotation("bbox", 0, bbox=[2, 8, 14, 10], attributes={"rotation": 90.0}),
            annotation("ellipse", 2, points=[20, 15, 40, 25]),
            annotation("polygon", 2, points=SQUARE, attributes={"is_crowd": True}),
            annotation("points", points=[1, 1]),
            annotation("label"),
            annotation("polygon", 3, points=SQUARE),
        ),
    )
    dataset = read_dataset(path, strict=True)
    found = objects(dataset)
    assert found[0] == ("cell", 156, [4.0, 6.0, 24.0, 20.0])
    assert found[1:3] == [("rod", *WHOLE)] * 2
    assert found[3][2] == [20.0, 15.0, 40.0, 25.0]
    assert found[3][1] == pytest.approx(np.pi * 50, rel=0.02)
    assert dataset.annotations(0).has_mask.tolist() == [True, False, True, True, True]
    assert dataset.annotations(0).crowd.tolist() == [False] * 4 + [True]
    assert len(dataset.choices) == 3


def test_older_and_newer_files(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": "one", "annotations": [annotation("polygon", points=SQUARE)], "media": {"path": ""}})
    content = json.loads(path.read_text())
    del content["dm_format_version"]
    path.write_text(json.dumps(content))
    assert objects(read_dataset(path, strict=True)) == [("cell", *WHOLE)]
    path = write(tmp_path, item(annotation("polygon", None, points=SQUARE)), names=())
    assert objects(read_dataset(path, strict=True)) == [("object", *WHOLE)]


def test_files_are_the_parts_of_a_data_set(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path, item(annotation("polygon", points=SQUARE), own="one"), part=part)
    for path in (tmp_path, tmp_path / "annotations"):
        dataset = read_dataset(path, hints=Hints(split="val"), strict=True)
        assert dataset.records[0].path == tmp_path / "images" / "val" / "one.png"
    assert [record.fields["split"] for record in read_dataset(tmp_path).records] == ["train", "val"]


BROKEN: dict[str, tuple[Any, str]] = {
    "no class": (annotation("polygon", 9, points=SQUARE), "annotations[0]: expected label_id as one of 4 classes"),
    "another kind": (annotation("blob"), "annotations[0]: expected a known type, found 'blob'"),
    "two points": (annotation("polygon", points=SQUARE[:4]), "annotations[0]: expected a polygon of at least 3 points"),
    "no box": (annotation("bbox", bbox=[1, 2]), "annotations[0]: expected points as pairs"),
    "another size": (
        annotation("mask", rle={"size": [4, 5], "counts": [20]}),
        "annotations[0]: expected a mask of the image's height, width (40, 56), found (4, 5)",
    ),
    "no runs": (annotation("mask"), "annotations[0]: "),
    "no annotation": ("mask", "annotations[0]: "),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_annotation_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    path = write(tmp_path, item(broken, annotation("polygon", points=SQUARE)))
    dataset = read_dataset(path)
    assert objects(dataset) == [("cell", *WHOLE)]
    assert dataset.problems[0].startswith(f"{path}: items[0]: {words}")
    with pytest.raises(DataError, match=r"annotations\[0\]: ") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


def test_a_broken_item_or_file_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "item", item(annotation("polygon", points=SQUARE)))
    dataset = read_dataset(path)
    assert len(dataset) == 1
    assert dataset.problems[0].startswith(f"{path}: items[0]: expected an item with an id, found 'item'")
    for name in (None, ["cell"], {}):
        path.write_text(json.dumps({"items": [], "categories": {"label": {"labels": [{"name": name}]}}}))
        with pytest.raises(DataError, match="category 0: expected a name as text, found "):
            read_dataset(path)
    path.write_text('{"items": 3, "categories": {}}')
    with pytest.raises(DataError, match="expected an object with a list of items, found"):
        read_dataset(path)


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "datumaro" / "masks", strict=True)
    assert [(record.height, record.width) for record in dataset.records] == [(256, 320)] * 2
    first, second = objects(dataset, "a6515d730778"), objects(dataset, "8e507d58f4c2")
    assert (len(first), sum(own[1] for own in first)) == (15, 4250)
    assert (len(second), sum(own[1] for own in second)) == (6, 916)
    assert first[:2] == [("nucleus", 198, [185, 43, 198, 62]), ("nucleus", 389, [158, 116, 184, 152])]
    assert second[:2] == [("nucleus", 106, [0, 228, 14, 239]), ("nucleus", 308, [26, 198, 56, 212])]
