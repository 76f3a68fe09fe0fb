"""Image files of many formats and modes, for tests that change them."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
from PIL import Image


@cache
def encoded_pictures() -> list[bytes]:
    """Small images of many formats and modes."""
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 4000, (20, 30), dtype=np.uint16))
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((colour, kind, {}) for kind in ("PNG", "JPEG", "BMP", "TIFF", "GIF", "WEBP", "PPM", "JPEG2000", "TGA")),
        *((colour.convert("CMYK"), kind, {}) for kind in ("JPEG", "TIFF")),
        (colour.convert("P"), "PNG", {"transparency": 3}),
        (colour.convert("1"), "TIFF", {"compression": "group4"}),
        (colour.convert("RGBA"), "TIFF", {"compression": "tiff_lzw"}),
        (deep, "PNG", {}),
        (deep, "TIFF", {}),
        (colour, "TIFF", {"save_all": True, "append_images": [colour]}),
        (colour, "JPEG", {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"}),
    ]
    files = []
    for image, kind, options in kinds:
        file = io.BytesIO()
        image.save(file, kind, **options)
        files.append(file.getvalue())
    return files
