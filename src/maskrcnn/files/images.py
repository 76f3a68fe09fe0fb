"""Image files of every common kind as arrays."""

from __future__ import annotations

import base64
import glob
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import IMAGELENGTH, IMAGEWIDTH, TiffImageFile

from maskrcnn.errors import ImageError, ImageKindError, ImageSizeError, MissingPackageError
from maskrcnn.files.pixels.bands import holds_bands, opened_bands
from maskrcnn.files.pixels.pillow_errors import errors_of_pillow
from maskrcnn.files.pixels.rgb import (
    array_as_rgb,
    array_with_channels,
    as_picture,
    deep_values,
    has_deep_colours,
    pillow_values,
    values_as_rgb,
    with_channels,
)

# The suffixes of images in folders; a file that is given by name may have any suffix. Pillow reads no HEIC: such files
# are listed so that they are named, and not left out in silence.
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".tga", ".avif", ".heic", ".heif"),
    }
)
LIST_SUFFIXES = frozenset({".parquet", ".csv", ".txt"})  # of lists of images

_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = {5, 6, 7, 8}  # the orientations that swap width and height

MOST_PIXELS = 500_000_000  # 1.5 GB of RGB; larger images are refused before decoding


def read_image(
    path: os.PathLike[str] | str,
    remark: Callable[[str], None] = lambda text: None,
    channels: Sequence[str] = (),
) -> np.ndarray:
    """Decodes an image file to (H, W, 3) uint8 RGB, upright as its EXIF orientation says.

    A JSON of labelme stands for the image inside it (`imageData`).

    Grey and palette images become colour, transparency is dropped, and the first page of a file with several is read.
    `rgb.values_as_rgb` says how values of more than 8 bits become 8 bits.

    Args:
        remark: called with a sentence about pages that are not read.
        channels: the names of a model's channels. With them, the values are returned as they are stored, (H, W, C) of
            any dtype, and `rgb.with_channels` says which other numbers of channels fit.

    Raises:
        ImageError: the file is missing, empty, truncated, not an image, larger than `MOST_PIXELS`, or has another
            number of channels.
        MissingPackageError: a package that reads such TIFFs is missing.
    """
    values, pages = _values(_source(path), str(path), channels)
    say_pages(path, pages, remark)
    return _as_asked(values, str(path), channels)


def say_pages(path: os.PathLike[str] | str, pages: int, remark: Callable[[str], None]) -> None:
    """Remarks that only the first of several pages is read."""
    if pages > 1:
        remark(f"{path}: only the first of {pages} pages is read; save the others as files of their own")


def read_picture(path: os.PathLike[str] | str, remark: Callable[[str], None] = lambda text: None) -> np.ndarray:
    """An image with any number of channels as (H, W, 3) uint8 RGB for people; otherwise as `read_image`."""
    values, pages = _values(_source(path), str(path), ())
    say_pages(path, pages, remark)
    return as_picture(values)


def count_channels(path: os.PathLike[str] | str) -> int:
    """The number of channels in an image file, without decoding it: that of `read_image` for a model of as many.

    Grey images and those of the four inks of print (CMYK) count as 3, because models of RGB read them, and so does
    everything that only Pillow can read.

    Raises:
        ImageError: as for `read_image`.
    """
    source = _source(path)
    if holds_bands(source):
        with suppress(MissingPackageError), opened_bands(source, str(path), MOST_PIXELS) as bands:
            if bands.channels != 4 or not _is_print(source, str(path)):
                return 3 if bands.channels == 1 else bands.channels
    with _opened(source, str(path)):
        return 3


def _is_print(source: Path | io.BytesIO, name: str) -> bool:
    with suppress(ImageError), _opened(source, name) as image:
        return image.mode == "CMYK"
    return False


def decode_image(
    data: bytes,
    name: str,
    formats: tuple[str, ...] | None = None,
    most_pixels: int | None = None,
    channels: Sequence[str] = (),
) -> np.ndarray:
    """`read_image` for the bytes of a file.

    Args:
        name: for messages.
        formats: the kinds of images to accept, by Pillow's names, with TIFF among them; default: all.
        most_pixels: larger images are refused before decoding; default: `MOST_PIXELS`.
        channels: as for `read_image`.

    Raises:
        ImageKindError: the bytes are no image of these kinds.
        ImageSizeError: the image has more pixels.
        ImageError: the image cannot be decoded.
    """
    values, _ = _values(io.BytesIO(data), name, channels, most_pixels, formats)
    return _as_asked(values, name, channels)


def _values(
    source: Path | io.BytesIO,
    name: str,
    channels: Sequence[str],
    most_pixels: int | None = None,
    formats: tuple[str, ...] | None = None,
) -> tuple[np.ndarray, int]:
    """The values of an image, (H, W, C), and the number of its pages.

    Pillow reads what it can, and only the kinds in `formats`. For a model of channels, it is not asked about files that
    may have more of them than it reads.
    """
    if not channels or not holds_bands(source):
        try:
            with _opened(source, name, most_pixels, formats) as image:
                return _decoded(image, source), _pages(image)
        except ImageKindError:
            if not holds_bands(source):
                raise
    with opened_bands(source, name, MOST_PIXELS if most_pixels is None else most_pixels, len(channels)) as bands:
        return bands.read(len(channels)), bands.pages


def _as_asked(values: np.ndarray, name: str, channels: Sequence[str]) -> np.ndarray:
    """Values as RGB of 8 bits, or with the channels of a model. Raises ImageError if they have other channels."""
    try:
        return with_channels(values, channels) if channels else values_as_rgb(values)
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from None


def image_size(path: os.PathLike[str] | str) -> tuple[int, int]:
    """Height and width of an image file, upright as its EXIF orientation says, without decoding the pixels.

    Raises:
        ImageError: as for `read_image`, except that a truncated file may pass.
    """
    return _header(path)[0]


def orientation(path: os.PathLike[str] | str) -> int:
    """The EXIF orientation of an image file, 1 if it has none: 2 to 4 mirror or turn by 180 degrees, 5 to 8 swap width
    and height.

    Raises:
        ImageError: as for `image_size`.
    """
    return _header(path)[1]


def _header(path: os.PathLike[str] | str) -> tuple[tuple[int, int], int]:
    """Height and width of the upright image, and its EXIF orientation."""
    source = _source(path)
    try:
        with _opened(source, str(path)) as image:
            turn = int(image.getexif().get(_ORIENTATION, 1))
            width, height = image.size
            if isinstance(image, TiffImageFile):  # newer versions of Pillow give the upright size, only of TIFFs
                width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
            return ((width, height) if turn in _SIDEWAYS else (height, width)), turn
    except ImageKindError:
        if not holds_bands(source):
            raise
    with opened_bands(source, str(path), MOST_PIXELS) as bands:
        return bands.size_hw, bands.orientation


def read_values(source: Path | bytes, name: str, most_pixels: int | None = None) -> np.ndarray:
    """The values of an image as they are stored: ids of a label image, numbers of a palette, or colours.

    Args:
        source: a file, or the bytes of one.
        name: for messages.
        most_pixels: larger images are refused before decoding; default: `MOST_PIXELS`.

    Returns:
        (H, W) or (H, W, C), of the dtype of the file, upright; the first page or frame.

    Raises:
        ImageError: as for `read_image`.
    """
    file = _existing(source) if isinstance(source, Path) else io.BytesIO(source)
    with _opened(file, name, most_pixels) as image:
        return np.array(ImageOps.exif_transpose(image))


def _source(path: os.PathLike[str] | str) -> Path | io.BytesIO:
    """The file of an image, or the bytes of the image inside a JSON."""
    path = _existing(path)
    if path.suffix.lower() != ".json":
        return path
    try:
        return io.BytesIO(base64.b64decode(json.loads(path.read_bytes())["imageData"], validate=True))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ImageError(f"{path}: expected an image, found a JSON without imageData in base64") from None


def _existing(path: os.PathLike[str] | str) -> Path:
    path = Path(path)
    if not os.path.isfile(path):
        raise ImageError(f"{path}: expected an image, found {_instead_of_file(path)}")
    if os.path.getsize(path) == 0:
        raise ImageError(f"{path}: expected an image, found an empty file; get the file again")
    return path


@contextmanager
def _opened(
    source: Path | io.BytesIO, name: str, most_pixels: int | None = None, formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """An image that is open but not decoded, and not too large. Errors of decoders become an ImageError."""
    limit = MOST_PIXELS if most_pixels is None else most_pixels
    with errors_of_pillow(name), Image.open(source, formats=formats) as image:
        if image.width * image.height > limit:
            raise ImageSizeError(
                f"{name}: {image.width} x {image.height} pixels are more than the limit of {limit}; "
                "save it as TIFF and use `predict --tiles`, or cut it"
            )
        yield image


def as_rgb(image: object) -> np.ndarray:
    """A PIL image of any mode, or a uint8 array, as a contiguous and writeable (H, W, 3) uint8 RGB array.

    Raises:
        ImageError: an array of another shape or dtype, something else, or an image that Pillow cannot decode.
    """
    return values_as_rgb(_pil_values(image)) if isinstance(image, Image.Image) else array_as_rgb(image)


def as_channels(image: object, channels: Sequence[str]) -> np.ndarray:
    """A PIL image of any mode, or an array (H, W) or (H, W, C) of numbers, as `rgb.with_channels` gives it.

    Raises:
        ImageError: as for `as_rgb`, or another number of channels.
    """
    if isinstance(image, Image.Image):
        return with_channels(_pil_values(image), channels)
    return array_with_channels(image, channels)


def _pil_values(image: Image.Image) -> np.ndarray:
    with errors_of_pillow(f"PIL image {getattr(image, 'filename', '')}".strip()):
        return _decoded(image, image.filename if isinstance(image, ImageFile.ImageFile) else "")


def _decoded(image: Image.Image, source: Path | io.BytesIO | str | bytes) -> np.ndarray:
    """The values of an image, (H, W, 1) or (H, W, 3). Colours of 16 bits need its source, which is read once more;
    they have 8 if it is empty."""
    deep = has_deep_colours(image)
    values = pillow_values(image)
    if not deep or not source:
        return values
    with Image.open(source) as again:
        again.seek(image.tell())
        return deep_values(values, again)


def image_files(inputs: Sequence[str | Path]) -> list[Path]:
    """Files, folders (searched through, by suffix) and globs as a list of image paths, each once, in order.

    Links to files that do not exist are listed too, so that they are named when they are read.

    Raises:
        ImageError: an input matches nothing.
    """
    found: dict[Path, None] = {}
    for item in inputs:
        path = Path(item)
        if os.path.isdir(path):
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir())
        elif os.path.lexists(path):
            matches = [path]
        else:
            matches = sorted(Path(name) for name in glob.glob(str(item), recursive=True) if not os.path.isdir(name))
        if not matches:
            what = "nothing there"
            if os.path.isdir(path):
                what = f"no images in the folder ({', '.join(sorted(IMAGE_SUFFIXES))})"
            raise ImageError(f"{item}: expected an image, a folder of images or a glob, found {what}")
        found.update(dict.fromkeys(matches))
    return list(found)


def picture_name(number: int, path: Path) -> str:
    """The name of the picture that is drawn of an image. Long names are cut, because file systems limit their bytes."""
    stem = path.stem.encode("utf-8", "ignore")[:100].decode("utf-8", "ignore")
    return f"{number:06d}_{stem}.png"


def _instead_of_file(path: Path) -> str:
    if os.path.isdir(path):
        return "a folder"
    if os.path.islink(path):
        return "a link to no file"
    return "no regular file" if os.path.exists(path) else "no such file"


def _pages(image: Image.Image) -> int:
    """The number of pages or frames that an image file shows one after the other."""
    if image.format in ("MPO", "PSD"):  # one picture: further images in the file are its previews and layers
        return 1
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a broken page after the first, which has been read
        return 1
