"""Image files of every common kind as RGB arrays."""

from __future__ import annotations

import base64
import glob
import io
import json
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from maskrcnn.errors import ImageError, ImageKindError, ImageSizeError
from maskrcnn.files.rgb import array_as_rgb, deep_as_rgb, has_deep_colours, pillow_as_rgb

# The suffixes of images in folders; a file that is given by name may have any suffix. Pillow reads no HEIC: such files
# are listed so that they are named, and not left out in silence.
IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".tga", ".avif", ".heic", ".heif"),
    }
)

_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = {5, 6, 7, 8}  # the orientations that swap width and height

MOST_PIXELS = 500_000_000  # 1.5 GB of RGB; larger images are refused before decoding


def read_image(path: os.PathLike[str] | str, remark: Callable[[str], None] = lambda text: None) -> np.ndarray:
    """Decodes an image file to (H, W, 3) uint8 RGB, upright as its EXIF orientation says.

    A JSON of labelme stands for the image inside it (`imageData`).

    Grey and palette images become colour, transparency is dropped, and the first page of a file with several is read.
    Grey images of more than 8 bits are scaled from their own smallest and largest value to 0..255, because such files
    rarely use their whole range. Colours of 16 bits are divided by the power of two that leaves 8 bits of the largest.

    Args:
        remark: called with a sentence about pages that are not read.

    Raises:
        ImageError: the file is missing, empty, truncated, not an image, or larger than `MOST_PIXELS`.
    """
    source = _source(path)
    with _opened(source, str(path)) as image:
        pixels, pages = _decoded(image, source), _pages(image)
    say_pages(path, pages, remark)
    return pixels


def say_pages(path: os.PathLike[str] | str, pages: int, remark: Callable[[str], None]) -> None:
    """Remarks that only the first of several pages is read."""
    if pages > 1:
        remark(f"{path}: only the first of {pages} pages is read; save the others as files of their own")


def decode_image(data: bytes, name: str, formats: tuple[str, ...], most_pixels: int) -> np.ndarray:
    """`read_image` for the bytes of a file.

    Args:
        name: for messages.
        formats: the kinds of images to accept, by Pillow's names.
        most_pixels: larger images are refused before decoding.

    Raises:
        ImageKindError: the bytes are no image of these kinds.
        ImageSizeError: the image has more pixels.
        ImageError: the image cannot be decoded.
    """
    source = io.BytesIO(data)
    with _opened(source, name, most_pixels, formats) as image:
        return _decoded(image, source)


def image_size(path: os.PathLike[str] | str) -> tuple[int, int]:
    """Height and width of an image file, upright as its EXIF orientation says, without decoding the pixels.

    Raises:
        ImageError: as for `read_image`, except that a truncated file may pass.
    """
    with _opened(_source(path), str(path)) as image:
        turned = image.getexif().get(_ORIENTATION, 1) in _SIDEWAYS
        return (image.width, image.height) if turned else (image.height, image.width)


def orientation(path: os.PathLike[str] | str) -> int:
    """The EXIF orientation of an image file, 1 if it has none: 2 to 4 mirror or turn by 180 degrees, 5 to 8 swap width
    and height.

    Raises:
        ImageError: as for `image_size`.
    """
    with _opened(_source(path), str(path)) as image:
        return int(image.getexif().get(_ORIENTATION, 1))


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
    with _errors_of_pillow(name), Image.open(source, formats=formats) as image:
        if image.width * image.height > limit:
            raise ImageSizeError(
                f"{name}: {image.width} x {image.height} pixels are more than the limit of {limit}; "
                "cut the image into tiles"
            )
        yield image


def as_rgb(image: object) -> np.ndarray:
    """A PIL image of any mode, or a uint8 array, as a contiguous and writeable (H, W, 3) uint8 RGB array.

    Raises:
        ImageError: an array of another shape or dtype, something else, or an image that Pillow cannot decode.
    """
    if not isinstance(image, Image.Image):
        return array_as_rgb(image)
    with _errors_of_pillow(f"PIL image {getattr(image, 'filename', '')}".strip()):
        return _decoded(image, image.filename if isinstance(image, ImageFile.ImageFile) else "")


def _decoded(image: Image.Image, source: Path | io.BytesIO | str | bytes) -> np.ndarray:
    """The RGB pixels of an image. Colours of 16 bits need its source, which is read once more; empty if unknown."""
    deep = has_deep_colours(image)
    pixels = pillow_as_rgb(image)
    if not deep or not source:
        return pixels
    with Image.open(source) as again:
        again.seek(image.tell())
        return deep_as_rgb(pixels, again)


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


@contextmanager
def _errors_of_pillow(name: str) -> Iterator[None]:
    """Turns whatever Pillow raises for a broken image, which may be any exception, into an ImageError. Its warnings of
    odd metadata and large images are ignored."""
    try:
        with QUIET:
            yield
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageKindError(f"{name}: expected an image, found a file of another kind") from None
    except Image.DecompressionBombError as error:
        raise ImageSizeError(f"{name}: {error}; cut the image into tiles") from None
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ImageError(f"{name}: the image cannot be decoded ({reason}); it may be damaged or truncated") from None


class _Quiet:
    """Ignores the warnings of Pillow and of rasterio while a thread reads an image.

    All threads share the filters of warnings. So the first reader changes them, and the last one puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._readers == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"(PIL|rasterio)\b")
            self._readers += 1

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            self._readers -= 1
            if self._readers == 0:
                self._filters.__exit__(None, None, None)


QUIET = _Quiet()
