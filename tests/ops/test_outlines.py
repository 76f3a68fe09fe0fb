"""Outlines enclose exactly the pixels of a bitmap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.ops.outlines import outlines, outlines_of_parts, simplified
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.masks import RLE


def drawn(parts: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons, drawn by the COCO API."""
    return RLE(size, polygons_to_rle(parts, size)).dense() if parts else np.zeros(size, dtype=bool)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_the_coco_api_draws_the_bitmap_again(height: int, width: int, seed: int, share: float) -> None:
    bitmap = np.random.default_rng(seed).random((height, width)) < share
    found = outlines(bitmap)
    again = drawn([points for points, hole in found if not hole], (height, width))
    again &= ~drawn([points for points, hole in found if hole], (height, width))
    # A hole may hold islands, which the subtraction removes.
    inside_holes = drawn([points for points, hole in found if hole], (height, width))
    assert np.array_equal(again | (bitmap & inside_holes), bitmap)
    assert sum(abs(area(points)) * (-1 if hole else 1) for points, hole in found) == bitmap.sum()
    for points, hole in found:
        assert (area(points) < 0) == hole
        steps = np.diff(np.concatenate([points, points[:1]]), axis=0)
        assert ((steps != 0).sum(axis=1) == 1).all()  # each side is horizontal or vertical, and none has no length
        assert ((steps[:, 0] != 0) != (np.roll(steps, 1, axis=0)[:, 0] != 0)).all()  # only corners are listed


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32), st.floats(0.1, 0.9))
def test_each_part_less_its_own_holes_is_drawn_again(height: int, width: int, seed: int, share: float) -> None:
    bitmap = np.random.default_rng(seed).random((height, width)) < share
    again = np.zeros((height, width), dtype=int)
    for outer, *holes in outlines_of_parts(bitmap):
        again += drawn([outer], (height, width)) & ~drawn(holes, (height, width))
        assert drawn(holes, (height, width)).sum() < drawn([outer], (height, width)).sum()
    assert np.array_equal(again, bitmap)  # no pixel belongs to two parts


def area(points: np.ndarray) -> float:
    x, y = points.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


@pytest.mark.parametrize("bitmap", [[[1, 0], [0, 1]], [[0, 1], [1, 0]]])
def test_pixels_that_touch_at_a_corner_have_outlines_of_their_own(bitmap: list[list[int]]) -> None:
    found = outlines(np.array(bitmap))
    assert [(len(points), hole) for points, hole in found] == [(4, False), (4, False)]


def test_a_ring_has_an_outer_outline_and_a_hole() -> None:
    ring = np.ones((5, 4), dtype=np.uint8)
    ring[1:3, 1:3] = 0
    assert sorted((hole, abs(area(points))) for points, hole in outlines(ring)) == [(False, 20), (True, 4)]


def test_a_ring_inside_a_ring_keeps_its_own_hole() -> None:
    y, x = np.mgrid[:11, :11]
    rings = np.maximum(abs(x - 5), abs(y - 5)) % 2 == 1  # of sides 11, 7 and 3
    parts = outlines_of_parts(rings)
    assert sorted(tuple(abs(area(points)) for points in part) for part in parts) == [(9, 1), (49, 25), (121, 81)]


def test_nothing_has_no_outline() -> None:
    assert outlines(np.zeros((0, 0), dtype=np.uint8)) == outlines(np.zeros((3, 3), dtype=bool)) == []


@given(st.integers(3, 30), st.floats(0.3, 4))
def test_a_simplified_outline_stays_near_its_corners(radius: int, tolerance: float) -> None:
    y, x = np.mgrid[: 2 * radius + 1, : 2 * radius + 1] - radius
    ((points, _),) = outlines(x**2 + y**2 <= radius**2)
    fewer = simplified(points, tolerance)
    assert {tuple(point) for point in fewer.tolist()} <= {tuple(point) for point in points.tolist()}
    starts, stops = fewer, np.roll(fewer, -1, axis=0)
    along = stops - starts
    share = ((points[:, None] - starts) * along).sum(axis=2) / (along**2).sum(axis=1)
    nearest = starts + np.clip(share, 0, 1)[..., None] * along
    distance = np.sqrt(((points[:, None] - nearest) ** 2).sum(axis=2)).min(axis=1)
    assert distance.max() <= tolerance + 1e-9
    assert len(simplified(points, 0.0)) == len(points)


@pytest.mark.parametrize("height", [1, 9])  # a line of single pixels, of which two corners would be no polygon
def test_a_rectangle_keeps_its_four_corners(height: int) -> None:
    corners = np.array([[0, 0], [9, 0], [9, height], [0, height]])
    assert sorted(map(tuple, simplified(corners, 1.0).tolist())) == [(0, 0), (0, height), (9, 0), (9, height)]
