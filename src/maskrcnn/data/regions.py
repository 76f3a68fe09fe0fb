"""Regions as annotation tools describe them, as masks of ours: runs in either order, pictures of ids, and shapes.

Legend: K runs, N masks, H and W of the image. A size is height, width.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import hotcoco.mask
import numpy as np
from PIL import Image

from maskrcnn.data.annotation import Draw, Size
from maskrcnn.errors import DataError, ImageError
from maskrcnn.files.images import MOST_PIXELS, read_values
from maskrcnn.ops.polygons import bridged, polygons_to_rle
from maskrcnn.ops.rle import (
    column_spans,
    crop_to_rle,
    decode_runs,
    encode_many,
    encode_runs,
    runs_from_column_spans,
    runs_from_spans,
    runs_to_crop,
)
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.values import is_number, short

Order = Literal["down", "right"]

_SMALL = 1 << 20  # pixels of a mask that are never too many
_CIRCLE_POINTS = 360  # of a circle's outline: its area is 0.005 % too small


def spans_to_rle(starts: np.ndarray, lengths: np.ndarray, size: Size, order: Order) -> RLE:
    """The mask of foreground runs.

    Args:
        starts: (K,) int64, the first pixel of each run, counted from 0 down the columns or right along the rows.
        lengths: (K,) int64, pixels of each run.

    Raises:
        DataError: a run is empty, begins before the end of the last one, or leaves the image.
    """
    height, width = size
    ends = starts + lengths
    if (lengths < 1).any():
        raise DataError(f"expected runs of 1 or more pixels, found {int(lengths.min())}")
    if (starts[1:] < ends[:-1]).any():
        at = int(np.argmax(starts[1:] < ends[:-1])) + 1
        raise DataError(
            f"expected runs in increasing order that do not overlap, found run {at} before the last one's end"
        )
    if len(starts) and (starts[0] < 0 or ends[-1] > height * width):
        raise DataError(
            f"expected runs inside the {height * width} pixels of the image, found one up to {int(ends[-1])}"
        )
    owners = np.zeros(len(starts), dtype=np.int64)
    runs = runs_from_spans(starts, ends, owners, 1, height * width)[0]
    if order == "down":
        return RLE(size, encode_runs(runs))
    # Along the rows, an image is its transpose down the columns.
    crop, (y, x) = runs_to_crop(runs, width)
    return RLE(size, crop_to_rle(crop.T, (x, y), size))


def label_image_to_rles(labels: np.ndarray, background: int = 0) -> tuple[list[int], list[RLE]]:
    """The values of an (H, W) integer image other than `background`, ascending, and the mask of each."""
    size = (int(labels.shape[0]), int(labels.shape[1]))
    flat = labels.T.ravel()
    firsts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(firsts[1:], flat.size)
    values = flat[firsts]
    kept = np.flatnonzero(values != background)
    order = kept[np.argsort(values[kept], kind="stable")]
    ids, owners = np.unique(values[order], return_inverse=True)
    runs, sizes = runs_from_spans(firsts[order], ends[order], owners.astype(np.int64), len(ids), flat.size)
    return ids.tolist(), [RLE(size, counts) for counts in encode_many(runs, sizes)]


def bitmap_to_rle(bitmap: np.ndarray, corner_xy: tuple[int, int], size: Size) -> RLE:
    """The mask of an (h, w) bitmap whose top left pixel lies at `corner_xy` of an image. What leaves it is cut off."""
    (x, y), (height, width) = corner_xy, size
    inside = bitmap[max(-y, 0) : max(height - y, 0), max(-x, 0) : max(width - x, 0)]
    if inside.size == 0:
        return RLE(size, encode_runs(np.array([height * width])))
    return RLE(size, crop_to_rle(inside, (max(x, 0), max(y, 0)), size))


def united(masks: Sequence[RLE]) -> RLE:
    """One mask that covers the pixels of all masks of an image."""
    if len(masks) == 1:
        return masks[0]
    merged = hotcoco.mask.merge([{"size": list(mask.size), "counts": mask.counts} for mask in masks])
    return RLE(masks[0].size, merged["counts"])


def connected_parts(mask: RLE) -> list[RLE]:
    """The parts of a mask that touch neither at an edge nor at a corner, in the order of their first pixels. A mask
    without foreground is its only part."""
    column, top, bottom = column_spans(decode_runs(mask.counts), mask.size[0])
    # The neighbours of a span are the spans of the next column from the first that ends at or below its top to the last
    # that begins at or above its bottom. Spans are sorted by column and row.
    scale = mask.size[0] + 2
    low = np.searchsorted(column * scale + bottom, (column + 1) * scale + top, side="left")
    high = np.searchsorted(column * scale + top, (column + 1) * scale + bottom, side="right")
    count = np.maximum(high - low, 0)
    here = np.repeat(np.arange(len(column)), count)
    there = np.repeat(low, count) + np.arange(len(here)) - np.repeat(np.cumsum(count) - count, count)
    part = np.arange(len(column))
    while True:  # every span takes the smallest number among its neighbours, until nothing changes
        before = part.copy()
        smaller = np.minimum(part[here], part[there])
        np.minimum.at(part, here, smaller)
        np.minimum.at(part, there, smaller)
        part = part[part]
        if np.array_equal(part, before):
            break
    order = np.argsort(part, kind="stable")
    cuts = np.flatnonzero(np.diff(part[order])) + 1
    return [
        RLE(mask.size, encode_runs(runs_from_column_spans(column[own], top[own], bottom[own], mask.size)))
        for own in np.split(order, cuts)
    ]


def png_to_rle(text: Any, corner_xy: tuple[int, int], size: Size) -> RLE:
    """The mask of a PNG in base64, whose nonzero pixels are foreground.

    Args:
        corner_xy: the pixel of the image at which its top left pixel lies. What leaves the image is cut off.

    Raises:
        DataError: it is not base64, no picture, or much larger than the image.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (TypeError, ValueError):
        raise DataError(f"expected a PNG in base64, found {short(text)}") from None
    return bitmap_to_rle(foreground(mask_values(content, size)), corner_xy, size)


def mask_values(content: bytes, size: Size) -> np.ndarray:
    """The values of a picture of a mask, as `read_values` gives them, for an image of a size.

    Raises:
        DataError: it is no picture, or much larger than the image.
    """
    try:
        return read_values(content, "mask", most_pixels=min(max(4 * size[0] * size[1], _SMALL), MOST_PIXELS))
    except ImageError as error:
        raise DataError(str(error)) from None


def png_of(bitmap: np.ndarray) -> str:
    """An (h, w) uint8 bitmap as a PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(bitmap).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def foreground(values: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels of a mask picture that are not zero; the last of two or four channels is alpha."""
    colours = values.reshape(*values.shape[:2], -1)
    found: np.ndarray = (colours[..., : {2: 1, 4: 3}.get(colours.shape[2])] != 0).any(axis=2)
    return found


def joined(parts: Sequence[np.ndarray | RLE], size: Size) -> dict[str, Any]:
    """The fields of a `RawAnnotation` whose mask has these parts: (n, 2) polygons, which are kept if there is nothing
    else, and masks."""
    polygons = [part for part in parts if isinstance(part, np.ndarray)]
    if len(polygons) == len(parts):
        return {"polygons": [flat(points) for points in polygons]}
    drawn = [part if isinstance(part, RLE) else RLE(size, polygons_to_rle([part], size)) for part in parts]
    return counted(united(drawn))


def even_odd(rings: Sequence[np.ndarray], size: Size) -> RLE:
    """The pixels that an odd number of (n, 2) rings encloses, of 3 or more points each: parts with holes."""
    return RLE(size, polygons_to_rle([bridged(rings)], size))


def points_of(value: Any, count: int = 0) -> np.ndarray:
    """(n, 2) float64 of a list of pairs x, y in a file, or of a list of objects with the keys x and y.

    Args:
        count: the number of points that is expected; 0 for any.

    Raises:
        DataError: it is no list of pairs of finite numbers, or has another number of points.
    """
    try:
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            value = [(point["x"], point["y"]) for point in value]
        points = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, KeyError):
        points = np.zeros((0, 0))
    if points.ndim != 2 or points.shape[1] != 2 or not np.isfinite(points).all():
        raise DataError(f"expected points as pairs of finite numbers, found {short(value)}")
    if count and len(points) != count:
        raise DataError(f"expected {count} points, found {len(points)}")
    return points


def numbers_of(value: Any, *keys: str) -> list[float]:
    """The numbers under keys of an object in a file. Raises DataError if one of them is no finite number."""
    found = [value.get(key) for key in keys] if isinstance(value, Mapping) else [value]
    numbers = [float(number) for number in found if is_number(number)]
    if len(numbers) != len(keys):
        raise DataError(f"expected {', '.join(keys)} as numbers, found {short(found)}")
    return numbers


def flat(points: np.ndarray) -> list[float]:
    """A polygon of a `RawAnnotation`: x, y, x, y, ... of (n, 2) points."""
    found: list[float] = points.ravel().tolist()
    return found


def as_drawn(mask: RLE) -> Draw:
    """The `draw` of a `RawAnnotation` with this mask."""
    return partial(_counted, mask)


def _counted(mask: RLE, size: Size) -> dict[str, Any]:
    return counted(mask)


def counted(mask: RLE) -> dict[str, Any]:
    """The fields `rle` and `pixels` of a `RawAnnotation` with this mask."""
    return {"rle": mask.to_coco(), "pixels": mask.area}


def rectangle(x1: float, y1: float, x2: float, y2: float) -> np.ndarray:
    """(4, 2) corners x, y of a rectangle between two edges in each direction, given in any order."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def ellipse(centre_xy: tuple[float, float], radii_xy: tuple[float, float], angle: float = 0.0) -> np.ndarray:
    """(360, 2) points x, y on the outline of an ellipse that is turned by `angle` radians, clockwise on the screen."""
    turn = np.arange(_CIRCLE_POINTS) * (2 * np.pi / _CIRCLE_POINTS)
    points = np.stack([radii_xy[0] * np.cos(turn), radii_xy[1] * np.sin(turn)], axis=1) + centre_xy
    return turned(points, angle, centre_xy)


def turned(points: np.ndarray, angle: float, about_xy: tuple[float, float]) -> np.ndarray:
    """(n, 2) points x, y after a turn by `angle` radians about a point, clockwise on the screen."""
    cos, sin = np.cos(angle), np.sin(angle)
    return (points - about_xy) @ np.array([[cos, sin], [-sin, cos]]) + about_xy
