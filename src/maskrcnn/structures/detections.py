"""What the network finds: padded tensors of a batch inside the model, one `Instances` an image outside.

Legend: B images, D detection slots an image, N instances of one image, M side of a mask, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from maskrcnn.config import Category
from maskrcnn.structures.masks import Masks


@dataclass(frozen=True)
class Detections:
    """Detections of a batch, best first, padded to D slots an image.

    Attributes:
        boxes: (B, D, 4) float32, x1 y1 x2 y2 in network-input pixels.
        scores: (B, D) float32; 0 in empty slots.
        labels: (B, D) int64, 0-based.
        valid: (B, D) bool.
        mask_probs: (B, D, M, M) float32 probability of the detected class over the box, or None.
        keypoints: (B, D, K, 3) float32 x, y in network-input pixels and score, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    mask_probs: Tensor | None = None
    keypoints: Tensor | None = None


@dataclass(frozen=True)
class Instances:
    """Objects found in (or annotated on) one image, in pixels of that image.

    Attributes:
        image_hw: height and width of the image.
        boxes: (N, 4) float32, continuous edges x1 y1 x2 y2.
        scores: (N,) float32, descending; 1 for ground truth.
        labels: (N,) int64, 0-based.
        masks: N run-length masks of the whole image, or None for a model without masks.
        names: the word of each label.
        keypoints: (N, K, 3) float32 x, y and score, or None; of ground truth the visibility 0, 1 or 2 as score.
        categories: of all labels, for the names and limbs of keypoints; empty where they are not known.
    """

    image_hw: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Masks | None
    names: tuple[str, ...] = ()
    keypoints: np.ndarray | None = None
    categories: tuple[Category, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)
