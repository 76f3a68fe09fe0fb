"""Pixels of every kind as RGB arrays."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from maskrcnn.errors import ImageError

_BITS, _PLANAR = 258, 284  # tags of TIFF
_COLOURS = {1: [0, 0, 0], 2: [0, 0, 0], 3: [0, 1, 2], 4: [0, 1, 2]}  # the channels to keep, by their number

# Of colours with 16 bits, Pillow decodes the upper bytes. It decodes the lower ones when it takes the file for one of
# the other byte order, or grey and transparency for four channels. For the decoder of each kind, these are the one to
# use instead and the channels to keep. `N` is the byte order of this machine.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_LOWER_BYTES = {
    f"{mode};16{order}": (f"{mode};16{other}", [0, 1, 2])
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in _OTHER_ORDER.items()
} | {"LA;16B": ("RGBA", [1, 1, 1])}


def array_as_rgb(image: object) -> np.ndarray:
    """A uint8 array as a contiguous and writeable (H, W, 3) array. Transparency is dropped.

    Args:
        image: (H, W) grey, or (H, W, C) with grey, grey and transparency, RGB, or RGB and transparency.

    Raises:
        ImageError: an array of another shape or dtype, or no array.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.ndim == 3 and pixels.shape[2] in _COLOURS:
            colour = pixels if pixels.shape[2] == 3 else pixels[..., _COLOURS[pixels.shape[2]]]
            return np.require(colour, requirements=["C", "W"])
    shape, kind = getattr(image, "shape", None), type(image)
    found = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    if shape is not None:
        found += f" of shape {tuple(shape)} and dtype {getattr(image, 'dtype', None)}"
    raise ImageError(f"expected a path, a PIL image or an (H, W, 3) uint8 RGB array, found {found}")


def pillow_as_rgb(image: Image.Image) -> np.ndarray:
    """A PIL image of any mode as (H, W, 3) uint8, upright as its EXIF orientation says. Transparency is dropped.

    Grey images of more than 8 bits are scaled from their own smallest and largest value to 0..255, because such files
    rarely use their whole range.

    Raises:
        ImageError: a TIFF of a kind that Pillow misreads.
        Exception: whatever Pillow raises for broken images.
    """
    if _has_deep_planes(image):
        raise ImageError(
            f"{getattr(image, 'filename', '')}: expected the colours of each pixel side by side, found a TIFF with one "
            "plane for each colour and more than 8 bits (PlanarConfiguration 2); save it with PlanarConfiguration 1"
        )
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        grey = np.asarray(image)
        finite = grey[np.isfinite(grey)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        return np.repeat(stretched(grey, low, high)[..., None], 3, axis=2)
    if image.mode != "RGB":
        # A palette with transparency becomes RGBA first: Pillow warns about the direct conversion.
        image = image.convert("RGBA").convert("RGB") if "transparency" in image.info else image.convert("RGB")
    return np.array(image)


def _has_deep_planes(image: Image.Image) -> bool:
    """Whether a TIFF has colours of more than 8 bits in planes, of which Pillow makes noise."""
    tags = getattr(image, "tag_v2", {})
    return image.mode in ("RGB", "RGBA") and tags.get(_PLANAR) == 2 and max(tags.get(_BITS, (8,))) > 8


def has_deep_colours(image: Image.Image) -> bool:
    """Whether an image file, opened and not yet decoded, has colours of 16 bits, which Pillow would cut to 8."""
    return bool(_decoders(image)) and all(name in _LOWER_BYTES for name in _decoders(image))


def deep_as_rgb(upper: np.ndarray, image: Image.Image) -> np.ndarray:
    """Colours of 16 bits as (H, W, 3) uint8: divided by the power of two that leaves 8 bits of the largest value.

    So the 12 bits of a camera look as in its 8-bit images, black stays black, and hues do not change.

    Args:
        upper: (H, W, 3) uint8, the upper bytes: what `pillow_as_rgb` returns.
        image: the same file, opened anew and not yet decoded; `has_deep_colours` is true.
    """
    channels = _LOWER_BYTES[_decoders(image)[0]][1]
    image.tile = [  # type: ignore[attr-defined]
        part._replace(args=_with_decoder(part.args, _LOWER_BYTES[name][0]))
        for name, part in zip(_decoders(image), image.tile, strict=True)  # type: ignore[attr-defined]
    ]
    values = upper.astype(np.uint16) << 8 | pillow_as_rgb(image)[..., channels]
    return (values >> max(0, int(values.max()).bit_length() - 8)).astype(np.uint8)


def _decoders(image: Image.Image) -> list[str]:
    """The names of Pillow's decoders (raw modes) for the parts of an image file."""
    arguments = [part.args for part in getattr(image, "tile", [])]
    return [str(given[0] if isinstance(given, tuple) and given else given) for given in arguments]


def _with_decoder(args: Any, name: str) -> Any:
    return name if isinstance(args, str) else (name, *args[1:])


def stretched(grey: np.ndarray, low: float, high: float) -> np.ndarray:
    """Integers or floats as uint8 of the same shape: `low` becomes 0 and `high` 255; all become 0 if both are equal."""
    values = grey.astype(np.float64)
    values = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    scaled = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.rint(scaled).astype(np.uint8)
