"""Masks as run lengths, decoded only on request. Legend: N masks of one image, H and W of that image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import hotcoco.mask
import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.ops.outlines import outlines, simplified
from maskrcnn.ops.rle import (
    column_spans_of_many,
    count_pixels,
    crop_to_rle,
    decode_many,
    decode_runs,
    encode_runs,
    rle_to_crop,
    runs_to_crop,
    spans_from_runs,
    strings_from_column_spans,
    to_box,
)
from maskrcnn.structures.crops import Crop
from maskrcnn.structures.values import short

MOST_PIXELS = (1 << 32) - 1  # of an image with masks: hotcoco counts the pixels of a run with 32 bits


@dataclass(frozen=True, slots=True)
class RLE:
    """One mask in COCO's compressed run lengths.

    Equality compares the strings. Files may encode one mask by different strings; the strings made here are canonical.

    Attributes:
        size: height and width of the image.
        counts: column-major run lengths, background first, in COCO's compressed string.
    """

    size: tuple[int, int]
    counts: bytes

    @classmethod
    def from_coco(cls, segmentation: Any, *, sound: bool = False) -> RLE:
        """Reads `{"size": [h, w], "counts": ...}` with counts as a compressed string or a list of run lengths.

        Args:
            sound: skip all checks, because `known_areas` has already made them.

        Raises:
            DataError: a key is missing, the string is malformed, or the runs do not sum to h * w.
        """
        if sound:
            height, width = segmentation["size"]
            return cls((int(height), int(width)), segmentation["counts"].encode("ascii"))
        if not isinstance(segmentation, Mapping) or not {"size", "counts"} <= segmentation.keys():
            raise DataError(f"expected a run-length mask with 'size' and 'counts', found {short(segmentation)}")
        size = _read_size(segmentation["size"])
        pixels = size[0] * size[1]
        counts = segmentation["counts"]
        if isinstance(counts, str):
            try:
                counts = counts.encode("ascii")
            except UnicodeEncodeError:
                raise DataError(f"run-length string: expected ASCII characters, found {short(counts)}") from None
        if isinstance(counts, bytes):
            runs = decode_runs(counts)
        else:
            runs = _read_list(counts, pixels)
            counts = encode_runs(runs)
        total = int(runs.sum())  # cannot overflow: decode_runs and _read_list bound each run
        if total != pixels:
            raise DataError(
                f"expected runs that sum to {size[0]} * {size[1]} = {pixels} pixels (height * width), found {total}"
            )
        return cls(size, counts)

    @classmethod
    def from_dense(cls, bitmap: np.ndarray) -> RLE:
        """Encodes an (H, W) bool or integer image, whose nonzero pixels are foreground."""
        size = (int(bitmap.shape[0]), int(bitmap.shape[1]))
        return cls(size, crop_to_rle(bitmap, (0, 0), size))

    def to_coco(self) -> dict[str, Any]:
        """`{"size": [h, w], "counts": str}`, ready for JSON."""
        return {"size": list(self.size), "counts": self.counts.decode("ascii")}

    @property
    def area(self) -> int:
        """The number of foreground pixels."""
        return int(hotcoco.mask.area({"size": list(self.size), "counts": self.counts}))

    @property
    def box(self) -> np.ndarray:
        """(4,) float32, the tight edges x1 y1 x2 y2; zeros for an empty mask."""
        return np.array(to_box(decode_runs(self.counts), self.size[0]), dtype=np.float32)

    def flipped_horizontally(self) -> RLE:
        """The mask after a left-right flip of the image."""
        return Masks([self]).flipped_horizontally()[0]

    def flipped_vertically(self) -> RLE:
        """The mask after a top-bottom flip of the image."""
        return Masks([self]).flipped_vertically()[0]

    def shifted(self, offset_xy: tuple[int, int], size: tuple[int, int]) -> RLE:
        """The mask in another image of height and width `size`, which has this image's top left corner at the pixel
        `offset_xy`. The mask is clipped to the other image."""
        return Masks([self]).shifted(offset_xy, size)[0]

    def transposed(self) -> RLE:
        """The mask of the image with x and y swapped. Its runs are those along the rows of this image."""
        bitmap, (x, y) = self.crop()
        size = self.size[::-1]
        return RLE(size, crop_to_rle(bitmap.T, (y, x), size))

    def column_major_runs(self) -> tuple[np.ndarray, np.ndarray]:
        """First pixel and length of each foreground run, (K,) int64 each; pixels count down the columns from 0."""
        starts, ends = spans_from_runs(decode_runs(self.counts))
        return starts, ends - starts

    def crop(self) -> tuple[np.ndarray, tuple[int, int]]:
        """The (h, w) uint8 bitmap of the tight box, and the pixel (x, y) of its top left corner."""
        return rle_to_crop(self.counts, self.size)

    def outer_polygons(self, tolerance: float = 0.0) -> list[np.ndarray]:
        """The outer outline of each part, (n, 2) x y in pixel edges of the image. Holes are left out.

        Args:
            tolerance: pixels by which an outline may leave the mask, so that it has fewer corners.
        """
        bitmap, origin = self.crop()
        parts = [points + origin for points, is_hole in outlines(bitmap) if not is_hole]
        return [simplified(part, tolerance) for part in parts] if tolerance else parts

    def dense(self) -> np.ndarray:
        """(H, W) bool."""
        image = np.zeros(self.size, dtype=np.bool_)
        _fill(image, self)
        return image


def known_areas(segmentations: Sequence[Any]) -> np.ndarray:
    """Checks and counts all compressed run-length masks of a file at once, which is faster than one by one.

    Args:
        segmentations: N values of a file: masks, polygons, None or anything else.

    Returns:
        (N,) int64: the foreground pixels of each valid compressed run-length mask, -1 for every other value.
    """
    areas = np.full(len(segmentations), -1, dtype=np.int64)
    strings: list[bytes] = []
    places: list[int] = []
    pixels: list[int] = []
    for i, segmentation in enumerate(segmentations):
        if not isinstance(segmentation, Mapping):
            continue
        counts = segmentation.get("counts")
        if not isinstance(counts, str) or not counts.isascii():
            continue
        try:
            height, width = _read_size(segmentation.get("size"))
        except DataError:
            continue
        strings.append(counts.encode("ascii"))
        places.append(i)
        pixels.append(height * width)
    total, foreground = count_pixels(strings)
    areas[places] = np.where(total == pixels, foreground, -1)
    return areas


class Masks(Sequence[RLE]):
    """The masks of one image. An integer index gives an RLE; a slice or an integer or bool array gives Masks."""

    def __init__(self, masks: Iterable[RLE], size: tuple[int, int] | None = None) -> None:
        """
        Args:
            masks: masks of one image.
            size: height and width of the image; default: that of the first mask.

        Raises:
            DataError: a mask has another size.
        """
        self._masks = list(masks)
        self.size = size or (self._masks[0].size if self._masks else (0, 0))
        for i, mask in enumerate(self._masks):
            if mask.size != self.size:
                raise DataError(f"expected masks of height, width {self.size}, found mask {i} of {mask.size}")

    def __len__(self) -> int:
        return len(self._masks)

    @overload
    def __getitem__(self, index: int) -> RLE: ...

    @overload
    def __getitem__(self, index: slice | np.ndarray | list[int]) -> Masks: ...

    def __getitem__(self, index: int | slice | np.ndarray | list[int]) -> RLE | Masks:
        if isinstance(index, int | np.integer):
            return self._masks[index]
        if isinstance(index, slice):
            return Masks(self._masks[index], self.size)
        return Masks([self._masks[i] for i in np.arange(len(self))[_as_index(index)]], self.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Masks) and self.size == other.size and self._masks == other._masks

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Masks({len(self)} of {self.size[0]} x {self.size[1]})"

    def dense(self) -> np.ndarray:
        """(N, H, W) bool."""
        images = np.zeros((len(self), *self.size), dtype=np.bool_)
        for image, mask in zip(images, self._masks, strict=True):
            _fill(image, mask)
        return images

    def flipped_horizontally(self) -> Masks:
        """The masks after a left-right flip of the image."""
        owner, column, top, bottom = self._spans()
        return self._of_spans(owner, self.size[1] - 1 - column, top, bottom, self.size)

    def flipped_vertically(self) -> Masks:
        """The masks after a top-bottom flip of the image."""
        owner, column, top, bottom = self._spans()
        return self._of_spans(owner, column, self.size[0] - bottom, self.size[0] - top, self.size)

    def shifted(self, offset_xy: tuple[int, int], size: tuple[int, int]) -> Masks:
        """The masks in another image; see `RLE.shifted`."""
        (x, y), (owner, column, top, bottom) = offset_xy, self._spans()
        return self._of_spans(owner, column + x, top + y, bottom + y, size)

    def _spans(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The mask, column, first row and row after the last one of all spans of foreground."""
        return column_spans_of_many([mask.counts for mask in self._masks], self.size)

    def _of_spans(
        self, owner: np.ndarray, column: np.ndarray, top: np.ndarray, bottom: np.ndarray, size: tuple[int, int]
    ) -> Masks:
        strings = strings_from_column_spans(owner, column, top, bottom, len(self), size)
        return Masks([RLE(size, counts) for counts in strings], size)

    def without_overlaps(self) -> Masks:
        """The masks without the pixels of earlier ones, so that every pixel belongs to one mask at most."""
        taken, masks = np.zeros(self.size, dtype=np.bool_), []
        for mask in self._masks:
            bitmap, (x, y) = mask.crop()
            place = taken[y : y + bitmap.shape[0], x : x + bitmap.shape[1]]
            masks.append(RLE(self.size, crop_to_rle(bitmap.astype(np.bool_) & ~place, (x, y), self.size)))
            place |= bitmap.astype(np.bool_)
        return Masks(masks, self.size)

    def crops(self) -> list[Crop]:
        """`RLE.crop` of each mask. All strings are decoded at once, which is faster than one by one."""
        runs, sizes, _ = decode_many([mask.counts for mask in self._masks])
        ends = np.cumsum(sizes)
        return [runs_to_crop(runs[a:b], self.size[0]) for a, b in zip(ends - sizes, ends, strict=True)]

    def areas(self) -> np.ndarray:
        """(N,) int64, foreground pixels."""
        return np.array([mask.area for mask in self._masks], dtype=np.int64)

    def boxes(self) -> np.ndarray:
        """(N, 4) float32, tight edges x1 y1 x2 y2; zeros for empty masks."""
        return np.array([mask.box for mask in self._masks], dtype=np.float32).reshape(-1, 4)


def _fill(image: np.ndarray, mask: RLE) -> None:
    """Sets the foreground pixels of a mask in an (H, W) bool image of zeros."""
    bitmap, (x, y) = mask.crop()
    h, w = bitmap.shape
    image[y : y + h, x : x + w] = bitmap


def _as_index(index: Any) -> np.ndarray:
    array = np.asarray(index)
    return array.astype(np.int64) if array.size == 0 else array  # numpy gives [] the dtype float64


def _read_size(size: Any) -> tuple[int, int]:
    try:
        height, width = size
    except (TypeError, ValueError):
        raise DataError(f"expected 'size' as [height, width], found {short(size)}") from None
    for side in (height, width):
        if isinstance(side, bool) or not isinstance(side, int | np.integer) or side < 1:
            raise DataError(f"expected 'size' as two integers of 1 or more, found {short(size)}")
    height, width = int(height), int(width)
    if height * width > MOST_PIXELS:
        raise DataError(f"expected 'size' of up to {MOST_PIXELS} pixels, found {height} x {width}")
    return height, width


def _read_list(counts: Any, pixels: int) -> np.ndarray:
    """(R,) int64 run lengths from a list of integers from 0 to `pixels`; raises DataError for anything else."""
    if not isinstance(counts, list | tuple | np.ndarray):
        raise DataError(f"expected 'counts' as a string or a list of integers, found {short(counts)}")
    try:
        runs = np.asarray(counts)
    except (ValueError, OverflowError):  # lists of different lengths inside
        raise DataError(f"expected 'counts' as a flat list of integers, found {short(counts)}") from None
    if runs.ndim != 1 or (runs.dtype.kind not in "iu" and runs.size):
        raise DataError(f"expected 'counts' as a flat list of integers, found {short(counts)}")
    if runs.size and (int(runs.min()) < 0 or int(runs.max()) > pixels):
        raise DataError(f"expected runs from 0 to {pixels} pixels, found {int(runs.min())} to {int(runs.max())}")
    return runs.astype(np.int64)
