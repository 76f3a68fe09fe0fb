"""The slow, readable twins of `ops.paste` and `ops.rle`: whole images in float64, one mask at a time.

They serve the tests and the reader. Each function states the rule that its fast twin follows.
"""

from __future__ import annotations

import numpy as np


def bilinear(mask: np.ndarray, ys: np.ndarray, xs: np.ndarray) -> np.ndarray:
    """Samples an (h, w) mask at the grid ys x xs. Integers are its cells, and around them it is zero.

    Returns:
        (len(ys), len(xs)) float64.
    """
    h, w = mask.shape
    padded = np.pad(mask.astype(np.float64), 1)
    ys, xs = np.clip(ys, -1, h) + 1, np.clip(xs, -1, w) + 1
    y0, x0 = np.minimum(np.floor(ys), h).astype(int), np.minimum(np.floor(xs), w).astype(int)
    fy, fx = (ys - y0)[:, None], (xs - x0)[None, :]
    top = padded[np.ix_(y0, x0)] * (1 - fx) + padded[np.ix_(y0, x0 + 1)] * fx
    bottom = padded[np.ix_(y0 + 1, x0)] * (1 - fx) + padded[np.ix_(y0 + 1, x0 + 1)] * fx
    return top * (1 - fy) + bottom * fy


def paste_pixel_centres(mask: np.ndarray, box: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """The (H, W) probabilities of one (M, M) mask stretched over its float box and sampled at pixel centres."""
    height, width = image_hw
    x1, y1, x2, y2 = (float(edge) for edge in box)
    if not (np.isfinite([x1, y1, x2, y2]).all() and x2 > x1 and y2 > y1):
        return np.zeros(image_hw)
    side = len(mask)
    ys = (np.arange(height) + 0.5 - y1) / (y2 - y1) * side - 0.5
    xs = (np.arange(width) + 0.5 - x1) / (x2 - x1) * side - 0.5
    return bilinear(mask, ys, xs)


def paste_expanded_box(mask: np.ndarray, box: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """The (H, W) probabilities of one (M, M) mask, padded by a cell and resized to its expanded, truncated box."""
    height, width = image_hw
    result = np.zeros(image_hw)
    if not np.isfinite(box).all():
        return result
    side = len(mask)
    x1, y1, x2, y2 = np.asarray(box, dtype=np.float32)
    growth = np.float32((side + 2) / side)
    half_w, half_h = (x2 - x1) * np.float32(0.5) * growth, (y2 - y1) * np.float32(0.5) * growth
    cx, cy = (x1 + x2) * np.float32(0.5), (y1 + y2) * np.float32(0.5)
    left, top, right, bottom = int(cx - half_w), int(cy - half_h), int(cx + half_w), int(cy + half_h)
    w, h = max(right - left + 1, 1), max(bottom - top + 1, 1)
    padded = np.pad(mask.astype(np.float64), 1)
    ys = np.clip((np.arange(h) + 0.5) * (side + 2) / h - 0.5, 0, side + 1)
    xs = np.clip((np.arange(w) + 0.5) * (side + 2) / w - 0.5, 0, side + 1)
    resized = bilinear(padded, ys, xs)
    x_from, x_to = max(left, 0), min(right + 1, width)
    y_from, y_to = max(top, 0), min(bottom + 1, height)
    if x_from < x_to and y_from < y_to:
        result[y_from:y_to, x_from:x_to] = resized[y_from - top : y_to - top, x_from - left : x_to - left]
    return result


def paste_whole_box(mask: np.ndarray, box: np.ndarray, image_hw: tuple[int, int]) -> np.ndarray:
    """The (H, W) probabilities of one (M, M) mask, resized to its rounded box and clipped to its range of values."""
    x1, y1, x2, y2 = box = np.asarray(box, dtype=np.float32).round()
    result = np.zeros(image_hw)
    if not (np.isfinite(box).all() and x2 > x1 and y2 > y1):
        return result
    rows = slice(*np.clip([y1, y2], 0, image_hw[0]).astype(int))
    columns = slice(*np.clip([x1, x2], 0, image_hw[1]).astype(int))
    result[rows, columns] = paste_pixel_centres(mask, box, image_hw)[rows, columns].clip(mask.min(), mask.max())
    return result


def run_lengths(image: np.ndarray) -> list[int]:
    """COCO's run lengths of an (H, W) image: column by column, background first."""
    runs, colour = [0], 0
    for pixel in image.T.ravel().tolist():
        if bool(pixel) != bool(colour):
            runs.append(0)
            colour = 1 - colour
        runs[-1] += 1
    return runs


def string_of_runs(runs: list[int]) -> bytes:
    """COCO's compressed string. From the fourth run on it stores the difference to the last run of the same colour.

    A character is "0" plus five bits of a number, low bits first, plus 32 if more characters follow. The highest bit is
    the sign.
    """
    text = bytearray()
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            text.append(48 + bits + (0 if done else 32))
            if done:
                break
    return bytes(text)
