"""Outlines of bitmaps along the edges of their pixels.

A polygon through the centres of the pixels, as OpenCV gives it, loses half a pixel all round. These outlines enclose
the pixels exactly, and the COCO API draws the same bitmap from them.
"""

from __future__ import annotations

import numpy as np

FEW_CORNERS = 1.0  # tolerance of `simplified` in pixels for outlines that a person corrects by moving corners


def outlines(bitmap: np.ndarray) -> list[tuple[np.ndarray, bool]]:
    """The closed outlines of the foreground. Pixels that touch only at a corner have separate outlines.

    Args:
        bitmap: (h, w) bool or integer; foreground is not 0.

    Returns:
        For each outline its (n, 2) int64 corners x y, in pixel edges, and whether it encloses a hole. Outer outlines
        run clockwise on the screen, those of holes anticlockwise.
    """
    padded = np.pad(bitmap != 0, 1).astype(np.int8)
    # Runs of edges between rows and between columns. Foreground lies on the right of the direction of travel.
    row_start, row_stop = _runs(
        np.diff(padded, axis=0)[:, 1:-1]
    )  # top edges run to the right, bottom edges to the left
    column_start, column_stop = (points[:, ::-1] for points in _runs(-np.diff(padded, axis=1)[1:-1].T))
    after_row = _joined(row_stop, row_start, column_start, column_stop)
    after_column = _joined(column_stop, column_start, row_start, row_stop, turned=True)
    following = after_column[after_row].tolist()  # from each run between rows to the next one
    corners = np.stack([row_start, row_stop], axis=1)
    found, left = [], set(range(len(following)))
    while left:
        loop = [run := left.pop()]
        while (run := following[run]) != loop[0]:
            loop.append(run)
        left.difference_update(loop)
        points = corners[loop].reshape(-1, 2)
        found.append((points, _twice_area(points) < 0))
    return found


def outlines_of_parts(bitmap: np.ndarray) -> list[list[np.ndarray]]:
    """The outlines of each part of the foreground: the outer one, and then those of its holes.

    Args:
        bitmap: (h, w) bool or integer; foreground is not 0.

    Returns:
        Lists of (n, 2) int64 corners x y, in pixel edges, as `outlines` gives them.
    """
    found = outlines(bitmap)
    parts = [[points] for points, is_hole in found if not is_hole]
    parts.sort(key=lambda part: _twice_area(part[0]))  # of outlines around a pixel, the smallest is that of its part
    for points, is_hole in found:
        if is_hole:
            x, y = points[np.lexsort((points[:, 0], points[:, 1]))[0]]
            beside = (x - 0.5, y + 0.5)  # the pixel to the left of the first one of the hole is foreground
            next(part for part in parts if _encloses(part[0], beside)).append(points)
    return parts


def _encloses(points: np.ndarray, point_xy: tuple[float, float]) -> bool:
    """Whether an (n, 2) outline along pixel edges encloses the centre of a pixel."""
    (x, y), (x2, y2) = points.T, np.roll(points, -1, axis=0).T
    crossed = (x == x2) & (x > point_xy[0]) & ((y > point_xy[1]) != (y2 > point_xy[1]))
    return bool(crossed.sum() % 2)


def simplified(points: np.ndarray, tolerance: float) -> np.ndarray:
    """An outline with fewer corners, from which no left out corner lies further than `tolerance` (Douglas and Peucker).

    An outline of which fewer than three corners would stay, as of a line of single pixels, keeps all of them.

    Args:
        points: (n, 2) corners of a closed outline.
        tolerance: in the unit of the points.
    """
    first = int(np.argmin(points.sum(axis=1)))
    closed = np.roll(points, -first, axis=0).astype(np.float64)
    furthest = int(np.argmax(((closed - closed[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([closed, closed[:1]])
    kept = np.zeros(len(closed), dtype=np.bool_)
    kept[[0, furthest]] = True
    parts = [(0, furthest), (furthest, len(closed) - 1)]
    while parts:
        start, stop = parts.pop()
        between = closed[start + 1 : stop]
        if len(between) == 0:
            continue
        along, offset = closed[stop] - closed[start], between - closed[start]
        length = np.hypot(*along)
        distance = np.abs(offset[:, 0] * along[1] - offset[:, 1] * along[0]) / max(length, 1e-9)
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            kept[start + 1 + worst] = True
            parts += [(start, start + 1 + worst), (start + 1 + worst, stop)]
    return closed[:-1][kept[:-1]] if kept[:-1].sum() > 2 else closed[:-1]


def _runs(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Maximal runs of equal steps along the rows of (n, m) -1, 0 and 1: first and last corner (x, y), (R, 2) each, in
    the direction of travel: to the right for 1, to the left for -1."""
    padded = np.pad(steps, ((0, 0), (1, 1)))
    starts, stops = [], []
    for sign in (1, -1):
        change = np.diff((padded == sign).astype(np.int8), axis=1)
        y, first = np.nonzero(change == 1)
        _, last = np.nonzero(change == -1)
        left, right = np.stack([first, y], axis=1), np.stack([last, y], axis=1)
        starts.append(left if sign == 1 else right)
        stops.append(right if sign == 1 else left)
    return np.concatenate(starts).astype(np.int64), np.concatenate(stops).astype(np.int64)


def _joined(
    stop: np.ndarray, start: np.ndarray, next_start: np.ndarray, next_stop: np.ndarray, turned: bool = False
) -> np.ndarray:
    """The run that begins where each run ends.

    Where two pixels touch at a corner, two runs end and two begin there. The one that turns to the right is taken, so
    that the outline stays at its pixel: after a run to the left comes one upwards, and after one downwards one to the
    left (`turned`).
    """
    forward = ((stop - start).sum(axis=1) > 0) ^ turned
    next_forward = (next_stop - next_start).sum(axis=1) > 0
    ending = np.lexsort((forward, stop[:, 0], stop[:, 1]))
    beginning = np.lexsort((next_forward, next_start[:, 0], next_start[:, 1]))
    following = np.empty(len(stop), dtype=np.int64)
    following[ending] = beginning
    return following


def _twice_area(points: np.ndarray) -> int:
    """Twice the area of an (n, 2) outline, positive if it runs clockwise on the screen."""
    x, y = points.T
    return int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
