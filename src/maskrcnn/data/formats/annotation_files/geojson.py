"""Reads and writes GeoJSON (RFC 7946) in pixels of an image, as QuPath (https://qupath.github.io) writes it.

A file is a collection or a list of features, one feature, or a bare geometry, and belongs to the image of its name. The
class is `classification`, else `name` in the properties. Rings after the first of a polygon are holes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.data.annotation import Size
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.data.hints import NO_HINTS, Hints
from maskrcnn.data.labelled import (
    Labelled,
    Region,
    add_labelled,
    entries,
    extent,
    image_names,
    labels_of,
    of_jsons,
    regions_of,
)
from maskrcnn.data.pictures import add_named_categories, add_unlabelled, files_in
from maskrcnn.data.regions import ellipse, even_odd, joined, points_of
from maskrcnn.data.writing import Holds, Lost, class_name, new_file, objects_to_write
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import json_outline
from maskrcnn.ops.outlines import outlines_of_parts
from maskrcnn.structures.annotations import Annotations, Crop
from maskrcnn.structures.classes import ONLY_CLASS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.values import short, under

name = "GeoJSON"
key = "geojson"
image_folder = "images"
takes = frozenset({"missing"})
holds: Holds = frozenset({"scores"})

_FILES_TO_RECOGNISE = 8
_SUFFIXES = (".geojson", ".json")
_NO_AREA = frozenset({"Point", "MultiPoint", "LineString", "MultiLineString"})
_CLASS_KEYS = ("name", "class", "label")  # of the properties, if there is no classification

Polygon = list[np.ndarray]  # its (n, 2) rings


def recognise(path: Path) -> bool:
    """Whether a file, or a file in a folder, has features or a geometry."""
    return any(map(_is_geojson, _files(path)[:_FILES_TO_RECOGNISE]))


def _files(path: Path) -> list[Path]:
    """The file, or those of a folder: with the suffix of GeoJSON first."""
    found = [file for suffix in _SUFFIXES for file in files_in(path, suffix)] if path.is_dir() else [path]
    return found


def _is_geojson(file: Path) -> bool:
    outline = json_outline(file)
    own = frozenset() if outline is None else outline.keys[0]
    return "type" in own and bool(own & {"features", "geometry", "coordinates"})


def read(path: Path, images: Path | None = None, *, strict: bool = False, hints: Hints = NO_HINTS) -> Dataset:
    """Reads the GeoJSON files of a folder, or a single one.

    Args:
        path: the folder, or the file.
        images: folder of the images; default: they are searched for from the folder of the files.
        strict: raise at the first broken file or feature, instead of leaving it out.
        hints: `missing` is used for images without a file.

    Raises:
        DataError: there is no GeoJSON, or one is broken and `strict` is set.
    """
    builder = DatasetBuilder(path, strict=strict)
    files = [file for file in _files(path) if _is_geojson(file) or not path.is_dir()]
    if not files:
        raise DataError(f"{path}: expected GeoJSON files with features, found none")
    named = image_names(builder, files, images)
    items = of_jsons(builder, files, "a GeoJSON", partial(_images, named))
    add_named_categories(builder, labels_of(items))
    rest = add_labelled(builder, items, images)
    if path.is_dir():
        add_unlabelled(builder, rest, hints.missing)
    return builder.build()


def _images(named: Mapping[Path, str], builder: DatasetBuilder, file: Path, where: str, content: Any) -> list[Labelled]:
    points: list[np.ndarray] = []
    shapes = regions_of(builder, f"{where}: features", _features(content), partial(_region, points))
    return [Labelled(named[file], where, file, (named[file],), None, shapes, least=extent(points))]


def write(parts: Mapping[str, Dataset], folder: Path) -> Lost:
    """Writes a collection of features for each image, which QuPath imports as annotations.

    Polygons stay polygons. Other masks become polygons along the edges of their pixels, with their holes as rings.
    """
    lost: Lost = Counter()
    for part, dataset in parts.items():
        for index, record in enumerate(dataset.records):
            annotations = dataset.annotations(index)
            numbers = objects_to_write(annotations, holds, lost)
            features = [
                {
                    "type": "Feature",
                    "geometry": _geometry(annotations, number, crop),
                    "properties": _properties(annotations, number, class_name(dataset, annotations, number, lost)),
                }
                for number, crop in zip(numbers, annotations.crops(numbers), strict=True)
            ]
            content = {"type": "FeatureCollection", "features": features}
            file = new_file(folder / part / f"{record.path.stem}.geojson")
            file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return lost


def _properties(annotations: Annotations, number: int, label: str) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation", "classification": {"name": label}}
    if annotations.scores is not None:
        properties["measurements"] = {"score": float(annotations.scores[number])}
    return properties


def _geometry(annotations: Annotations, number: int, crop: Crop) -> dict[str, Any]:
    """A mask as a Polygon, or a MultiPolygon of several. The first point of a ring is also its last."""
    polygons = [[points] for points in annotations.polygons(number)]
    if not polygons:
        bitmap, corner_xy = crop
        polygons = [[ring + corner_xy for ring in rings] for rings in outlines_of_parts(bitmap)]
    closed = [[[*ring.tolist(), ring[0].tolist()] for ring in rings] for rings in polygons]
    if len(closed) == 1:
        return {"type": "Polygon", "coordinates": closed[0]}
    return {"type": "MultiPolygon", "coordinates": closed}


def _features(content: Any) -> list[Any]:
    """The features of a collection or a list, or the only one. A bare geometry becomes a feature."""
    if isinstance(content, Mapping) and "features" in content:
        content = entries(content, "features")
    found = content if isinstance(content, list) else [content]
    return [{"geometry": entry} if under(entry, "coordinates") is not None else entry for entry in found]


def _region(points: list[np.ndarray], feature: Mapping[str, Any]) -> Region:
    """The shape of a feature, whose points are added to `points`."""
    geometry = feature.get("geometry")
    if not isinstance(geometry, Mapping):
        raise DataError(f"expected a geometry, found {short(geometry)}")
    kind = str(geometry.get("type"))
    label = _label(feature.get("properties"))
    if kind in _NO_AREA:
        return Region(label, kind, None)
    coordinates = entries(geometry, "coordinates")
    if kind not in ("Polygon", "MultiPolygon"):
        raise DataError(f"expected a Polygon or MultiPolygon, found {short(kind)}")
    polygons = [_rings(part) for part in (coordinates if kind == "MultiPolygon" else [coordinates])]
    if geometry.get("isEllipse") is True:
        low, high = (edge(polygons[0][0], axis=0) for edge in (np.min, np.max))
        centre, radii = (low + high) / 2, (high - low) / 2
        polygons = [[ellipse((centre[0], centre[1]), (radii[0], radii[1]))]]
    points.extend(ring for rings in polygons for ring in rings)
    return Region(label, kind, partial(_drawn, polygons))


def _rings(part: Any) -> Polygon:
    """The rings of a polygon, without heights. Raises DataError for a broken one."""
    if not isinstance(part, list) or not part:
        raise DataError(f"expected a polygon as a list of rings, found {short(part)}")
    rings = []
    for ring in part:
        flat = [point[:2] if isinstance(point, list) else point for point in ring] if isinstance(ring, list) else ring
        points = points_of(flat)
        if len(points) < 3:
            raise DataError(f"expected rings of at least 3 points, found {len(points)}")
        rings.append(points)
    return rings


def _drawn(polygons: list[Polygon], size: Size) -> dict[str, Any]:
    return joined([rings[0] if len(rings) == 1 else even_odd(rings, size) for rings in polygons], size)


def _label(properties: Any) -> str:
    """The class: QuPath's classification, which may have several names, else the name of the object."""
    classification = under(properties, "classification")
    names = under(classification, "names")
    if isinstance(names, list) and names and all(isinstance(part, str) for part in names):
        return ": ".join(names)
    found = [under(classification, "name"), classification, *(under(properties, own) for own in _CLASS_KEYS)]
    return next((text for text in found if isinstance(text, str) and text), ONLY_CLASS)
