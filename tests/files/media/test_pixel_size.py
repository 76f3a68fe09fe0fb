"""The size of a pixel, as files of microscopes and scanners say it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn.errors import ImageError
from maskrcnn.files.media.pixel_size import pixel_size
from mutations import mutated_bytes

PIXELS = np.zeros((8, 8), np.uint16)
OME = {"axes": "YX", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm"}
DOTS = (1 / 0.325, 1 / 0.325)


def ome(height: float) -> dict[str, Any]:
    return {"ome": True, "metadata": {**OME, "PhysicalSizeY": height, "PhysicalSizeYUnit": "µm"}}


TIFFS: dict[str, tuple[dict[str, Any], float | None]] = {
    "OME-XML": (ome(0.325), 0.325),
    "ImageJ": ({"imagej": True, "resolution": DOTS, "metadata": {"unit": "um"}}, 0.325),
    "ImageJ with its own letter": ({"imagej": True, "resolution": DOTS, "metadata": {"unit": "\\u00B5m"}}, 0.325),
    "ImageJ without a scale": ({"imagej": True, "resolution": (1, 1), "metadata": {"unit": "pixel"}}, None),
    "Aperio": ({"description": "Aperio|AppMag = 20|MPP = 0.4990|x = 1", "metadata": None}, 0.499),
    "centimetres": ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}, 0.5),
    "inches, BigTIFF": ({"resolution": (25_400, 25_400), "resolutionunit": "INCH", "bigtiff": True}, 1.0),
    "big endian": ({"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER", "byteorder": ">"}, 0.5),
    "no unit": ({"resolution": (20_000, 20_000), "resolutionunit": "NONE"}, None),
    "nothing": ({"metadata": None}, None),
}


@pytest.mark.parametrize("kind", TIFFS)
def test_tiffs(tmp_path: Path, kind: str) -> None:
    options, expected = TIFFS[kind]
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **options)
    assert pixel_size(tmp_path / "a.tif") == (None if expected is None else pytest.approx(expected, rel=1e-6))


def test_png_and_other_kinds(tmp_path: Path) -> None:
    picture = Image.new("L", (8, 8))
    for name, options, expected in (
        ("a.png", {"dpi": (50_800, 50_800)}, 0.5),
        ("b.png", {}, None),
        ("a.jpg", {"dpi": (50_800, 50_800)}, None),
    ):
        picture.save(tmp_path / name, **options)
        assert pixel_size(tmp_path / name) == (expected and pytest.approx(expected, rel=1e-4))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    assert pixel_size(tmp_path / "broken.png") is None


def test_pixels_that_are_not_square_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **ome(0.65))
    with pytest.raises(ImageError, match=r"a\.tif: expected square pixels, found 0\.325 x 0\.65 micro"):
        pixel_size(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["OME-XML", "ImageJ", "inches, BigTIFF"])
def test_damaged_headers_say_nothing_or_a_size(tmp_path: Path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, **TIFFS[kind][0])
    whole = (tmp_path / "a.tif").read_bytes()
    for seed in range(100):
        (tmp_path / "b.tif").write_bytes(mutated_bytes(whole, random.Random(seed)))
        try:
            size = pixel_size(tmp_path / "b.tif")
        except ImageError:
            continue
        assert size is None or size > 0
