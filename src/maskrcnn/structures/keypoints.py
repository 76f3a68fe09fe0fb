"""Keypoints of annotation files, and the sides of the body in their names. Legend: K keypoints of a category."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.structures.values import FARTHEST, short

# COCO files give keypoints as pixel indices, and the centre of pixel 0 lies at 0.5 in the continuous frame. Readers add
# this shift and writers subtract it, as Detectron2 does.
PIXEL_CENTRE = 0.5

Side = Literal["left", "right", "middle"]

_NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
COCO_KEYPOINTS = tuple(_NAMES.split())  # of a person, in the order of COCO's files


def read_keypoints(values: Any, count: int) -> np.ndarray:
    """Checks the keypoints of one object in a COCO file.

    Args:
        values: 3 K numbers: x, y and visibility or score of each keypoint.
        count: K.

    Returns:
        (K, 3) float64.

    Raises:
        DataError: there are not 3 K values, or one of them is not a finite number.
    """
    if not isinstance(values, list | tuple) or len(values) != 3 * count:
        found = f"{len(values)} values" if isinstance(values, list | tuple) else short(values)
        raise DataError(
            f"expected keypoints as {3 * count} numbers, three for each of the category's {count}, found {found}"
        )
    if not all(isinstance(value, int | float) and abs(value) < FARTHEST for value in values):
        raise DataError(f"expected keypoints as finite numbers, found {short(values)}")
    return np.array(values, dtype=np.float64).reshape(count, 3)


def read_labelled(values: Any, count: int) -> np.ndarray:
    """Checks the keypoints of one annotated object in a COCO file.

    Args:
        values: 3 K numbers x, y, visibility; None or an empty list if no keypoint is labelled.
        count: K.

    Returns:
        (K, 3) float64 x, y and visibility (0 not labelled, 1 hidden, 2 visible); zeros for unlabelled keypoints.

    Raises:
        DataError: as for `read_keypoints`, or a visibility is not 0, 1 or 2.
    """
    if not values:
        return np.zeros((count, 3))
    points = read_keypoints(values, count)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise DataError(
            "expected the visibility of keypoints, every third number, to be 0 (not labelled), 1 (hidden) or 2 "
            f"(visible), found {points[:, 2].tolist()}"
        )
    points[points[:, 2] == 0] = 0
    return points


def side(name: str) -> Side:
    """The side of the body of a keypoint, from the word left or right in its name."""
    words = name.lower()
    return "left" if "left" in words else "right" if "right" in words else "middle"


@cache
def _pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    places = {name.lower(): place for place, name in enumerate(names)}
    partners = ((place, places.get(name.replace("left", "right"))) for name, place in places.items() if "left" in name)
    return tuple((left, right) for left, right in partners if right is not None)


def flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Positions (left, right) of the keypoints to swap in a mirrored image.

    Args:
        names: K names. Two names that differ only in left and right are a pair, such as left_eye and right_eye.
    """
    return _pairs(tuple(names))


def swap_sides(keypoints: np.ndarray, names: Sequence[Sequence[str]]) -> np.ndarray:
    """Swaps left and right keypoints (`flip_pairs`) of mirrored objects: a mirrored left hand looks like a right one.

    Args:
        keypoints: (N, K, 3).
        names: for each of the N objects, the names of its keypoints; empty if its category has none.

    Returns:
        (N, K, 3), the same values in another order.
    """
    order = np.tile(np.arange(keypoints.shape[1]), (len(keypoints), 1))
    for row, own in zip(order, names, strict=True):
        for left, right in flip_pairs(own):
            row[[left, right]] = right, left
    return np.take_along_axis(keypoints, order[..., None], axis=1)
