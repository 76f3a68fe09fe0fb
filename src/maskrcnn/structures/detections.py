"""The output of the network for a batch, padded to D detections per image. Postprocessing turns it into `Instances`.

Legend: B images, D detection slots per image, M side of a mask, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Detections:
    """Detections of a batch by descending score, padded to D slots per image.

    Attributes:
        boxes: (B, D, 4) float32, x1 y1 x2 y2 in network-input pixels.
        scores: (B, D) float32; 0 in empty slots.
        labels: (B, D) int64, 0-based.
        valid: (B, D) bool; False in empty slots.
        mask_probs: (B, D, M, M) float32 mask probability of the detected class in the box; None without a mask head.
        keypoints: (B, D, K, 3) float32 x, y in network-input pixels and score; None without a keypoint head.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    mask_probs: Tensor | None = None
    keypoints: Tensor | None = None
