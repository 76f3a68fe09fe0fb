"""What of the objects of an image is seen in its network input. Legend: N objects, K keypoints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn.structures.annotations import Crop
from maskrcnn.structures.frame import Frame, transform_boxes, transform_points
from maskrcnn.structures.keypoints import swap_sides

SMALLEST_SIDE = 1.0  # network-input pixels; objects whose visible box has a shorter side are left out


def visible_boxes(boxes: np.ndarray, crops: Sequence[Crop], frame: Frame) -> np.ndarray:
    """The boxes of the visible parts of objects.

    A box that extends beyond the network input shrinks to the visible part of its mask. It becomes empty if no part of
    the mask is visible. In a frame that rotates by an angle, the box of every mask is found anew, and an object without
    a mask gets the box around the corners of its own.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 in original pixels.
        crops: the N masks, as in `Sample.crops`.

    Returns:
        (N, 4) float64 x1 y1 x2 y2 in network-input pixels, clipped to the network input.
    """
    seen = boxes.astype(np.float64)
    if not frame.is_upright:
        moved = clipped(transform_boxes(seen, frame.matrix), frame.input_hw)
        for number, (bitmap, origin) in enumerate(crops):
            if bitmap.size:
                moved[number] = rotated_box(bitmap, origin, frame)
        return moved
    height, width = frame.original_hw
    network_input = np.array([[0.0, 0.0, frame.input_hw[1], frame.input_hw[0]]])
    window = np.clip(transform_boxes(network_input, frame.inverse)[0], 0, [width, height, width, height])
    inside = (seen[:, :2] >= window[:2] - 1e-6).all(axis=1) & (seen[:, 2:] <= window[2:] + 1e-6).all(axis=1)
    for i in np.flatnonzero(~inside).tolist():
        bitmap, origin = crops[i]
        if bitmap.size:
            part = visible_box(bitmap, origin, window)
            seen[i] = np.tile(window[:2], 2) if part is None else part
    return clipped(transform_boxes(seen, frame.matrix), frame.input_hw)


def visible_box(bitmap: np.ndarray, origin_xy: tuple[int, int], window: np.ndarray) -> np.ndarray | None:
    """The tight box of the part of a mask that lies in a window.

    Args:
        bitmap: (h, w) uint8 crop of the mask.
        origin_xy: the original pixel of its top left corner.
        window: (4,) x1 y1 x2 y2, original pixels.

    Returns:
        (4,) float64 x1 y1 x2 y2 in original pixels, clipped to the window; None if no part lies in the window.
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


def rotated_box(bitmap: np.ndarray, origin_xy: tuple[int, int], frame: Frame) -> np.ndarray:
    """The tight box (4,) float64 of the visible part of a mask in network-input pixels; zeros if none is visible.

    The arguments are those of `visible_box`. The box holds the pixels of the mask that touch the network input.
    """
    rows, columns = np.nonzero(bitmap)
    centres = np.stack([columns, rows], axis=1) + (np.array(origin_xy) + 0.5)
    centres = transform_points(centres, frame.matrix)
    half = np.abs(frame.matrix[:2, :2]).sum(axis=1) / 2  # of the box around a pixel
    low, high = centres - half, centres + half
    inside = ((high > 0) & (low < frame.input_hw[::-1])).all(axis=1)
    if not inside.any():
        return np.zeros(4)
    box = np.concatenate([low[inside].min(axis=0), high[inside].max(axis=0)])
    return clipped(box[None], frame.input_hw)[0]


def clipped(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Boxes (N, 4) clipped to a network input of this size."""
    return np.clip(boxes, 0, [size_hw[1], size_hw[0], size_hw[1], size_hw[0]])


def large_enough(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: boxes (N, 4) in network-input pixels whose sides are at least `SMALLEST_SIDE`."""
    return (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(axis=1)


def visible_keypoints(keypoints: np.ndarray, names: Sequence[tuple[str, ...]], frame: Frame) -> np.ndarray:
    """Maps keypoints to the network input. Left and right keypoints are swapped if the frame mirrors the image.

    Args:
        keypoints: (N, K, 3) float32 x, y, visibility, original pixels.
        names: for each of the N objects, the names of its keypoints; empty if its category has none.

    Returns:
        (N, K, 3) float32 x, y, visibility in network-input pixels; zeros for keypoints that are unlabelled or outside.
    """
    points = transform_points(keypoints[..., :2].astype(np.float64), frame.matrix)
    seen = (keypoints[..., 2] > 0) & (points >= 0).all(axis=-1) & (points <= frame.input_hw[::-1]).all(axis=-1)
    result = np.concatenate([points, keypoints[..., 2:]], axis=-1, dtype=np.float32) * seen[..., None]
    return swap_sides(result, names) if np.linalg.det(frame.matrix) < 0 else result
