"""Measures the annotations of many images at once, mostly without drawing masks.

Legend: N annotations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskrcnn.doctor.outlines import Rings, extents, read_rings, signed_areas
from maskrcnn.ops.rle import decode_many
from maskrcnn.structures.annotations import POLYGONS, RUN_LENGTHS
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.masks import RLE
from maskrcnn.structures.records import as_numpy


@dataclass(frozen=True)
class Objects:
    """The N annotations of some images.

    Attributes:
        images: (N,) int64 numbers of their images, ascending.
        rows: (N,) int64 rows in the columns of the data set.
        limits_wh: (N, 2) float64 width and height of the image.
        labels, crowd, kinds, areas: (N,) as in `Annotations`.
        given: (N, 4) float64 x1 y1 x2 y2 of the file.
        pixels: (N,) float64, the pixels of run lengths and the area that polygons enclose, also outside the image; NaN
            without a mask.
        extent: (N, 4) float64 x1 y1 x2 y2 of the mask, also outside the image; NaN without a mask or a pixel.
        rings: the polygons; owners are positions among the N.
    """

    dataset: Dataset
    images: np.ndarray
    rows: np.ndarray
    limits_wh: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    kinds: np.ndarray
    areas: np.ndarray
    given: np.ndarray
    pixels: np.ndarray
    extent: np.ndarray
    rings: Rings

    @property
    def tight(self) -> np.ndarray:
        """(N, 4) float64 x1 y1 x2 y2: `extent` clipped to the image."""
        return self.clipped(self.extent)

    def clipped(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) boxes x1 y1 x2 y2 clipped to the images."""
        return boxes.clip(0, np.tile(self.limits_wh, 2))

    def drawn(self, numbers: np.ndarray) -> list[RLE]:
        """The masks of the annotations at these positions; that of an annotation without a mask is its box."""
        masks = []
        for number in numbers.tolist():
            image = int(self.images[number])
            first = int(np.searchsorted(self.images, image))
            masks.append(self.dataset.annotations(image).rle(number - first))
        return masks


def measured(dataset: Dataset, images: np.ndarray, rows: np.ndarray) -> Objects:
    """The annotations of some images.

    Args:
        images: (N,) int64, the image of each annotation, ascending.
        rows: (N,) int64, its row in the columns of the data set.
    """
    columns = {name: as_numpy(dataset.columns[name])[rows] for name in ("labels", "crowd", "kinds", "areas")}
    boxes = as_numpy(dataset.columns["annotated_boxes"])[rows]
    pixels, extent = np.full(len(rows), np.nan), np.full((len(rows), 4), np.nan)
    limits_wh = dataset.records.sizes_hw[images, ::-1].astype(np.float64)
    polygons = np.flatnonzero(columns["kinds"] == POLYGONS)
    rings = read_rings([one.tobytes() for one in dataset.segmentations.chosen(rows[polygons])], polygons)
    if len(polygons):
        first = np.searchsorted(rings.owners, polygons)
        pixels[polygons] = np.add.reduceat(np.abs(signed_areas(rings)), first)
        each = extents(rings)
        extent[polygons, :2] = np.minimum.reduceat(each[:, :2], first, axis=0)
        extent[polygons, 2:] = np.maximum.reduceat(each[:, 2:], first, axis=0)
    runs = np.flatnonzero(columns["kinds"] == RUN_LENGTHS)
    strings = [one.tobytes() for one in dataset.segmentations.chosen(rows[runs])]
    pixels[runs], extent[runs] = measured_runs(strings, limits_wh[runs, 1].astype(np.int64))
    given = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return Objects(dataset, images, rows, limits_wh, given=given, pixels=pixels, extent=extent, rings=rings, **columns)


def measured_runs(strings: list[bytes], heights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels, (n,) float64, and the tight boxes, (n, 4) float64 x1 y1 x2 y2, of n compressed run-length masks.

    The box of a mask without a pixel is NaN.

    Args:
        heights: (n,) int64, of their images.
    """
    pixels, boxes = np.zeros(len(strings)), np.full((len(strings), 4), np.nan)
    if not strings:
        return pixels, boxes
    runs, sizes, _ = decode_many(strings)
    first = np.cumsum(sizes) - sizes
    owners = np.repeat(np.arange(len(sizes)), sizes)
    ends = np.cumsum(runs)
    ends -= (ends[first] - runs[first])[owners]
    filled = ((np.arange(len(runs)) - first[owners]) % 2 == 1) & (runs > 0)
    runs, ends, owners = runs[filled], ends[filled], owners[filled]
    pixels += np.bincount(owners, runs, minlength=len(strings))
    starts, height = ends - runs, heights[owners]
    left, right = starts // height, (ends - 1) // height
    through = left != right  # a run that continues in the next column covers the bottom and the top row
    top, bottom = np.where(through, 0, starts % height), np.where(through, height, (ends - 1) % height + 1)
    some = np.flatnonzero(pixels)
    group = np.searchsorted(owners, some)
    for column, (reduce, edges) in enumerate(
        ((np.minimum, left), (np.minimum, top), (np.maximum, right + 1), (np.maximum, bottom))
    ):
        if len(some):
            boxes[some, column] = reduce.reduceat(edges, group)
    return pixels, boxes
