"""One annotation of a file, and the checks of its mask and its box. `builder.py` lists the rules."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import polygon_area, polygons_to_rle
from maskrcnn.structures.annotations import NO_MASK, POLYGONS, RUN_LENGTHS, pack_polygons, unpack_polygons
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import is_number, short

Size = tuple[int, int]  # height and width of an image
Box = tuple[float, float, float, float]  # x, y, width, height


class RawAnnotation(NamedTuple):
    """One annotation of a file, in original pixels. Nothing is checked yet: values may be of any type.

    At most one of `polygons`, `rle` and `bitmap` is given. Without any of them, the object has only a box.

    Attributes:
        image_id, category_id: the ids given to `add_image` and `add_category`.
        id: None if the format has no annotation ids.
        box: x, y, width, height; None or an empty list for the tight box of the mask.
        polygons: the parts of the mask, each a list of numbers x, y, x, y, ...
        rle: `{"size": [h, w], "counts": ...}`, as for `RLE.from_coco`.
        pixels: foreground pixels of `rle` if `known_areas` found it valid, else -1.
        bitmap: (H, W) bool or integers; nonzero pixels are foreground.
        crowd: whether it is a crowd region, which is neither an object nor background.
        area: square pixels; evaluation sorts objects into small, medium and large by it.
        keypoints: x, y, visibility of all keypoints in one list; None or empty if none is labelled.
    """

    image_id: Any
    category_id: Any
    id: Any = None
    box: Any = None
    polygons: Any = None
    rle: Any = None
    pixels: int = -1
    bitmap: np.ndarray | None = None
    crowd: bool = False
    area: Any = None
    keypoints: Any = None


def mask_of(raw: RawAnnotation, size: Size) -> tuple[int, bytes]:
    """The mask of an annotation as an entry of `Annotations.kinds` and the bytes for `Annotations.segmentations`.

    Raises:
        DataError: the mask is malformed, has another size than the image, or covers nothing.
    """
    if raw.rle is not None:
        mask = RLE.from_coco(raw.rle, sound=raw.pixels >= 0)
    elif raw.bitmap is not None:
        mask = RLE.from_dense(raw.bitmap)
    elif raw.polygons is None or raw.polygons == []:
        return NO_MASK, b""
    else:
        parts = _polygons(raw.polygons)
        points = [part.reshape(-1, 2) for part in parts]
        if not any(map(polygon_area, points)) and RLE(size, polygons_to_rle(points, size)).area == 0:
            raise DataError("the polygon has no area")
        return POLYGONS, pack_polygons(parts)
    if mask.size != size:
        raise DataError(f"expected a mask of the image's height, width {size}, found {mask.size}")
    if raw.pixels <= 0 and mask.area == 0:
        raise DataError("the mask covers no pixel of its image")
    return RUN_LENGTHS, mask.counts


def _polygons(given: Any) -> list[np.ndarray]:
    """Checks the polygons of a mask; returns each as (2 n,) float64 x, y, x, y, ..."""
    if not isinstance(given, list | tuple):
        raise DataError(f"expected segmentation as polygons or run lengths, found {short(given)}")
    parts = []
    for part in given:
        try:
            points = np.asarray(part, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            points = np.zeros((0, 0))
        if points.ndim != 1:
            raise DataError(f"expected polygons as lists of numbers x, y, x, y, ..., found {short(part)}")
        if len(points) < 6 or len(points) % 2:
            raise DataError(f"expected polygons of at least 3 points, found {len(points)} numbers")
        if not np.isfinite(points).all():
            raise DataError("the polygon has a coordinate that is not a finite number")
        parts.append(points)
    return parts


def box_of(raw: RawAnnotation, kind: int, content: bytes, size: Size) -> Box:
    """The annotated box, or the tight box of the mask if there is none.

    Args:
        kind, content: the mask, from `mask_of`.

    Raises:
        DataError: there is neither a box nor a mask, or the box is malformed or empty.
    """
    given = raw.box
    if given is None or given == []:
        return _tight_box(kind, content, size)
    if not isinstance(given, list | tuple) or len(given) != 4 or not all(map(is_number, given)):
        raise DataError(f"expected bbox as four finite numbers x, y, width, height, found {short(given)}")
    x, y, w, h = map(float, given)
    if w <= 0 or h <= 0:
        raise DataError(f"bbox {short(given)} has no area")
    inside = min(x + w, size[1]) > max(x, 0) and min(y + h, size[0]) > max(y, 0)
    if kind == NO_MASK and not inside:
        raise DataError(f"bbox {short(given)} has no area inside the image of {size[1]} x {size[0]} pixels")
    return x, y, w, h


def _tight_box(kind: int, content: bytes, size: Size) -> Box:
    if kind == NO_MASK:
        raise DataError("expected a segmentation or a bbox, found neither")
    counts = content
    if kind == POLYGONS:
        counts = polygons_to_rle(unpack_polygons(np.frombuffer(content, dtype=np.uint8)), size)
    x1, y1, x2, y2 = RLE(size, counts).box.tolist()
    if x2 <= x1:
        raise DataError("the segmentation covers no pixel of its image")
    return x1, y1, x2 - x1, y2 - y1
