"""Polygons to run lengths, exactly as the COCO API draws them.

COCO's rule rounds corners to a fifth of a pixel and follows the edges in floating point. Even a shift by whole pixels
can change the pixels of a polygon. Therefore polygons are drawn at their place in the image, as run lengths. The cost
grows with the outline and not with the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import hotcoco.mask
import numpy as np

from maskrcnn.errors import DataError


def polygons_to_rle(parts: Sequence[np.ndarray], image_hw: tuple[int, int]) -> bytes:
    """The union of polygon parts as a COCO compressed string.

    Args:
        parts: each (n, 2) x y in image pixels, n of 3 or more, open or closed; they are clipped to the image.
        image_hw: height and width of the image.

    Raises:
        DataError: there is no part, or a part does not have 3 or more finite points x y.
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


def polygon_area(points: np.ndarray) -> float:
    """The area of an (n, 2) polygon in square pixels by the shoelace formula, for both orientations."""
    x, y = np.asarray(points, dtype=np.float64).T
    x, y = x - x[0], y - y[0]  # rounds less, and makes the term of the closing edge zero
    return float(abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1])) / 2)
