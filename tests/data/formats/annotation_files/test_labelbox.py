"""Labelbox: both versions, names of images, masks behind addresses, unlabelled rows, broken rows and objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, objects, save_images

SQUARE = [{"x": x, "y": y} for x, y in ((4, 6), (14, 6), (14, 20), (4, 20))]
BOX = {"top": 6, "left": 4, "height": 14, "width": 10}
WHOLE = (140, [4.0, 6.0, 14.0, 20.0])
ADDRESS = "https://api.labelbox.com/masks/1"


def thing(label: str | None = "a", **geometry: Any) -> dict[str, Any]:
    return {"feature_id": "f", "name": label, "annotation_kind": "Image", **geometry}


def row(*things: Any, image: str = "one.png", **data: Any) -> dict[str, Any]:
    """A row of version 2."""
    return {
        "data_row": {"id": "ck1", "external_id": image, "row_data": f"https://example.org/x/{image}?token=1", **data},
        "media_attributes": {"height": SIZE[0], "width": SIZE[1]},
        "projects": {"p": {"name": "project", "labels": [{"annotations": {"objects": list(things)}}]}},
    }


def row_1(label: Any, image: str = "one.png", **fields: Any) -> dict[str, Any]:
    return {
        "ID": "ck1",
        "Labeled Data": f"https://example.org/x/{image}",
        "Label": label,
        "External ID": image,
        **fields,
    }


def write(folder: Path, *rows: Any) -> Path:
    save_images(folder)
    path = folder / "export.ndjson"
    path.write_text("".join(json.dumps(own) + "\n" for own in rows))
    return path


def write_1(folder: Path, *rows: Any) -> Path:
    path = write(folder).with_suffix(".json")
    path.write_text(json.dumps(rows))
    return path


def test_version_2(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        row(thing("b", polygon=SQUARE), thing("box", bounding_box=BOX), thing("a", point={"x": 1, "y": 2})),
        row(image="two.png"),
    )
    dataset = read_dataset(path, strict=True)
    assert dataset.format == "Labelbox export"
    assert objects(dataset) == [("b", *WHOLE), ("box", *WHOLE)]
    assert dataset.annotations(0).has_mask.tolist() == [True, False]
    assert [(record.image_id, record.count) for record in dataset.records] == [("one.png", 2), ("two.png", 0)]
    assert read_dataset(tmp_path, strict=True).records[1].path == tmp_path / "two.png"
    listed = write_1(tmp_path, row(thing("b", polygon=SQUARE)))  # the same rows as one list
    assert objects(read_dataset(listed, strict=True)) == [("b", *WHOLE)]


def test_version_1(tmp_path: Path) -> None:
    exact = {"title": "A dog", "value": "a_dog", "polygon": SQUARE, "instanceURI": ADDRESS}
    path = write_1(
        tmp_path,
        row_1({"objects": [exact, {"value": "cat", "bbox": BOX}, {"value": "cat", "line": SQUARE}]}),
        row_1({"objects": [], "classifications": []}, image="two.png"),
    )
    dataset = read_dataset(path, strict=True)
    assert objects(dataset) == [("A dog", *WHOLE), ("cat", *WHOLE)]
    assert [record.count for record in dataset.records] == [2, 0]
    old = write_1(tmp_path, row_1({"dog": [{"geometry": SQUARE}, SQUARE]}))
    assert objects(read_dataset(old, strict=True)) == [("dog", *WHOLE)] * 2


@pytest.mark.parametrize(
    "data",
    [
        {"external_id": "elsewhere/7f", "global_key": "one.png"},
        {"external_id": None},
        {"external_id": "", "row_data": "gs://bucket/photos%2Fone.png"},
        {"external_id": "C:\\photos\\one.png"},
    ],
)
def test_the_image_is_found_under_one_of_its_names(tmp_path: Path, data: dict[str, Any]) -> None:
    dataset = read_dataset(write(tmp_path, row(thing(polygon=SQUARE), **data)), strict=True)
    assert dataset.records[0].path == tmp_path / "one.png"


def test_masks_behind_addresses_are_named(tmp_path: Path) -> None:
    masked = thing(composite_mask={"url": ADDRESS, "color_rgb": [1, 2, 3]})
    path = write(tmp_path, row(masked, thing(polygon=SQUARE)), row(masked, image="two.png"))
    dataset = read_dataset(path)
    assert [(record.image_id, record.count) for record in dataset.records] == [("one.png", 1)]
    first, second = dataset.problems
    assert "row 1: one.png: 1 masks are only addresses, which are not fetched; they are left out" in first
    assert "row 2: two.png: 1 masks are only addresses, which are not fetched; the image is left out" in second
    with pytest.raises(DataError, match=r"the data set is empty: .* only addresses"):
        read_dataset(write_1(tmp_path, row_1({"objects": [{"value": "a", "instanceURI": ADDRESS}]})))


def test_rows_without_labels(tmp_path: Path) -> None:
    unlabelled = row(image="two.png")
    unlabelled["projects"]["p"]["labels"] = []
    path = write(tmp_path, row(thing(polygon=SQUARE)), unlabelled)
    dataset = read_dataset(path, strict=True)
    assert len(dataset) == 1
    assert "1 image without labels is left out; --missing empty keeps such images" in dataset.choices[0]
    assert [record.count for record in read_dataset(path, hints=Hints(missing="empty")).records] == [1, 0]
    skipped = [row_1({"objects": [{"value": "a", "polygon": SQUARE}]}), row_1("Skip", image="two.png")]
    assert len(read_dataset(write_1(tmp_path, *skipped), strict=True)) == 1


def test_only_the_first_of_several_labels_is_read(tmp_path: Path) -> None:
    first, second = row(thing("cat", polygon=SQUARE)), row(thing("cat", polygon=SQUARE), image="two.png")
    assert read_dataset(write(tmp_path, first, second), strict=True).choices == ()
    dogs = {"annotations": {"objects": [thing("dog", polygon=SQUARE)] * 2}}
    first["projects"]["q"] = {"name": "another project", "labels": [dogs]}
    dataset = read_dataset(write(tmp_path, first, second), strict=True)
    assert objects(dataset, "one.png") == [("cat", *WHOLE)]
    assert dataset.choices[0].endswith(": 1 row has several labels, of which only the first is read")
    second["projects"]["p"]["labels"].append(dogs)
    dataset = read_dataset(write(tmp_path, first, second), strict=True)
    assert dataset.choices[0].endswith(": 2 rows have several labels, of which only the first is read")


BROKEN: dict[str, tuple[Any, str]] = {
    "no class": (row(thing(None, polygon=SQUARE)), "row 1: objects[0]: expected a title or name, which is the class"),
    "two points": (row(thing(polygon=SQUARE[:2])), "row 1: objects[0]: expected a polygon of at least 3 points"),
    "no edge": (row(thing(bounding_box={"top": 1})), "row 1: objects[0]: expected left, top, width, height as numbers"),
    "another kind": (row(thing(blob=1)), "row 1: objects[0]: expected a polygon, bbox, point or line"),
    "no row": (["data_row"], "row 1: expected a row with data_row or Labeled Data, found ['data_row']"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    path = write_1(tmp_path, broken, row(thing(polygon=SQUARE), image="two.png"))
    dataset = read_dataset(path)
    assert objects(dataset, "two.png") == [("a", *WHOLE)]
    assert dataset.problems[0].startswith(f"{path}: {words}")
    with pytest.raises(DataError, match="row 1: ") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


def test_a_broken_line_is_named_and_does_not_stop_the_rest(tmp_path: Path) -> None:
    path = write(tmp_path, row(thing(polygon=SQUARE)))
    path.write_text(path.read_text() + '{"data_row": \n\n' + json.dumps(row(image="two.png")))
    dataset = read_dataset(path)
    assert [record.image_id for record in dataset.records] == ["one.png", "two.png"]
    assert dataset.problems[0].startswith(f"{path}: row 2: expected JSON in each line, found another text")


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "labelbox" / "v1_vector", strict=True)
    assert objects(dataset, "dog1.jpg") == [("dog", 85357, [179, 84, 656, 463])]
    assert objects(dataset, "dog2.jpg") == [("dog", 91553, [101, 38, 421, 464])]
    assert [record.height for record in dataset.records] == [529, 480]
    assert "1 shape is left out, because point has no area" in dataset.choices[0]
