"""Parts of images are those of the whole image, for every kind of TIFF."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from maskrcnn.errors import ImageError, MissingPackageError
from maskrcnn.files import images
from maskrcnn.files.images import read_image
from maskrcnn.files.media import windows
from maskrcnn.files.media.windows import TiffPixels, open_pixels

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (90, 130, 3), dtype=np.uint8)
GREY = RGB[..., 0]

IN_PARTS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "tiles": (RGB, {"tile": (32, 48), "photometric": "rgb"}),
    "strips": (RGB, {"rowsperstrip": 7, "photometric": "rgb", "compression": "zlib", "predictor": True}),
    "planes": (RGB.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}),
    "big": (RGB, {"bigtiff": True, "photometric": "rgb"}),
    "big endian": (RGB, {"byteorder": ">", "photometric": "rgb"}),
    "transparent": (np.dstack([RGB, GREY]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "grey": (GREY, {"tile": (64, 64)}),
    "grey of 16 bits": (GREY.astype(np.uint16) * 5 + 300, {"tile": (64, 64)}),
    "grey floats": (np.where(GREY > 250, np.nan, GREY / 7).astype(np.float32), {}),
    "colours of 12 bits": (RGB.astype(np.uint16) * 16, {"photometric": "rgb"}),
}


@pytest.mark.parametrize("kind", IN_PARTS)
def test_parts_of_a_tiff_stay_on_disk(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, options = IN_PARTS[kind]
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, values, **options)
    whole = read_image(path)
    monkeypatch.setattr(windows, "read_image", None)
    found = open_pixels(path)
    assert isinstance(found, TiffPixels)
    assert found.shape == whole.shape
    for rows, columns in (
        (slice(0, 90), slice(0, 130)),
        (slice(31, 70), slice(60, 61)),
        (slice(89, 90), slice(3, 130)),
    ):
        part = found[rows, columns]
        assert part.flags.c_contiguous
        np.testing.assert_array_equal(part, whole[rows, columns])


def test_threads_read_parts_at_once_and_decode_shared_blocks_once(tmp_path: Path) -> None:
    large = np.tile(RGB, (8, 8, 1))
    tifffile.imwrite(tmp_path / "a.tif", large, rowsperstrip=240, photometric="rgb", compression="zlib")
    found = open_pixels(tmp_path / "a.tif")
    assert isinstance(found, TiffPixels)
    corners = [(y, x) for y in range(0, 700, 50) for x in range(0, 1000, 50)]
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda corner: found[corner[0] : corner[0] + 20, corner[1] : corner[1] + 40], corners))
    for (y, x), part in zip(corners, parts, strict=True):
        np.testing.assert_array_equal(part, large[y : y + 20, x : x + 40])
    assert 1 <= len(found.idle) <= 4


def test_a_pyramid_is_read_at_its_finest_level(tmp_path: Path) -> None:
    remarks: list[str] = []
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB, tile=(32, 32), photometric="rgb", subifds=1)
        file.write(RGB[::2, ::2], tile=(32, 32), photometric="rgb", subfiletype=1)
    found = open_pixels(tmp_path / "a.tif", remarks.append)
    np.testing.assert_array_equal(found[0:90, 0:130], RGB)
    with tifffile.TiffWriter(tmp_path / "b.tif") as file:
        file.write(RGB, tile=(32, 32), photometric="rgb")
        file.write(RGB[::2, ::2], tile=(32, 32), photometric="rgb", subfiletype=1)
    np.testing.assert_array_equal(open_pixels(tmp_path / "b.tif", remarks.append)[0:90, 0:130], RGB)
    assert remarks == []


def test_a_relative_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    tifffile.imwrite("zip:a.tif", pixels, tile=(16, 16), photometric="rgb")
    opened = open_pixels("zip:a.tif")
    assert not isinstance(opened, np.ndarray)
    assert np.array_equal(opened[3:20, 5:30], pixels[3:20, 5:30])


def test_rare_kinds_are_decoded_whole(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "white.tif", GREY, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "bits.tif", GREY > 99)
    Image.fromarray(RGB).quantize(16).save(tmp_path / "palette.tif")
    turned = Image.fromarray(RGB)
    turned.getexif()[274] = 6
    turned.save(tmp_path / "turned.tif", exif=turned.getexif())
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for path in tmp_path.iterdir():
        found = open_pixels(path)
        assert isinstance(found, np.ndarray), path
        np.testing.assert_array_equal(found, read_image(path))


def test_further_pages_are_said(tmp_path: Path) -> None:
    remarks: list[str] = []
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GREY, GREY]), photometric="minisblack")
    open_pixels(tmp_path / "a.tif", remarks.append)
    assert len(remarks) == 1
    assert "only the first of 2 pages is read" in remarks[0]


def test_broken_files_are_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, tile=(32, 32), photometric="rgb", compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "head.tif").write_bytes(content[:12])
    (tmp_path / "cut.tif").write_bytes(content[:-2000])
    (tmp_path / "empty.tif").write_bytes(b"")
    for name in ("head.tif", "empty.tif", "none.tif"):
        with pytest.raises(ImageError, match=name):
            open_pixels(tmp_path / name)
    with pytest.raises(ImageError, match=r"cut.tif: the image cannot be decoded"):
        open_pixels(tmp_path / "cut.tif")[0:90, 0:130]


def test_without_rasterio_only_large_images_need_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    np.testing.assert_array_equal(open_pixels(tmp_path / "a.tif")[0:90, 0:130], RGB)
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    with pytest.raises(MissingPackageError, match=r"a.tif: a TIFF of this size needs rasterio.*maskrcnn\[tiles\]"):
        open_pixels(tmp_path / "a.tif")


def test_parts_of_channels_are_as_they_are_stored(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    values = np.random.default_rng(0).integers(0, 4000, (70, 50, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig", tile=(16, 16))
    pixels = open_pixels(tmp_path / "a.tif", channels=tuple("abcde"))
    assert not isinstance(pixels, np.ndarray)
    assert pixels.shape == (70, 50, 5)
    np.testing.assert_array_equal(pixels[10:60, 5:40], values[10:60, 5:40])
    with pytest.raises(ImageError, match=r"a\.tif: expected the channels a, b, found 5 channels in place of 2"):
        open_pixels(tmp_path / "a.tif", channels=("a", "b"))
