"""Loss functions that the RPN and the branches share. Inputs and results are float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from maskrcnn.config import BoxHeadConfig, RPNConfig
from maskrcnn.ops import boxes as box_ops


class LossSum(NamedTuple):
    """A loss before its division. T stages of a cascade have one entry each; elsewhere T is 1.

    Attributes:
        total: (T,) float32 sums over what is counted.
        divisor: (T,) float32 numbers that divide the sums, without gradient. They count something, so those of several
            batches may be added.
    """

    total: Tensor
    divisor: Tensor

    def mean(self, divisor: Tensor | None = None) -> Tensor:
        """The loss, a scalar: each sum divided by its divisor, or by another one (T,), which is taken as at least 1."""
        return (self.total / (self.divisor if divisor is None else divisor).clamp(min=1)).sum()


def mean_losses(sums: Mapping[str, LossSum], divisors: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The scalar losses by name.

    Args:
        divisors: replace those of the sums by those of the larger batch to which the sums belong.
    """
    return {name: part.mean(None if divisors is None else divisors[name]) for name, part in sums.items()}


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


def sum_box_loss(
    losses: Tensor, positive: Tensor, valid: Tensor, per: Literal["sampled", "offsets"], divisor: int | None = None
) -> LossSum:
    """The sum of the box losses of the positives, and the number of candidates or offsets that divides it.

    Args:
        losses: (B, S) or (R,), each the sum over four offsets; positive, valid: bool of the same shape.
        per: `sampled` divides by the number of valid candidates, positive or not (Fast R-CNN); `offsets` divides by
            four times the number of positives (Matterport).
        divisor: replaces the number of valid candidates.
    """
    if per == "offsets":
        return sum_over(losses / 4, positive)
    return sum_over(losses * positive, valid, divisor)


def smooth_l1(predicted: Tensor, target: Tensor, beta: float) -> Tensor:
    """Smooth L1 over the last dimension (Girshick 2015, equation 3), (..., 4) -> (...).

    Args:
        beta: the difference at which the parabola becomes a line; 0 is plain L1.
    """
    if beta == 0:
        return (predicted - target).abs().sum(-1)
    return F.smooth_l1_loss(predicted, target, beta=beta, reduction="none").sum(-1)


def sum_over(values: Tensor, counted: Tensor, divisor: int | Tensor | None = None) -> LossSum:
    """The sum of the counted values, to be divided by their number or by `divisor`.

    Other values are replaced by zero and not multiplied by it, because an empty slot may hold an infinity.

    Args:
        values: float32; counted: bool of the same shape.
    """
    total = values.where(counted, 0.0).sum()[None]
    number = counted.sum() if divisor is None else divisor
    return LossSum(total, torch.zeros_like(total) + number)


def add_losses(total: dict[str, LossSum], losses: Mapping[str, LossSum], weight: float) -> None:
    """Appends the losses of one stage, times its weight, to those of the stages before, in place."""
    for name, (part, divisor) in losses.items():
        weighted = LossSum(part * weight, divisor)
        before = total.get(name)
        total[name] = weighted if before is None else LossSum(*map(torch.cat, zip(before, weighted, strict=True)))


def mean_of(stages: Sequence[Tensor]) -> Tensor:
    """The mean of the tensors of all stages, which have one shape. A single tensor is returned as it is."""
    return stages[0] if len(stages) == 1 else torch.stack(list(stages)).mean(0)
