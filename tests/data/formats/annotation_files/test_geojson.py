"""GeoJSON: every way to wrap a geometry, holes and parts, QuPath's classes, images by name, broken features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import outline
from small_scene import expected, masks, objects, save_images, scene

SQUARE = [[4, 6], [14, 6], [14, 20], [4, 20], [4, 6]]
HOLE = [[6, 8], [6, 12], [10, 12], [10, 8], [6, 8]]
WHOLE = (140, [4.0, 6.0, 14.0, 20.0])


def polygon(*rings: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings), **fields}


def feature(geometry: Any, properties: Any = None, **fields: Any) -> dict[str, Any]:
    return {"type": "Feature", "id": "f", "geometry": geometry, "properties": properties or {}, **fields}


def write(folder: Path, content: Any, file: str = "one.geojson") -> Path:
    save_images(folder)
    (folder / file).write_text(json.dumps(content))
    return folder / file


def test_parts_and_holes(tmp_path: Path) -> None:
    """A polygon of every ring, with a part for each ring that is no hole in another."""
    features = []
    for thing in scene()["one"]:
        rings = [[*ring.tolist(), ring[0].tolist()] for ring in outline(thing.mask)]
        parts = [rings] if thing.name == "cell" else [[ring] for ring in rings]
        geometry = {"type": "MultiPolygon", "coordinates": parts} if len(parts) > 1 else polygon(*parts[0])
        features.append(feature(geometry, {"classification": {"name": thing.name, "color": [1, 2, 3]}}))
    write(tmp_path, {"type": "FeatureCollection", "features": features})
    dataset = read_dataset(tmp_path, strict=True)
    assert dataset.format == "GeoJSON"
    assert masks(dataset, "one") == expected("one")
    assert dataset.records[0].path == tmp_path / "one.png"


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [feature(polygon(SQUARE))]},
        [feature(polygon(SQUARE))],
        feature(polygon(SQUARE)),
        polygon(SQUARE),
        [polygon(SQUARE)],
        [feature(polygon([[*point, 0.0] for point in SQUARE]))],
    ],
)
def test_every_way_to_wrap_a_geometry(tmp_path: Path, content: Any) -> None:
    path = write(tmp_path, content, "one.json")
    assert objects(read_dataset(path, strict=True)) == [("object", *WHOLE)]


@pytest.mark.parametrize(
    ("properties", "label"),
    [
        ({"classification": {"name": "tumour", "colorRGB": -1}, "name": "first"}, "tumour"),
        ({"classification": {"names": ["tumour", "positive"]}}, "tumour: positive"),
        ({"classification": "tumour"}, "tumour"),
        ({"objectType": "annotation", "name": "first"}, "first"),
        ({"classification": None, "label": "third"}, "third"),
        ({"objectType": "cell"}, "object"),
    ],
)
def test_classes(tmp_path: Path, properties: Any, label: str) -> None:
    cell = feature(polygon(SQUARE), properties, nucleusGeometry=polygon(HOLE))
    assert objects(read_dataset(write(tmp_path, [cell]), strict=True)) == [(label, *WHOLE)]


def test_an_ellipse_fills_its_box_and_points_have_no_area(tmp_path: Path) -> None:
    box = [[20, 15], [40, 15], [40, 25], [20, 25], [20, 15]]
    line = {"type": "LineString", "coordinates": box}
    content = [feature(polygon(box, isEllipse=True)), feature(line), feature({"type": "Point", "coordinates": [1, 2]})]
    dataset = read_dataset(write(tmp_path, content), strict=True)
    assert objects(dataset)[0][2] == [20.0, 15.0, 40.0, 25.0]
    assert objects(dataset)[0][1] == pytest.approx(np.pi * 50, rel=0.02)
    assert len(dataset.choices) == 2


def test_files_and_their_images(tmp_path: Path) -> None:
    write(tmp_path, [feature(polygon(SQUARE))], "one.png.geojson")
    (tmp_path / "gone.geojson").write_text(json.dumps(polygon(SQUARE)))
    dataset = read_dataset(tmp_path)
    assert [(r.image_id, r.height, r.width, bool(r.fault)) for r in dataset.records] == [
        ("gone", 20, 14, True),  # as large as its object
        ("one.png", 40, 56, False),
    ]
    assert [objects(dataset, i) for i in (0, 1)] == [[("object", *WHOLE)]] * 2
    assert len(read_dataset(tmp_path, hints=Hints(missing="empty"))) == 3
    (tmp_path / "two.png").unlink()
    (tmp_path / "gone.geojson").unlink()
    (tmp_path / "one.png.geojson").rename(tmp_path / "annotations.geojson")
    assert read_dataset(tmp_path, strict=True).records[0].path == tmp_path / "one.png"


BROKEN = {
    "no geometry": (feature(None), "features[0]: expected a geometry, found None"),
    "another kind": (feature({"type": "Blob", "coordinates": []}), "features[0]: expected a Polygon or MultiPolygon"),
    "no rings": (feature(polygon()), "features[0]: expected a polygon as a list of rings, found []"),
    "two points": (feature(polygon(SQUARE[:2])), "features[0]: expected rings of at least 3 points, found 2"),
    "words": (feature(polygon(["a", "b", "c"])), "features[0]: expected points as pairs of finite numbers"),
    "no feature": (3, "features[0]: expected an object, found 3"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_feature_is_named_and_does_not_stop_the_rest(tmp_path: Path, fault: str) -> None:
    broken, words = BROKEN[fault]
    path = write(tmp_path, {"type": "FeatureCollection", "features": [broken, feature(polygon(SQUARE))]})
    dataset = read_dataset(path)
    assert objects(dataset) == [("object", *WHOLE)]
    assert dataset.problems[0].startswith(f"{path}: one.geojson: {words}")
    with pytest.raises(DataError, match=r"features\[0\]: ") as caught:
        read_dataset(path, strict=True)
    assert "\n" not in str(caught.value)


def test_a_broken_file_does_not_stop_the_rest(tmp_path: Path) -> None:
    write(tmp_path, polygon(SQUARE)).with_name("two.geojson").write_text('{"type": "Feature", "geometry":')
    dataset = read_dataset(tmp_path)
    assert [record.image_id for record in dataset.records] == ["one"]
    assert "two.geojson: not JSON" in dataset.problems[0]


def test_real_files(shared: Path) -> None:
    dataset = read_dataset(shared / "data" / "formats" / "geojson" / "qupath05", strict=True)
    found = objects(dataset)
    edges = ([8837, 6277, 9070, 6563], [9441, 5833, 9891, 6027], [8184, 5424, 8433, 5670])
    assert [own[0] for own in found] == ["UT", "I", "I"]
    assert [own[2] for own in found] == list(edges)
    assert [own[1] for own in found] == pytest.approx([51687.5, 71159, 46151.5], rel=1e-3)
