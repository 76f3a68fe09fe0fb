"""What the network finds: tensors of a batch, padded to one number of slots. Outside of it stand `Instances`.

Legend: B images, D detection slots an image, M side of a mask, K keypoints.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


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
