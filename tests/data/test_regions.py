"""Masks from runs, pictures of ids and shapes, compared with plain loops over pixels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from maskrcnn.data.regions import (
    Order,
    bitmap_to_rle,
    connected_parts,
    ellipse,
    even_odd,
    label_image_to_rles,
    numbers_of,
    png_of,
    png_to_rle,
    points_of,
    rectangle,
    spans_to_rle,
    turned,
    united,
)
from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import polygon_area, polygons_to_rle
from maskrcnn.structures.masks import RLE

sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))
bitmaps = sizes.flatmap(lambda size: arrays(np.bool_, size))


def parts_of(bitmap: np.ndarray) -> list[np.ndarray]:
    """The parts of a bitmap that touch neither at an edge nor at a corner, by flooding."""
    left, parts = bitmap.copy(), []
    for x, y in np.argwhere(bitmap.T).tolist():  # down, then right
        if left[y, x]:
            part, waiting = np.zeros_like(bitmap), [(y, x)]
            while waiting:
                row, column = waiting.pop()
                if 0 <= row < bitmap.shape[0] and 0 <= column < bitmap.shape[1] and left[row, column]:
                    left[row, column], part[row, column] = False, True
                    waiting += [(row + dy, column + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            parts.append(part)
    return parts


@given(bitmaps, st.sampled_from(["down", "right"]))
def test_runs_in_both_orders(bitmap: np.ndarray, order: Order) -> None:
    flat = np.concatenate([[0], (bitmap.T if order == "down" else bitmap).ravel().astype(int), [0]])
    starts, ends = np.flatnonzero(np.diff(flat) == 1), np.flatnonzero(np.diff(flat) == -1)
    size = (bitmap.shape[0], bitmap.shape[1])
    assert spans_to_rle(starts, ends - starts, size, order) == RLE.from_dense(bitmap)


@given(sizes.flatmap(lambda size: arrays(np.int64, size, elements=st.integers(0, 4))), st.integers(0, 4))
def test_a_picture_of_ids(labels: np.ndarray, background: int) -> None:
    ids, masks = label_image_to_rles(labels, background)
    assert ids == sorted(set(labels.ravel().tolist()) - {background})
    assert masks == [RLE.from_dense(labels == number) for number in ids]


@given(bitmaps)
def test_connected_parts_also_touch_at_corners(bitmap: np.ndarray) -> None:
    parts = parts_of(bitmap) or [bitmap]
    assert connected_parts(RLE.from_dense(bitmap)) == [RLE.from_dense(part) for part in parts]


@given(bitmaps, st.tuples(st.integers(-9, 9), st.integers(-9, 9)), sizes)
def test_a_bitmap_anywhere_in_an_image_is_cut_to_it(
    bitmap: np.ndarray, corner_xy: tuple[int, int], size: tuple[int, int]
) -> None:
    image = np.zeros((60, 60), dtype=bool)
    x, y = corner_xy[0] + 20, corner_xy[1] + 20
    image[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
    assert bitmap_to_rle(bitmap, corner_xy, size) == RLE.from_dense(image[20 : 20 + size[0], 20 : 20 + size[1]])


@given(bitmaps)
def test_a_png_comes_back(bitmap: np.ndarray) -> None:
    size = (bitmap.shape[0], bitmap.shape[1])
    assert png_to_rle(png_of(bitmap.astype(np.uint8)), (0, 0), size) == RLE.from_dense(bitmap)


def test_united_masks() -> None:
    one, other = np.eye(4, dtype=bool), np.eye(4, dtype=bool)[::-1]
    assert united([RLE.from_dense(one), RLE.from_dense(other)]) == RLE.from_dense(one | other)


def test_shapes_turn_clockwise_on_the_screen() -> None:
    corners = turned(rectangle(2, 1, 6, 3), math.pi / 2, (2, 1))
    np.testing.assert_allclose(corners, [[2, 1], [2, 5], [0, 5], [0, 1]], atol=1e-12)
    points = ellipse((5, 6), (4, 2), math.pi / 6)
    assert polygon_area(points) == pytest.approx(8 * math.pi, rel=1e-3)
    np.testing.assert_allclose(points[0], [5 + 4 * math.cos(math.pi / 6), 6 + 2])
    np.testing.assert_allclose(points.mean(axis=0), [5, 6], atol=1e-12)


@pytest.mark.parametrize(
    ("starts", "lengths", "words"),
    [
        ([3], [0], "expected runs of 1 or more pixels, found 0"),
        ([5, 3], [1, 1], "found run 1 before the last one's end"),
        ([1, 2], [2, 1], "found run 1 before the last one's end"),
        ([-1], [2], "expected runs inside the 12 pixels"),
        ([10], [3], "found one up to 13"),
    ],
)
def test_runs_that_cannot_be(starts: list[int], lengths: list[int], words: str) -> None:
    with pytest.raises(DataError, match=words):
        spans_to_rle(np.array(starts), np.array(lengths), (3, 4), "down")


corners = st.tuples(st.floats(-3, 15, width=32), st.floats(-3, 15, width=32))


@given(st.lists(st.lists(corners, min_size=3, max_size=6), min_size=1, max_size=4))
def test_rings_are_drawn_even_odd(rings: list[list[tuple[float, float]]]) -> None:
    size = (11, 12)
    outlines = [np.array(ring, dtype=np.float64) for ring in rings]
    expected = np.zeros(size, dtype=bool)
    for outline in outlines:
        expected ^= RLE(size, polygons_to_rle([outline], size)).dense() != 0
    assert np.array_equal(even_odd(outlines, size).dense() != 0, expected)


def test_points_and_numbers_of_files() -> None:
    pairs = [[1.0, 2.0], [3.0, 4.5]]
    assert points_of([["1", "2"], [3, 4.5]]).tolist() == pairs
    assert points_of([{"x": 1, "y": 2}, {"y": 4.5, "x": 3}]).tolist() == pairs
    for wrong in (None, [], [[1, 2, 3]], [{"x": 1}], [{"x": 1, "y": 2}, 3], [[1, math.nan]], [{"x": 10**400, "y": 1}]):
        with pytest.raises(DataError, match="expected points as pairs of finite numbers, found"):
            points_of(wrong)
    assert numbers_of({"a": 1, "b": 2.5}, "b", "a") == [2.5, 1.0]
    for wrong in ({"a": 1}, {"a": 1, "b": True}, {"a": 1, "b": math.inf}, None, [1, 2]):
        with pytest.raises(DataError, match="expected a, b as numbers, found"):
            numbers_of(wrong, "a", "b")
