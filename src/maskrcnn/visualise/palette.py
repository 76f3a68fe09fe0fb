"""The colours and the font of all pictures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from PIL import ImageFont

Colour = tuple[int, int, int]

# Consecutive colours differ in hue and lightness. All are visible on dark and on light images.
PALETTE: tuple[Colour, ...] = (
    (255, 77, 109),
    (46, 196, 182),
    (255, 183, 3),
    (67, 97, 238),
    (144, 190, 40),
    (181, 58, 221),
    (251, 133, 0),
    (0, 166, 214),
    (240, 98, 192),
    (35, 140, 74),
    (199, 125, 255),
    (214, 64, 36),
)
INK: Colour = (24, 24, 27)
PAPER: Colour = (255, 255, 255)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which covers many alphabets and comes with matplotlib; `size` in pixels."""
    import matplotlib  # slow to import

    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
