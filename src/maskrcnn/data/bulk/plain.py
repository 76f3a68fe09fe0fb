"""Annotations in which every value has the usual type, as columns that are judged all at once.

The rules are those of `builder.py`. `unremarkable` finds the annotations that no rule changes and no message names. All
others go one by one through `DatasetBuilder.add_annotation`, which alone repairs, rejects and explains.

Legend: N annotations, R masks as run lengths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from maskrcnn.ops.rle import count_pixels
from maskrcnn.structures.annotations import NO_MASK, POLYGONS, RUN_LENGTHS, packed_head
from maskrcnn.structures.records import ByteBuffer
from maskrcnn.structures.values import FARTHEST

PAIR = 16  # bytes of x and y as float64
_ROUNDING = 1e-14  # of a sum of products, for each term and relative to the largest: far above the true limit


class Known:
    """The images and categories of a file whose ids are integers, for looking up many ids at once.

    Args:
        sizes: image id -> number, height, width.
        labels: category id -> number, for the categories without keypoints.
    """

    def __init__(self, sizes: Mapping[int, tuple[int, int, int]], labels: Mapping[int, tuple[int]]) -> None:
        self.images, self.labels = _Table(sizes, 3), _Table(labels, 1)


class _Table:
    def __init__(self, rows: Mapping[int, tuple[int, ...]], columns: int) -> None:
        fitting = sorted(key for key in rows if abs(key) < 1 << 63)
        self._keys = np.array(fitting, dtype=np.int64)
        self._rows = np.array([rows[key] for key in fitting], dtype=np.int64).reshape(-1, columns)

    def rows(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of (N,) keys are in the table, and (N, ...) their rows, which mean nothing for the others."""
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.bool_), np.zeros((len(keys), self._rows.shape[1]), dtype=np.int64)
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return self._keys[places] == keys, self._rows[places]


@dataclass(frozen=True)
class PlainAnnotations:
    """N annotations that no rule changes.

    Attributes:
        numbers: (N,) int64 positions among all annotations of the file, from 1.
        ids, image_ids, category_ids, crowd: (N,) int64 of the file.
        images, labels: (N,) int64 numbers of the image and of the category in the order in which they were added.
        boxes: (N, 4) float64 x, y, width, height.
        areas: (N,) float64 square pixels, else the pixels of run lengths, else NaN.
        kinds: (N,) uint8 `NO_MASK`, `RUN_LENGTHS` or `POLYGONS`.
        spans: (N, 2) int64 where the mask begins and ends in a `ByteBuffer`.
        sizes_hw: (N, 2) int64 height and width of the image.
    """

    numbers: np.ndarray
    ids: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    crowd: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    kinds: np.ndarray
    spans: np.ndarray
    sizes_hw: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    def taken(self, rows: np.ndarray) -> Self:
        """The annotations of these positions, or where a mask (N,) bool is True."""
        return type(self)(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    @classmethod
    def joined(cls, several: Sequence[Self]) -> Self:
        """All annotations of one or more."""
        return cls(**{f.name: np.concatenate([getattr(one, f.name) for one in several]) for f in fields(cls)})


@dataclass(frozen=True)
class Block:
    """N annotations of a file before they are judged: the fields of `PlainAnnotations`, and masks in parts.

    Attributes:
        packed: outputs of `pack_polygons`, one after another, each of a multiple of `PAIR` bytes.
        ends: (1 + number of masks of this kind,) int64 bytes, where each ends, after a 0.
        strings: the R compressed strings.
        sizes_hw: (R, 2) int64 heights and widths of their masks.
    """

    numbers: np.ndarray
    ids: np.ndarray
    image_ids: np.ndarray
    category_ids: np.ndarray
    crowd: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    kinds: np.ndarray
    packed: bytearray
    ends: np.ndarray
    strings: Sequence[bytes]
    sizes_hw: np.ndarray


def unremarkable(block: Block, known: Known, buffer: ByteBuffer) -> PlainAnnotations:
    """The annotations of a block that no rule of the builder changes. Their masks are added to the buffer."""
    found, images = known.images.rows(block.image_ids)
    has_label, labels = known.labels.rows(block.category_ids)
    sizes_hw = images[:, 1:]
    drawn, runs = block.kinds == POLYGONS, np.flatnonzero(block.kinds == RUN_LENGTHS)
    x, y, w, h = block.boxes.T
    with np.errstate(over="ignore"):
        right, bottom = np.minimum(x + w, sizes_hw[:, 1]), np.minimum(y + h, sizes_hw[:, 0])
    inside = (right > np.maximum(x, 0)) & (bottom > np.maximum(y, 0))
    boxed = (np.abs(block.boxes) <= FARTHEST).all(axis=1) & (w > 0) & (h > 0)
    sound = found & has_label & boxed & (inside | (block.kinds != NO_MASK)) & np.isin(block.crowd, (0, 1))
    sound[drawn] &= _have_area(block)
    pixels, foreground = count_pixels(block.strings)
    fits = (pixels == block.sizes_hw.prod(axis=1)) & (block.sizes_hw == sizes_hw[runs]).all(axis=1) & (foreground > 0)
    sound[runs] &= fits
    areas = block.areas.copy()
    areas[runs] = np.where(np.isnan(areas[runs]), foreground, areas[runs])
    spans = _packed(block, drawn, runs, buffer)
    every = PlainAnnotations(
        block.numbers,
        block.ids,
        block.image_ids,
        block.category_ids,
        block.crowd,
        images[:, 0],
        labels[:, 0],
        block.boxes,
        areas,
        block.kinds,
        spans,
        sizes_hw,
    )
    return every if sound.all() else every.taken(sound)


def _have_area(block: Block) -> np.ndarray:
    """(number of annotations with polygons,) bool: whether some polygon of each surely encloses an area."""
    if len(block.ends) == 1:
        return np.zeros(0, dtype=np.bool_)
    values = np.append(np.frombuffer(block.packed, dtype=np.float64), np.zeros(4))
    largest = max(values.max(), -values.min())
    if not largest <= FARTHEST:  # or no number: which polygon it is in shows when they are looked at one by one
        return np.zeros(len(block.ends) - 1, dtype=np.bool_)
    starts = block.ends[:-1] // 8
    parts = values[starts].astype(np.int64)
    first_part = np.cumsum(parts) - parts
    places = np.repeat(starts + 1 - first_part, parts) + np.arange(parts.sum())
    points = values[places].astype(np.int64)  # in each polygon
    # The heads, too, have an even number of values, so that all x and all y can be taken at once.
    x, y = values.reshape(-1, 2).T
    stops = np.cumsum(points)
    stops += np.repeat((starts + packed_head(parts)) // 2 - (stops - points)[first_part], parts)
    firsts = stops - points
    whole = stops[first_part + parts - 1] == block.ends[1:] // PAIR  # else two polygons have odd numbers of coordinates
    edges = x[:-1] * y[1:]
    edges -= x[1:] * y[:-1]
    edges[stops - 1] = x[stops - 1] * y[firsts] - x[firsts] * y[stops - 1]  # these close the polygons
    doubled = np.add.reduceat(edges, np.stack([firsts, stops], axis=1).ravel())[::2]
    sure = np.abs(doubled) > _ROUNDING * points**2 * largest**2
    found: np.ndarray = np.logical_or.reduceat(sure, first_part) & whole
    return found


def _packed(block: Block, drawn: np.ndarray, runs: np.ndarray, buffer: ByteBuffer) -> np.ndarray:
    """Adds all masks to the buffer; (N, 2) where each begins and ends."""
    spans = np.zeros((len(block.kinds), 2), dtype=np.int64)
    start, _ = buffer.add(block.packed)
    spans[drawn] = start + np.stack([block.ends[:-1], block.ends[1:]], axis=1)
    if block.strings:
        spans[runs] = [buffer.add(string) for string in block.strings]
    return spans
