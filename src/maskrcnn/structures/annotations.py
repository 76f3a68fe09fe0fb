"""The annotations of one image, and how their masks are stored. Legend: N annotations, K keypoints of the
category that has most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.ops.rle import crop_to_rle, decode_many, runs_to_crop
from maskrcnn.structures.masks import RLE

NO_MASK, RUN_LENGTHS, POLYGONS = 0, 1, 2  # how the mask of an annotation is stored

Crop = tuple[np.ndarray, tuple[int, int]]  # (h, w) uint8 bitmap, and the pixel (x, y) of its top left corner


@dataclass(frozen=True)
class Annotations:
    """The N annotations of one image, in original pixels.

    Attributes:
        image_hw: height and width of the image.
        ids: (N,) int64, or objects where some are not whole numbers of 64 bits; as in the annotation file.
        annotated_boxes: (N, 4) float64 x, y, width, height as in the file, which may pass the border: for evaluation.
        labels: (N,) int64, 0-based.
        crowd: (N,) bool.
        areas: (N,) float64 square pixels as in the file, else the pixels of the mask where reading has counted them,
            else NaN.
        kinds: (N,) uint8, `NO_MASK`, `RUN_LENGTHS` or `POLYGONS`.
        segmentations: N times the bytes of COCO's run-length string, or polygons as `pack_polygons` packs them.
        keypoints: (N, K, 3) float64 x, y in the continuous frame and visibility (0 not labelled, 1 hidden, 2 visible),
            zeros where nothing is labelled. None when no category names keypoints.
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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_mask(self) -> np.ndarray:
        """(N,) bool."""
        return self.kinds != NO_MASK

    @cached_property
    def boxes(self) -> np.ndarray:
        """(N, 4) float32 x1 y1 x2 y2 inside the image: for training and drawing. Where the annotated box lies outside
        of the image, it is the tight box of the mask."""
        start, size = self.annotated_boxes[:, :2], self.annotated_boxes[:, 2:]
        edges = np.concatenate([start, start + size], axis=1).clip(0, self.image_hw[::-1] * 2)
        for i in np.flatnonzero((edges[:, 2:] <= edges[:, :2]).any(axis=1)).tolist():
            edges[i] = self.rle(i).box
        return edges.astype(np.float32)

    def masks(self, numbers: Sequence[int] | np.ndarray | None = None) -> list[RLE | None]:
        """The masks of some annotations, by default of all; None for one without a mask."""
        chosen = range(len(self)) if numbers is None else numbers
        return [None if self.kinds[i] == NO_MASK else RLE(self.image_hw, self._counts(i)) for i in chosen]

    def _counts(self, number: int) -> bytes:
        if self.kinds[number] == RUN_LENGTHS:
            return self.segmentations[number].tobytes()
        return polygons_to_rle(unpack_polygons(self.segmentations[number]), self.image_hw)

    def rle(self, number: int) -> RLE:
        """The mask of one annotation; without a mask, the pixels that its box touches."""
        (mask,) = self.masks([number])
        if mask is not None:
            return mask
        (height, width), box = self.image_hw, self.boxes[number]
        x1, y1 = min(int(box[0]), width - 1), min(int(box[1]), height - 1)
        x2, y2 = max(x1 + 1, math.ceil(box[2])), max(y1 + 1, math.ceil(box[3]))
        filled = np.ones((y2 - y1, x2 - x1), dtype=np.uint8)
        return RLE(self.image_hw, crop_to_rle(filled, (x1, y1), self.image_hw))

    def crops(self, numbers: Sequence[int] | np.ndarray) -> list[Crop]:
        """The masks of some annotations, each cropped to its tight box; (0, 0) for one without a mask."""
        found = [(np.zeros((0, 0), dtype=np.uint8), (0, 0))] * len(numbers)
        masked = {i: mask.counts for i, mask in enumerate(self.masks(numbers)) if mask is not None}
        runs, sizes, _ = decode_many(list(masked.values()))
        ends = np.cumsum(sizes)
        for i, start, end in zip(masked, ends - sizes, ends, strict=True):
            found[i] = runs_to_crop(runs[start:end], self.image_hw[0])
        return found

    def polygons(self, number: int) -> list[np.ndarray]:
        """The parts of one mask, each (n, 2) float64 x, y; none where it is stored otherwise."""
        return unpack_polygons(self.segmentations[number]) if self.kinds[number] == POLYGONS else []


def pack_polygons(parts: Sequence[np.ndarray]) -> bytes:
    """The parts of a mask, each 2 n float64 x, y, x, y, ...: how many parts, the points of each, then all points."""
    head = np.array([len(parts), *(len(part) // 2 for part in parts)], dtype=np.float64)
    return head.tobytes() + b"".join(part.tobytes() for part in parts)


def unpack_polygons(content: np.ndarray) -> list[np.ndarray]:
    """The (n, 2) float64 points of each part that `pack_polygons` has packed."""
    values = np.frombuffer(content.tobytes(), dtype=np.float64)
    count = int(values[0])
    sizes = values[1 : count + 1].astype(np.int64)
    points = values[count + 1 :].reshape(-1, 2)
    return [points[end - size : end] for size, end in zip(sizes, np.cumsum(sizes), strict=True)]
