"""Keypoints as annotation files hold them, and what their names tell. Legend: K keypoints of a category."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.structures.values import short

# COCO files give keypoints as indices of pixels, and the centre of pixel 0 lies at 0.5 in the continuous frame.
# Added when a file is read and taken off when one is written, as Detectron2 does.
PIXEL_CENTRE = 0.5

Side = Literal["left", "right", "middle"]

# The keypoints of COCO's persons, in the order of its files.
_NAMES = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow left_wrist "
    "right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
COCO_KEYPOINTS = tuple(_NAMES.split())

_FAR = 1e9  # pixels; no keypoint lies there


def read_keypoints(values: Any, count: int) -> np.ndarray:
    """(K, 3) float64 x, y and the third number of each keypoint, as they stand in a COCO file.

    Args:
        values: 3 K numbers.
        count: K.

    Raises:
        DataError: there are more or fewer, or one of them is not a finite number.
    """
    if not isinstance(values, list | tuple) or len(values) != 3 * count:
        found = f"{len(values)} values" if isinstance(values, list | tuple) else short(values)
        raise DataError(
            f"expected keypoints as {3 * count} numbers, three for each of the {count} that the category names, "
            f"found {found}"
        )
    if not all(isinstance(value, int | float) and abs(value) < _FAR for value in values):
        raise DataError(f"expected keypoints as finite numbers, found {short(values)}")
    return np.array(values, dtype=np.float64).reshape(count, 3)


def read_labelled(values: Any, count: int) -> np.ndarray:
    """(K, 3) float64 x, y, visibility of an annotated object, as its file gives them; zeros where nothing is labelled.

    Visibility is 0 for not labelled, 1 for hidden and 2 for visible.

    Args:
        values: 3 K numbers; None or an empty list where nothing is labelled.
        count: K.

    Raises:
        DataError: as `read_keypoints`, or a visibility that is none.
    """
    if not values:
        return np.zeros((count, 3))
    points = read_keypoints(values, count)
    if not np.isin(points[:, 2], (0, 1, 2)).all():
        raise DataError(
            "expected every third number of keypoints as a visibility, 0 not labelled, 1 hidden or 2 visible, "
            f"found {points[:, 2].tolist()}"
        )
    points[points[:, 2] == 0] = 0
    return points


def side(name: str) -> Side:
    """The side of the body that the name of a keypoint tells."""
    words = name.lower()
    return "left" if "left" in words else "right" if "right" in words else "middle"


@cache
def _pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    places = {name.lower(): place for place, name in enumerate(names)}
    partners = ((place, places.get(name.replace("left", "right"))) for name, place in places.items() if "left" in name)
    return tuple((left, right) for left, right in partners if right is not None)


def flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Positions (left, right) of the keypoints that change places in a mirrored image.

    Args:
        names: K names. Two that differ only in the words left and right are a pair: left_eye and right_eye. One
            without a partner stays where it is.
    """
    return _pairs(tuple(names))


def swap_sides(keypoints: np.ndarray, names: Sequence[Sequence[str]]) -> np.ndarray:
    """Keypoints of objects in a mirrored image, where a left hand looks like a right one: `flip_pairs` change places.

    Args:
        keypoints: (N, K, 3).
        names: of the K keypoints of each of the N objects; empty for one without keypoints.

    Returns:
        (N, K, 3), the same values in another order.
    """
    order = np.tile(np.arange(keypoints.shape[1]), (len(keypoints), 1))
    for row, own in zip(order, names, strict=True):
        for left, right in flip_pairs(own):
            row[[left, right]] = right, left
    return np.take_along_axis(keypoints, order[..., None], axis=1)
