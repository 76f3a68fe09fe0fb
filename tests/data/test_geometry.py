"""One matrix a sample: boxes, points and pixels must agree through it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from maskrcnn.data import geometry


@st.composite
def matrices(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int], tuple[int, int]]:
    """A matrix of scale, window, flips and turns, the original's size and the output's."""
    height, width = draw(st.integers(8, 60)), draw(st.integers(8, 60))
    h, w = draw(st.integers(4, 90)), draw(st.integers(4, 90))
    matrix = geometry.scaling(w / width, h / height)
    out_h, out_w = draw(st.integers(1, h)), draw(st.integers(1, w))
    matrix = geometry.translation(-draw(st.integers(0, w - out_w)), -draw(st.integers(0, h - out_h))) @ matrix
    if draw(st.booleans()):
        matrix = geometry.horizontal_flip(out_w) @ matrix
    if draw(st.booleans()):
        matrix = geometry.vertical_flip(out_h) @ matrix
    for _ in range(draw(st.integers(0, 3))):
        matrix = geometry.quarter_turn(out_h) @ matrix
        out_h, out_w = out_w, out_h
    return matrix, (height, width), (out_h, out_w)


@given(matrices(), st.integers(0, 2**32 - 1))
def test_boxes_go_there_and_back(case: tuple[np.ndarray, tuple[int, int], tuple[int, int]], seed: int) -> None:
    matrix = case[0]
    corners = np.sort(np.random.default_rng(seed).uniform(0, 50, (5, 2, 2)), axis=1)
    boxes = corners.reshape(5, 4)
    there = geometry.transform_boxes(boxes, matrix)
    assert (there[:, :2] <= there[:, 2:]).all()
    np.testing.assert_allclose(geometry.transform_boxes(there, np.linalg.inv(matrix)), boxes, atol=1e-9)


@given(matrices())
def test_pixels_move_as_the_matrix_says(case: tuple[np.ndarray, tuple[int, int], tuple[int, int]]) -> None:
    matrix, (height, width), out_hw = case
    # Colours that are linear in x and y: away from the border every resampling of them is exact.
    y, x = np.mgrid[0:height, 0:width] + 0.5
    image = np.stack([x * 4, y * 4, np.full_like(x, 99)], axis=-1)
    assert image.max() <= 255
    out = geometry.warp_image(image.astype(np.uint8), matrix, out_hw).permute(1, 2, 0).numpy()
    assert out.shape == (*out_hw, 3)
    v, u = np.mgrid[0 : out_hw[0], 0 : out_hw[1]] + 0.5
    source = geometry.transform_points(np.stack([u, v], axis=-1), np.linalg.inv(matrix))
    reach = 1 + np.abs(np.linalg.inv(matrix)[:2, :2]).max()  # of the filter, in original pixels
    inner = ((source > reach) & (source < np.array([width, height]) - reach)).all(axis=-1)
    np.testing.assert_allclose(out[inner][:, :2], source[inner] * 4, atol=4.0)
    assert (out[inner][:, 2] == 99).all()


def test_shrinking_is_antialiased_as_in_pil() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    out = geometry.warp_image(image, geometry.scaling(0.25, 0.25), (16, 12)).permute(1, 2, 0).numpy()
    expected = np.asarray(Image.fromarray(image).resize((12, 16), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(out.astype(int), expected.astype(int), atol=1)  # both round to 8 bits twice


@settings(max_examples=300)
@given(st.data())
def test_only_the_window_is_resized_and_it_is_what_the_whole_image_would_give(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(20, 90)), data.draw(st.integers(20, 90))
    near = st.integers(-2, 2)  # sides that hardly change are the hard ones
    h = data.draw(st.integers(4, 200) | near.map(lambda d: height + d))
    w = data.draw(st.integers(4, 200) | near.map(lambda d: width + d))
    out_h, out_w = data.draw(st.integers(1, h)), data.draw(st.integers(1, w))
    top, left = data.draw(st.integers(0, h - out_h)), data.draw(st.integers(0, w - out_w))
    y, x = geometry.window_start(top, h / height), geometry.window_start(left, w / width)
    assert 0 <= y <= top < y + 1
    assert 0 <= x <= left < x + 1
    matrix = geometry.translation(-x, -y) @ geometry.scaling(w / width, h / height)
    flips = data.draw(st.tuples(st.booleans(), st.booleans()))
    if flips[0]:
        matrix = geometry.horizontal_flip(out_w) @ matrix
    if flips[1]:
        matrix = geometry.vertical_flip(out_h) @ matrix
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = geometry.warp_image(image, matrix, (out_h, out_w)).permute(1, 2, 0).numpy()
    box = x * width / w, y * height / h, min((x + out_w) * width / w, width), min((y + out_h) * height / h, height)
    expected = np.asarray(Image.fromarray(image).resize((out_w, out_h), Image.Resampling.BILINEAR, box=box))
    expected = expected[:: -1 if flips[1] else 1, :: -1 if flips[0] else 1]
    np.testing.assert_allclose(out.astype(int), expected.astype(int), atol=2)  # both round after each axis


def test_a_window_elsewhere_is_refused() -> None:
    image = np.zeros((40, 40, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"found 3\.3"):
        geometry.warp_image(image, geometry.translation(-3.3, 0) @ geometry.scaling(2, 2), (20, 20))


def test_what_lies_outside_the_image_is_zero() -> None:
    image = np.full((4, 4, 3), 200, dtype=np.uint8)
    out = geometry.warp_image(image, geometry.translation(2, 1), (6, 8))
    assert (out[:, 1:5, 2:6] == 200).all()
    assert out.sum() == 200 * 16 * 3
    assert geometry.warp_image(image, geometry.translation(20, 0), (6, 8)).sum() == 0


def test_other_rotations_are_refused() -> None:
    turned = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(ValueError, match="quarter turns"):
        geometry.warp_image(np.zeros((4, 4, 3), dtype=np.uint8), turned, (4, 4))


@given(st.integers(0, 2**32 - 1))
def test_visible_box_is_tight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    bitmap = (rng.random((rng.integers(1, 9), rng.integers(1, 9))) < 0.4).astype(np.uint8)
    x0, y0 = (int(v) for v in rng.integers(0, 10, 2))
    window = np.sort(rng.integers(0, 20, (2, 2)), axis=0).reshape(4).astype(np.float64)
    image = np.zeros((30, 30), dtype=bool)
    image[y0 : y0 + bitmap.shape[0], x0 : x0 + bitmap.shape[1]] = bitmap
    x1, y1, x2, y2 = window.astype(int)
    seen = np.zeros_like(image)
    seen[y1:y2, x1:x2] = image[y1:y2, x1:x2]
    box = geometry.visible_box(bitmap, (x0, y0), window)
    if not seen.any():
        assert box is None
    else:
        rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
        assert box is not None
        assert box.tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
