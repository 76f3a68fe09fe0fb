"""Images resized for the network, and sizes of batches."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from maskrcnn.config import Channel, Config, ImageConfig
from maskrcnn.config.conventions import DETECTRON, OURS, PixelRules
from maskrcnn.errors import ImageError
from maskrcnn.ops.resize import resize_image
from maskrcnn.ops.resize_part import nearest_start
from maskrcnn.structures.frame import Frame, frame_of_size, network_frame, pad_size, transform_points
from maskrcnn.structures.images import (
    batch_size_hw,
    collate_images,
    resize_to_network,
    static_input_size,
    stretched,
)
from random_frames import frames

CONFIG = ImageConfig(short_side=800, long_side=1333)
KERNELS = get_args(get_type_hints(PixelRules)["kernel"])
side = st.integers(1, 5000)


def rules(kernel: str) -> PixelRules:
    return PixelRules(kernel=kernel)  # type: ignore[arg-type]


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("kernel", KERNELS)
@given(frames())
def test_pixels_move_as_the_frame_says(kernel: str, frame: Frame) -> None:
    # Colours that are linear in x and y: away from the border every resampling of them is exact.
    height, width = frame.original_hw
    y, x = np.mgrid[0:height, 0:width] + 0.5
    image = np.stack([x * 4, y * 4, np.full_like(x, 99)], axis=-1)
    assert image.max() <= 255
    out = resize_to_network(image.astype(np.uint8), frame, rules(kernel)).permute(1, 2, 0).numpy()
    assert out.shape == (*frame.input_hw, 3)
    v, u = np.mgrid[0 : frame.input_hw[0], 0 : frame.input_hw[1]] + 0.5
    source = transform_points(np.stack([u, v], axis=-1), frame.inverse)
    reach = 1 + np.abs(frame.inverse[:2, :2]).max()  # of the filter, in original pixels
    inner = ((source > reach) & (source < np.array([width, height]) - reach)).all(axis=-1)
    np.testing.assert_allclose(out[inner][:, :2], source[inner] * 4, atol=4.0)
    assert (np.abs(out[inner][:, 2] - 99.0) <= (1 if kernel == "truncated" else 1e-4)).all()
    x1, y1, x2, y2 = frame.window
    outside = np.ones(frame.input_hw, dtype=bool)
    outside[y1:y2, x1:x2] = False
    assert not out[outside].any()


@pytest.mark.parametrize("kernel", [kernel for kernel in KERNELS if kernel != "antialias"])
@given(st.data())
def test_a_window_is_cut_out_of_the_resized_image(kernel: str, data: st.DataObject) -> None:
    image = noise(30, 40)
    frame = frame_of_size((30, 40), (45, 52))
    whole = resize_to_network(image, frame, rules(kernel))
    assert torch.equal(whole, resize_image(torch.from_numpy(image).permute(2, 0, 1), (45, 52), kernel))  # type: ignore[arg-type]
    top, left = data.draw(st.integers(0, 25)), data.draw(st.integers(0, 32))
    part = frame.cropped(left, top, (20, 20))
    expected = whole[:, top : top + 20, left : left + 20]
    assert torch.equal(resize_to_network(image, part, rules(kernel)), expected)
    assert torch.equal(resize_to_network(image, part.flipped_horizontally(), rules(kernel)), expected.flip(2))
    assert torch.equal(resize_to_network(image, part.turned(), rules(kernel)), expected.rot90(-1, (1, 2)))


def test_exact_scale_reaches_the_kernel() -> None:
    image, exact = noise(33, 49), DETECTRON.pixels
    frame = network_frame((33, 49), Config(conventions=DETECTRON))
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    assert torch.equal(
        resize_to_network(image, frame, exact), resize_image(pixels, frame.input_hw, "bilinear", 800 / 33)
    )
    assert not torch.equal(resize_to_network(image, frame, exact), resize_image(pixels, frame.input_hw, "bilinear"))


def test_shrinking_is_antialiased_as_in_pil() -> None:
    image = noise(64, 48)
    out = resize_to_network(image, frame_of_size((64, 48), (16, 12)), rules("antialias")).permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(image).resize((12, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(out.astype(int), expected.astype(int), atol=1)  # both round to 8 bits twice


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_only_the_window_is_resized_and_it_is_what_the_whole_image_would_give(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(20, 90)), data.draw(st.integers(20, 90))
    near = st.integers(-2, 2)  # sides that hardly change are the hard ones
    h = data.draw(st.integers(4, 200) | near.map(lambda d: height + d))
    w = data.draw(st.integers(4, 200) | near.map(lambda d: width + d))
    out_h, out_w = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    top, left = data.draw(st.integers(0, h - out_h)), data.draw(st.integers(0, w - out_w))
    y, x = nearest_start(top, h / height), nearest_start(left, w / width)
    assert 0 <= y <= top < y + 1
    assert 0 <= x <= left < x + 1
    frame = frame_of_size((height, width), (h, w)).cropped(x, y, (out_h, out_w))
    flips = data.draw(st.tuples(st.booleans(), st.booleans()))
    if flips[0]:
        frame = frame.flipped_horizontally()
    if flips[1]:
        frame = frame.flipped_vertically()
    image = noise(height, width, height * width)
    out = resize_to_network(image, frame, rules("antialias")).permute(1, 2, 0).numpy()
    box = x * width / w, y * height / h, min((x + out_w) * width / w, width), min((y + out_h) * height / h, height)
    expected = np.asarray(Image.fromarray(image).resize((out_w, out_h), Image.Resampling.BILINEAR, box=box))
    expected = expected[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
    np.testing.assert_allclose(out.astype(int), expected.astype(int), atol=2)  # both round after each axis


def test_a_window_elsewhere_is_refused() -> None:
    frame = frame_of_size((40, 40), (80, 80)).cropped(3.3, 0, (20, 20))
    with pytest.raises(ValueError, match=r"found 3\.3"):
        resize_to_network(noise(40, 40), frame, rules("antialias"))


def test_what_lies_outside_the_image_is_zero() -> None:
    image = np.full((4, 4, 3), 200, dtype=np.uint8)
    frame = frame_of_size((4, 4), (4, 4))
    out = resize_to_network(image, frame.cropped(-2, -1, (6, 8)), rules("antialias"))
    assert (out[:, 1:5, 2:6] == 200).all()
    assert out.sum() == 200 * 16 * 3
    with pytest.raises(ValueError, match="shows a part of the image"):
        resize_to_network(image, frame.cropped(-20, 0, (6, 8)), rules("antialias"))


def test_a_batch_carries_its_frames() -> None:
    rules = replace(OURS, pixels=PixelRules(letterbox="divisor"))
    config = Config(image=ImageConfig(short_side=64, long_side=96), conventions=rules)
    chosen = [network_frame(size, config) for size in ((30, 60), (70, 40))]
    images = [resize_to_network(noise(*frame.original_hw), frame, rules.pixels) for frame in chosen]
    batch = collate_images(images, chosen, (96, 96))
    assert batch.frames == tuple(chosen)
    assert batch.sizes_hw.tolist() == [list(frame.input_hw) for frame in chosen]
    assert batch.windows.tolist() == [list(frame.window) for frame in chosen]
    for row, image, frame in zip(batch.pixels, images, chosen, strict=True):
        height, width = frame.input_hw
        assert torch.equal(row[:, :height, :width], image)
        assert not row[:, height:].any()
        assert not row[:, :, width:].any()


def test_every_image_of_a_config_fits_one_of_six_sizes() -> None:
    sizes = set()
    config = Config(image=CONFIG)

    @given(side, side)
    def check(height: int, width: int) -> None:
        size = network_frame((height, width), config).input_hw
        static = static_input_size(*size, CONFIG)
        assert all(room >= needed for room, needed in zip(static, size, strict=True))
        assert all(room % CONFIG.divisor == 0 for room in static)
        assert (static[0] > static[1]) == (size[0] > size[1])
        assert batch_size_hw([size], CONFIG, static_shapes=True) == static
        sizes.add(static)

    check()
    for size in ((800, 1066), (800, 1200), (800, 1333), (1066, 800), (1200, 800), (1333, 800)):  # 4:3, 3:2, longer
        sizes.add(static_input_size(*size, CONFIG))
    landscape = {(800, 1088), (800, 1216), (800, 1344)}
    assert sizes == landscape | {(width, height) for height, width in landscape}


def test_sizes_without_bounds_are_padded_as_ever() -> None:
    free = ImageConfig(scale=2.0)
    assert static_input_size(500, 700, free) == pad_size(500, 700, 32)
    assert static_input_size(2000, 900, CONFIG) == pad_size(2000, 900, 32)  # larger than the config makes an image


def test_the_size_of_a_batch() -> None:
    sizes = [(500, 700), (600, 650)]
    assert batch_size_hw(sizes, CONFIG) == (608, 704)
    assert batch_size_hw(sizes, CONFIG, static_shapes=True) == (800, 1088)
    assert batch_size_hw(sizes, replace(CONFIG, fixed_size=(1024, 1024)), static_shapes=True) == (1024, 1024)


@given(
    values=arrays(st.sampled_from(["u1", "i2", "u4", "f4", "f8"]), (3, 4, 2)),
    low=st.floats(-1e6, 1e6),
    span=st.floats(1e-3, 1e6),
)
def test_a_stretch_is_linear_between_its_ends_and_clipped_beyond(values: np.ndarray, low: float, span: float) -> None:
    channels = [Channel("a", "range", low=low, high=low + span), Channel("b", "none")]
    found = stretched(values, channels)
    with np.errstate(over="ignore"):
        exact = np.nan_to_num((values[..., 0].astype(np.float64) - low) / span * 255)
        kept = np.nan_to_num(values[..., 1].astype(np.float64)).clip(-1e38, 1e38).astype(np.float32)
    rounding = 255 * 2.0**-22 * (1 + abs(low) / span)  # of float32
    np.testing.assert_allclose(found[..., 0], exact.clip(0, 255), rtol=0, atol=rounding)
    np.testing.assert_array_equal(found[..., 1], kept)
    assert found.dtype == np.float32


def test_an_rgb_image_is_not_copied_and_anything_else_is_refused() -> None:
    image = noise(4, 5)
    assert stretched(image, ()) is image
    for wrong in (image[..., :2], image.astype(np.float32), image[..., 0]):
        with pytest.raises(ImageError, match=r"expected an image of shape \(H, W, 3\) and dtype uint8, found shape"):
            stretched(wrong, ())
    with pytest.raises(ImageError, match=r"expected an image of shape \(H, W, 1\) and dtype any"):
        stretched(image, [Channel("a", "none")])


@pytest.mark.parametrize("kernel", KERNELS)
def test_float_channels_are_resized_as_grey_images_of_8_bits(kernel: str) -> None:
    image = noise(40, 50)
    five = np.concatenate([image, image[..., :2]], axis=2).astype(np.float32)
    frame = frame_of_size((40, 50), (23, 31))
    found = resize_to_network(five, frame, rules(kernel))
    expected = resize_to_network(image, frame, rules(kernel)).float()
    assert (found.dtype, tuple(found.shape)) == (torch.float32, (5, 23, 31))
    assert torch.equal(found[:2], found[3:])
    assert (found[:3] - expected).abs().max() <= (2 if kernel == "antialias" else 1)
