"""Pixels of every kind as arrays: their values as they are stored, and as RGB of 8 bits."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from maskrcnn.errors import ImageError

_LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in grey, ITU-R BT.601
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
    raise ImageError(f"expected a path, a PIL image or an (H, W, 3) uint8 RGB array, found {_words(image)}")


def _words(image: object) -> str:
    """The type of an object and, if it has one, its shape."""
    shape, kind = getattr(image, "shape", None), type(image)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    return name if shape is None else f"{name} of shape {tuple(shape)} and dtype {getattr(image, 'dtype', None)}"


def array_with_channels(image: object, channels: Sequence[str]) -> np.ndarray:
    """An array (H, W) or (H, W, C) of numbers for a model of channels, as `with_channels`.

    Raises:
        ImageError: an array of another shape or dtype, or no array.
    """
    if isinstance(image, np.ndarray) and image.dtype.kind in "uif" and image.ndim in (2, 3) and image.size:
        return with_channels(image.reshape(*image.shape[:2], -1), channels)
    raise ImageError(
        f"expected a path, a PIL image or an array (H, W, {len(channels)}) of numbers, found {_words(image)}"
    )


def with_channels(values: np.ndarray, channels: Sequence[str]) -> np.ndarray:
    """Values for a model of channels. Grey values are repeated for a model of three, and colours become grey for a
    model of one by the weights of ITU-R 601, as in Pillow.

    Args:
        values: (H, W, C) numbers.
        channels: the names of the model's channels.

    Raises:
        ImageError: another number of channels.
    """
    found, wanted = values.shape[2], len(channels)
    if found == wanted:
        return values
    if (found, wanted) == (1, 3):
        return np.repeat(values, 3, axis=2)
    if (found, wanted) == (3, 1):
        grey = values.astype(np.float64) @ _LUMA
        return (grey if values.dtype.kind == "f" else np.rint(grey)).astype(values.dtype)[..., None]
    raise ImageError(f"expected the channels {', '.join(channels)}, found {found} channels in place of {wanted}")


def pillow_values(image: Image.Image) -> np.ndarray:
    """The values of a PIL image of any mode, upright as its EXIF orientation says. Transparency is dropped.

    Returns:
        (H, W, 3) uint8 colours, or (H, W, 1) grey of the dtype of the image.

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
        return np.array(image)[..., None]
    if image.mode in ("1", "L", "LA", "La"):
        return np.array(image.convert("L"))[..., None]
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


def deep_values(upper: np.ndarray, image: Image.Image) -> np.ndarray:
    """Colours of 16 bits as (H, W, 3) uint16.

    Args:
        upper: (H, W, 3) uint8, the upper bytes: what `pillow_values` returns, or one channel for all three.
        image: the same file, opened anew and not yet decoded; `has_deep_colours` is true.
    """
    channels = _LOWER_BYTES[_decoders(image)[0]][1]
    image.tile = [  # type: ignore[attr-defined]
        part._replace(args=_with_decoder(part.args, _LOWER_BYTES[name][0]))
        for name, part in zip(_decoders(image), image.tile, strict=True)  # type: ignore[attr-defined]
    ]
    return upper.astype(np.uint16) << 8 | pillow_values(image)[..., channels]


def values_as_rgb(values: np.ndarray) -> np.ndarray:
    """Grey or colour values as (H, W, 3) uint8 RGB.

    Values of 8 bits stay as they are. Colours of 16 bits are divided by the power of two that leaves 8 bits of the
    largest value: so the 12 bits of a camera look as in its 8-bit images, black stays black, and hues do not change.
    All others are scaled from their own smallest and largest finite value to 0..255, because such files rarely use
    their whole range.

    Args:
        values: (H, W, 1) or (H, W, 3) numbers.

    Raises:
        ImageError: another number of channels.
    """
    if values.shape[2] not in (1, 3):
        raise ImageError(
            f"expected a grey or RGB image, found {values.shape[2]} channels; a model for them is trained with "
            "image.channels"
        )
    if values.dtype == np.uint16 and values.shape[2] == 3:
        values = (values >> max(0, int(values.max()).bit_length() - 8)).astype(np.uint8)
    if values.dtype != np.uint8:
        finite = values[np.isfinite(values)]
        values = scaled(values, *((float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)))
    return values if values.shape[2] == 3 else np.repeat(values, 3, axis=2)


def as_picture(values: np.ndarray) -> np.ndarray:
    """Values with any number of channels as (H, W, 3) uint8 RGB for people: the first three channels, or the first of
    two in grey. Each image is scaled by itself, so models never get it.

    Args:
        values: (H, W, C) numbers.
    """
    return values_as_rgb(values if values.shape[2] == 3 else values[..., : 3 if values.shape[2] > 3 else 1])


def _decoders(image: Image.Image) -> list[str]:
    """The names of Pillow's decoders (raw modes) for the parts of an image file."""
    arguments = [part.args for part in getattr(image, "tile", [])]
    return [str(given[0] if isinstance(given, tuple) and given else given) for given in arguments]


def _with_decoder(args: Any, name: str) -> Any:
    return name if isinstance(args, str) else (name, *args[1:])


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Numbers as uint8 of the same shape: `low` becomes 0 and `high` 255; all become 0 if both are equal."""
    values = values.astype(np.float64)
    values = np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high)
    result = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
    return np.rint(result).astype(np.uint8)
