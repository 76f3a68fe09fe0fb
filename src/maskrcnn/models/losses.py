"""Loss functions that both stages share. All take and give float32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def box_loss(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Smooth L1 over the last dimension (Girshick 2015, equation 3), (..., 4) -> (...).

    Args:
        beta: where the parabola ends; 0 is plain L1.
    """
    if beta == 0:
        return (predicted - target).abs().sum(-1)
    return F.smooth_l1_loss(predicted, target, beta=beta, reduction="none").sum(-1)


def mean_over(values: Tensor, weights: Tensor) -> Tensor:
    """Sum of values where weights are set, divided by how many are, at least 1. Same shapes -> scalar.

    Values outside are replaced and not multiplied by zero, so that an infinity in an empty slot does no harm.
    """
    return values.where(weights, 0.0).sum() / weights.sum().clamp(min=1)
