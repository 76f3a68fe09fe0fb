"""Geometry of many polygons at once: areas, extents, crossings.

Legend: R rings, P points of all rings, S segments. A ring is a closed polygon; rings lie one after another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from maskrcnn.structures.annotations import unpack_many


class Rings(NamedTuple):
    """The polygons of several annotations.

    Attributes:
        points: (P, 2) float64 x, y.
        sizes: (R,) int64, points of each ring.
        owners: (R,) int64, the annotation of each ring, ascending.
    """

    points: np.ndarray
    sizes: np.ndarray
    owners: np.ndarray

    @property
    def starts(self) -> np.ndarray:
        """(R,) int64, the first point of each ring."""
        return np.cumsum(self.sizes) - self.sizes

    def ring(self, number: int) -> np.ndarray:
        """(n, 2) float64 points of one ring."""
        start = int(self.starts[number])
        return self.points[start : start + int(self.sizes[number])]


def read_rings(contents: list[bytes], owners: np.ndarray) -> Rings:
    """The rings of packed polygons, as `pack_polygons` writes them.

    Args:
        owners: (n,) int64, the annotation of each.
    """
    if not contents:
        return Rings(np.zeros((0, 2)), owners, owners)
    points, sizes, counts = unpack_many(contents)
    return Rings(points, sizes, np.repeat(owners, counts))


def _next_points(rings: Rings) -> np.ndarray:
    """(P, 2) the point that follows each point in its ring."""
    following = np.arange(1, len(rings.points) + 1)
    following[rings.starts + rings.sizes - 1] = rings.starts
    found: np.ndarray = rings.points[following]
    return found


def signed_areas(rings: Rings) -> np.ndarray:
    """(R,) float64 areas by the shoelace formula, negative for one of the two orientations."""
    if not len(rings.sizes):
        return np.zeros(0)
    origin = np.repeat(rings.points[rings.starts], rings.sizes, axis=0)  # rounds less
    a, b = rings.points - origin, _next_points(rings) - origin
    areas: np.ndarray = np.add.reduceat(a[:, 0] * b[:, 1] - b[:, 0] * a[:, 1], rings.starts) / 2
    return areas


def extents(rings: Rings) -> np.ndarray:
    """(R, 4) float64 x1 y1 x2 y2."""
    if not len(rings.sizes):
        return np.zeros((0, 4))
    low, high = (f.reduceat(rings.points, rings.starts, axis=0) for f in (np.minimum, np.maximum))
    return np.concatenate([low, high], axis=1)


def overlapping(low: np.ndarray, high: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of intervals of one group that share a point, each once.

    Sorting keeps the number of pairs that are looked at near the number that is found.

    Args:
        low, high: (N,) ends of the intervals.
        group: (N,) int64.

    Returns:
        Two (M,) int64 arrays of positions.
    """
    if not len(low):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    order = np.lexsort((low, group))
    width = high.max() - low.min() + 1.0
    base = group[order] * width - low.min()
    last = np.searchsorted(base + low[order], base + high[order], side="right")
    count = last - np.arange(1, len(order) + 1)
    first = np.repeat(np.arange(len(order)), count)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    return order[first], order[second]


def crossings(rings: Rings) -> np.ndarray:
    """(R,) int64: how often the segments of each ring cross each other.

    Segments that only touch, or that lie on each other, do not cross. So bridges to holes are allowed.
    """
    ring = np.repeat(np.arange(len(rings.sizes)), rings.sizes)
    start, end = rings.points, _next_points(rings)
    i, j = overlapping(np.minimum(start[:, 0], end[:, 0]), np.maximum(start[:, 0], end[:, 0]), ring)
    high = np.minimum(np.maximum(start[i, 1], end[i, 1]), np.maximum(start[j, 1], end[j, 1]))
    near = high >= np.maximum(np.minimum(start[i, 1], end[i, 1]), np.minimum(start[j, 1], end[j, 1]))
    i, j = i[near], j[near]
    apart = _side(start[i], end[i], start[j]) * _side(start[i], end[i], end[j]) < 0
    apart &= _side(start[j], end[j], start[i]) * _side(start[j], end[j], end[i]) < 0
    return np.bincount(ring[i[apart]], minlength=len(rings.sizes))


def _side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """(S,) -1, 0 or 1: on which side of the line from `a` to `b` the point `c` lies, each (S, 2)."""
    cross = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    span = np.abs(b - a).sum(axis=1) * np.abs(c - a).sum(axis=1)
    sides: np.ndarray = np.where(np.abs(cross) > 1e-9 * span, np.sign(cross), 0)  # rounding is no side
    return sides
