"""The slow twins of the RoI layers and of `ops.mask_targets`: one bin and one sample at a time, in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from maskrcnn.ops.reference.boxes import Box


def bilinear(cells: np.ndarray, y: float, x: float) -> np.ndarray:
    """The bilinear sample at (y, x), where integers are cell centres.

    A point up to one cell outside the map is moved to the border. Further outside the value is zero.

    Args:
        cells: (h, w, ...) float64.
    """
    height, width = cells.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(cells.shape[2:])
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = math.floor(y), math.floor(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = cells[top, left] * (1 - fx) + cells[top, right] * fx
    lower = cells[bottom, left] * (1 - fx) + cells[bottom, right] * fx
    return np.asarray(upper * (1 - fy) + lower * fy)


def sampled_bins(
    cells: np.ndarray,
    corner: tuple[float, float],
    sides: tuple[float, float],
    *,
    output_size: int,
    sampling_ratio: int,
    reduce: Literal["average", "max"],
) -> np.ndarray:
    """The mean or maximum of evenly spaced samples in each bin of a rectangle.

    Args:
        cells: (h, w, C) float64.
        corner, sides: x and y in cells, where integers are cell centres.
        sampling_ratio: samples per bin and axis; 0 takes the side of a bin in cells, rounded up, at least one.

    Returns:
        (C, output_size, output_size).
    """
    bin_w, bin_h = sides[0] / output_size, sides[1] / output_size
    points_x = sampling_ratio or max(math.ceil(bin_w), 1)
    points_y = sampling_ratio or max(math.ceil(bin_h), 1)
    result = np.zeros((cells.shape[2], output_size, output_size))
    for row in range(output_size):
        for column in range(output_size):
            samples = [
                bilinear(
                    cells,
                    corner[1] + (row + (i + 0.5) / points_y) * bin_h,
                    corner[0] + (column + (j + 0.5) / points_x) * bin_w,
                )
                for i in range(points_y)
                for j in range(points_x)
            ]
            result[:, row, column] = np.mean(samples, axis=0) if reduce == "average" else np.max(samples, axis=0)
    return result


def roi_align(
    features: Sequence[np.ndarray],
    boxes: Sequence[Box],
    image_index: Sequence[int],
    level: Sequence[int],
    *,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    aligned: bool,
    reduce: Literal["average", "max"] = "average",
) -> np.ndarray:
    """Each bin of a RoI is the mean or maximum of evenly spaced points in it (`sampled_bins`).

    Args:
        features: one (B, C, h, w) array per level.
        boxes: R RoIs in network-input pixels, in the images `image_index`, pooled from the levels `level`.
        aligned: whether cell centres are at i + 0.5. False is the older rule: they are at i, and a RoI is at least one
            cell wide.

    Returns:
        (R, C, output_size, output_size).
    """
    result = np.zeros((len(boxes), features[0].shape[1], output_size, output_size))
    half = 0.5 if aligned else 0.0
    for r, (box, image, k) in enumerate(zip(boxes, image_index, level, strict=True)):
        x1, y1, x2, y2 = (edge / strides[k] - half for edge in box)
        width, height = x2 - x1, y2 - y1
        if not aligned:
            width, height = max(width, 1.0), max(height, 1.0)
        cells = features[k][image].transpose(1, 2, 0)
        result[r] = sampled_bins(
            cells, (x1, y1), (width, height), output_size=output_size, sampling_ratio=sampling_ratio, reduce=reduce
        )
    return result


def whole_cells(box: Box, stride: float) -> tuple[int, int, int, int]:
    """The first column and row of a RoI rounded to whole cells, halves away from zero, and its numbers of columns and
    rows."""
    x1, y1, x2, y2 = (int(math.copysign(math.floor(abs(edge / stride) + 0.5), edge)) for edge in box)
    return x1, y1, max(x2 - x1 + 1, 1), max(y2 - y1 + 1, 1)


def roi_pool(
    features: Sequence[np.ndarray],
    boxes: Sequence[Box],
    image_index: Sequence[int],
    level: Sequence[int],
    *,
    strides: Sequence[float],
    output_size: int,
) -> np.ndarray:
    """Each bin of a RoI rounded to whole cells is the maximum of the cells that it touches, 0 if there are none.

    Arguments and result are those of `roi_align`.
    """
    result = np.zeros((len(boxes), features[0].shape[1], output_size, output_size))
    for r, (box, image, k) in enumerate(zip(boxes, image_index, level, strict=True)):
        cells = features[k][image]
        left, top, width, height = whole_cells(box, strides[k])
        # As in torchvision, the rounding of float32 makes the last bin a cell larger for some sizes.
        step = np.arange(output_size + 1, dtype=np.float32)
        x, y = (step * (np.float32(side) / np.float32(output_size)) for side in (width, height))
        for row in range(output_size):
            rows = slice(max(top + math.floor(y[row]), 0), max(top + math.ceil(y[row + 1]), 0))
            for column in range(output_size):
                columns = slice(max(left + math.floor(x[column]), 0), max(left + math.ceil(x[column + 1]), 0))
                inside = cells[:, rows, columns]
                if inside.size:
                    result[r, :, row, column] = inside.max(axis=(1, 2))
    return result


def roi_warp(
    features: Sequence[np.ndarray],
    boxes: Sequence[Box],
    image_index: Sequence[int],
    level: Sequence[int],
    *,
    strides: Sequence[float],
    output_size: int,
    sampling_ratio: int,
    reduce: Literal["average", "max"],
) -> np.ndarray:
    """`roi_align` on the whole cells of `roi_pool`, with cell centres at i + 0.5 and the arguments of `roi_align`."""
    result = np.zeros((len(boxes), features[0].shape[1], output_size, output_size))
    for r, (box, image, k) in enumerate(zip(boxes, image_index, level, strict=True)):
        cells = features[k][image].transpose(1, 2, 0)
        left, top, width, height = whole_cells(box, strides[k])
        corner, sides = (left - 0.5, top - 0.5), (width, height)
        result[r] = sampled_bins(
            cells, corner, sides, output_size=output_size, sampling_ratio=sampling_ratio, reduce=reduce
        )
    return result


def roi_crop(
    features: Sequence[np.ndarray],
    boxes: Sequence[Box],
    image_index: Sequence[int],
    level: Sequence[int],
    *,
    strides: Sequence[float],
    output_size: int,
    trim: float,
) -> np.ndarray:
    """Samples spread evenly from one corner of the RoI to the other. The first cell's centre is at the start of the
    image, and the last cell's centre at its end. Arguments and result are those of `roi_align`.

    Args:
        trim: pixels by which boxes and images end before their right and lower edges.
    """
    result = np.zeros((len(boxes), features[0].shape[1], output_size, output_size))
    for r, (box, image, k) in enumerate(zip(boxes, image_index, level, strict=True)):
        cells = features[k][image].transpose(1, 2, 0)
        height, width = cells.shape[:2]
        x1, x2 = (x * (width - 1) / (width * strides[k] - trim) for x in (box[0], box[2]))
        y1, y2 = (y * (height - 1) / (height * strides[k] - trim) for y in (box[1], box[3]))
        for row, y in enumerate(np.linspace(y1, y2, output_size)):
            for column, x in enumerate(np.linspace(x1, x2, output_size)):
                if -1e-3 <= y <= height - 1 + 1e-3 and -1e-3 <= x <= width - 1 + 1e-3:
                    result[r, :, row, column] = bilinear(cells, y, x)
    return result


def mask_target(
    bitmap: np.ndarray,
    box: Box,
    to_original: np.ndarray,
    *,
    size: int,
    sampling_ratio: int,
    aligned: bool,
    threshold: float | None = None,
    crop_and_resize: bool = False,
) -> np.ndarray:
    """The mask target of one RoI: the fraction of each of its cells that the object covers.

    Args:
        bitmap: (H, W) of the whole original image, 0 and 1.
        box: the RoI in network-input pixels.
        to_original: (2, 3), maps network-input pixels (x, y, 1) to original pixels.
        size: cells per side.
        sampling_ratio: samples per cell and axis; 0 takes the side of a cell in pixels, rounded up.
        aligned: False moves the samples by half a pixel and makes RoIs at least one pixel wide.
        threshold: the target is 1 if the fraction is at least this, otherwise 0; None keeps the fractions.
        crop_and_resize: whether there is one sample per cell, from the centre of pixel (x1, y1) to that of (x2, y2).

    Returns:
        (size, size).
    """
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    if not aligned:
        x1, y1, width, height = x1 + 0.5, y1 + 0.5, max(width, 1.0), max(height, 1.0)
    points_x = sampling_ratio or max(math.ceil(width / size), 1)
    points_y = sampling_ratio or max(math.ceil(height / size), 1)
    target = np.zeros((size, size))
    if crop_and_resize:
        for row, y in enumerate(np.linspace(box[1], box[3], size)):
            for column, x in enumerate(np.linspace(box[0], box[2], size)):
                at_x, at_y = to_original @ [x + 0.5, y + 0.5, 1.0]
                target[row, column] = bilinear(bitmap, at_y - 0.5, at_x - 0.5)
        return target if threshold is None else (target >= threshold).astype(np.float64)
    for row in range(size):
        for column in range(size):
            for i in range(points_y):
                for j in range(points_x):
                    y = y1 + (row + (i + 0.5) / points_y) * height / size
                    x = x1 + (column + (j + 0.5) / points_x) * width / size
                    at_x, at_y = to_original @ [x, y, 1.0]
                    target[row, column] += bilinear(bitmap, at_y - 0.5, at_x - 0.5) / (points_x * points_y)
    return target if threshold is None else (target >= threshold).astype(np.float64)
