"""VIA: versions 1 to 3 and CSV, the attribute that is the class, and broken regions and files."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import objects, save_images

POLYGON = {"name": "polygon", "all_points_x": [4, 14, 14, 4], "all_points_y": [6, 6, 20, 20]}
RECT = {"name": "rect", "x": 4, "y": 6, "width": 10, "height": 14}
SQUARE = (140, [4.0, 6.0, 14.0, 20.0])


def region(shape: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def write(folder: Path, regions: Any, name: str = "via.json", wrapped: bool = False) -> Path:
    save_images(folder)
    content: dict[str, Any] = {
        "one.png123": {"filename": "one.png", "size": 123, "regions": regions, "file_attributes": {}},
        "two.png99": {"filename": "two.png", "size": 99, "regions": [], "file_attributes": {}},
    }
    path = folder / name
    path.write_text(json.dumps({"_via_settings": {}, "_via_img_metadata": content} if wrapped else content))
    return path


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("numbered", [True, False])
def test_lists_numbered_regions_and_projects(tmp_path: Path, wrapped: bool, numbered: bool) -> None:
    regions = [region(POLYGON, kind="a"), region(RECT, kind="b")]
    path = write(tmp_path, {str(i): r for i, r in enumerate(regions)} if numbered else regions, wrapped=wrapped)
    for place in (path, tmp_path):
        dataset = read_dataset(place, strict=True)
        assert dataset.format == "VIA"
        assert objects(dataset, "one.png123") == [("a", *SQUARE), ("b", *SQUARE)]
        assert [record.count for record in dataset.records] == [2, 0]


def test_every_shape_with_an_area(tmp_path: Path) -> None:
    circle = {"name": "circle", "cx": 30, "cy": 20, "r": 10}
    ellipse = {"name": "ellipse", "cx": 30, "cy": 20, "rx": 10, "ry": 5}
    turned = {"name": "ellipse", "cx": 30, "cy": 20, "rx": 5, "ry": 10, "theta": math.pi / 2}
    dataset = read_dataset(
        write(tmp_path, [*map(region, (circle, ellipse, turned)), region({"name": "point", "cx": 1, "cy": 1})]),
        strict=True,
    )
    round_one, flat, same = objects(dataset)
    assert round_one[1] == pytest.approx(100 * math.pi, rel=0.02)
    assert round_one[2] == [20.0, 10.0, 40.0, 30.0]
    assert flat == same
    assert flat[2] == [20.0, 15.0, 40.0, 25.0]
    assert "1 region is left out, because point has no area" in dataset.choices[0]
    assert dataset.categories[0].name == "object"  # no region has an attribute


def test_points_outside_are_cut_off(tmp_path: Path) -> None:
    shape = POLYGON | {"all_points_x": [-9, 14, 14, -9]}
    assert objects(read_dataset(write(tmp_path, [region(shape)]), strict=True)) == [
        ("object", 196, [0.0, 6.0, 14.0, 20.0])
    ]


def test_the_class_is_the_attribute_that_most_regions_have_or_the_one_that_is_named(tmp_path: Path) -> None:
    regions = [
        region(RECT, quality="good", type="cat", number=3),
        region(RECT, quality="bad", type={"cat": False, "dog": True}, number=4),
        region(RECT, type="background"),
    ]
    path = write(tmp_path, [*regions, region(RECT, type=["cat"])])
    assert [category.name for category in read_dataset(path).categories] == ["cat", "dog"], "a list is no name"
    path = write(tmp_path, regions)
    dataset = read_dataset(path, strict=True)
    assert [own[0] for own in objects(dataset)] == ["cat", "dog"]
    assert "the region attribute type is read as the class; --class-attribute names another" in dataset.choices[0]
    named = read_dataset(path, hints=Hints(class_attribute="number"))
    assert [own[0] for own in objects(named)] == ["3", "4"]
    assert len(named.problems) == 1  # the third has no number
    with pytest.raises(DataError, match="expected --class-attribute to be one of quality, type, number, found size"):
        read_dataset(path, hints=Hints(class_attribute="size"))


def test_a_csv_holds_json_in_its_cells(tmp_path: Path) -> None:
    save_images(tmp_path)
    path = tmp_path / "via.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["#filename", "region_id", "region_shape_attributes", "region_attributes"])
        rows.writerow(["one.png", 0, json.dumps(POLYGON), json.dumps({"kind": "a"})])
        rows.writerow(["one.png", 1, json.dumps(RECT), json.dumps({"kind": "b"})])
        rows.writerow(["two.png", 0, "{}", "{}"])
    dataset = read_dataset(path, strict=True)
    assert objects(dataset, "one.png") == [("a", *SQUARE), ("b", *SQUARE)]
    assert [record.count for record in dataset.records] == [2, 0]
    with path.open("a", newline="") as file:
        csv.writer(file).writerow(["two.png", 0, '{"name": ', "{}"])
    assert "line 5: expected JSON in region_shape_attributes and region_attributes" in read_dataset(path).problems[0]


def test_version_3_numbers_its_shapes_and_values(tmp_path: Path) -> None:
    path = write_3(tmp_path)
    dataset = read_dataset(path, strict=True)
    assert objects(dataset, "one.png") == [("a", *SQUARE), ("b", *SQUARE)]
    assert [own[0] for own in objects(dataset, "two.png")] == ["b"]


def write_3(folder: Path, xy: Any = (2, 4, 6, 10, 14), options: Any = None) -> Path:
    """A project of version 3 with several shapes.

    Args:
        xy: the first of them.
        options: the values of its attribute.
    """
    save_images(folder)
    content = {
        "project": {"pid": "x"},
        "attribute": {"1": {"aname": "kind", "options": options or {"0": "a", "1": "b"}}},
        "file": {"1": {"fid": 1, "fname": "one.png"}, "2": {"fid": 2, "fname": "two.png"}},
        "view": {"1": {"fid_list": [1]}, "2": {"fid_list": ["2"]}},
        "metadata": {
            "x": {"vid": "1", "xy": xy, "av": {"1": "0"}},
            "y": {"vid": "1", "xy": [7, 4, 6, 14, 6, 14, 20, 4, 20], "av": {"1": "1"}},
            "z": {"vid": "2", "xy": [3, 30, 20, 10], "av": {"1": "1"}},
            "whole": {"vid": "2", "xy": [], "av": {}},
        },
    }
    path = folder / "via3.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("first", [[2], {}, "2", None])
def test_a_shape_of_version_3_without_a_number_is_named(tmp_path: Path, first: Any) -> None:
    path = write_3(tmp_path, [first, 4, 6, 10, 14])
    dataset = read_dataset(path)
    assert objects(dataset, "one.png") == [("b", *SQUARE)]
    words = f"{path}: metadata x: expected xy with the number of a shape first, found [{first!r}, 4, 6, 10, 14]"
    assert dataset.problems == (words,)
    with pytest.raises(DataError, match="expected xy with the number of a shape first"):
        read_dataset(path, strict=True)


@pytest.mark.parametrize("options", [["a", "b"], "a", 3])
def test_options_of_version_3_without_numbers_are_named(tmp_path: Path, options: Any) -> None:
    path = write_3(tmp_path, options=options)
    dataset = read_dataset(path)
    assert [own[0] for own in objects(dataset, "one.png")] == ["0", "1"]
    assert dataset.problems == (f"{path}: attribute 1: expected options by their numbers, found {options!r}",)


BROKEN = {
    "no shape": ({"region_attributes": {}}, "one.png123: regions[0]: expected shape_attributes, found"),
    "a text": ("region", "one.png123: regions[0]: expected shape_attributes, found 'region'"),
    "two points": (
        region(POLYGON | {"all_points_x": [1, 2], "all_points_y": [1, 2]}),
        "one.png123: regions[0]: expected 3 or more all_points_x",
    ),
    "words": (region(RECT | {"x": "left"}), "one.png123: regions[0]: expected x, y, width, height as numbers, found"),
    "pairs": (region(POLYGON | {"all_points_x": [[1]] * 4}), "one.png123: regions[0]: expected points as pairs"),
    "outside": (
        region(RECT | {"x": 90}),
        "annotation 'one.png123:0' of image 'one.png123': the mask covers no pixel",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_region_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    path = write(tmp_path, [broken, region(POLYGON)])
    dataset = read_dataset(path)
    assert objects(dataset) == [("object", *SQUARE)]
    assert dataset.problems[0].startswith(f"{path}: {words}")
    with pytest.raises(DataError) as caught:
        read_dataset(path, strict=True)
    assert str(caught.value) == dataset.problems[0]


def test_several_files_in_a_folder_are_one_error(tmp_path: Path) -> None:
    write(tmp_path, [region(RECT)], "a.json")
    write(tmp_path, [region(RECT)], "b.json")
    with pytest.raises(DataError, match=r"expected one VIA file in the folder, found a.json, b.json; name the file"):
        read_dataset(tmp_path)


def test_real_files(shared: Path) -> None:
    folder = shared / "data" / "formats" / "via"
    balloons = read_dataset(folder / "matterport_v1", strict=True)
    assert [record.count for record in balloons.records] == [9, 9, 9, 9]
    assert objects(balloons, "Crop_1.png")[:2] == [
        ("object", 7408, [241, 37, 284, 359]),
        ("object", 7781, [249, 36, 347, 359]),
    ]
    assert objects(balloons, "Crop_2.png")[0] == ("object", 10122, [121, 51, 242, 338])
    dogs = read_dataset(folder / "via2", strict=True)
    assert objects(dogs, 0) == [("dog", 84904, [183, 82, 653, 464])]
    assert objects(dogs, 1) == [("dog", 94792, [107, 3, 411, 459])]
