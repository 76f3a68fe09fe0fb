"""The spreads of object keypoint similarity (OKS), which is to keypoints what IoU is to boxes.

OKS of a found and an annotated object is the mean of exp(-d^2 / (2 A (2 sigma)^2)) over the labelled keypoints: d the
distance in pixels, A the area of the annotated object in square pixels, sigma how far apart people put that keypoint
(COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from maskrcnn.errors import DataError

COCO_SIGMAS = {
    "nose": 0.026,
    **dict.fromkeys(("left_eye", "right_eye"), 0.025),
    **dict.fromkeys(("left_ear", "right_ear"), 0.035),
    **dict.fromkeys(("left_shoulder", "right_shoulder"), 0.079),
    **dict.fromkeys(("left_elbow", "right_elbow"), 0.072),
    **dict.fromkeys(("left_wrist", "right_wrist"), 0.062),
    **dict.fromkeys(("left_hip", "right_hip"), 0.107),
    **dict.fromkeys(("left_knee", "right_knee"), 0.087),
    **dict.fromkeys(("left_ankle", "right_ankle"), 0.089),
}
DEFAULT_SIGMA = 0.067  # the mean of COCO's, for keypoints whose spread nobody measured


def oks_sigmas(category: Mapping[str, Any], names: tuple[str, ...]) -> tuple[float, ...]:
    """The spread of each keypoint of a category of a COCO file.

    The file's own, a list `sigmas` beside `keypoints` (COCO's files have none); else COCO's, where the names are those
    of COCO's 17 keypoints of people; else `DEFAULT_SIGMA` for each.

    Args:
        names: of its keypoints.

    Raises:
        DataError: `sigmas` that are not a positive number for each keypoint.
    """
    given = category.get("sigmas")
    if given is None:
        return tuple(COCO_SIGMAS[name] if names == tuple(COCO_SIGMAS) else DEFAULT_SIGMA for name in names)
    numbers = isinstance(given, list) and all(isinstance(value, int | float) and 0 < value < 1 for value in given)
    if not numbers or len(given) != len(names):
        raise DataError(
            f"category {category.get('name')}: expected sigmas as {len(names)} numbers between 0 and 1, one for each "
            f"of its keypoints, found {given}"
        )
    return tuple(float(value) for value in given)
