"""The frame of an image: boxes, points and pixels must agree through it, in both directions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.config import Config, ImageConfig
from maskrcnn.config.conventions import OURS, PixelRules
from maskrcnn.structures.frame import (
    Frame,
    frame_of_size,
    letterboxed,
    network_frame,
    resized_frame,
    transform_boxes,
    transform_points,
)
from random_frames import frames


@given(frames(), st.integers(0, 2**32 - 1))
def test_boxes_and_points_go_there_and_back(frame: Frame, seed: int) -> None:
    corners = np.sort(np.random.default_rng(seed).uniform(0, 50, (5, 2, 2)), axis=1)
    boxes = corners.reshape(5, 4)
    there = transform_boxes(boxes, frame.matrix)
    assert (there[:, :2] <= there[:, 2:]).all()
    np.testing.assert_allclose(transform_boxes(there, frame.inverse), boxes, atol=1e-9)
    points = there.reshape(5, 2, 2).astype(np.float32)
    back = np.sort(frame.points_to_original(points), axis=1)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, corners, atol=1e-3)


@given(frames())
def test_the_window_is_where_the_image_lies(frame: Frame) -> None:
    x1, y1, x2, y2 = frame.window
    assert 0 <= x1 < x2 <= frame.input_hw[1]
    assert 0 <= y1 < y2 <= frame.input_hw[0]
    there = transform_boxes(np.array([[x1, y1, x2, y2]], dtype=np.float64), frame.inverse)[0]
    assert (there >= -1e-9).all()
    assert (there <= np.tile(frame.original_hw[::-1], 2) + 1e-9).all()


@pytest.mark.parametrize("linear", [[[1.0, 0.5], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], [[0.0, 0.0], [0.0, 1.0]]])
def test_a_shear_and_a_matrix_without_inverse_are_refused(linear: list[list[float]]) -> None:
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    with pytest.raises(ValueError, match="scales, flips, turns and shifts"):
        Frame(matrix, (4, 4), (4, 4), (4, 4))


@given(frames(), st.floats(-180, 180))
def test_a_rotation_keeps_the_centre_and_lengths(frame: Frame, degrees: float) -> None:
    turned = frame.rotated(degrees)
    centre = np.array(frame.input_hw[::-1]) / 2
    there = transform_points(frame.inverse[:2, :2] @ centre + frame.inverse[:2, 2], turned.matrix)
    np.testing.assert_allclose(there, centre, atol=1e-6)
    np.testing.assert_allclose(turned.scale_xy, frame.scale_xy, rtol=1e-9)
    np.testing.assert_allclose(turned.rotated(-degrees).matrix, frame.matrix, atol=1e-6)
    assert turned.input_hw == frame.input_hw
    x, y = turned.motion[:2, :2].T
    np.testing.assert_allclose([x @ x, y @ y, x @ y], [1, 1, 0], atol=1e-9)


def test_a_rotation_by_a_right_angle_is_a_quarter_turn_of_a_square() -> None:
    frame = frame_of_size((20, 20), (40, 40))
    np.testing.assert_allclose(frame.rotated(90).matrix, frame.turned().matrix, atol=1e-12)
    assert frame.turned().is_upright
    assert not frame.rotated(30).is_upright


def test_turns_and_flips_compose() -> None:
    frame = frame_of_size((20, 30), (40, 60))
    around = frame.turned().turned().turned().turned()
    assert np.array_equal(around.matrix, frame.matrix)
    both = frame.flipped_horizontally().flipped_vertically()
    assert np.array_equal(frame.turned().turned().matrix, both.matrix)
    assert frame.turned().input_hw == (60, 40)


def config(short_side: int, long_side: int, **rules: object) -> Config:
    pixels = PixelRules(**rules)  # type: ignore[arg-type]
    return Config(image=ImageConfig(short_side, long_side), conventions=replace(OURS, pixels=pixels))


@pytest.mark.parametrize(
    ("letterbox", "input_hw", "window"),
    [
        ("none", (64, 128), (0, 0, 128, 64)),
        ("square", (128, 128), (0, 32, 128, 96)),
        ("divisor", (64, 128), (0, 0, 128, 64)),
    ],
)
def test_letterbox(letterbox: str, input_hw: tuple[int, int], window: tuple[int, ...]) -> None:
    frame = network_frame((30, 60), config(100, 128, letterbox=letterbox))
    assert (frame.original_hw, frame.resized_hw) == ((30, 60), (64, 128))
    assert (frame.input_hw, frame.window) == (input_hw, window)


def test_of_an_odd_padding_bottom_and_right_get_more() -> None:
    frame = frame_of_size((3, 4), (3, 4)).centred_in((8, 9))
    assert frame.window == (2, 2, 6, 5)


def test_jitter_scales_what_the_config_gives() -> None:
    settings = config(64, 96, letterbox="square")
    frame = resized_frame((40, 60), settings, jitter=0.5)
    assert frame.input_hw == frame.resized_hw == (32, 48)
    assert letterboxed(frame, settings).window == (24, 32, 72, 64)


def test_exact_scale_is_that_of_the_limits() -> None:
    """333 x 499 becomes 800 x 1199 by 800 / 333, and not by 1199 / 499 along the rows; the last column is covered."""
    exact = config(800, 1333, kernel="bilinear", exact_scale=True)
    frame = network_frame((333, 499), exact)
    assert frame.input_hw == (800, 1199)
    assert frame.window == (0, 0, 1199, 800)
    np.testing.assert_array_equal(frame.scale_xy, [800 / 333, 800 / 333])
    ratio = network_frame((333, 499), config(800, 1333, kernel="bilinear"))
    np.testing.assert_array_equal(ratio.scale_xy, [1199 / 499, 800 / 333])
