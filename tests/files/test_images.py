"""Image files of every common kind, and what is said of those that are none."""

from __future__ import annotations

import base64
import json
import struct
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from maskrcnn.errors import ImageError, ImageKindError, ImageSizeError
from maskrcnn.files import images
from maskrcnn.files.images import as_rgb, decode_image, image_files, image_size, picture_name, read_image, read_values

RED, GREEN = (255, 0, 0), (0, 255, 0)


def two_colours() -> np.ndarray:
    """(4, 6, 3): left half red, right half green."""
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    image[:, :3], image[:, 3:] = RED, GREEN
    return image


def test_png_and_bmp_keep_every_pixel(tmp_path: Path) -> None:
    for suffix in ("png", "bmp", "tif", "ppm"):
        Image.fromarray(two_colours()).save(tmp_path / f"a.{suffix}")
        image = read_image(tmp_path / f"a.{suffix}")
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, two_colours())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path), upright)


def test_grey_palette_alpha_one_bit_and_cmyk_become_rgb(tmp_path: Path) -> None:
    image = Image.fromarray(two_colours())
    grey = np.array(image.convert("L"))
    image.convert("L").save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.stack([grey] * 3, axis=-1))
    image.convert("P").save(tmp_path / "palette.png")
    image.convert("P").save(tmp_path / "see_through.png", transparency=0)
    image.convert("RGBA").save(tmp_path / "rgba.png")
    image.save(tmp_path / "first.gif", save_all=True, append_images=[Image.new("RGB", (6, 4))])
    for name in ("palette.png", "see_through.png", "rgba.png", "first.gif"):
        np.testing.assert_array_equal(read_image(tmp_path / name), two_colours(), err_msg=name)
    Image.fromarray(grey).convert("1", dither=Image.Dither.NONE).save(tmp_path / "one_bit.png")
    assert set(np.unique(read_image(tmp_path / "one_bit.png"))) == {0, 255}
    Image.new("CMYK", (6, 4), (0, 0, 0, 0)).save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").min() > 250


@pytest.mark.parametrize("kind", ["uint16", "int32", "float32"])
def test_deep_grey_images_are_stretched_to_what_can_be_seen(tmp_path: Path, kind: str) -> None:
    values = np.linspace(100, 4195, 24).reshape(4, 6).astype(kind)
    path = tmp_path / ("a.png" if kind == "uint16" else "a.tif")
    Image.fromarray(values).save(path)
    image = read_image(path)
    assert image.shape == (4, 6, 3)
    assert (image.min(), image.max()) == (0, 255)
    assert (np.diff(image[..., 0].reshape(-1).astype(int)) > 0).all()
    Image.fromarray(np.full((4, 6), 9, dtype=kind)).save(path)
    assert (read_image(path) == 0).all()


def test_files_that_are_no_images_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    for name, words in {
        "none.png": "no such file",
        ".": "a folder",
        "empty.png": "an empty file",
        "text.jpg": "a file of another kind",
        "cut.jpg": "truncated",
    }.items():
        with pytest.raises(ImageError, match=words) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    with pytest.raises(ImageError, match="64 x 64 pixels are more than the limit of 1000"):
        read_image(tmp_path / "whole.jpg")


def test_the_older_path_of_read_image() -> None:
    from maskrcnn.structures import image_file

    assert image_file.read_image is read_image


def test_arrays_and_pil_images_are_taken_as_they_are() -> None:
    np.testing.assert_array_equal(as_rgb(two_colours()), two_colours())
    np.testing.assert_array_equal(as_rgb(Image.fromarray(two_colours())), two_colours())
    assert as_rgb(two_colours()[:, ::-1]).flags["C_CONTIGUOUS"]
    unchangeable = two_colours()
    unchangeable.flags.writeable = False
    assert as_rgb(unchangeable).flags["WRITEABLE"]
    grey = two_colours()[..., 0]
    for array in (grey, grey[..., None], np.stack([grey, 255 - grey], axis=-1)):
        np.testing.assert_array_equal(as_rgb(array), np.stack([grey] * 3, axis=-1))
    np.testing.assert_array_equal(as_rgb(np.dstack([two_colours(), grey])), two_colours())


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (two_colours().astype(np.float32), r"numpy.ndarray of shape \(4, 6, 3\) and dtype float32"),
        (two_colours().astype(np.uint16), "dtype uint16"),
        (two_colours()[:0], r"of shape \(0, 6, 3\)"),
        (two_colours().transpose(2, 0, 1), r"of shape \(3, 4, 6\)"),
        (torch.zeros(3, 4, 6), r"torch.Tensor of shape \(3, 4, 6\) and dtype torch.float32"),
        (None, "found NoneType"),
        (b"a.png", "found bytes"),
    ],
)
def test_what_is_no_image_is_named_by_its_kind(wrong: object, found: str) -> None:
    with pytest.raises(ImageError, match=r"expected a path, a PIL image or an \(H, W, 3\) uint8 RGB array.*" + found):
        as_rgb(wrong)


@pytest.mark.parametrize(
    "error",
    [
        struct.error("unpack"),
        SyntaxError("a\nb"),
        OverflowError(),
        ZeroDivisionError(),
        RecursionError(),
        MemoryError(),
    ],
)
def test_whatever_pillow_raises_is_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(image: Image.Image) -> Image.Image:
        raise error

    Image.fromarray(two_colours()).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageOps, "exif_transpose", broken)
    for given in (lambda: read_image(tmp_path / "a.png"), lambda: as_rgb(Image.open(tmp_path / "a.png"))):
        with pytest.raises(
            ImageError, match=rf"a\.png: the image cannot be decoded \({type(error).__name__}"
        ) as caught:
            given()
        assert "\n" not in str(caught.value)


def test_an_exif_block_that_pillow_cannot_write_anew(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    Image.fromarray(two_colours()).save(tmp_path / "a.jpg", exif=exif)
    content = (tmp_path / "a.jpg").read_bytes()
    # The description becomes a number by its tag, and stays a text by its type.
    (tmp_path / "a.jpg").write_bytes(content.replace(b"\x01\x0e\x00\x02", b"\x01\x06\x00\x02", 1))
    with pytest.raises(ImageError, match="cannot be decoded"):
        read_image(tmp_path / "a.jpg")


def test_pages_after_the_first_are_said(tmp_path: Path) -> None:
    first, second = Image.fromarray(two_colours()), Image.new("RGB", (6, 4))
    remarks: list[str] = []
    for name in ("a.tif", "a.gif", "a.webp"):
        first.save(tmp_path / name, save_all=True, append_images=[second], lossless=True)
        np.testing.assert_array_equal(read_image(tmp_path / name, remarks.append), two_colours())
        assert remarks.pop() == (
            f"{tmp_path / name}: only the first of 2 pages is read; save the others as files of their own"
        )
    first.save(tmp_path / "one.tif")
    first.save(tmp_path / "preview.mpo", save_all=True, append_images=[second])
    for name in ("one.tif", "preview.mpo"):
        read_image(tmp_path / name, remarks.append)
    assert remarks == []


def test_readers_in_threads_leave_the_filters_of_warnings_as_they_were(tmp_path: Path) -> None:
    Image.fromarray(two_colours()).save(tmp_path / "a.png")
    before = list(warnings.filters)
    start = threading.Barrier(4)

    def read(number: int) -> None:
        start.wait()
        for _ in range(50):
            read_image(tmp_path / "a.png")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
    assert list(warnings.filters) == before


def test_names_of_pictures_fit_any_file_system(tmp_path: Path) -> None:
    for stem in ("a" * 250, "\N{SNOWMAN}" * 80, "\ud83d" * 80, "photo[1]"):
        name = picture_name(7, Path(f"{stem}.jpg"))
        assert name.startswith("000007_")
        assert len(name.encode()) <= 120
        (tmp_path / name).touch()
    assert picture_name(12, Path("x/photo[1].jpg")) == "000012_photo[1].png"


def test_names_that_are_no_paths_are_missing_files() -> None:
    for name in ("a" * 5000, "\ud83d.png", "a\0b"):
        with pytest.raises(ImageError, match="no such file"):
            read_image(name)


def test_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = image_files([tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.JPG", "b.png", "sub/c.png"]
    assert image_files([tmp_path / "b.png", str(tmp_path / "*.png")]) == [tmp_path / "b.png"]
    assert image_files([str(tmp_path / "**" / "*.png")]) == [tmp_path / "b.png", tmp_path / "sub" / "c.png"]
    (tmp_path / "none").mkdir()
    for nothing in ("*.gif", "none", "missing.png", "a" * 5000):
        with pytest.raises(ImageError, match="expected an image, a folder of images or a glob"):
            image_files([tmp_path / nothing])


def test_folders_list_every_kind_of_image_and_links_without_a_file(tmp_path: Path) -> None:
    names = ["a.jfif", "b.JPE", "c.jp2", "d.avif", "e.heic", "f[1].png", "g.tga"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "h.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "i.png").mkdir()
    found = image_files([tmp_path])
    assert [path.name for path in found] == [*names, "h.png"]
    with pytest.raises(ImageError, match="a link to no file"):
        read_image(found[-1])
    assert image_files([tmp_path / "f[1].png"]) == [tmp_path / "f[1].png"]


def test_newer_kinds_are_read(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (200, 40, 40))
    for name, kind in (("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.jp2", "JPEG2000"), ("a.avif", "AVIF")):
        image.save(tmp_path / name, kind)
        assert np.abs(read_image(tmp_path / name).astype(int) - (200, 40, 40)).max() <= 4


def test_bytes_are_decoded_as_files_are(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    assert np.array_equal(decode_image(file.read_bytes(), "a", ("PNG",), 20), pixels)
    with pytest.raises(ImageKindError, match="a: expected an image"):
        decode_image(file.read_bytes(), "a", ("JPEG",), 20)
    with pytest.raises(ImageSizeError, match="a: 5 x 4 pixels are more than the limit of 19"):
        decode_image(file.read_bytes(), "a", ("PNG",), 19)
    with pytest.raises(ImageError, match="a: the image cannot be decoded"):
        decode_image(file.read_bytes()[:60], "a", ("PNG",), 20)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sizes_are_those_of_the_upright_image(tmp_path: Path, name: str) -> None:
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.new("RGB", (5, 3)).save(tmp_path / name, exif=exif)
        assert image_size(tmp_path / name) == read_image(tmp_path / name).shape[:2]
    with pytest.raises(ImageError, match="no such file"):
        image_size(tmp_path / "none.png")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_values_are_read_as_they_are_stored(tmp_path: Path, dtype: str) -> None:
    values = np.array([[0, 1, 250], [7, 7, 3]], dtype=dtype)
    path = tmp_path / "a.tif"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_values(path, "a"), values)
    np.testing.assert_array_equal(read_values(path.read_bytes(), "a"), values)
    with pytest.raises(ImageError, match="mask: 3 x 2 pixels are more than the limit of 5"):
        read_values(path.read_bytes(), "mask", most_pixels=5)


def test_a_json_stands_for_the_image_inside_it(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"imageData": base64.b64encode((tmp_path / "a.png").read_bytes()).decode()}))
    np.testing.assert_array_equal(read_image(path), pixels)
    assert image_size(path) == (2, 4)
    for content in ("{}", "[]", '{"imageData": null}', '{"imageData": "%"}', "{"):
        path.write_text(content)
        with pytest.raises(ImageError, match="expected an image, found a JSON without imageData in base64"):
            read_image(path)
    path.write_text('{"imageData": "AAAA"}')
    with pytest.raises(ImageError, match="found a file of another kind"):
        read_image(path)
