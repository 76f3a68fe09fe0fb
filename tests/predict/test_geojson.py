"""Objects as GeoJSON, in pixels and on the earth."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from PIL import Image

from maskrcnn.data.formats.annotation_files import geojson as reader
from maskrcnn.errors import MissingPackageError
from maskrcnn.predict.geojson import GeoJsonFolder, polygons_of, write_geojson
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks

SIZE = (40, 60)


def instances(bitmaps: list[np.ndarray]) -> Instances:
    masks = Masks([RLE.from_dense(bitmap) for bitmap in bitmaps], SIZE)
    count = len(bitmaps)
    scores = np.linspace(0.9, 0.5, count).astype(np.float32)
    return Instances(SIZE, masks.boxes(), scores, np.zeros(count, dtype=np.int64), masks, ("cell",) * count)


def shapes() -> list[np.ndarray]:
    """A ring with an island inside of its hole, two pixels that touch at a corner, noise, and nothing."""
    ring = np.zeros(SIZE, dtype=bool)
    ring[5:30, 8:40] = True
    ring[10:25, 12:36] = False
    ring[15:20, 20:30] = True
    ring[16, 25] = False
    corner = np.zeros(SIZE, dtype=bool)
    corner[3, 4] = corner[4, 5] = True
    noise = np.random.default_rng(0).random(SIZE) > 0.5
    return [ring, corner, noise, np.zeros(SIZE, dtype=bool)]


def test_polygons_have_their_own_holes() -> None:
    ring, corner, noise, empty = shapes()
    assert sorted(len(polygon) for polygon in polygons_of(ring[5:30, 8:40], (8, 5))) == [2, 2]
    assert [len(polygon) for polygon in polygons_of(corner, (0, 0))] == [1, 1]
    assert polygons_of(empty, (0, 0)) == []
    for bitmap in (ring, noise):
        total = 0.0
        for outer, *holes in polygons_of(bitmap, (0, 0)):
            total += area(outer)
            for hole in holes:
                assert area(hole) < 0
                total += area(hole)
                assert (outer.min(0) < hole.min(0)).all()
                assert (outer.max(0) > hole.max(0)).all()
        assert total == bitmap.sum()


def area(ring: np.ndarray) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def test_images_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    folder = GeoJsonFolder(tmp_path)
    for number, name in enumerate(("a/x.png", "b/x.png", "a/x_2.png", "a/X.png"), start=1):
        folder(number, tmp_path / name, instances(shapes()[:number]))
    found = {file.name: file.read_text().count('"Feature"') for file in tmp_path.glob("*.geojson")}
    assert found == {"x.geojson": 1, "x_2.geojson": 2, "x_2_2.geojson": 3, "X_3.geojson": 3}  # the fourth mask is empty


def test_files_in_pixels_are_read_back(tmp_path: Path) -> None:
    folder = GeoJsonFolder(tmp_path)
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "a.png")
    folder(1, tmp_path / "a.png", instances(shapes()))
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    first = content["features"][0]["properties"]
    assert first["objectType"] == "detection"
    assert first["classification"]["name"] == "cell"
    assert first["measurements"] == {"score": 0.9}
    dataset = reader.read(tmp_path / "a.geojson")
    annotations = dataset.annotations(0)
    assert len(annotations) == 3
    for mask, bitmap in zip(annotations.masks(), shapes(), strict=False):
        assert mask is not None
        np.testing.assert_array_equal(mask.dense(), bitmap)
    folder(2, tmp_path / "b" / "a.png", instances([]))
    assert json.loads((tmp_path / "a_2.geojson").read_text())["features"] == []


def geotiff(path: Path, **options: Any) -> Path:
    with rasterio.open(path, "w", driver="GTiff", height=40, width=60, count=3, dtype="uint8", **options) as dataset:
        dataset.write(np.zeros((3, *SIZE), np.uint8))
    return path


def test_an_image_of_the_earth_gives_longitudes_and_latitudes(tmp_path: Path) -> None:
    # One degree of the equator is 111,319.49 m in web Mercator.
    path = geotiff(
        tmp_path / "earth.tif", crs="EPSG:3857", transform=rasterio.Affine(100, 0, 1113194.9, 0, -100, 2226.39)
    )
    square = np.zeros(SIZE, dtype=bool)
    square[10:20, 30:50] = True
    GeoJsonFolder(tmp_path)(1, path, instances([square]))
    (feature,) = json.loads((tmp_path / "earth.geojson").read_text())["features"]
    ring = np.array(feature["geometry"]["coordinates"][0])
    low, high = ring.min(0), ring.max(0)
    np.testing.assert_allclose(low, [10 + 3000 / 111319.49, 0.02 - 2000 / 111319.49], atol=1e-4)
    np.testing.assert_allclose(high, [10 + 5000 / 111319.49, 0.02 - 1000 / 111319.49], atol=1e-4)
    assert area(ring[:-1]) > 0  # outer rings run anticlockwise


def test_a_tiff_needs_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = geotiff(tmp_path / "a.tif", crs="EPSG:3857", transform=rasterio.Affine(2, 0, 0, 0, -2, 0))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(MissingPackageError, match=r"a.tif: the coordinate system of a TIFF needs rasterio"):
        GeoJsonFolder(tmp_path)(1, path, instances([]))
    write_geojson(tmp_path / "a.geojson", instances(shapes()), None)
