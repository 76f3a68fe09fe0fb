"""Image files of every common kind, and what is said of those that are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.errors import ImageError
from maskrcnn.files import images
from maskrcnn.files.images import as_rgb, image_files, read_image

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
    for wrong in (two_colours()[..., 0], two_colours().astype(np.float32), two_colours()[:0]):
        with pytest.raises(ImageError, match=r"expected an \(H, W, 3\) uint8 RGB array"):
            as_rgb(wrong)


def test_files_folders_and_globs(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "sub/c.png", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = image_files([tmp_path])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.JPG", "b.png", "sub/c.png"]
    assert image_files([tmp_path / "b.png", str(tmp_path / "*.png")]) == [tmp_path / "b.png"]
    assert image_files([str(tmp_path / "**" / "*.png")]) == [tmp_path / "b.png", tmp_path / "sub" / "c.png"]
    (tmp_path / "none").mkdir()
    for nothing in ("*.gif", "none", "missing.png"):
        with pytest.raises(ImageError, match="expected an image, a folder of images or a glob"):
            image_files([tmp_path / nothing])
