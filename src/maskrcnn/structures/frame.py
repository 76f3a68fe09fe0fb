"""The geometry between an image and its network input: one affine matrix, and the sizes on both sides.

Coordinates are continuous: pixel i covers [i, i + 1). Matrices act on column vectors (x, y, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskrcnn.config import Config
from maskrcnn.ops.resize import network_scale, network_size

_ROUNDING = 1e-6  # pixels: an edge this close to a whole pixel lies on it


@dataclass(frozen=True, eq=False)
class Frame:
    """The mapping from the pixels of one image to its network input, and back.

    A frame is made once, when an image is resized for the network. It travels with the pixels and maps boxes, masks and
    keypoints in both directions.

    Attributes:
        matrix: (3, 3) float64, maps original to network-input (x, y, 1): a scale, then shifts, flips and turns. Only
            training turns by other angles than quarter turns.
        original_hw: height and width of the original image.
        resized_hw: height and width of the whole resized image, before cropping.
        input_hw: height and width of the network input, including letterbox padding but not the padding of the batch.

    Raises:
        ValueError: the matrix does anything else, such as a shear.
    """

    matrix: np.ndarray
    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    input_hw: tuple[int, int]

    def __post_init__(self) -> None:
        x, y = self.matrix[:2, :2].T  # where the axes of the original go
        lengths = np.hypot(*x) * np.hypot(*y)
        if not (lengths > 0 and abs(x @ y) <= 1e-9 * lengths):
            raise ValueError(f"expected a matrix of scales, flips, turns and shifts, found {self.matrix.tolist()}")

    @property
    def is_upright(self) -> bool:
        """Whether the axes of the image stay along those of the network input, or change places."""
        linear = self.matrix[:2, :2]
        return (not linear[0, 1] and not linear[1, 0]) or (not linear[0, 0] and not linear[1, 1])

    @property
    def inverse(self) -> np.ndarray:
        """(3, 3) float64, maps network-input to original (x, y, 1)."""
        return np.linalg.inv(self.matrix)

    @property
    def scale_xy(self) -> np.ndarray:
        """(2,) float64, network-input pixels per original pixel along the x and y axes of the original image."""
        return np.hypot(*self.matrix[:2, :2])

    @property
    def motion(self) -> np.ndarray:
        """(3, 3) float64, maps pixels of the whole resized image to the network input: `matrix` without its scale."""
        motion = self.matrix.copy()
        motion[:2, :2] /= self.scale_xy
        return motion

    @property
    def window(self) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2 in network-input pixels: the part that the image covers, rounded inwards to whole pixels. If the
        image is rotated by an angle, it is the box around that part."""
        height, width = self.resized_hw
        x1, y1, x2, y2 = transform_boxes(np.array([[0.0, 0.0, width, height]]), self.motion)[0]
        left, top = max(0, math.ceil(x1 - _ROUNDING)), max(0, math.ceil(y1 - _ROUNDING))
        right, bottom = (math.floor(edge + _ROUNDING) for edge in (x2, y2))
        return left, top, min(self.input_hw[1], right), min(self.input_hw[0], bottom)

    def points_to_original(self, points: np.ndarray) -> np.ndarray:
        """Maps (..., 2) float32 points x, y from network-input pixels to original pixels."""
        linear, shift = self.inverse[:2, :2].astype(np.float32), self.matrix[:2, 2].astype(np.float32)
        return (points - shift) @ linear.T

    def cropped(self, left: float, top: float, size_hw: tuple[int, int]) -> Frame:
        """The frame of a crop of the network input, of this size and with its top left corner at (left, top)."""
        return replace(self, matrix=translation(-left, -top) @ self.matrix, input_hw=size_hw)

    def flipped_horizontally(self) -> Frame:
        """The frame after a left-right flip: x becomes width - x."""
        return replace(self, matrix=translation(self.input_hw[1], 0) @ scaling(-1, 1) @ self.matrix)

    def flipped_vertically(self) -> Frame:
        """The frame after a top-bottom flip: y becomes height - y."""
        return replace(self, matrix=translation(0, self.input_hw[0]) @ scaling(1, -1) @ self.matrix)

    def turned(self) -> Frame:
        """The frame after a clockwise quarter turn: (x, y) becomes (height - y, x)."""
        height, width = self.input_hw
        turn = np.array([[0.0, -1.0, height], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        return replace(self, matrix=turn @ self.matrix, input_hw=(width, height))

    def rotated(self, degrees: float) -> Frame:
        """The frame after a clockwise rotation about the centre of the network input, which keeps its size."""
        angle = math.radians(degrees)
        sine, cosine = math.sin(angle), math.cos(angle)
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        x, y = self.input_hw[1] / 2, self.input_hw[0] / 2
        return replace(self, matrix=translation(x, y) @ turn @ translation(-x, -y) @ self.matrix)

    def centred_in(self, size_hw: tuple[int, int]) -> Frame:
        """The frame after padding to a larger size on all sides. If the padding is odd, bottom and right get more."""
        left, top = (size_hw[1] - self.input_hw[1]) // 2, (size_hw[0] - self.input_hw[0]) // 2
        return self.cropped(-left, -top, size_hw)


def frame_of_size(
    original_hw: tuple[int, int], resized_hw: tuple[int, int], scale_xy: tuple[float, float] | None = None
) -> Frame:
    """The frame of a whole image that is only resized.

    Args:
        scale_xy: network-input pixels per original pixel on each axis; default: the ratio of the sizes.
    """
    x, y = scale_xy or (resized_hw[1] / original_hw[1], resized_hw[0] / original_hw[0])
    return Frame(scaling(x, y), original_hw, resized_hw, resized_hw)


def network_frame(original_hw: tuple[int, int], config: Config) -> Frame:
    """The frame of an image in prediction: resized, then letterbox-padded, as `config` says."""
    return letterboxed(resized_frame(original_hw, config), config)


def resized_frame(original_hw: tuple[int, int], config: Config, jitter: float = 1.0) -> Frame:
    """The frame of a whole image resized as `config` says, without letterbox padding.

    Args:
        jitter: factor on the resized height and width.
    """
    image, rules = config.image, config.conventions.pixels
    limits: dict[str, Any] = {name: getattr(image, name) for name in ("short_side", "long_side", "scale", "fixed_size")}
    limits |= {"min_scale": rules.min_scale, "rounding": rules.rounding}
    height, width = (max(1, round(side * jitter)) for side in network_size(*original_hw, **limits))
    scale = network_scale(*original_hw, **limits) * jitter if rules.exact_scale else None
    return frame_of_size(original_hw, (height, width), None if scale is None else (scale, scale))


def letterboxed(frame: Frame, config: Config) -> Frame:
    """The frame after the letterbox padding of `config`, if there is any."""
    match config.conventions.pixels.letterbox:
        case "none":
            return frame
        case "square":
            return frame.centred_in((config.image.long_side, config.image.long_side))
        case "divisor":
            return frame.centred_in(pad_size(*frame.input_hw, config.image.divisor))


def pad_size(height: int, width: int, divisor: int) -> tuple[int, int]:
    """Height and width, each rounded up to a multiple of `divisor`."""
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def scaling(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def translation(x: float, y: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = x, y
    return matrix


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps (..., 2) points x, y by a (3, 3) affine matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps (N, 4) boxes x1 y1 x2 y2 by a (3, 3) affine matrix; the box around the four corners of each."""
    corners = transform_points(boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]], matrix)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
