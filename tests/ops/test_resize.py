"""Sizes of resized images and the two resampling kernels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from maskrcnn.ops.resize import network_size, resize_image

heights = st.integers(1, 3000)


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Noise over a slope: shows aliasing and shifts."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(0, 155, height)[:, None, None] * np.linspace(1, 0.3, width)[None, :, None]
    return torch.from_numpy((slope + rng.integers(0, 100, (height, width, 3))).astype(np.uint8)).permute(2, 0, 1)


@given(st.integers(20, 900), st.integers(20, 900), st.sampled_from([(800, 1333), (320, 533), (100, 400), (600, 600)]))
def test_floor_is_torchvisions_size(height: int, width: int, sides: tuple[int, int]) -> None:
    transform = GeneralizedRCNNTransform(sides[0], sides[1], [0.0], [1.0]).eval()
    resized, _ = transform.resize(torch.zeros(1, height, width))
    found = network_size(height, width, short_side=sides[0], long_side=sides[1], rounding="floor")
    assert found == tuple(resized.shape[1:])


@given(heights, heights, st.sampled_from([(800, 1333), (160, 224)]))
def test_round_is_half_up_of_the_exact_product(height: int, width: int, sides: tuple[int, int]) -> None:
    found = network_size(height, width, short_side=sides[0], long_side=sides[1])
    # Detectron2's ResizeShortestEdge in its own order: short side first, then the cap.
    scale = sides[0] / min(height, width)
    new_h, new_w = (sides[0], scale * width) if height < width else (scale * height, sides[0])
    if max(new_h, new_w) > sides[1]:
        factor = sides[1] / max(new_h, new_w)
        new_h, new_w = new_h * factor, new_w * factor
    expected = max(1, int(new_h + 0.5)), max(1, int(new_w + 0.5))
    # Its products are taken in another order: where one lies on a half, the last digit may decide.
    for a, b, exact in zip(found, expected, (new_h, new_w), strict=True):
        assert a == b or (abs(a - b) == 1 and abs(exact % 1 - 0.5) < 1e-6)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((480, 640), (800, 1067)), ((640, 480), (1067, 800)), ((427, 640), (800, 1199)), ((100, 1000), (133, 1333))],
)
def test_sizes_of_the_paper(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert network_size(*size, short_side=800, long_side=1333) == expected


@given(heights, heights, st.floats(0.01, 8))
def test_a_scale_is_the_same_for_all_and_capped(height: int, width: int, scale: float) -> None:
    found = network_size(height, width, short_side=800, long_side=1333, scale=scale)
    assert max(found) <= 1333
    assert min(found) >= 1
    if max(height, width) * scale <= 1333:
        assert found == (max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5)))


@given(heights, heights, st.sampled_from(["round", "floor"]))
def test_a_fixed_size_holds_the_image_and_one_side_fills_it(height: int, width: int, rounding: str) -> None:
    found = network_size(height, width, short_side=800, long_side=1333, fixed_size=(256, 512), rounding=rounding)  # type: ignore[arg-type]
    assert found[0] <= 256
    assert found[1] <= 512
    assert found[0] >= 255 or found[1] >= 511


@pytest.mark.parametrize("size", [(20, 31), (64, 40), (97, 150), (51, 77)])
def test_antialias_is_pils_within_a_grey_level(size: tuple[int, int]) -> None:
    source = image(60, 90)
    found = resize_image(source, size, "antialias")
    assert found.dtype == torch.uint8
    assert found.shape == (3, *size)
    pil = Image.fromarray(source.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
    difference = found.permute(1, 2, 0).numpy().astype(int) - np.asarray(pil).astype(int)
    assert np.abs(difference).max() <= 1


def test_antialias_does_not_alias() -> None:
    stripes = torch.zeros(3, 40, 40, dtype=torch.uint8)
    stripes[:, :, ::2] = 255
    small = resize_image(stripes, (10, 10), "antialias").float()
    assert (small - 127.5).abs().max() < 20
    assert resize_image(stripes, (40, 40), "antialias").equal(stripes)


@pytest.mark.parametrize("size", [(20, 31), (97, 150), (60, 90)])
def test_bilinear_is_interpolate_in_float(size: tuple[int, int]) -> None:
    source = image(60, 90)
    found = resize_image(source, size, "bilinear")
    assert found.dtype == torch.float32
    expected = F.interpolate(source[None].float(), size=size, mode="bilinear", align_corners=False)[0]
    assert torch.equal(found, expected)
    assert found.max() <= 255


@pytest.mark.parametrize("kernel", ["antialias", "bilinear"])
def test_a_view_in_another_order_gives_the_same(kernel: str) -> None:
    """Images come as (H, W, 3) arrays seen as (3, H, W)."""
    view = image(30, 50)
    assert not view.is_contiguous()
    a = resize_image(view, (45, 33), kernel)  # type: ignore[arg-type]
    b = resize_image(view.contiguous(), (45, 33), kernel)  # type: ignore[arg-type]
    assert (a.float() - b.float()).abs().max() <= 1


@pytest.mark.parametrize("size", [(31, 47), (100, 61), (213, 385), (64, 64)])
def test_pil_is_pil_to_the_grey_level(size: tuple[int, int]) -> None:
    """Detectron2's resize: PIL's own rounding, in memory of either order."""
    picture = image(64, 64, seed=3)
    expected = np.array(Image.fromarray(picture.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR))
    for stored in (picture, picture.contiguous()):
        found = resize_image(stored, size, "pil")
        assert found.dtype == torch.uint8
        assert torch.equal(found.permute(1, 2, 0), torch.from_numpy(expected))


def truncated(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(3, H, W) uint8 by loops: the four nearest pixels, zeros around the image, fractions cut off."""
    padded = np.pad(image.astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    result = np.zeros((3, *size))
    for row in range(size[0]):
        for column in range(size[1]):
            y = (row + 0.5) * image.shape[1] / size[0] + 0.5
            x = (column + 0.5) * image.shape[2] / size[1] + 0.5
            top, left = int(y), int(x)
            fy, fx = y - top, x - left
            upper = padded[:, top, left] * (1 - fx) + padded[:, top, left + 1] * fx
            lower = padded[:, top + 1, left] * (1 - fx) + padded[:, top + 1, left + 1] * fx
            result[:, row, column] = upper * (1 - fy) + lower * fy
    return result.clip(image.min())


@pytest.mark.parametrize("size", [(17, 23), (9, 11), (13, 7), (1, 1)])
@pytest.mark.parametrize("least", [0, 90])
def test_truncated_is_bilinear_with_black_around(size: tuple[int, int], least: int) -> None:
    """Each grey level is the whole part of what the loops give, whose last bit may differ."""
    image = torch.from_numpy(np.random.default_rng(0).integers(least, 256, (3, 13, 11), dtype=np.uint8))
    found = resize_image(image, size, "truncated")
    assert found.dtype == torch.uint8
    expected = truncated(image.numpy(), size)
    assert (found.numpy() <= expected + 1e-9).all()
    assert (found.numpy() > expected - 1 - 1e-9).all()
    assert resize_image(image, (13, 11), "truncated").equal(image)


def test_half_even_sizes_are_matterports() -> None:
    """Never smaller to reach the short side; the long side is capped only where it rounds to more."""
    sides = {"short_side": 256, "long_side": 384, "min_scale": 1.0, "rounding": "half_even"}
    assert network_size(213, 320, **sides) == (256, 384)  # type: ignore[arg-type]
    assert network_size(431, 247, **sides) == (384, 220)  # type: ignore[arg-type]
    assert network_size(300, 350, **sides) == (300, 350)  # type: ignore[arg-type]
    # 1.5 * 667 is 1000.5, which Python rounds to 1000: the scale stays, and 333 becomes 499.5 and not 499.25
    limits = {"short_side": 1, "long_side": 1000, "min_scale": 1.5, "rounding": "half_even"}
    assert network_size(333, 667, **limits) == (500, 1000)  # type: ignore[arg-type]
    assert network_size(5, 25, short_side=2, long_side=100, min_scale=0.5, rounding="half_even") == (2, 12)


def opencv_twin(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """`cv2.resize` of an (H, W) uint8 image, pixel by pixel, in whole numbers (OpenCV 4, `resizeGeneric_`)."""

    def around(position: int, before: int, after: int) -> tuple[int, int, int, int]:
        at = np.float32((position + 0.5) * (1 / (after / before)) - 0.5)
        first = int(np.floor(at))
        share = np.float32(at - np.float32(first))
        ends = (min(max(n, 0), before - 1) for n in (first, first + 1))
        weights = (int(np.rint(np.float32(part * 2048))) for part in (np.float32(1) - share, share))
        return *ends, *weights  # type: ignore[return-value]

    result = np.zeros(size, dtype=np.uint8)
    for y in range(size[0]):
        top, bottom, above, below = around(y, image.shape[0], size[0])
        for x in range(size[1]):
            left, right, before, behind = around(x, image.shape[1], size[1])
            upper, lower = (int(image[row, left]) * before + int(image[row, right]) * behind for row in (top, bottom))
            result[y, x] = (((upper >> 4) * above >> 16) + ((lower >> 4) * below >> 16) + 2) >> 2
    return result


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 15), st.integers(1, 15), st.integers(0, 9))
def test_opencv_is_its_twin_in_whole_numbers(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    """Held to OpenCV itself by the fixture of MMDetection, and by `cv2` where it is installed."""
    picture = image(height, width, seed)
    found = resize_image(picture, (rows, columns), "opencv")
    assert found.dtype == torch.uint8
    for channel, plane in zip(found, picture.numpy(), strict=True):
        np.testing.assert_array_equal(channel, opencv_twin(plane, (rows, columns)))


def test_opencv_is_opencv_to_the_grey_level() -> None:
    cv2 = pytest.importorskip("cv2")
    picture = image(64, 90, seed=3)
    for size in ((31, 47), (100, 61), (213, 385), (32, 45)):
        expected = cv2.resize(picture.permute(1, 2, 0).numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(resize_image(picture, size, "opencv").permute(1, 2, 0), expected)
