"""What of an object a training sample shows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.data.transforms import visible_box


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
