"""Brush masks are written as they are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from maskrcnn.data.brush import brush_codes, brush_mask
from maskrcnn.structures.masks import RLE

bitmaps = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(bitmaps)
def test_any_mask(bitmap: np.ndarray) -> None:
    assert np.array_equal(brush_mask(brush_codes(RLE.from_dense(bitmap)), bitmap.shape), bitmap)


@pytest.mark.parametrize("filled", [False, True])
def test_runs_longer_than_a_block(filled: bool) -> None:
    bitmap = np.full((200, 300), filled)
    bitmap[100, 100] = not filled
    assert np.array_equal(brush_mask(brush_codes(RLE.from_dense(bitmap)), (200, 300)), bitmap)
