"""Polygons to pixels, exactly as COCO's own tools draw them.

COCO's rule rounds corners to a fifth of a pixel and walks along the edges in floating point. Moving a polygon, even by
whole pixels, can so change its pixels. Therefore polygons are drawn at their place in the image, as run lengths, which
costs time and memory in proportion to the outline, and the crop is cut from the runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import hotcoco.mask
import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.ops.rle import rle_to_crop


def polygons_to_rle(parts: Sequence[np.ndarray], image_hw: tuple[int, int]) -> bytes:
    """The union of polygon parts as a COCO compressed string.

    Args:
        parts: each (n, 2) x y in pixels, n of 3 or more, open or closed; they are clipped to the image.
        image_hw: size of the image.

    Raises:
        DataError: no parts, or a part that is not (n, 2) with 3 or more finite points.
    """
    height, width = image_hw
    flat = []
    for i, part in enumerate(parts):
        points = np.asarray(part, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 3:
            raise DataError(f"expected polygon parts of 3 or more points x y, part {i} has the shape {points.shape}")
        if not np.isfinite(points).all():
            raise DataError(f"expected finite polygon points, part {i} has {points[~np.isfinite(points)][0]}")
        flat.append(points.ravel().tolist())
    if not flat:
        raise DataError("expected one or more polygon parts, found none")
    drawn = hotcoco.mask.fr_py_objects(flat, height, width)
    union = drawn[0] if len(drawn) == 1 else hotcoco.mask.merge(drawn)
    counts: bytes = union["counts"]
    return counts


def polygons_to_crop(parts: Sequence[np.ndarray], image_hw: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """The union of polygon parts as a bitmap cropped to its tight box.

    Args:
        parts, image_hw: as in `polygons_to_rle`.

    Returns:
        bitmap: (h, w) uint8 of 0 and 1, C-contiguous; (0, 0) when no pixel is covered.
        origin_xy: the image pixel of its top left corner.

    Raises:
        DataError: as in `polygons_to_rle`.
    """
    return rle_to_crop(polygons_to_rle(parts, image_hw), image_hw)


def polygon_area(points: np.ndarray) -> float:
    """The area in square pixels that an (n, 2) polygon encloses (shoelace formula); orientation does not matter."""
    x, y = np.asarray(points, dtype=np.float64).T
    x, y = x - x[0], y - y[0]  # near the origin products lose less precision, and the edge back to it adds nothing
    return float(abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2)
