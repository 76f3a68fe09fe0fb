"""Measures of many annotations at once are those of each mask alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.data.editing.copies import THUMBNAIL, UNREAD, Pictures, Signature, equal_pictures
from maskrcnn.doctor.object_faults import boxes_beside_masks, empty_masks, objects_outside
from maskrcnn.doctor.outlines import Rings, crossings, overlapping, signed_areas
from maskrcnn.structures.masks import RLE
from planted import PLAIN_SIZE as SIZE
from planted import objects_of


def rectangle(x: int, y: int, width: int, height: int) -> dict[str, Any]:
    bitmap = np.zeros(SIZE, dtype=bool)
    bitmap[y : y + height, x : x + width] = True
    return {"rle": RLE.from_dense(bitmap).to_coco()}


rectangles = st.tuples(st.integers(0, 30), st.integers(0, 20), st.integers(1, 20), st.integers(1, 20))


@given(rectangles, rectangles)
def test_a_box_is_doubted_by_its_overlap_with_the_mask(box: tuple[int, ...], mask: tuple[int, ...]) -> None:
    grids = []
    for x, y, width, height in (box, mask):
        grid = np.zeros(SIZE, dtype=bool)
        grid[y : y + height, x : x + width] = True
        grids.append(grid)
    overlap = (grids[0] & grids[1]).sum() / (grids[0] | grids[1]).sum()
    edges = np.array([(x, y, x + width, y + height) for x, y, width, height in (box, mask)])
    far = np.abs(edges[0] - edges[1]).max() > 2
    found = list(boxes_beside_masks(objects_of({"box": list(box), **rectangle(*mask)})))
    assert [fault.severity for fault in found if fault.severity == "hurts"] == ["hurts"] * int(overlap < 0.5 and far)


def test_the_boxes_of_crowds_and_of_masks_without_pixels_are_not_doubted() -> None:
    thin = [[10.1, 10.1, 10.3, 10.1, 10.3, 10.4]]
    objects = objects_of(
        {"box": [3, 3, 9, 9]},
        {"box": [30, 30, 9, 9], "crowd": 1, **rectangle(0, 0, 5, 5)},
        {"box": [30, 30, 9, 9], "polygons": thin},
        {"box": [30, 30, 9, 9], **rectangle(0, 0, 5, 5)},
        {"box": [0, 0, 9, 9], "polygons": [[100, 100, 109, 100, 109, 109]]},
    )
    assert [fault.rows for fault in boxes_beside_masks(objects)] == [(3,)]
    assert [fault.rows for fault in empty_masks(objects)] == [(2,)]
    assert [fault.rows for fault in objects_outside(objects)] == [(4,)]


@given(st.integers(0, 2**32 - 1))
def test_run_lengths_are_measured_as_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = []
    for density in (0.0, 0.01, 0.5, 1.0):
        bitmap = np.zeros(SIZE, dtype=bool)
        y, x = rng.integers(0, 30, 2)
        bitmap[y : y + rng.integers(1, 40), x : x + rng.integers(1, 40)] = rng.random() < 0.5
        masks.append(RLE.from_dense(bitmap | (rng.random(SIZE) < density)))
    objects = objects_of(*({"box": [1, 1, 5, 5], "rle": mask.to_coco()} for mask in masks))
    assert objects.pixels.tolist() == [mask.area for mask in masks]
    boxes = np.where(objects.pixels[:, None] > 0, objects.tight, 0)
    assert boxes.tolist() == [mask.box.tolist() for mask in masks]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4), st.integers(0, 2)), max_size=30))
def test_overlapping_intervals_are_those_of_a_plain_loop(given_: list[tuple[int, int, int]]) -> None:
    low, length, group = np.array(given_, dtype=np.int64).reshape(-1, 3).T
    high = low + length
    pairs = [
        {i, j}
        for i in range(len(low))
        for j in range(i)
        if group[i] == group[j] and low[i] <= high[j] and low[j] <= high[i]
    ]
    found = [{i, j} for i, j in zip(*(side.tolist() for side in overlapping(low, high, group)), strict=True)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, pairs))


@pytest.mark.parametrize(
    ("points", "times"),
    [
        ([(0, 0), (4, 0), (4, 4), (0, 4)], 0),
        ([(0, 0), (4, 4), (4, 0), (0, 4)], 1),
        ([(0, 0), (9, 0), (9, 9), (0, 9), (0, 0), (3, 3), (3, 6), (6, 6), (6, 3), (3, 3), (0, 0)], 0),  # a bridge
        ([(0, 0), (4, 0), (4, 4), (2, 0), (0, 4)], 0),  # a corner that touches an edge
        ([(0, 0), (4, 0), (0, 0), (4, 0), (2, 3)], 0),  # twice along one edge
        ([(5, 0), (2, 9), (9, 3), (1, 3), (8, 9)], 5),  # the star
    ],
)
def test_only_crossings_count(points: list[tuple[int, int]], times: int) -> None:
    other = [(0.0, 0.0), (9.0, 0.0), (9.0, 9.0)]
    both = Rings(np.array([*other, *points, *other], dtype=np.float64), np.array([3, len(points), 3]), np.arange(3))
    assert crossings(both).tolist() == [0, times, 0]
    assert signed_areas(both)[[0, 2]].tolist() == [40.5, 40.5]


def test_pictures_of_one_colour_are_never_the_same() -> None:
    flat, half = bytes(THUMBNAIL**2), bytes(range(THUMBNAIL)) * THUMBNAIL
    signatures = [Signature(b"a", 0, flat), Signature(b"b", 1, half), Signature(b"a", 0, flat), UNREAD]
    signatures.append(Signature(b"b", 1, half))
    pictures = Pictures([Path(str(i)) for i in range(5)], np.zeros(5, dtype=np.int64), signatures)
    assert list(equal_pictures(pictures)) == [(1, 4, True)]
