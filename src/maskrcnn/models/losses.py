"""Loss functions that both stages share. Inputs and results are float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.config import BoxHeadConfig, RPNConfig
from maskrcnn.ops import boxes as box_ops


def box_loss(
    deltas: Tensor,
    anchors: Tensor,
    boxes: Tensor,
    config: RPNConfig | BoxHeadConfig,
    growth_bound: Literal["above", "both", "none"],
) -> Tensor:
    """The regression loss of each box, all (..., 4) -> (...).

    Args:
        deltas: predicted offsets, which move `anchors`.
        anchors: anchors or proposals, with positive sides.
        boxes: the ground truth to which the offsets should move them, with positive sides.
        growth_bound: as in `ops.boxes.decode`.
    """
    if config.box_loss == "giou":
        return 1 - box_ops.generalised_iou(box_ops.decode(deltas, anchors, config.box_weights, growth_bound), boxes)
    return smooth_l1(deltas, box_ops.encode(boxes, anchors, config.box_weights), config.smooth_l1_beta)


def mean_box_loss(
    losses: Tensor,
    positive: Tensor,
    valid: Tensor,
    per: Literal["sampled", "offsets"],
    divisor: int | None = None,
) -> Tensor:
    """The mean of the losses of boxes, each a sum over four offsets; all (B, S) or (R,) -> scalar.

    Args:
        per: `sampled` divides by the number of sampled candidates, positive or not (Fast R-CNN); `offsets` takes the
            mean over the offsets of the positives (Matterport).
        divisor: replaces the number of sampled candidates.
    """
    if per == "offsets":
        return mean_over(losses / 4, positive)
    return mean_over(losses * positive, valid, divisor)


def smooth_l1(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Smooth L1 over the last dimension (Girshick 2015, equation 3), (..., 4) -> (...).

    Args:
        beta: the difference at which the parabola becomes a line; 0 is plain L1.
    """
    if beta == 0:
        return (predicted - target).abs().sum(-1)
    return F.smooth_l1_loss(predicted, target, beta=beta, reduction="none").sum(-1)


def mean_over(values: Tensor, weights: Tensor, divisor: int | None = None) -> Tensor:
    """The sum of the values where `weights` is True, divided by how many these are (at least 1), or by `divisor`.

    Other values are replaced by zero, not multiplied with it, so that an infinity in an empty slot does no harm.

    Args:
        values: float32; weights: bool, of the same shape.
    """
    total = values.where(weights, 0.0).sum()
    return total / (weights.sum().clamp(min=1) if divisor is None else divisor)


def add_losses(total: dict[str, Tensor], losses: dict[str, Tensor], weight: float) -> None:
    """Adds the losses of one stage, times its weight, to the sums over the stages by name."""
    for name, loss in losses.items():
        total[name] = total.get(name, 0) + weight * loss


def mean_of(stages: Sequence[Tensor]) -> Tensor:
    """The mean of one tensor a stage, all of one shape; a single one is not copied."""
    return stages[0] if len(stages) == 1 else torch.stack(list(stages)).mean(0)
