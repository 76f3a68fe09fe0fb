"""Colours of 16 bits, which Pillow cuts to 8."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.errors import ImageError
from maskrcnn.files.images import as_rgb, decode_image, read_image

PNG_KINDS = {2: 4, 3: 2, 4: 6}  # channels -> colour type


def camera(channels: int = 3) -> np.ndarray:
    """(5, 6, channels) uint16 with the 12 bits of a camera. Transparency is that of 16 bits."""
    values = np.random.default_rng(0).integers(0, 4096, (5, 6, channels), dtype=np.uint16)
    values[0, 0, 0] = 4095
    if channels in (2, 4):
        values[..., -1] = 65535
    return values


def write_png(path: Path, values: np.ndarray) -> None:
    """Writes (H, W, C) values of 16 bits, which Pillow cannot write."""
    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, PNG_KINDS[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    content = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    path.write_bytes(content)


def write_tiff(path: Path, values: np.ndarray, order: str = "<", *, packed: bool = False, planar: int = 1) -> None:
    """Writes (H, W, C) values of 16 bits as one strip, or as one for each channel if `planar` is 2."""
    height, width, channels = values.shape
    parts = [values] if planar == 1 else list(values.transpose(2, 0, 1))
    strips = [part.astype(f"{order}u2").tobytes() for part in parts]
    strips = [zlib.compress(strip) for strip in strips] if packed else strips
    count = 11
    place = 8 + 2 + 12 * count + 4
    body, blobs = b"", b""

    def kept(content: bytes) -> int:
        nonlocal blobs
        blobs += content
        return place + len(blobs) - len(content)

    places = [kept(strip) for strip in strips]
    tags = {256: [width], 257: [height], 258: [16] * channels, 259: [8 if packed else 1], 262: [2], 273: places}
    tags |= {277: [channels], 278: [height], 279: list(map(len, strips)), 284: [planar], 338: [2] * (channels - 3)}
    for tag, numbers in tags.items():
        content = struct.pack(f"{order}{len(numbers)}I", *numbers)
        content = content if len(content) <= 4 else struct.pack(f"{order}I", kept(content))
        body += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + content.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, count)
    path.write_bytes(head + body + bytes(4) + blobs)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_a_png_of_a_camera_looks_like_its_8_bits(tmp_path: Path, channels: int) -> None:
    values = camera(channels)
    write_png(tmp_path / "a.png", values)
    expected = (values[..., :3] if channels > 2 else values[..., [0, 0, 0]]) >> 4
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)
    with Image.open(tmp_path / "a.png") as opened:
        np.testing.assert_array_equal(as_rgb(opened), expected)
    data = (tmp_path / "a.png").read_bytes()
    np.testing.assert_array_equal(decode_image(data, "a", ("PNG",), 100), expected)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [3, 4])
def test_a_tiff_of_a_camera_looks_like_its_8_bits(tmp_path: Path, channels: int, order: str, packed: bool) -> None:
    values = camera(channels)
    write_tiff(tmp_path / "a.tif", values, order, packed=packed)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), values[..., :3] >> 4)


@pytest.mark.parametrize(("largest", "shift"), [(65535, 8), (300, 1), (255, 0), (3, 0), (0, 0)])
def test_the_largest_value_says_how_many_bits_are_used(tmp_path: Path, largest: int, shift: int) -> None:
    values = np.full((2, 2, 3), largest // 2, dtype=np.uint16)
    values[0, 0] = largest
    write_png(tmp_path / "a.png", values)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), values >> shift)


@pytest.mark.parametrize("packed", [False, True])
def test_planes_of_16_bits_are_refused(tmp_path: Path, packed: bool) -> None:
    write_tiff(tmp_path / "a.tif", camera(), packed=packed, planar=2)
    with pytest.raises(ImageError, match=r"a\.tif: expected the colours of each pixel side by side"):
        read_image(tmp_path / "a.tif")
