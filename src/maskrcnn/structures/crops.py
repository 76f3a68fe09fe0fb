"""Masks as crops: a bitmap and the pixel of the image at its top left corner, so that no image-sized array is made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Crop = tuple[np.ndarray, tuple[int, int]]  # (h, w) uint8 of 0 and 1, and the pixel (x, y) of its top left corner


def crop_box(crop: Crop) -> tuple[int, int, int, int]:
    """x1 y1 x2 y2 of a crop, in pixels of the image."""
    bitmap, (x, y) = crop
    return x, y, x + bitmap.shape[1], y + bitmap.shape[0]


def part_of(crop: Crop, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part of a bitmap inside a box x1 y1 x2 y2 of the image; it may be empty."""
    bitmap, (x, y) = crop
    x1, y1, x2, y2 = box
    return bitmap[max(0, y1 - y) : max(0, y2 - y), max(0, x1 - x) : max(0, x2 - x)]


def shared_pixels(a: Crop, b: Crop) -> int:
    """The number of pixels that both masks cover."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = crop_box(a), crop_box(b)
    both = max(ax1, bx1), max(ay1, by1), min(ax2, bx2), min(ay2, by2)
    if both[0] >= both[2] or both[1] >= both[3]:
        return 0
    return int(np.count_nonzero(part_of(a, both) & part_of(b, both)))


def united(crops: Sequence[Crop]) -> Crop:
    """The union of one or more masks."""
    x1, y1, x2, y2 = zip(*map(crop_box, crops), strict=True)
    left, top = min(x1), min(y1)
    union = np.zeros((max(y2) - top, max(x2) - left), dtype=np.uint8)
    for bitmap, (x, y) in crops:
        union[y - top : y - top + bitmap.shape[0], x - left : x - left + bitmap.shape[1]] |= bitmap
    return union, (left, top)


def centroid(crop: Crop) -> tuple[float, float]:
    """The mean x and y of a mask, in the continuous frame of the image; NaN for an empty mask."""
    bitmap, (x, y) = crop
    columns, rows = bitmap.sum(axis=0, dtype=np.int64), bitmap.sum(axis=1, dtype=np.int64)
    total = int(columns.sum())
    if total == 0:
        return np.nan, np.nan
    middle_x, middle_y = columns @ np.arange(len(columns)) / total, rows @ np.arange(len(rows)) / total
    return x + float(middle_x) + 0.5, y + float(middle_y) + 0.5
