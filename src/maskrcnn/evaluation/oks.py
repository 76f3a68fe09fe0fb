"""The standard deviations of object keypoint similarity (OKS), which is to keypoints what IoU is to boxes.

The OKS of a detection and an annotated object is the mean of exp(-d^2 / (2 A (2 sigma)^2)) over the labelled keypoints.
d is the distance in pixels, A the area of the annotated object in square pixels, and sigma the standard deviation
between human annotators for that keypoint (https://cocodataset.org/#keypoints-eval).
"""

from __future__ import annotations

from maskrcnn.config import Category
from maskrcnn.structures.keypoints import COCO_KEYPOINTS

_PAIRS = (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089)  # eyes, ears, shoulders, ... ankles: same left, right
COCO_SIGMAS = dict(zip(COCO_KEYPOINTS, (0.026, *(sigma for sigma in _PAIRS for _ in range(2))), strict=True))
DEFAULT_SIGMA = 0.067  # the mean of COCO's, for keypoints without a measured standard deviation


def oks_sigmas(category: Category) -> tuple[float, ...]:
    """The OKS standard deviation of each keypoint of a category.

    They are `category.sigmas` if given (COCO's files give none), else COCO's if the names are COCO's 17 keypoints of
    people, else `DEFAULT_SIGMA`.
    """
    if category.sigmas:
        return category.sigmas
    known = category.keypoints == COCO_KEYPOINTS
    return tuple(COCO_SIGMAS[name] if known else DEFAULT_SIGMA for name in category.keypoints)
