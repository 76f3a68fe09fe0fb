"""Image files of every common kind as RGB arrays."""

from __future__ import annotations

import glob
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from maskrcnn.errors import ImageError

# The suffixes of images in folders; a file that is given by name may have any suffix.
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})

MOST_PIXELS = 500_000_000  # 1.5 GB of RGB; larger images are refused before decoding


def read_image(path: Path | str) -> np.ndarray:
    """Decodes an image file to (H, W, 3) uint8 RGB, upright as its EXIF orientation says.

    Grey and palette images become colour, transparency is dropped, and the first frame of an animation is read.
    16-bit and float grey images are scaled from their own smallest and largest value to 0..255, because such
    files rarely use their whole range.

    Raises:
        ImageError: the file is missing, empty, truncated, not an image, or larger than `MOST_PIXELS`.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: expected an image, found {'a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: expected an image, found an empty file; get the file again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd metadata and large images; we have our own limit
            with Image.open(path) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise ImageError(
                        f"{path}: {image.width} x {image.height} pixels are more than the limit of {MOST_PIXELS}; "
                        "cut the image into tiles"
                    )
                return as_rgb(image)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{path}: expected an image, found a file of another kind") from None
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path}: {error}; cut the image into tiles") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow's decoders raise for broken files
        raise ImageError(f"{path}: the image cannot be decoded ({error}); it may be truncated") from None


def as_rgb(image: Image.Image | np.ndarray) -> np.ndarray:
    """A PIL image of any mode, or an (H, W, 3) uint8 array, as a contiguous (H, W, 3) uint8 RGB array.

    Raises:
        ImageError: an array of another shape or dtype.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ImageError(
                f"expected an (H, W, 3) uint8 RGB array, found shape {image.shape} and dtype {image.dtype}"
            )
        return np.ascontiguousarray(image)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        return _stretched(np.asarray(image))
    if image.mode != "RGB":
        # A palette with transparency becomes RGBA first: Pillow warns about the direct conversion.
        image = image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
    return np.array(image)


def image_files(inputs: Sequence[str | Path]) -> list[Path]:
    """Files, folders (searched through, by suffix) and globs as a list of image paths, each once, in order.

    Raises:
        ImageError: an input matches nothing.
    """
    found: dict[Path, None] = {}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            matches = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(Path(name) for name in glob.glob(str(item), recursive=True) if Path(name).is_file())
        if not matches:
            what = (
                f"no images in the folder ({', '.join(sorted(IMAGE_SUFFIXES))})" if path.is_dir() else "nothing there"
            )
            raise ImageError(f"{item}: expected an image, a folder of images or a glob, found {what}")
        found.update(dict.fromkeys(matches))
    return list(found)


def _stretched(grey: np.ndarray) -> np.ndarray:
    """(H, W) integers or floats -> (H, W, 3) uint8, smallest value 0 and largest 255; a flat image becomes 0."""
    values = np.nan_to_num(grey.astype(np.float64))
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, axis=2)
