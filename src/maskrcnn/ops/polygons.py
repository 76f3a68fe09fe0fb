"""Polygons to run lengths, exactly as the COCO API draws them, and bitmaps to polygons that it draws as these bitmaps.

COCO's rule rounds corners to a fifth of a pixel and follows the edges in floating point. Even a shift by whole pixels
can change the pixels of a polygon. Therefore polygons are drawn at their place in the image, as run lengths. The cost
grows with the outline and not with the image.

Outlines run along the edges of the pixels. Contours of OpenCV run through the centres of the pixels and lose half a
pixel all round.
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


def outline(bitmap: np.ndarray) -> list[np.ndarray]:
    """The rings around the parts and the holes of a bitmap.

    A pixel is inside if a ray from it crosses the rings an odd number of times. Rings may touch at corners.

    Args:
        bitmap: (h, w), not 0 for foreground.

    Returns:
        Rings, each (n, 2) int64 x, y of its corners in pixel edges, without repeating the first.
    """
    inside = np.pad(np.asarray(bitmap) != 0, 1)
    a, b, c, d = inside[:-1, :-1], inside[:-1, 1:], inside[1:, :-1], inside[1:, 1:]
    turns = a ^ b ^ c ^ d  # one or three of the four pixels around a corner
    touches = (
        (a == d) & (b == c) & (a != b)
    )  # two pixels that touch at the corner, through which the outline goes twice
    y, x = np.nonzero(turns | touches)
    repeated = np.repeat(np.arange(len(y)), 1 + touches[y, x])
    y, x = y[repeated], x[repeated]
    # Along a row of corners, edges of the outline begin and end in turns. The same holds along a column.
    return _rings(np.stack([x, y], axis=1), _partners(np.arange(len(x))), _partners(np.lexsort((y, x))))


def _partners(order: np.ndarray) -> np.ndarray:
    """The other end of the edge at each corner, if the corners in `order` are ends of edges two by two."""
    other = np.empty(len(order), dtype=np.int64)
    other[order[0::2]], other[order[1::2]] = order[1::2], order[0::2]
    return other


def _rings(corners: np.ndarray, along_row: np.ndarray, along_column: np.ndarray) -> list[np.ndarray]:
    """Follows the edges from corner to corner until every ring is closed."""
    rows, columns = along_row.tolist(), along_column.tolist()
    seen = bytearray(len(rows))
    rings = []
    for first in range(len(rows)):
        if seen[first]:
            continue
        ring, corner = [], first
        while not seen[corner]:
            turn = rows[corner]
            seen[corner] = seen[turn] = 1
            ring += [corner, turn]
            corner = columns[turn]
        rings.append(corners[ring])
    return rings


def bridged(rings: Sequence[np.ndarray]) -> np.ndarray:
    """One polygon (n, 2) of several rings, joined by bridges of no width, there and back.

    Drawn by counting crossings, as the COCO API draws, the bridges leave no trace.
    """
    anchor = rings[0][:1]
    pieces = [rings[0]]
    for ring in rings[1:]:
        pieces += [anchor, ring, ring[:1]]
    return np.concatenate([*pieces, anchor]) if len(rings) > 1 else rings[0]
