"""The annotations of one image: boxes inside it, and masks however they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.structures.annotations import (
    NO_MASK,
    POLYGONS,
    RUN_LENGTHS,
    Annotations,
    pack_polygons,
    unpack_polygons,
)
from maskrcnn.structures.masks import RLE

SIZE = (40, 50)


def annotations(boxes: Sequence[Sequence[float]], masks: Sequence[tuple[int, bytes]]) -> Annotations:
    count = len(boxes)
    return Annotations(
        SIZE,
        ids=np.arange(count),
        annotated_boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        labels=np.zeros(count, dtype=np.int64),
        crowd=np.zeros(count, dtype=np.bool_),
        areas=np.full(count, np.nan),
        kinds=np.array([kind for kind, _ in masks], dtype=np.uint8),
        segmentations=[np.frombuffer(content, dtype=np.uint8) for _, content in masks],
    )


def square(x: int, y: int, side: int) -> tuple[RLE, bytes]:
    """A mask, and the same as a packed polygon."""
    bitmap = np.zeros(SIZE, dtype=bool)
    bitmap[y : y + side, x : x + side] = True
    corners = np.array([x, y, x + side, y, x + side, y + side, x, y + side], dtype=np.float64)
    return RLE.from_dense(bitmap), pack_polygons([corners])


def test_boxes_are_clipped_and_those_outside_are_the_masks_own() -> None:
    mask, polygon = square(10, 5, 8)
    none = (NO_MASK, b"")
    found = annotations(
        [[-5, 3.5, 20, 60], [60, 5, 8, 8], [0, -20, 9, 20]],
        [none, (RUN_LENGTHS, mask.counts), (POLYGONS, polygon)],
    )
    assert found.boxes.dtype == np.float32
    assert found.boxes.tolist() == [[0, 3.5, 15, 40], [10, 5, 18, 13], [10, 5, 18, 13]]
    assert found.annotated_boxes[1].tolist() == [60, 5, 8, 8]
    assert len(annotations([], [])) == len(annotations([], []).boxes) == 0


def test_masks_of_every_kind() -> None:
    mask, polygon = square(10, 5, 8)
    found = annotations(
        [[10, 5, 8, 8]] * 2 + [[2.5, 3, 4, 5]], [(RUN_LENGTHS, mask.counts), (POLYGONS, polygon), (NO_MASK, b"")]
    )
    assert found.has_mask.tolist() == [True, True, False]
    assert found.masks() == [mask, mask, None]
    assert found.masks([2, 1]) == [None, mask]
    assert found.rle(2).box.tolist() == [2, 3, 7, 8], "the pixels that the box touches"
    assert [part.tolist() for part in found.polygons(1)] == [[[10, 5], [18, 5], [18, 13], [10, 13]]]
    assert found.polygons(0) == found.polygons(2) == []
    (empty, _), (bitmap, origin) = found.crops([2, 1])
    assert empty.shape == (0, 0)
    assert (bitmap.shape, origin, bool(bitmap.all())) == ((8, 8), (10, 5), True)


@given(st.lists(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=3), min_size=1, max_size=4))
def test_polygons_come_out_as_they_went_in(parts: list[list[tuple[float, float]]]) -> None:
    packed = pack_polygons([np.array(part).ravel() for part in parts])
    again = unpack_polygons(np.frombuffer(packed, dtype=np.uint8))
    assert [part.tolist() for part in again] == [[list(point) for point in part] for part in parts]
