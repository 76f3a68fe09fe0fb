"""The part of an image around some of its objects."""

from __future__ import annotations

import numpy as np

_AROUND = 48  # pixels around the objects, at least


def window_around(boxes: np.ndarray, image_hw: tuple[int, ...]) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of a part of an image: the union of boxes (n, 4) and as much around it as half of its size. The whole
    image if a box is empty."""
    height, width = image_hw[:2]
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        return 0, 0, width, height
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    around = np.maximum((high - low) / 2, _AROUND)
    x1, y1 = np.floor(np.maximum(low - around, 0)).astype(int).tolist()
    x2, y2 = np.ceil(np.minimum(high + around, (width, height))).astype(int).tolist()
    return x1, y1, x2, y2
