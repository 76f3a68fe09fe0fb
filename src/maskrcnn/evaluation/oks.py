"""The spreads of object keypoint similarity (OKS), which is to keypoints what IoU is to boxes.

OKS of a found and an annotated object is the mean of exp(-d^2 / (2 A (2 sigma)^2)) over the labelled keypoints: d the
distance in pixels, A the area of the annotated object in square pixels, sigma how far apart people put that keypoint
(COCO keypoint evaluation, https://cocodataset.org/#keypoints-eval).
"""

from __future__ import annotations

from maskrcnn.config import Category
from maskrcnn.structures.keypoints import COCO_KEYPOINTS

_PAIRS = (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089)  # eyes, ears, shoulders, ... ankles: left and right
COCO_SIGMAS = dict(zip(COCO_KEYPOINTS, (0.026, *(sigma for sigma in _PAIRS for _ in range(2))), strict=True))
DEFAULT_SIGMA = 0.067  # the mean of COCO's, for keypoints whose spread nobody measured


def oks_sigmas(category: Category) -> tuple[float, ...]:
    """The spread of each keypoint of a category.

    It is the category's own where its file gives `sigmas` (COCO's files give none), else COCO's where the names are
    those of COCO's 17 keypoints of people, else `DEFAULT_SIGMA` for each keypoint.
    """
    if category.sigmas:
        return category.sigmas
    known = category.keypoints == COCO_KEYPOINTS
    return tuple(COCO_SIGMAS[name] if known else DEFAULT_SIGMA for name in category.keypoints)
