"""The loss functions that both stages share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from maskrcnn.config import BoxHeadConfig, RPNConfig
from maskrcnn.models.losses import LossSum, add_losses, box_loss, mean_losses, smooth_l1, sum_over
from maskrcnn.ops.boxes import encode, generalised_iou


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_smooth_l1(beta: float) -> None:
    predicted, target = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(5)
    for i in range(5):
        for x in (predicted[i] - target[i]).abs().tolist():
            expected[i] += 0.5 * x * x / beta if x < beta else x - 0.5 * beta
    torch.testing.assert_close(smooth_l1(predicted, target, beta), expected)
    torch.testing.assert_close(
        smooth_l1(predicted, target, beta).sum(), F.smooth_l1_loss(predicted, target, beta=beta, reduction="sum")
    )


@pytest.mark.parametrize("config", [RPNConfig(), BoxHeadConfig(smooth_l1_beta=0)])
def test_smooth_l1_is_of_the_offsets(config: RPNConfig | BoxHeadConfig) -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 25, 45]])
    boxes = torch.tensor([[1.0, 2, 12, 9], [6, 1, 20, 50]])
    right = encode(boxes, anchors, config.box_weights)
    assert box_loss(right, anchors, boxes, config, "above").tolist() == [0, 0]
    shifted = box_loss(right + torch.tensor([2.0, 0, 0, 0]), anchors, boxes, config, "above")
    torch.testing.assert_close(shifted, torch.full((2,), 2 - 0.5 * config.smooth_l1_beta))


@pytest.mark.parametrize("config", [RPNConfig(box_loss="giou"), BoxHeadConfig(box_loss="giou")])
def test_giou_is_of_the_decoded_box_and_leads_to_it(config: RPNConfig | BoxHeadConfig) -> None:
    anchors = torch.tensor([[0.0, 0, 10, 10], [5, 5, 25, 45]])
    boxes = torch.tensor([[30.0, 40, 52, 49], [6, 1, 20, 50]])  # the first far away from its anchor
    deltas = torch.zeros(2, 4, requires_grad=True)
    torch.testing.assert_close(box_loss(deltas, anchors, boxes, config, "above"), 1 - generalised_iou(anchors, boxes))
    right = encode(boxes, anchors, config.box_weights)
    torch.testing.assert_close(box_loss(right, anchors, boxes, config, "above"), torch.zeros(2), atol=1e-5, rtol=0)
    loss = box_loss(deltas, anchors, boxes, config, "above")
    (downhill,) = torch.autograd.grad(loss.sum(), deltas)
    assert (box_loss(deltas - 0.01 * downhill, anchors, boxes, config, "above") < loss).all()


def test_the_mean_is_over_what_is_counted() -> None:
    values = torch.tensor([1.0, 2.0, 30.0])
    assert sum_over(values, torch.tensor([True, True, False])).mean().item() == 1.5
    assert sum_over(values, torch.zeros(3, dtype=torch.bool)).mean().item() == 0
    assert sum_over(values[:0], torch.zeros(0, dtype=torch.bool)).mean().item() == 0


def test_what_is_not_set_does_no_harm() -> None:
    values = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    loss = sum_over(values * 2, torch.tensor([True, False, False])).mean()
    assert loss.item() == 2
    loss.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [2.0, 0.0, 0.0]


def test_the_mean_may_be_over_a_given_number() -> None:
    values, weights = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([True, True, False])
    assert sum_over(values, weights, 8).mean().item() == 3 / 8


def test_parts_of_a_batch_are_divided_by_the_divisors_of_all() -> None:
    values, counted = torch.tensor([1.0, 2.0, 4.0, 50.0]), torch.tensor([True, True, True, False])
    whole = sum_over(values, counted).mean()
    parts = [{"loss": sum_over(values[part], counted[part])} for part in (slice(0, 1), slice(1, 4))]
    divisors = {"loss": parts[0]["loss"].divisor + parts[1]["loss"].divisor}
    assert sum(mean_losses(part, divisors)["loss"] for part in parts) == whole


def test_stages_are_divided_each_by_its_own_divisor() -> None:
    total: dict[str, LossSum] = {}
    add_losses(total, {"loss": sum_over(torch.tensor([2.0, 4.0]), torch.tensor([True, True]))}, 1.0)
    add_losses(total, {"loss": sum_over(torch.tensor([8.0, 9.0]), torch.tensor([True, False]))}, 0.5)
    assert total["loss"].divisor.tolist() == [2, 1]
    assert total["loss"].mean().item() == 3 + 4
