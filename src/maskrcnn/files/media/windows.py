"""Images that are read part by part, so that memory does not hold the whole of a large one.

Parts of a TIFF, in tiles or strips, come from GDAL through rasterio. Pixels become RGB by the rules of `read_image`, or
stay as they are stored for a model of channels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL.TiffImagePlugin import TiffImageFile

from maskrcnn.errors import ImageError, ImageSizeError, MissingPackageError
from maskrcnn.files.images import read_image, say_pages
from maskrcnn.files.pixels.pillow_errors import QUIET
from maskrcnn.files.pixels.rgb import scaled

_INSTALL = "pip install 'maskrcnn[tiles]'"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, with offsets of 32 and of 64 bits
_ORIENTATION = 274
_CACHE = 64  # megabytes of decoded blocks that GDAL may keep
_VALUES_AT_ONCE = 1 << 24  # in the search for the largest value of a file
_DEEP_GREY = ("uint16", "int16", "uint32", "int32", "float32", "float64")
MOST_PIXELS_IN_PARTS = (1 << 32) - 1  # the masks of larger images have no run lengths (`structures.masks.MOST_PIXELS`)


class Pixels(Protocol):
    """An image: an array (H, W, 3) of RGB or (H, W, C) in memory, or a file that is read part by part."""

    @property
    def shape(self) -> tuple[int, ...]:
        """H, W and the number of channels."""

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        """The (h, w, C) pixels of two slices, rows and columns, each with a start and a stop."""


@dataclass(frozen=True)
class TiffPixels:
    """A TIFF on disk: `Pixels`.

    Attributes:
        path: the file.
        shape: H, W and the number of channels.
        bands: the numbers of the bands to read: one of grey, red, green and blue, or all.
        convert: makes the pixels of values of the file.
        idle: opened datasets that no thread uses. They keep what they have decoded: neighbouring parts share blocks.
    """

    path: Path
    shape: tuple[int, int, int]
    bands: tuple[int, ...]
    convert: Callable[[np.ndarray], np.ndarray]
    idle: list[Any] = field(default_factory=list, compare=False, repr=False)

    def __getitem__(self, part: tuple[slice, slice]) -> np.ndarray:
        with _gdal(self.path) as opened:
            try:
                dataset = self.idle.pop()
            except IndexError:
                dataset = opened()
            values = self.convert(dataset.read(self.bands, window=_window(*part)))
            self.idle.append(dataset)
        return np.ascontiguousarray(np.broadcast_to(values, (self.shape[2], *values.shape[1:])).transpose(1, 2, 0))


def open_pixels(
    path: os.PathLike[str] | str, remark: Callable[[str], None] = lambda text: None, channels: Sequence[str] = ()
) -> Pixels:
    """An image file to be read part by part.

    TIFF files of the usual kinds stay on disk. Other images are decoded whole.

    Args:
        remark, channels: as for `read_image`.

    Raises:
        ImageError: as for `read_image`, or the image has more than `MOST_PIXELS_IN_PARTS`.
        MissingPackageError: a TIFF is too large for `read_image`, and rasterio is not installed.
    """
    if not _is_tiff(path):
        return read_image(path, remark, channels)
    try:
        found = _tiff_pixels(Path(path), remark, len(channels))
    except ModuleNotFoundError:
        try:
            return read_image(path, remark, channels)
        except ImageSizeError:
            raise MissingPackageError(
                f"{path}: a TIFF of this size needs rasterio, which is missing: {_INSTALL}"
            ) from None
    return found or read_image(path, remark, channels)


def _is_tiff(path: os.PathLike[str] | str) -> bool:
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(4) in _TIFF


def _tiff_pixels(path: Path, remark: Callable[[str], None], channels: int) -> TiffPixels | None:
    """A TIFF to be read part by part; None for one of a rare kind, which only `read_image` reads."""
    with _opened(path) as dataset:
        kinds = set(dataset.dtypes)
        colours = tuple(colour.name for colour in dataset.colorinterp)
        grey, rgb = colours in (("gray",), ("gray", "alpha")), colours[:3] == ("red", "green", "blue")
        wanted = dataset.count == channels if channels else grey or rgb
        if len(kinds) > 1 or not wanted or dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS"):
            return None
        bands, kind = tuple(dataset.indexes) if channels else (1,) if grey else (1, 2, 3), kinds.pop()
        if channels or kind == "uint8":
            convert: Callable[[np.ndarray], np.ndarray] = _unchanged
        elif grey and kind in _DEEP_GREY:
            convert = _Stretched(*_limits(dataset, bands))
        elif rgb and kind == "uint16":
            convert = _Shifted(max(0, int(_limits(dataset, bands)[1]).bit_length() - 8))
        else:
            return None
        shape, pages = (dataset.height, dataset.width, channels or 3), len(dataset.subdatasets)
    if _turned(path):
        return None
    if shape[0] * shape[1] > MOST_PIXELS_IN_PARTS:
        raise ImageSizeError(f"{path}: expected up to {MOST_PIXELS_IN_PARTS} pixels, found {shape[1]} x {shape[0]}")
    say_pages(path, pages, remark)
    return TiffPixels(path, shape, bands, convert)


def _unchanged(values: np.ndarray) -> np.ndarray:
    return values


@dataclass(frozen=True)
class _Stretched:
    """The smallest value of the file becomes 0, and the largest one 255."""

    low: float
    high: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return scaled(values, self.low, self.high)


@dataclass(frozen=True)
class _Shifted:
    """Divides by a power of two."""

    bits: int

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return (values >> self.bits).astype(np.uint8)


def _limits(dataset: Any, bands: tuple[int, ...]) -> tuple[float, float]:
    """The smallest and the largest finite value of the whole file, 0 and 0 if there is none."""
    block = dataset.block_shapes[0][0]
    rows = block * max(1, _VALUES_AT_ONCE // (dataset.width * len(bands) * block))
    low, high = np.inf, -np.inf
    for top in range(0, dataset.height, rows):
        part = _window(slice(top, min(top + rows, dataset.height)), slice(0, dataset.width))
        values = dataset.read(bands, window=part)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _window(rows: slice, columns: slice) -> tuple[tuple[int, int], tuple[int, int]]:
    return (rows.start, rows.stop), (columns.start, columns.stop)


def _turned(path: Path) -> bool:
    """Whether the pixels of a TIFF are stored turned or mirrored. GDAL does not say so."""
    try:
        with TiffImageFile(path) as image:
            return bool(image.tag_v2.get(_ORIENTATION, 1) != 1)
    except Exception:  # a kind that Pillow does not know, which says nothing of its orientation
        return False


def earth_of(path: os.PathLike[str] | str) -> Callable[[np.ndarray], np.ndarray] | None:
    """What maps (n, 2) points x, y in pixels of an image to its longitudes and latitudes in degrees (WGS 84).

    Returns:
        None if the image is no TIFF with a coordinate system.

    Raises:
        MissingPackageError: the image is a TIFF, and rasterio is not installed.
    """
    if not _is_tiff(path):
        return None
    try:
        with _opened(Path(path)) as dataset:
            system, transform = dataset.crs, dataset.transform
    except ModuleNotFoundError:
        raise MissingPackageError(
            f"{path}: the coordinate system of a TIFF needs rasterio, which is missing: {_INSTALL}"
        ) from None
    if system is None:
        return None

    def to_earth(points: np.ndarray) -> np.ndarray:
        from rasterio.warp import transform as between

        x, y = np.array(transform[:6]).reshape(2, 3) @ [*points.T, np.ones(len(points))]
        return np.stack(between(system, "EPSG:4326", x, y), axis=1)

    return to_earth


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The dataset of a TIFF. Errors as for `_gdal`."""
    with _gdal(path) as opened, opened() as dataset:
        yield dataset


@contextmanager
def _gdal(path: Path) -> Iterator[Callable[[], Any]]:
    """What opens the dataset of a TIFF. Only one thread at a time may use a dataset.

    Raises:
        ModuleNotFoundError: rasterio is not installed.
        ImageError: the file is damaged or truncated.
    """
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with QUIET, rasterio.Env(GDAL_CACHEMAX=_CACHE):
            # A relative path such as zip:a.tif would be an address of GDAL.
            yield partial(rasterio.open, path.absolute(), driver="GTiff", sharing=False)
    except (RasterioError, OSError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ImageError(f"{path}: the image cannot be decoded ({reason}); it may be damaged or truncated") from None
