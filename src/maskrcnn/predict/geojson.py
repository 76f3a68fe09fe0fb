"""Objects as GeoJSON (RFC 7946): on the earth if the image has a coordinate system, else in pixels, as QuPath reads it.

Legend: n points of a ring.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.media.windows import earth_of
from maskrcnn.ops.outlines import outlines
from maskrcnn.structures.instances import Instances
from maskrcnn.visualise.palette import PALETTE

ToEarth = Callable[[np.ndarray], np.ndarray]  # (n, 2) x y in pixels -> longitude and latitude in degrees
_DECIMALS = 9  # of degrees: a tenth of a millimetre


class GeoJsonFolder:
    """Writes the objects of each image to a file of the image's name in a folder: `keep` of `predict_files`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._used: set[str] = set()
        self._next: dict[str, int] = {}  # the first number of each name that may be free

    def __call__(self, image_id: int | str, image: Path, found: Instances) -> None:
        """Writes the objects of an image.

        Raises:
            MissingPackageError: the image is a TIFF, whose coordinate system only rasterio knows, which is missing.
        """
        stem = image.stem.casefold()  # some disks know no case
        first = self._next.get(stem, 1)  # the numbers before it are taken; folders may hold thousands of one name
        number = next(n for n in count(first) if (stem if n == 1 else f"{stem}_{n}") not in self._used)
        name = image.stem if number == 1 else f"{image.stem}_{number}"
        self._next[stem] = number + 1
        self._used.add(name.casefold())
        write_geojson(self.folder / f"{name}.geojson", found, earth_of(image))


def write_geojson(path: Path, found: Instances, to_earth: ToEarth | None) -> None:
    """Writes one feature for each object, in pixels if `to_earth` is None."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for number, feature in enumerate(_features(found, to_earth)):
            file.write(",\n" if number else "\n")
            json.dump(feature, file, ensure_ascii=False)
        file.write("\n]}\n")


def _features(found: Instances, to_earth: ToEarth | None) -> Iterator[dict[str, Any]]:
    for number, (name, crop) in enumerate(zip(found.class_names, found.crops(), strict=True)):
        polygons = polygons_of(*crop)
        if not polygons:
            continue
        coordinates = [[_placed(ring, to_earth) for ring in rings] for rings in polygons]
        score = round(float(found.scores[number]), 6)
        label = int(found.labels[number])
        yield {
            "type": "Feature",
            "geometry": {"type": "MultiPolygon", "coordinates": coordinates}
            if len(polygons) > 1
            else {"type": "Polygon", "coordinates": coordinates[0]},
            "properties": {
                "objectType": "detection",
                "classification": {"name": name, "color": list(PALETTE[label % len(PALETTE)])},
                "measurements": {"score": score},
                "class": name,
                "score": score,
            },
        }


def _placed(ring: np.ndarray, to_earth: ToEarth | None) -> list[list[float]]:
    """A closed ring. Outer rings run anticlockwise, those of holes clockwise, where the second axis points upwards."""
    closed = np.concatenate([ring, ring[:1]])
    if to_earth is None:
        return closed.tolist()
    moved = to_earth(closed)
    if _twice_area(moved) * _twice_area(closed) < 0:
        moved = moved[::-1]
    return moved.round(_DECIMALS).tolist()


def _twice_area(ring: np.ndarray) -> float:
    """Twice the area of a ring, closed or not; positive if it runs anticlockwise where y points upwards."""
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    return float((x * next_y - next_x * y).sum())


def polygons_of(bitmap: np.ndarray, origin: tuple[int, int]) -> list[list[np.ndarray]]:
    """The polygons of a mask along the edges of its pixels: the outer ring of each, then its holes.

    Args:
        bitmap: (h, w), a crop of the image.
        origin: the pixel (x, y) of its top left corner.

    Returns:
        (n, 2) int64 x y in pixels of the image for each ring, not closed.
    """
    rings = outlines(bitmap)
    outer = [[ring] for ring, hole in rings if not hole]
    for ring, hole in rings:
        if hole:
            around = [polygon for polygon in outer if len(outer) == 1 or _inside(_beside(ring), polygon[0])]
            min(around, key=lambda polygon: _twice_area(polygon[0])).append(ring)  # the innermost of nested ones
    return [[ring + np.array(origin) for ring in polygon] for polygon in outer]


def _beside(ring: np.ndarray) -> np.ndarray:
    """The middle of a foreground pixel at the first edge of a hole. Foreground lies on the right of its direction."""
    (dx, dy) = step = np.sign(ring[1] - ring[0])
    return ring[0] + step / 2 + np.array([-dy, dx]) / 2


def _inside(point: np.ndarray, ring: np.ndarray) -> bool:
    """Whether a ray to the right crosses the ring an odd number of times."""
    (x, y), (next_x, next_y) = ring.T, np.roll(ring, -1, axis=0).T
    crossed = ((y > point[1]) != (next_y > point[1])) & (x > point[0]) & (x == next_x)  # vertical edges only
    return bool(crossed.sum() % 2)
