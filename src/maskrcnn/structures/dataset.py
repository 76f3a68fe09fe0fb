"""A data set as flat arrays, whatever format it was read from. `data/builder.py` builds it and checks every part of it.

The ids of the annotation file stand here; everywhere else labels are 0-based and images are numbered from 0.

Legend: N annotations of one image, T annotations of the data set, K keypoints of the category that has most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from maskrcnn.config import Category
from maskrcnn.errors import ImageError
from maskrcnn.files.images import read_image
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.ops.rle import crop_to_rle, decode_many, runs_to_crop
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.structures.records import PackedBytes, Records, ids_of

NO_MASK, RUN_LENGTHS, POLYGONS = 0, 1, 2  # how the mask of an annotation is stored

Crop = tuple[np.ndarray, tuple[int, int]]


@dataclass(frozen=True)
class Arrays:
    """All annotations of a data set, those of one image side by side.

    Attributes:
        ids: (T,) int64, or an array of objects where some ids are not whole numbers of 64 bits.
        boxes: (T, 4) float64 x, y, width, height as annotated, in original pixels.
        labels: (T,) int64, 0-based.
        crowd: (T,) bool.
        areas: (T,) float64 square pixels as annotated; else the pixels of the mask where reading has counted them; else
            NaN.
        kinds: (T,) uint8, `NO_MASK`, `RUN_LENGTHS` or `POLYGONS`.
        segmentations: of each annotation COCO's run-length string, or its polygons as `pack_polygons` packs them.
        keypoints: (T, K, 3) float64 x, y, visibility in continuous original pixels; None without any.
    """

    ids: Tensor | np.ndarray
    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    areas: Tensor
    kinds: Tensor
    segmentations: PackedBytes
    keypoints: Tensor | None


@dataclass(frozen=True)
class Annotations:
    """The N annotations of one image, in original pixels.

    Attributes:
        ids: (N,) int64 or object, as in the annotation file.
        boxes: (N, 4) float32 x1 y1 x2 y2, clipped to the image: what is trained and drawn. Where the annotated box
            lies outside of the image, it is the tight box of the mask.
        annotated_boxes: (N, 4) float64 x, y, width, height as the file gives them: what is evaluated.
        labels: (N,) int64, 0-based.
        crowd: (N,) bool.
        has_mask: (N,) bool.
        areas: (N,) float64 square pixels, as in `Arrays`.
        keypoints: (N, K, 3) float64 x, y and visibility (0 not labelled, 1 hidden, 2 visible), zeros where nothing is
            labelled. None when no category names keypoints.
    """

    ids: np.ndarray
    boxes: np.ndarray
    annotated_boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    has_mask: np.ndarray
    areas: np.ndarray
    keypoints: np.ndarray | None


@dataclass(frozen=True)
class Dataset:
    """Images and their annotations.

    Attributes:
        path: the annotation file or folder, for messages.
        records: the images.
        categories: sorted by id; a label is a position among them.
        problems: what was left out, one sentence each.
        arrays: the annotations.
    """

    path: Path
    records: Records
    categories: tuple[Category, ...]
    problems: tuple[str, ...]
    arrays: Arrays

    def __len__(self) -> int:
        return len(self.records)

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The same data set with only some of its images."""
        return replace(self, records=Records(self.records[i] for i in indices))

    def annotations(self, index: int) -> Annotations:
        """The annotations of image number `index`."""
        record, arrays = self.records[index], self.arrays
        rows = slice(record.first, record.first + record.count)
        given = arrays.boxes[rows].numpy()
        edges = np.concatenate([given[:, :2], given[:, :2] + given[:, 2:]], axis=1)
        edges = edges.clip(0, [record.width, record.height] * 2)
        boxes = edges.astype(np.float32)
        for number in np.flatnonzero((edges[:, 2:] <= edges[:, :2]).any(axis=1)):
            boxes[number] = self.rle(index, int(number)).box
        return Annotations(
            ids_of(arrays.ids[rows]),
            boxes,
            given,
            arrays.labels[rows].numpy(),
            arrays.crowd[rows].numpy(),
            arrays.kinds[rows].numpy() != NO_MASK,
            arrays.areas[rows].numpy(),
            None if arrays.keypoints is None else arrays.keypoints[rows].numpy(),
        )

    def crop(self, index: int, number: int) -> Crop:
        """The mask of annotation `number` of an image: (h, w) uint8 bitmap of its tight box and the original pixel
        (x, y) of its top left corner. Without a mask, the pixels that the box touches."""
        (mask,) = self.masks(index, [number])
        if mask is not None:
            return mask.crop()
        x1, y1, x2, y2 = _pixel_box(self.annotations(index).boxes[number], self.records[index].size)
        return np.ones((y2 - y1, x2 - x1), dtype=np.uint8), (x1, y1)

    def crops(self, index: int, numbers: Sequence[int] | np.ndarray) -> list[Crop]:
        """The masks of several annotations of an image, as `crop` gives them but (0, 0) where there is no mask."""
        found = [(np.zeros((0, 0), dtype=np.uint8), (0, 0))] * len(numbers)
        masked = {i: mask for i, mask in enumerate(self.masks(index, numbers)) if mask is not None}
        runs, sizes, _ = decode_many([mask.counts for mask in masked.values()])
        ends = np.cumsum(sizes)
        for (i, mask), start, end in zip(masked.items(), ends - sizes, ends, strict=True):
            found[i] = runs_to_crop(runs[start:end], mask.size[0])
        return found

    def rle(self, index: int, number: int) -> RLE:
        """The mask of annotation `number` of an image as run lengths; without a mask, that of its box."""
        (mask,) = self.masks(index, [number])
        size = self.records[index].size
        return mask or RLE(size, crop_to_rle(*self.crop(index, number), size))

    def masks(self, index: int, numbers: Sequence[int] | np.ndarray | None = None) -> list[RLE | None]:
        """The masks of several annotations of an image, by default of all; None where there is no mask."""
        size, kinds, contents = self._stored(index)
        return [
            RLE(size, polygons_to_rle(unpack_polygons(contents[i]), size))
            if kinds[i] == POLYGONS
            else RLE(size, contents[i].tobytes())
            if kinds[i] == RUN_LENGTHS
            else None
            for i in (range(len(kinds)) if numbers is None else numbers)
        ]

    def polygons(self, index: int, number: int) -> list[np.ndarray]:
        """The parts of annotation `number` of an image, each (n, 2) float64 x, y; none where its mask is none."""
        _, kinds, contents = self._stored(index)
        return unpack_polygons(contents[number]) if kinds[number] == POLYGONS else []

    def _stored(self, index: int) -> tuple[tuple[int, int], list[int], list[np.ndarray]]:
        """The size of an image, and how the masks of its annotations are stored and where."""
        record = self.records[index]
        rows = slice(record.first, record.first + record.count)
        return record.size, self.arrays.kinds[rows].tolist(), self.arrays.segmentations[rows]

    def instances(self, index: int) -> Instances:
        """The objects of an image without its crowd regions, with score 1: for drawing."""
        size, annotations = self.records[index].size, self.annotations(index)
        objects = np.flatnonzero(~annotations.crowd)
        labels, keypoints = annotations.labels[objects], annotations.keypoints
        return Instances(
            image_hw=size,
            boxes=annotations.boxes[objects],
            scores=np.ones(len(objects), dtype=np.float32),
            labels=labels,
            masks=Masks([self.rle(index, int(i)) for i in objects], size),
            names=tuple(self.categories[label].name for label in labels),
            keypoints=None if keypoints is None else keypoints[objects].astype(np.float32),
            categories=self.categories,
        )

    def read(self, index: int) -> np.ndarray:
        """The (H, W, 3) uint8 image number `index`.

        Raises:
            ImageError: the file cannot be read, or its size is not the record's.
        """
        record = self.records[index]
        image = read_image(record.path)
        if image.shape[:2] != record.size:
            raise ImageError(
                f"{record.path}: expected {record.width} x {record.height} pixels as {self.path.name} says of image "
                f"{record.image_id}, found {image.shape[1]} x {image.shape[0]}; correct the annotations or the image"
            )
        return image


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


def _pixel_box(box: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels that a box touches, at least one."""
    x1, y1 = min(int(box[0]), size[1] - 1), min(int(box[1]), size[0] - 1)
    return x1, y1, max(x1 + 1, math.ceil(box[2])), max(y1 + 1, math.ceil(box[3]))
