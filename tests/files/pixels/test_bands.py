"""Files with any number of channels: TIFFs of every layout, and arrays."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from maskrcnn.errors import ImageError, ImageSizeError, MissingPackageError
from maskrcnn.files import images
from maskrcnn.files.images import (
    as_channels,
    as_rgb,
    count_channels,
    decode_image,
    image_size,
    read_image,
    read_picture,
)

tifffile = pytest.importorskip("tifffile")
NAMES = ("a", "b", "c", "d", "e")
VALUES = np.random.default_rng(0).integers(0, 4000, (6, 8, 5)).astype(np.uint16)
PLANES = VALUES.transpose(2, 0, 1)
SIDE_BY_SIDE: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig"}
HYPERSTACK = np.stack([[PLANES, PLANES + 1], [PLANES + 2, PLANES + 3]])


@pytest.mark.parametrize(
    ("stored", "layout"),
    [
        (VALUES, SIDE_BY_SIDE),
        (VALUES, {**SIDE_BY_SIDE, "byteorder": ">"}),
        (VALUES, {**SIDE_BY_SIDE, "compression": "lzw", "tile": (16, 16)}),
        (VALUES, {**SIDE_BY_SIDE, "compression": "zlib", "predictor": True}),
        (PLANES, {"photometric": "minisblack", "planarconfig": "separate"}),
        (PLANES, {"imagej": True, "metadata": {"axes": "CYX"}}),
        (PLANES, {"ome": True, "metadata": {"axes": "CYX"}}),
        (HYPERSTACK, {"imagej": True, "metadata": {"axes": "TZCYX"}}),
    ],
)
def test_every_layout_of_channels_is_read_as_it_is_stored(tmp_path: Path, stored: np.ndarray, layout: Any) -> None:
    path, notes = tmp_path / "a.tif", []
    tifffile.imwrite(path, stored, **layout)
    assert (count_channels(path), image_size(path)) == (5, (6, 8))
    found = read_image(path, notes.append, NAMES)
    np.testing.assert_array_equal(found, VALUES)
    assert found.dtype == VALUES.dtype
    assert len(notes) == (stored is HYPERSTACK)
    assert read_picture(path).shape == (6, 8, 3)
    if "photometric" in layout:
        with pytest.raises(ImageError, match=r"a\.tif: expected a grey or RGB image, found 5 channels"):
            read_image(path)
        np.testing.assert_array_equal(decode_image(path.read_bytes(), "a", ("TIFF",), 48, NAMES), VALUES)
    with pytest.raises(ImageError, match=r"a\.tif: expected the channels a, b, found 5 channels in place of 2"):
        read_image(path, channels=NAMES[:2])


def test_pages_are_channels_only_if_so_many_are_asked_for(tmp_path: Path) -> None:
    path, notes = tmp_path / "a.tif", []
    tifffile.imwrite(path, PLANES)
    assert count_channels(path) == 3  # grey
    np.testing.assert_array_equal(read_image(path, notes.append, NAMES), VALUES)
    assert not notes
    np.testing.assert_array_equal(read_image(path, notes.append, ("thermal",)), VALUES[..., :1])
    assert "only the first of 5 pages is read" in notes[0]


def test_the_inks_of_print_are_read_as_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 6), (10, 20, 30, 40)).save(tmp_path / "a.tif")
    assert count_channels(tmp_path / "a.tif") == read_image(tmp_path / "a.tif").shape[2] == 3


def test_transparency_of_8_bits_is_no_channel_unless_it_is_asked_for(tmp_path: Path) -> None:
    path, four = tmp_path / "a.tif", VALUES[..., :4]
    tifffile.imwrite(path, four.astype(np.uint8))  # marks the fourth as transparency
    assert count_channels(path) == 3
    np.testing.assert_array_equal(read_image(path), four[..., :3].astype(np.uint8))
    np.testing.assert_array_equal(read_image(path, channels=NAMES[:3]), four[..., :3].astype(np.uint8))
    np.testing.assert_array_equal(read_image(path, channels=NAMES[:4]), four.astype(np.uint8))
    tifffile.imwrite(path, four)
    assert count_channels(path) == 4
    np.testing.assert_array_equal(read_image(path, channels=NAMES[:4]), four)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_tiffs_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES, extratags=[(274, "H", 1, orientation, True)], **SIDE_BY_SIDE)
    stored = Image.fromarray(VALUES[..., 0].astype(np.int32))
    stored.getexif()[0x0112] = orientation
    expected = np.array(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(read_image(path, channels=NAMES)[..., 0], expected)
    assert image_size(path) == expected.shape


def test_arrays_in_files(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, VALUES.astype(">f4"))
    assert (count_channels(path), image_size(path)) == (5, (6, 8))
    found = read_image(path, channels=NAMES)
    assert found.dtype == np.float32
    found[0, 0, 0] = 1  # writeable
    np.save(path, VALUES[..., :3].astype(np.uint8))
    np.testing.assert_array_equal(read_image(path), VALUES[..., :3].astype(np.uint8))
    for wrong in (np.zeros(4), np.array([[{}]], dtype=object), np.zeros((4, 4), dtype=complex)):
        np.save(path, wrong, allow_pickle=True)
        with pytest.raises(ImageError, match=r"a\.npy: "):
            read_image(path, channels=NAMES)
    with pytest.raises(ImageError):  # a server takes no such files
        decode_image(path.read_bytes(), "a", ("TIFF",), 48, NAMES)


def test_nothing_is_decoded_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VALUES, **SIDE_BY_SIDE)
    monkeypatch.setattr(images, "MOST_PIXELS", 29)  # of 16 bytes; the image has 48 of 10
    with pytest.raises(ImageSizeError, match="8 x 6 pixels of 10 bytes are more than the limit of 29 pixels"):
        read_image(path, channels=NAMES)
    path.write_bytes(path.read_bytes()[:100])
    for channels in ((), NAMES):
        with pytest.raises(ImageError, match=r"a\.tif: the image cannot be decoded"):
            read_image(path, channels=channels)


@pytest.mark.parametrize("layout", [SIDE_BY_SIDE, {**SIDE_BY_SIDE, "compression": "zlib"}, {"imagej": True}])
def test_changed_files_end_in_an_image_or_one_error(
    tmp_path: Path, layout: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 10_000)
    path, rng = tmp_path / "a.tif", np.random.default_rng(0)
    tifffile.imwrite(path, PLANES if "imagej" in layout else VALUES, **layout)
    whole = path.read_bytes()
    for _ in range(40):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 4):
            content[place] = rng.choice([0, 1, 127, 255])
        path.write_bytes(content)
        for read in (lambda: read_image(path, channels=NAMES), lambda: read_picture(path), lambda: image_size(path)):
            with suppress(ImageError):
                read()
    assert capsys.readouterr() == ("", "")


def test_missing_packages_are_named_with_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, grey = tmp_path / "a.tif", tmp_path / "grey.tif"
    tifffile.imwrite(path, VALUES, compression="zlib", **SIDE_BY_SIDE)
    for package in ("imagecodecs", "tifffile"):
        monkeypatch.setattr(
            "maskrcnn.files.pixels.bands.find_spec", lambda name, lacking=package: name != lacking or None
        )
        with pytest.raises(MissingPackageError, match=rf"needs {package}: pip install 'maskrcnn\[tiff\]'"):
            read_image(path, channels=NAMES)
        tifffile.imwrite(grey, VALUES[..., 0], compression="zlib")
        assert count_channels(grey) == 3
        assert read_image(grey).shape == (6, 8, 3)


def test_grey_and_colours_for_models_of_channels(tmp_path: Path) -> None:
    colours = np.full((2, 2, 3), (100, 50, 200), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "a.png")
    for image in (Image.fromarray(colours), colours, Image.open(tmp_path / "a.png")):
        np.testing.assert_array_equal(as_channels(image, ("grey",)), np.full((2, 2, 1), 82))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels=("grey",)), np.full((2, 2, 1), 82))
    grey = Image.fromarray(np.full((2, 2), 7000, dtype=np.uint16))
    np.testing.assert_array_equal(as_channels(grey, ("r", "g", "b")), np.full((2, 2, 3), 7000))
    np.testing.assert_array_equal(as_channels(np.full((2, 2), 0.5), ("grey",)), np.full((2, 2, 1), 0.5))
    for wrong in (None, np.zeros(3), np.zeros((2, 2, 1), dtype=bool), np.zeros((0, 2))):
        with pytest.raises(ImageError, match=r"expected a path, a PIL image or an array \(H, W, 1\) of numbers"):
            as_channels(wrong, ("grey",))


def test_every_listed_kind_of_image_becomes_rgb(tmp_path: Path) -> None:
    grey = np.tile(np.arange(8, dtype=np.uint8) * 32, (6, 1))
    colours = np.stack([grey, grey[::-1], 255 - grey], axis=-1)
    image = Image.fromarray(colours)
    for name in ("a.png", "a.bmp", "a.tif"):
        image.save(tmp_path / name)
    image.save(tmp_path / "a.webp", lossless=True)
    image.save(tmp_path / "pages.tif", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    tifffile.imwrite(tmp_path / "float.tif", (colours / 255).astype(np.float32), photometric="rgb")
    tifffile.imwrite(tmp_path / "deep.tif", colours.astype(np.uint16) << 8, photometric="rgb")
    for path in sorted(tmp_path.iterdir()):
        expected = np.rint(colours * (255 / colours.max())) if path.stem == "float" else colours
        np.testing.assert_array_equal(read_image(path), expected, err_msg=path.name)
    image.save(tmp_path / "a.jpg", quality=100, subsampling=0)
    image.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", (8, 6))])
    for name in ("a.jpg", "a.gif"):
        assert np.abs(read_image(tmp_path / name).astype(int) - colours).max() < 6, name
    np.testing.assert_array_equal(as_rgb(image), colours)
