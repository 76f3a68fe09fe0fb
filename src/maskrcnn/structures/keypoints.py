"""What the names of keypoints tell, and the step between COCO's frame and ours. Legend: K keypoints of a category."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

# COCO files give keypoints as indices of pixels, and the centre of pixel 0 lies at 0.5 in the continuous frame.
# Added when a file is read and taken off when one is written, as Detectron2 does.
PIXEL_CENTRE = 0.5

Side = Literal["left", "right", "middle"]


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
