"""Loss functions that the RPN and the branches share. Inputs and results are float32."""

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
    """The regression loss of each box, (..., 4) -> (...), as `config.box_loss` says: smooth L1 or generalised IoU.

    Args:
        deltas: predicted offsets from `anchors`.
        anchors: anchors or proposals with positive sides, network-input pixels.
        boxes: ground-truth boxes with positive sides, network-input pixels.
        growth_bound: as in `ops.boxes.decode`.
    """
    if config.box_loss == "giou":
        return 1 - box_ops.generalised_iou(box_ops.decode(deltas, anchors, config.box_weights, growth_bound), boxes)
    return smooth_l1(deltas, box_ops.encode(boxes, anchors, config.box_weights), config.smooth_l1_beta)


def mean_box_loss(
    losses: Tensor, positive: Tensor, valid: Tensor, per: Literal["sampled", "offsets"], divisor: int | None = None
) -> Tensor:
    """The sum of the box losses of the positives, divided by a number of candidates or offsets -> scalar.

    Args:
        losses: (B, S) or (R,), each the sum over four offsets; positive, valid: bool of the same shape.
        per: `sampled` divides by the number of valid candidates, positive or not (Fast R-CNN); `offsets` divides by
            four times the number of positives (Matterport).
        divisor: replaces the number of valid candidates.
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


def mean_over(values: Tensor, counted: Tensor, divisor: int | None = None) -> Tensor:
    """The sum of the counted values, divided by their number (at least 1) or by `divisor`.

    Other values are replaced by zero and not multiplied by it, because an empty slot may hold an infinity.

    Args:
        values: float32; counted: bool of the same shape.
    """
    total = values.where(counted, 0.0).sum()
    return total / (counted.sum().clamp(min=1) if divisor is None else divisor)


def add_losses(total: dict[str, Tensor], losses: dict[str, Tensor], weight: float) -> None:
    """Adds the losses of one stage, times its weight, to the sums in `total`, in place."""
    for name, loss in losses.items():
        total[name] = total.get(name, 0) + weight * loss


def mean_of(stages: Sequence[Tensor]) -> Tensor:
    """The mean of the tensors of all stages, which have one shape. A single tensor is returned as it is."""
    return stages[0] if len(stages) == 1 else torch.stack(list(stages)).mean(0)
