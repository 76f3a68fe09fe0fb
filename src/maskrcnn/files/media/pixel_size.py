"""The size of the pixels of an image, as microscopes and scanners write it into their files."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from maskrcnn.errors import ImageError
from maskrcnn.files.pixels.pillow_errors import QUIET

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # little and big endian, with offsets of 32 and of 64 bits
_BIG = 43  # the version of a TIFF with offsets of 64 bits
_DESCRIPTION, _X_RESOLUTION, _Y_RESOLUTION, _UNIT = 270, 282, 283, 296  # tags
_INCH = 25_400.0
_MICROMETRES = {
    **dict.fromkeys(("µm", "μm", "um", "\\u00b5m", "micron", "microns", "micrometer", "micrometre"), 1.0),
    **{"nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": _INCH, "in": _INCH},
}
_TAGGED = {2: _INCH, 3: 1e4}  # inches and centimetres
_SQUARE = 1e-3  # the largest relative difference of the two sides of a pixel


def pixel_size(path: os.PathLike[str] | str) -> float | None:
    """The side of a pixel in micrometres, from the header of the file.

    A TIFF says it in its OME-XML, in the description of ImageJ or of Aperio, or in its resolution; a PNG in its
    resolution. The resolution of other kinds of images is for printers and no size of a pixel.

    Returns:
        None if the file does not say it, cannot be read, or is no TIFF and no PNG.

    Raises:
        ImageError: the pixels are not square.
    """
    try:
        with open(path, "rb") as file:
            kind = file.read(4)
        with QUIET:
            sides = _of_tiff(path) if kind in _TIFF else _of_png(path) if kind == b"\x89PNG" else None
    except Exception:  # Pillow raises any for a damaged header, about which the reading of the pixels says more
        return None
    if sides is None or not all(side > 0 and math.isfinite(side) for side in sides):
        return None
    width, height = sides
    if abs(width - height) > _SQUARE * width:
        raise ImageError(
            f"{path}: expected square pixels, found {width:g} x {height:g} micrometres; resample the image, or give "
            "one size as a number"
        )
    return width


def _of_png(path: os.PathLike[str] | str) -> tuple[float, float] | None:
    """Width and height of a pixel in micrometres."""
    with Image.open(path, formats=("PNG",)) as image:
        dots = image.info.get("dpi")
    return None if dots is None else (_INCH / dots[0], _INCH / dots[1])


def _of_tiff(path: os.PathLike[str] | str) -> tuple[float, float] | None:
    """Width and height of a pixel in micrometres, from the tags of the first page."""
    with open(path, "rb") as file:
        header = file.read(8)
        if _BIG in header[2:4]:
            header += file.read(8)
        tags = ImageFileDirectory_v2(header)
        file.seek(tags.next)
        tags.load(file)
    text = _text(str(tags.get(_DESCRIPTION, "")))
    if pixels := re.search(r"<(?:\w+:)?Pixels\b[^>]*>", text):
        return _of_ome(dict(re.findall(r'(\w+)="([^"]*)"', pixels[0])))
    if aperio := re.search(r"\bMPP\s*=\s*([\d.]+)", text):
        return float(aperio[1]), float(aperio[1])
    imagej = re.search(r"^unit=(\S+)", text, re.MULTILINE) if text.startswith("ImageJ=") else None
    unit = _MICROMETRES.get(imagej[1].lower()) if imagej else _TAGGED.get(tags.get(_UNIT, 2))
    dots: list[Any] = [tags.get(_X_RESOLUTION), tags.get(_Y_RESOLUTION)]
    return None if unit is None or None in dots else (unit / float(dots[0]), unit / float(dots[1]))


def _text(latin: str) -> str:
    """A description, which Pillow takes for Latin-1, and which OME-XML and others write in UTF-8."""
    try:
        return latin.encode("latin-1").decode()
    except UnicodeError:
        return latin


def _of_ome(told: dict[str, str]) -> tuple[float, float] | None:
    """From the attributes of the element `Pixels` of OME-XML."""
    width, height = told.get("PhysicalSizeX"), told.get("PhysicalSizeY")
    units = [_MICROMETRES.get(told.get(f"PhysicalSize{axis}Unit", "µm").lower()) for axis in "XY"]
    if width is None or height is None or units[0] is None or units[1] is None:
        return None
    return float(width) * units[0], float(height) * units[1]
