"""VoTT: assets and exports of projects, Windows paths, assets that nobody has visited, broken regions and files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from small_scene import SIZE, objects, save_images

CORNERS = [{"x": x, "y": y} for x, y in ((4, 6), (14, 6), (14, 20), (4, 20))]
EDGES = {"left": 4, "top": 6, "width": 10, "height": 14}
WHOLE = (140, [4.0, 6.0, 14.0, 20.0])


def region(kind: str = "POLYGON", *tags: Any, **fields: Any) -> dict[str, Any]:
    return {"id": "r", "type": kind, "tags": list(tags or ("a",)), "boundingBox": EDGES, "points": CORNERS, **fields}


def entry(*regions: Any, image: str = "one.png", state: int = 2, **asset: Any) -> dict[str, Any]:
    size = {"height": SIZE[0], "width": SIZE[1]}
    own = {"id": "f00d", "name": image, "path": f"file:/data/{image}", "size": size, "state": state, "type": 1, **asset}
    return {"asset": own, "regions": list(regions), "version": "2.2.0"}


def write(folder: Path, *entries: Any) -> Path:
    save_images(folder)
    for number, own in enumerate(entries):
        (folder / f"{number}-asset.json").write_text(json.dumps(own))
    return folder


def test_assets(tmp_path: Path) -> None:
    regions = [region("POLYGON", "b"), region("RECTANGLE", "box"), region("POLYLINE"), region("POLYGON", "void")]
    dataset = read_dataset(write(tmp_path, entry(*regions), entry(image="two.png", state=1)), strict=True)
    assert dataset.format == "VoTT"
    assert objects(dataset, "one.png") == [("b", *WHOLE), ("box", *WHOLE)]
    assert dataset.annotations(0).has_mask.tolist() == [True, False]
    assert [record.count for record in dataset.records] == [2, 0]
    assert len(dataset.choices) == 2
    (tmp_path / "street.vott").write_text("{}")
    assert len(read_dataset(tmp_path / "street.vott", strict=True)) == 2
    assert objects(read_dataset(tmp_path / "0-asset.json", strict=True)) == [("b", *WHOLE), ("box", *WHOLE)]


def test_the_export_of_a_project_counts_before_its_assets(tmp_path: Path) -> None:
    write(tmp_path, entry(region("POLYGON", "old")))
    assets = {"f00d": entry(region("POLYGON", "new")), "beef": entry(image="two.png")}
    content = {"name": "street", "tags": [{"name": "new"}, {"name": "never"}], "assets": assets}
    (tmp_path / "street-export.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path, strict=True)
    assert objects(dataset, "one.png") == [("new", *WHOLE)]
    assert [category.name for category in dataset.categories] == ["never", "new"]
    assert len(dataset) == 2


@pytest.mark.parametrize(
    "asset",
    [
        {"path": "file:C:\\photos\\one.png"},
        {"path": "file:C:/my%20photos/one.png", "name": "renamed.png"},
        {"path": "https://example.org/one.png?sig=1"},
        {"path": None},
    ],
)
def test_the_image_is_found_by_its_path_or_its_name(tmp_path: Path, asset: dict[str, Any]) -> None:
    dataset = read_dataset(write(tmp_path, entry(region(), **asset)), strict=True)
    assert dataset.records[0].path == tmp_path / "one.png"


def test_two_assets_of_one_name_stay_apart(tmp_path: Path) -> None:
    for folder in "ab":
        save_images(tmp_path / folder, ("one",))
    write(tmp_path, *(entry(region(), path=f"file:/x/{folder}/one.png") for folder in "ab"))
    (tmp_path / "one.png").unlink()
    dataset = read_dataset(tmp_path, strict=True)
    assert [record.image_id for record in dataset.records] == ["0-asset.json", "1-asset.json"]
    assert [record.path.parent.name for record in dataset.records] == ["a", "b"]


def test_assets_that_nobody_has_visited_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, entry(region()), entry(image="two.png", state=0))
    dataset = read_dataset(tmp_path, strict=True)
    assert len(dataset) == 1
    assert "1 asset that nobody has visited is left out" in dataset.choices[0]
    assert len(read_dataset(tmp_path, hints=Hints(missing="empty"))) == 2


BROKEN: dict[str, tuple[Any, str]] = {
    "two tags": (region("POLYGON", "a", "b"), "regions[0]: expected one tag, which is the class, found a, b"),
    "no tag": (region(tags=[]), "regions[0]: expected one tag, which is the class, found none"),
    "two points": (region(points=CORNERS[:2]), "regions[0]: expected a polygon of at least 3 points, found 2"),
    "no edges": (region("RECTANGLE", boundingBox=None), "regions[0]: expected left, top, width, height as numbers"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_region_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    write(tmp_path, entry(broken, region()))
    dataset = read_dataset(tmp_path)
    assert objects(dataset) == [("a", *WHOLE)]
    assert dataset.problems[0].startswith(f"{tmp_path}: 0-asset.json: {words}")
    with pytest.raises(DataError, match=r"regions\[0\]: "):
        read_dataset(tmp_path, strict=True)


@pytest.mark.parametrize("content", ["{", '{"asset": 3, "regions": []}', '{"asset": {"name": "a"}, "regions": 3}'])
def test_a_broken_file_is_named_and_does_not_stop_the_rest(tmp_path: Path, content: str) -> None:
    write(tmp_path, entry(region()))
    (tmp_path / "9-asset.json").write_text(content)
    (tmp_path / "notes.json").write_text('{"about": "these images"}')
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 1
    assert ["9-asset.json: " in problem for problem in dataset.problems] == [True]


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "vott", strict=True)
    assert [(record.image_id, record.height, record.width) for record in dataset.records] == [
        ("dog2.jpg", 480, 640),
        ("dog1.jpg", 529, 782),
    ]
    for name, box in (
        ("dog1.jpg", [180.380, 62.875, 469.926, 396.599]),
        ("dog2.jpg", [110.78, 17.006, 296.058, 443.794]),
    ):
        index = dataset.records.numbers()[name]
        assert dataset.annotations(index).annotated_boxes.tolist() == [pytest.approx(box, abs=1e-3)]
        assert objects(dataset, name)[0][0] == "Dog"
