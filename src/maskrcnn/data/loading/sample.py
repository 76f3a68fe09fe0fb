"""One training image with its objects. Legend: N objects, K keypoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from maskrcnn.structures.annotations import Crop
from maskrcnn.structures.frame import Frame


@dataclass(frozen=True)
class Sample:
    """One training image. Boxes are in pixels of `image`, mask crops in pixels of the file that they come from.

    Attributes:
        image: (C, h, w), as `resize_to_network` gives it.
        boxes: (N, 4) float32 x1 y1 x2 y2.
        labels: (N,) int64, -1 for crowd regions.
        crowd: (N,) bool.
        crops: N pairs of (h, w) uint8 bitmap and (x, y) of its top left corner; the bitmap is (0, 0) without a mask.
        frame: maps pixels of the original to pixels of `image`, and back.
        image_id: the id in the annotation file.
        skipped: why images could not be read that this one replaces, or from which objects were to be pasted.
        remarks: what a person should know of reading the image, such as pages that are not read.
        pasted_frames: the frames of the last objects, which come from another image; the others have `frame`.
        keypoints: (N, K, 3) float32 x, y in pixels of `image` and visibility 0, 1 or 2; None if no category has any.
    """

    image: Tensor
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    crops: list[Crop]
    frame: Frame
    image_id: int | str
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    pasted_frames: tuple[Frame, ...] = ()
    keypoints: np.ndarray | None = None
