"""How surely a person would have labelled an object that a model finds.

People often leave out what the edge of the image cuts, what is much smaller than the objects that they label, and what
stands out less from what is around it, such as cells out of focus. The lack of such a label is a less likely mistake.
"""

from __future__ import annotations

import numpy as np

_CUT = 0.8  # how surely an object is labelled that the edge of the image cuts, compared with a whole one
_TYPICAL = 0.7  # of the median side, and of the median contrast, of labels: below, objects are labelled less surely
_LEAST_SIDE = 0.3  # of such a side: below, objects are not labelled less surely still
_LEAST_CONTRAST = 0.1  # of such a contrast: the same
_FEW = 20  # labels of an image that say half of what many would say about the contrast of what is labelled


def surely_labelled(image: np.ndarray, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(D,) from 0 to 1: how surely the objects of these boxes would be labelled.

    Args:
        image: (H, W, C) pixels.
        boxes: (D, 4) of the objects, x1, y1, x2, y2 in pixels.
        labels: (G, 4) boxes of the labels of the image.
    """
    cut = ((boxes[:, :2] <= 1) | (boxes[:, 2:] >= np.array(image.shape[1::-1]) - 1)).any(axis=1)
    surely = np.where(cut, _CUT, 1.0)
    if len(labels):
        size = _sides(boxes) / _typical(_sides(labels))
        of_boxes, of_labels = np.split(_contrasts(image, np.concatenate([boxes, labels])), [len(boxes)])
        contrast = of_boxes / _typical(of_labels)
        said = len(labels) / (len(labels) + _FEW)
        surely = surely * np.sqrt(np.clip(size, _LEAST_SIDE, 1)) * np.clip(contrast, _LEAST_CONTRAST, 1) ** said
    return surely


def _typical(measures: np.ndarray) -> float:
    """What a measure of the labels must be in another object for it to be labelled as surely."""
    return max(_TYPICAL * float(np.median(measures)), 1e-9)


def _sides(boxes: np.ndarray) -> np.ndarray:
    """(n,) the side of the square of the same area."""
    sides: np.ndarray = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return sides


def _contrasts(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(n,) how far the mean of the middle half of each box is from the mean of a ring around it, on average over the
    channels. The ring is a quarter of the box wide."""
    sums = np.pad(image.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0), (0, 0)))
    quarter = np.tile((boxes[:, 2:] - boxes[:, :2]) / 4, 2) * (1, 1, -1, -1)
    middle, whole, around = (_sum(sums, boxes + part * quarter) for part in (1, 0, -1))
    inside = middle[0] / np.maximum(middle[1], 1)
    outside = (around[0] - whole[0]) / np.maximum(around[1] - whole[1], 1)
    distance: np.ndarray = np.abs(inside - outside).mean(axis=1)
    return distance


def _sum(sums: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The sum of each channel in the boxes, (n, C), and the number of their pixels, (n, 1).

    Args:
        sums: (H + 1, W + 1, C): entry y, x has the sum of all pixels above and to the left.
    """
    limits = np.array(sums.shape[1::-1]) - 1
    x1, y1 = np.clip(np.floor(boxes[:, :2]), 0, limits).astype(np.int64).T
    x2, y2 = np.clip(np.ceil(boxes[:, 2:]), 0, limits).astype(np.int64).T
    return sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1], ((y2 - y1) * (x2 - x1))[:, None]
