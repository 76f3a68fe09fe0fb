"""One annotation of a COCO JSON: what it may hold, and one sentence where it is broken.

Legend: K keypoints of a category.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import polygon_area, polygons_to_rle
from maskrcnn.structures.keypoints import PIXEL_CENTRE, read_labelled
from maskrcnn.structures.masks import RLE

NO_MASK, RUN_LENGTHS, POLYGONS = 0, 1, 2  # how a segmentation is stored

_Edges = tuple[float, float, float, float]


class Row(NamedTuple):
    """One annotation on its way into the arrays of a data set.

    Attributes:
        edges: x1 y1 x2 y2, original pixels.
        kind, content: how the segmentation is stored, and its bytes.
        keypoints: (K, 3) float32 x, y, visibility in the continuous frame; None for a category without any.
    """

    id: int | str
    edges: _Edges
    label: int
    crowd: bool
    kind: int
    content: bytes
    keypoints: np.ndarray | None


def read_annotation(
    path: Path,
    annotation: Any,
    images: Mapping[Any, tuple[Path, int, int]],
    categories: Mapping[int, tuple[int, Category]],
    seen: set[Any],
    area: int,
) -> tuple[Any, Row]:
    """The image id and content of one annotation.

    Args:
        path: of the JSON, for messages.
        images: image id -> file, height and width.
        categories: category id -> label and category.
        seen: ids of the annotations before; this one's is added.
        area: of its segmentation, from `known_areas`.

    Raises:
        DataError: it is broken.
    """
    if not isinstance(annotation, Mapping):
        raise DataError(f"{path}: expected annotations as objects, found {short(annotation)}")
    number, image_id = annotation.get("id"), annotation.get("image_id")
    where = f"{path}: annotation {number} of image {image_id}"
    if not is_id(number) or number in seen:
        raise DataError(f"{where}: expected an id of its own, found {'it twice' if is_id(number) else repr(number)}")
    seen.add(number)
    if not is_id(image_id) or image_id not in images:
        raise DataError(f"{where}: no image has this id")
    category = annotation.get("category_id")
    if not is_int(category) or category not in categories:
        raise DataError(f"{where}: no category has id {category!r}")
    label, named = categories[category]
    _, height, width = images[image_id]
    kind, content, mask_box = _read_segmentation(where, annotation.get("segmentation"), (height, width), area)
    box = annotation.get("bbox")
    if box is not None:
        edges = _read_box(where, box, (height, width))
    elif mask_box is not None:
        edges = mask_box()
        if edges[2] <= edges[0]:
            raise DataError(f"{where}: the segmentation covers no pixel of its image")
    else:
        raise DataError(f"{where}: expected a segmentation or a bbox, found neither")
    keypoints = _read_keypoints(where, annotation, named) if named.keypoints else None
    return image_id, Row(number, edges, label, bool(annotation.get("iscrowd", 0)), kind, content, keypoints)


def _read_keypoints(where: str, annotation: Mapping[str, Any], category: Category) -> np.ndarray:
    """(K, 3) float32 x, y, visibility in the continuous frame; all zeros where nothing is labelled."""
    try:
        points = read_labelled(annotation, len(category.keypoints))
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    points[points[:, 2] > 0, :2] += PIXEL_CENTRE
    return points.astype(np.float32)


def _read_box(where: str, box: Any, size: tuple[int, int]) -> _Edges:
    numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(v, int | float) for v in box)
    if not numbers or not all(math.isfinite(v) for v in box):
        raise DataError(f"{where}: expected bbox as four finite numbers x, y, width, height, found {short(box)}")
    x, y, w, h = box
    edges = (
        max(0.0, float(x)),
        max(0.0, float(y)),
        min(float(size[1]), float(x + w)),
        min(float(size[0]), float(y + h)),
    )
    if edges[2] <= edges[0] or edges[3] <= edges[1]:
        raise DataError(f"{where}: bbox {box} has no area inside the image of {size[1]} x {size[0]} pixels")
    return edges


def _read_segmentation(
    where: str, segmentation: Any, size: tuple[int, int], area: int
) -> tuple[int, bytes, Callable[[], _Edges] | None]:
    """How it is stored, its bytes, and a function that gives its tight box."""
    if segmentation is None or segmentation == []:
        return NO_MASK, b"", None
    if isinstance(segmentation, Mapping):
        try:
            rle = RLE.from_coco(segmentation, sound=area > 0)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if rle.size != size:
            raise DataError(
                f"{where}: the RLE is of an image of height, width {rle.size}, its image has {size}; correct either"
            )
        if area <= 0 and rle.area == 0:
            raise DataError(f"{where}: the RLE has no area")
        return RUN_LENGTHS, rle.counts, lambda: _tight_box(rle)
    parts = _read_polygons(where, segmentation)
    return POLYGONS, _pack_polygons(parts), lambda: _tight_box(RLE(size, polygons_to_rle(parts, size)))


def _tight_box(rle: RLE) -> _Edges:
    x1, y1, x2, y2 = (float(edge) for edge in rle.box)
    return x1, y1, x2, y2


def _read_polygons(where: str, segmentation: Any) -> list[np.ndarray]:
    if not isinstance(segmentation, list):
        raise DataError(f"{where}: expected polygons or RLE, found {short(segmentation)}")
    parts = []
    for part in segmentation:
        try:
            points = np.asarray(part, dtype=np.float64)
        except (TypeError, ValueError):
            points = np.zeros((0, 0))
        if points.ndim != 1:
            raise DataError(f"{where}: expected polygons as lists of numbers x, y, x, y, ..., found {short(part)}")
        if len(points) < 6 or len(points) % 2:
            raise DataError(f"{where}: expected polygons of at least 3 points, found {len(points)} numbers")
        if not np.isfinite(points).all():
            raise DataError(f"{where}: the polygon has a coordinate that is not a finite number")
        parts.append(points.reshape(-1, 2))
    if sum(polygon_area(points) for points in parts) == 0:
        raise DataError(f"{where}: the polygon has no area")
    return parts


def _pack_polygons(parts: Sequence[np.ndarray]) -> bytes:
    """How many parts, the points of each, then all points, as float64."""
    head = np.array([len(parts), *(len(part) for part in parts)], dtype=np.float64)
    return head.tobytes() + b"".join(part.tobytes() for part in parts)


def unpack_polygons(content: np.ndarray) -> list[np.ndarray]:
    """The (n, 2) float64 points of each part, from the bytes of a `Row` whose kind is POLYGONS."""
    values = np.frombuffer(content.tobytes(), dtype=np.float64)
    count = int(values[0])
    sizes = values[1 : count + 1].astype(np.int64)
    points = values[count + 1 :].reshape(-1, 2)
    return np.split(points, np.cumsum(sizes)[:-1])


def is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: Any) -> TypeGuard[int | str]:
    return is_int(value) or isinstance(value, str)


def short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
