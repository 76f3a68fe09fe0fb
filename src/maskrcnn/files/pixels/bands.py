"""Images with any number of channels, which Pillow does not hold: TIFF by tifffile, and arrays in `.npy`."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import ImageError, ImageSizeError, MissingPackageError

Source = Path | io.BytesIO
TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
NUMPY_MARK = b"\x93NUM"
BYTES_A_PIXEL = 16  # to decode at most, for each pixel of the limit
MOST_BYTES = 3_000_000_000  # of any image: twice as many as the largest RGB image takes
_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of transparency among the extra samples of TIFF
_ORIENTATION = 274  # tag of TIFF
# How to turn an image upright: whether it is mirrored first, then the quarter turns of `np.rot90`.
_UPRIGHT = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}


def mark_of(source: Source) -> bytes:
    """The first four bytes of a file."""
    if isinstance(source, io.BytesIO):
        return source.getvalue()[:4]
    with open(source, "rb") as file:
        return file.read(4)


def holds_bands(source: Source) -> bool:
    """Whether `opened_bands` reads files of this kind: a TIFF, or an array in a file of its own."""
    mark = mark_of(source)
    return mark in TIFF_MARKS or (mark == NUMPY_MARK and isinstance(source, Path))


@dataclass(frozen=True)
class Bands:
    """An open file, of which only the header has been read.

    Attributes:
        axes: a letter for each axis of `shape`: Y, X, S (samples of a pixel), C (channels), and others for pages.
        extra: the samples that hold transparency.
        orientation: 1 to 8, as in EXIF.
        file: an open TIFF of tifffile, or the array.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    extra: tuple[int, ...]
    orientation: int
    file: Any

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the upright image."""
        height, width = self.shape[self.axes.index("Y")], self.shape[self.axes.index("X")]
        return (width, height) if self.orientation >= 5 else (height, width)

    @property
    def channels(self) -> int:
        """The number of channels without transparency."""
        return math.prod(n for n, axis in zip(self.shape, self.axes, strict=True) if axis in "SC") - len(self.extra)

    @property
    def pages(self) -> int:
        """The number of images in the file, of which the first one is read."""
        return math.prod(n for n, axis in zip(self.shape, self.axes, strict=True) if axis not in "YXSC")

    def with_pages(self, wanted: int) -> Bands:
        """The file with its pages as channels, if it has no other channels and as many pages as are wanted."""
        others = self.axes.replace("Y", "").replace("X", "")
        if wanted > 1 and len(others) == 1 and others not in "SC" and self.shape[self.axes.index(others)] == wanted:
            return replace(self, axes=self.axes.replace(others, "C"), extra=())
        return self

    def read(self, wanted: int = 0) -> np.ndarray:
        """The values, (H, W, C), upright and writeable. Transparency is dropped, unless it is one of `wanted`."""
        values, axes = self._first_page()
        order = [axes.index("Y"), axes.index("X"), *(place for place, axis in enumerate(axes) if axis in "SC")]
        values = values.transpose(order)
        values = values.reshape(*values.shape[:2], -1)
        if wanted != values.shape[2]:
            values = np.delete(values, self.extra, axis=2)
        mirrored, turns = _UPRIGHT.get(self.orientation, (False, 0))
        upright = np.rot90(values[:, ::-1] if mirrored else values, turns)
        return np.require(upright, upright.dtype.newbyteorder("="), ["C", "W"])  # a file may be big-endian

    def _first_page(self) -> tuple[np.ndarray, str]:
        """The part of the file with axes Y, X, S and C only, and its axes."""
        if isinstance(self.file, np.ndarray):
            return self.file, self.axes
        series = self.file.series[0]
        page = series.keyframe
        leading = self.axes.removesuffix(page.axes)
        shape = self.shape[: len(leading)]
        numbers = np.arange(math.prod(shape)).reshape(shape)
        first = numbers[tuple(slice(None) if axis == "C" else 0 for axis in leading)]
        values = self.file.asarray(key=first.ravel().tolist(), series=0)
        axes = "".join(axis for axis in leading if axis == "C") + page.axes
        return values.reshape(*first.shape, *page.shape), axes


@contextmanager
def opened_bands(source: Source, name: str, most_pixels: int, wanted: int = 0) -> Iterator[Bands]:
    """A TIFF or `.npy` file, open but not decoded, and not too large.

    Args:
        name: for messages.
        wanted: the number of channels that a model reads. As many pages are taken as channels.

    Raises:
        ImageError: the file is damaged, or no image.
        ImageSizeError: it has too many pixels or values.
        MissingPackageError: a package of the extra `tiff` is missing.
    """
    try:
        with _open_tiff(source, name) if mark_of(source) in TIFF_MARKS else _open_array(source, name) as bands:
            bands = bands.with_pages(wanted)
            (height, width), size = bands.size_hw, bands.channels * bands.dtype.itemsize
            most_bytes = min(most_pixels * BYTES_A_PIXEL, MOST_BYTES)
            if height * width > most_pixels or height * width * size > most_bytes:
                raise ImageSizeError(
                    f"{name}: {width} x {height} pixels of {size} bytes are more than the limit of {most_pixels} "
                    f"pixels and {most_bytes} bytes; cut the image into tiles"
                )
            yield bands
    except (ImageError, MissingPackageError):
        raise
    except Exception as error:  # tifffile raises whatever its parts do
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ImageError(f"{name}: the image cannot be decoded ({reason}); it may be damaged or truncated") from None


@contextmanager
def _open_array(source: Source, name: str) -> Iterator[Bands]:
    """An array (H, W) or (H, W, C) of numbers in a file. Its pixels are not read yet, and no pickle is run."""
    array = np.asarray(np.load(source, mmap_mode="r", allow_pickle=False))
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif" or 0 in array.shape:
        raise ImageError(
            f"{name}: expected an array (H, W) or (H, W, C) of numbers, found shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    yield Bands("YXS"[: array.ndim], array.shape, array.dtype, (), 1, array)


@contextmanager
def _open_tiff(source: Source, name: str) -> Iterator[Bands]:
    if find_spec("tifffile") is None:
        raise _missing(name, "tifffile")
    import tifffile

    with tifffile.TiffFile(source) as file:
        series = file.series[0]
        page = series.keyframe
        if page.compression != 1 and find_spec("imagecodecs") is None:  # without it, tifffile unpacks without a bound
            raise _missing(name, "imagecodecs")
        if not series.axes.endswith(page.axes) or page.dtype is None or page.dtype.kind not in "uif":
            raise ImageError(f"{name}: expected a TIFF of numbers in pages, found axes {series.axes} and {page.dtype}")
        tag = page.tags.get(_ORIENTATION)
        yield Bands(
            axes=series.axes,
            shape=tuple(series.shape),
            dtype=page.dtype,
            extra=_transparency(page),
            orientation=1 if tag is None else int(tag.value),
            file=file,
        )


def _transparency(page: Any) -> tuple[int, ...]:
    """The samples of 8 bits that a TIFF marks as transparency.

    tifffile and others mark the fourth of any four samples so. Of more bits, it is nearly always a channel.
    """
    first = page.samplesperpixel - len(page.extrasamples)
    kinds: Sequence[int] = page.extrasamples if page.dtype.itemsize == 1 else ()
    return tuple(first + place for place, kind in enumerate(kinds) if kind in (_ASSOCIATED, _UNASSOCIATED))


def _missing(name: str, package: str) -> MissingPackageError:
    return MissingPackageError(f"{name}: this kind of TIFF needs {package}: pip install 'maskrcnn[tiff]'")
