"""The boxes of what is seen of an object."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.data.loading.visible import rotated_box, visible_box, visible_boxes
from maskrcnn.structures.frame import frame_of_size, transform_points


@given(st.integers(0, 2**32 - 1))
def test_visible_box_is_tight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap = (rng.random((rng.integers(1, 9), rng.integers(1, 9))) < 0.4).astype(np.uint8)
    x0, y0 = (int(v) for v in rng.integers(0, 10, 2))
    window = np.sort(rng.integers(0, 20, (2, 2)), axis=0).reshape(4).astype(np.float64)
    image = np.zeros((30, 30), dtype=bool)
    image[y0 : y0 + bitmap.shape[0], x0 : x0 + bitmap.shape[1]] = bitmap
    x1, y1, x2, y2 = window.astype(int)
    seen = np.zeros_like(image)
    seen[y1:y2, x1:x2] = image[y1:y2, x1:x2]
    box = visible_box(bitmap, (x0, y0), window)
    if not seen.any():
        assert box is None
    else:
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        assert box is not None
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@given(st.integers(0, 2**32 - 1), st.floats(1, 89))
def test_a_rotated_box_holds_its_mask_and_touches_it(seed: int, degrees: float) -> None:
    """Against the corners of all pixels of the mask, where nothing is cut off."""
    rng = np.random.default_rng(seed)
    bitmap = (rng.random((7, 9)) < 0.3).astype(np.uint8)
    bitmap[3, 4] = 1
    frame = frame_of_size((40, 40), (60, 80)).rotated(degrees)
    y, x = np.nonzero(bitmap)
    corners = np.concatenate([np.stack([x + dx + 15, y + dy + 16], axis=1) for dx in (0, 1) for dy in (0, 1)])
    corners = transform_points(corners.astype(np.float64), frame.matrix)
    expected = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    np.testing.assert_allclose(rotated_box(bitmap, (15, 16), frame), expected, atol=1e-9)
    boxes = visible_boxes(np.array([[15.0, 16, 24, 23]] * 2), [(bitmap, (15, 16)), (bitmap[:0, :0], (0, 0))], frame)
    np.testing.assert_allclose(boxes[0], expected, atol=1e-9)
    assert (boxes[1, :2] <= boxes[0, :2] + 1e-9).all(), "without a mask, the corners of the box count"
    assert (boxes[1, 2:] >= boxes[0, 2:] - 1e-9).all()


def test_a_mask_that_is_turned_out_of_the_image_has_no_box() -> None:
    frame = frame_of_size((40, 40), (40, 40)).rotated(45)
    assert rotated_box(np.ones((2, 2), dtype=np.uint8), (0, 0), frame).tolist() == [0, 0, 0, 0]
