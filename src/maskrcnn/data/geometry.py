"""Geometry of augmentation as one 3x3 matrix from original to network-input pixels.

Coordinates are continuous: pixel i covers [i, i + 1). Matrices act on column vectors (x, y, 1).
"""

from __future__ import annotations

import numpy as np
from PIL import Image


def scaling(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def translation(x: float, y: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = x, y
    return matrix


def horizontal_flip(width: float) -> np.ndarray:
    """x becomes width - x."""
    return translation(width, 0) @ scaling(-1, 1)


def vertical_flip(height: float) -> np.ndarray:
    """y becomes height - y."""
    return translation(0, height) @ scaling(1, -1)


def quarter_turn(height: float) -> np.ndarray:
    """A turn to the right by 90 degrees: (x, y) becomes (height - y, x)."""
    return np.array([[0.0, -1.0, height], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points through an affine matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 4) boxes x1 y1 x2 y2 through a matrix of scales, flips, quarter turns and shifts: exact."""
    corners = transform_points(boxes.reshape(-1, 2, 2), matrix)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def warp_image(image: np.ndarray, matrix: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resamples an image once through a matrix of scales, flips, quarter turns and shifts.

    The triangle filter widens where the image shrinks (no aliasing). Where the output lies outside the image
    it is zero.

    Args:
        image: (H, W, 3) uint8.
        matrix: original to output pixels.
        size_hw: height and width of the output.

    Returns:
        (h, w, 3) uint8.

    Raises:
        ValueError: a matrix with rotation other than quarter turns.
    """
    height, width = image.shape[:2]
    linear = matrix[:2, :2]
    turned = bool(abs(linear[0, 0]) < abs(linear[0, 1]))
    off_axis = (linear[0, 0], linear[1, 1]) if turned else (linear[0, 1], linear[1, 0])
    if max(map(abs, off_axis)) > 1e-9 * np.abs(linear).max():
        raise ValueError(f"expected a matrix of scales, flips, quarter turns and shifts, found {matrix.tolist()}")
    # The whole output pixels that the image covers, and the part of the image that they show.
    x1, y1, x2, y2 = transform_boxes(np.array([[0.0, 0.0, width, height]]), matrix)[0]
    left, top = max(0, round(x1)), max(0, round(y1))
    right, bottom = min(size_hw[1], round(x2)), min(size_hw[0], round(y2))
    output = np.zeros((*size_hw, 3), dtype=np.uint8)
    if right <= left or bottom <= top:
        return output
    seen = transform_boxes(np.array([[left, top, right, bottom]], dtype=np.float64), np.linalg.inv(matrix))[0]
    seen = np.clip(seen, 0, [width, height, width, height])
    x_flipped, y_flipped = (linear[1, 0] < 0, linear[0, 1] < 0) if turned else (linear[0, 0] < 0, linear[1, 1] < 0)
    w, h = right - left, bottom - top
    resized = Image.fromarray(image).resize(
        (h, w) if turned else (w, h), Image.Resampling.BILINEAR, box=tuple(seen.tolist())
    )
    part = np.asarray(resized)[:: -1 if y_flipped else 1, :: -1 if x_flipped else 1]
    output[top:bottom, left:right] = part.transpose(1, 0, 2) if turned else part
    return output


def visible_box(bitmap: np.ndarray, origin_xy: tuple[int, int], window: np.ndarray) -> np.ndarray | None:
    """The tight box of the part of a cropped instance that lies in a window, or None when nothing does.

    Args:
        bitmap: (h, w) uint8 crop; origin_xy: the original pixel of its top left corner.
        window: (4,) x1 y1 x2 y2, original pixels.

    Returns:
        (4,) float64, original pixels, clipped to the window.
    """
    x0, y0 = origin_xy
    low = np.maximum(np.floor(window[:2]).astype(int) - (x0, y0), 0)
    high = np.maximum(np.ceil(window[2:]).astype(int) - (x0, y0), 0)
    part = bitmap[low[1] : high[1], low[0] : high[0]]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if len(rows) == 0:
        return None
    start = np.array([x0, y0]) + low
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + np.tile(start, 2)
    box = np.concatenate([np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])])
    return box if (box[2:] > box[:2]).all() else None
