"""The annotations of one image, and how their masks are stored. Legend: N annotations, K the largest number of
keypoints of any category."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from struct import Struct
from typing import TypeVar

import numpy as np

from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.ops.rle import crop_to_rle
from maskrcnn.structures.crops import Crop
from maskrcnn.structures.masks import RLE, Masks

NO_MASK, RUN_LENGTHS, POLYGONS = 0, 1, 2  # how the mask of an annotation is stored

Count = TypeVar("Count", int, np.ndarray)


@dataclass(frozen=True)
class Annotations:
    """The N annotations of one image, in original pixels.

    Attributes:
        image_hw: height and width of the image.
        ids: (N,) ids of the annotation file: int64, or an object array if some id is not a 64-bit integer.
        annotated_boxes: (N, 4) float64 x, y, width, height of the file, for evaluation. They may extend beyond the
            image.
        labels: (N,) int64, 0-based.
        crowd: (N,) bool.
        areas: (N,) float64 square pixels: the value of the file, else the pixel count of the mask if the reader
            counted it, else NaN.
        kinds: (N,) uint8, `NO_MASK`, `RUN_LENGTHS` or `POLYGONS`.
        segmentations: N arrays (n,) uint8: COCO's run-length string, or the output of `pack_polygons`.
        keypoints: (N, K, 3) float64 x, y in the continuous frame and visibility (0 not labelled, 1 hidden, 2 visible);
            zeros for unlabelled keypoints. None when no category names keypoints.
        scores: (N,) float64 from 0 to 1 of predicted objects; None for what people have annotated.
    """

    image_hw: tuple[int, int]
    ids: np.ndarray
    annotated_boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    kinds: np.ndarray
    segmentations: Sequence[np.ndarray]
    keypoints: np.ndarray | None = None
    scores: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_mask(self) -> np.ndarray:
        """(N,) bool: which annotations have a mask."""
        return self.kinds != NO_MASK

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32 x1 y1 x2 y2 clipped to the image, for training and drawing. A box outside the image is
        replaced by the tight box of its mask."""
        start, size = self.annotated_boxes[:, :2], self.annotated_boxes[:, 2:]
        edges = np.concatenate([start, start + size], axis=1).clip(0, self.image_hw[::-1] * 2)
        for i in np.flatnonzero((edges[:, 2:] <= edges[:, :2]).any(axis=1)).tolist():
            edges[i] = self.rle(i).box
        return edges.astype(np.float32)

    def masks(self, numbers: Sequence[int] | np.ndarray | None = None) -> list[RLE | None]:
        """The masks of the given annotations (default: all); None for an annotation without a mask."""
        chosen = range(len(self)) if numbers is None else numbers
        return [None if self.kinds[i] == NO_MASK else RLE(self.image_hw, self._counts(i)) for i in chosen]

    def _counts(self, number: int) -> bytes:
        if self.kinds[number] == RUN_LENGTHS:
            return self.segmentations[number].tobytes()
        return polygons_to_rle(unpack_polygons(self.segmentations[number]), self.image_hw)

    def rle(self, number: int) -> RLE:
        """The mask of one annotation. If it has none, the mask covers all pixels that its box touches."""
        (mask,) = self.masks([number])
        if mask is not None:
            return mask
        (height, width), box = self.image_hw, self.boxes[number]
        x1, y1 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
        x2, y2 = max(x1 + 1, math.ceil(box[2])), max(y1 + 1, math.ceil(box[3]))
        filled = np.ones((y2 - y1, x2 - x1), dtype=np.uint8)
        return RLE(self.image_hw, crop_to_rle(filled, (x1, y1), self.image_hw))

    def crops(self, numbers: Sequence[int] | np.ndarray) -> list[Crop]:
        """The masks of the given annotations, cropped to their tight boxes; a (0, 0) bitmap if there is no mask."""
        crops = [(np.zeros((0, 0), dtype=np.uint8), (0, 0))] * len(numbers)
        masked = {i: mask for i, mask in enumerate(self.masks(numbers)) if mask is not None}
        for i, crop in zip(masked, Masks(masked.values(), self.image_hw).crops(), strict=True):
            crops[i] = crop
        return crops

    def polygons(self, number: int) -> list[np.ndarray]:
        """The polygons of one mask, each (n, 2) float64 x, y; an empty list if the mask is not stored as polygons."""
        return unpack_polygons(self.segmentations[number]) if self.kinds[number] == POLYGONS else []


class _Packers(dict[int, Callable[..., bytes]]):
    """Number of float64 -> the function that packs so many."""

    def __missing__(self, count: int) -> Callable[..., bytes]:
        self[count] = Struct(f"{count}d").pack
        return self[count]


_PACK = _Packers()


def pack_polygons(parts: Sequence[Sequence[float]]) -> bytes:
    """Packs polygons, each x, y, x, y, ..., as float64: their number, the points in each, a zero if that makes the
    count of these values even, all points."""
    if len(parts) == 1:  # as most masks
        (part,) = parts
        return _PACK[len(part) + 2](1, len(part) // 2, *part)
    head = [len(parts), *(len(part) // 2 for part in parts)]
    values = [*head, *(0,) * (len(head) % 2), *chain.from_iterable(parts)]
    return _PACK[len(values)](*values)


def unpack_polygons(content: np.ndarray) -> list[np.ndarray]:
    """The polygons in the (n,) uint8 output of `pack_polygons`, each (n, 2) float64 x, y."""
    values = np.frombuffer(content.tobytes(), dtype=np.float64)
    count = int(values[0])
    sizes = values[1 : count + 1].astype(np.int64)
    points = values[packed_head(count) :].reshape(-1, 2)
    return [points[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]


def unpack_many(contents: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The polygons of n outputs of `pack_polygons` at once.

    Returns:
        All points, (P, 2) float64 x, y; the points of each polygon, (R,) int64; and the polygons of each output, (n,)
        int64.
    """
    values = np.frombuffer(b"".join(contents), dtype=np.float64)
    lengths = np.fromiter(map(len, contents), np.int64, len(contents)) // 8
    starts = np.cumsum(lengths) - lengths
    counts = values[starts].astype(np.int64)
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    points = values[place >= np.repeat(packed_head(counts), lengths)].reshape(-1, 2)
    return points, values[(place > 0) & (place <= np.repeat(counts, lengths))].astype(np.int64), counts


def packed_head(count: Count) -> Count:
    """How many values `pack_polygons` writes before the points of so many polygons."""
    return count + 1 + (count + 1) % 2
