"""Where one image lies in its network input: one matrix between their pixels, and the sizes on both sides.

Coordinates are continuous: pixel i covers [i, i + 1). Matrices act on column vectors (x, y, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maskrcnn.config import Config
from maskrcnn.ops.resize import network_scale, network_size

_ROUNDING = 1e-6  # pixels by which an edge may miss a whole pixel because of rounding


@dataclass(frozen=True, eq=False)
class Frame:
    """How the pixels of one image become network input, and the way back.

    A frame is made once, when an image is resized for the network. It travels with the pixels and maps boxes, masks and
    keypoints in both directions.

    Attributes:
        matrix: (3, 3) float64, original to network-input (x, y, 1): a scale, then shifts, flips and quarter turns.
        original_hw: height and width of the original image.
        resized_hw: height and width of the whole image after resizing, before a part of it is cut out.
        input_hw: height and width of the network input, with letterbox padding and without the padding of the batch.
    """

    matrix: np.ndarray
    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    input_hw: tuple[int, int]

    def __post_init__(self) -> None:
        linear = self.matrix[:2, :2]
        if not ((linear != 0).sum(axis=0) == 1).all() or not ((linear != 0).sum(axis=1) == 1).all():
            raise ValueError(
                f"expected a matrix of scales, flips, quarter turns and shifts, found {self.matrix.tolist()}"
            )

    @property
    def inverse(self) -> np.ndarray:
        """(3, 3) float64, network-input to original (x, y, 1)."""
        return np.linalg.inv(self.matrix)

    @property
    def scale_xy(self) -> np.ndarray:
        """(2,) float64, network-input pixels for one pixel along the x and the y axis of the original image."""
        return np.abs(self.matrix[:2, :2]).sum(axis=0)

    @property
    def motion(self) -> np.ndarray:
        """(3, 3) float64, pixels of the whole resized image to network-input pixels: `matrix` without its scale."""
        motion = self.matrix.copy()
        motion[:2, :2] = np.sign(motion[:2, :2])
        return motion

    @property
    def window(self) -> tuple[int, int, int, int]:
        """x1 y1 x2 y2, the whole pixels of the network input that the image covers."""
        height, width = self.resized_hw
        x1, y1, x2, y2 = transform_boxes(np.array([[0.0, 0.0, width, height]]), self.motion)[0]
        left, top = max(0, math.ceil(x1 - _ROUNDING)), max(0, math.ceil(y1 - _ROUNDING))
        right, bottom = (math.floor(edge + _ROUNDING) for edge in (x2, y2))
        return left, top, min(self.input_hw[1], right), min(self.input_hw[0], bottom)

    def points_to_original(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) float32 points of the network input, in pixels of the original image."""
        linear, shift = self.inverse[:2, :2].astype(np.float32), self.matrix[:2, 2].astype(np.float32)
        return (points - shift) @ linear.T

    def cropped(self, left: float, top: float, size_hw: tuple[int, int]) -> Frame:
        """The part of the network input of this size that begins at (left, top)."""
        return replace(self, matrix=translation(-left, -top) @ self.matrix, input_hw=size_hw)

    def flipped_horizontally(self) -> Frame:
        """x becomes width - x."""
        return replace(self, matrix=translation(self.input_hw[1], 0) @ scaling(-1, 1) @ self.matrix)

    def flipped_vertically(self) -> Frame:
        """y becomes height - y."""
        return replace(self, matrix=translation(0, self.input_hw[0]) @ scaling(1, -1) @ self.matrix)

    def turned(self) -> Frame:
        """A turn to the right by 90 degrees: (x, y) becomes (height - y, x)."""
        height, width = self.input_hw
        turn = np.array([[0.0, -1.0, height], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
        return replace(self, matrix=turn @ self.matrix, input_hw=(width, height))

    def centred_in(self, size_hw: tuple[int, int]) -> Frame:
        """The network input in the middle of a larger one. Where the padding is odd, bottom and right get more."""
        left, top = (size_hw[1] - self.input_hw[1]) // 2, (size_hw[0] - self.input_hw[0]) // 2
        return self.cropped(-left, -top, size_hw)


def frame_of_size(
    original_hw: tuple[int, int], resized_hw: tuple[int, int], scale_xy: tuple[float, float] | None = None
) -> Frame:
    """The frame of a whole image that is resized and nothing else.

    Args:
        scale_xy: network-input pixels for one of the original image, on each axis; by default the ratio of the sizes.
    """
    x, y = scale_xy or (resized_hw[1] / original_hw[1], resized_hw[0] / original_hw[0])
    return Frame(scaling(x, y), original_hw, resized_hw, resized_hw)


def network_frame(original_hw: tuple[int, int], config: Config) -> Frame:
    """The frame that `config` gives to an image of this size in prediction: resized, then padded to its letterbox."""
    return letterboxed(resized_frame(original_hw, config), config)


def resized_frame(original_hw: tuple[int, int], config: Config, jitter: float = 1.0) -> Frame:
    """The frame of a whole image that is resized as `config` says, without letterbox padding.

    Args:
        jitter: a factor on the size that `config` gives.
    """
    image, rules = config.image, config.conventions.pixels
    limits: dict[str, Any] = {name: getattr(image, name) for name in ("short_side", "long_side", "scale", "fixed_size")}
    limits |= {"min_scale": rules.min_scale, "rounding": rules.rounding}
    height, width = (max(1, round(side * jitter)) for side in network_size(*original_hw, **limits))
    scale = network_scale(*original_hw, **limits) * jitter if rules.exact_scale else None
    return frame_of_size(original_hw, (height, width), None if scale is None else (scale, scale))


def letterboxed(frame: Frame, config: Config) -> Frame:
    """The frame in the middle of the letterbox that `config` asks for."""
    match config.conventions.pixels.letterbox:
        case "none":
            return frame
        case "square":
            return frame.centred_in((config.image.long_side, config.image.long_side))
        case "divisor":
            return frame.centred_in(pad_size(*frame.input_hw, config.image.divisor))


def pad_size(height: int, width: int, divisor: int) -> tuple[int, int]:
    """The smallest multiples of `divisor` that hold height and width."""
    return -(-height // divisor) * divisor, -(-width // divisor) * divisor


def scaling(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def translation(x: float, y: float) -> np.ndarray:
    matrix = np.eye(3)
    matrix[:2, 2] = x, y
    return matrix


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(..., 2) points through an affine matrix."""
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def transform_boxes(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(N, 4) boxes x1 y1 x2 y2 through a matrix of scales, flips, quarter turns and shifts: exact."""
    corners = transform_points(boxes.reshape(-1, 2, 2), matrix)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
