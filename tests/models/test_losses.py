"""The loss functions that both stages share."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from maskrcnn.models.losses import box_loss, mean_over


@pytest.mark.parametrize("beta", [0.0, 1 / 9, 1.0])
def test_box_loss_is_smooth_l1(beta: float) -> None:
    predicted, target = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    expected = torch.zeros(5)
    for i in range(5):
        for x in (predicted[i] - target[i]).abs().tolist():
            expected[i] += 0.5 * x * x / beta if x < beta else x - 0.5 * beta
    torch.testing.assert_close(box_loss(predicted, target, beta), expected)
    torch.testing.assert_close(
        box_loss(predicted, target, beta).sum(), F.smooth_l1_loss(predicted, target, beta=beta, reduction="sum")
    )


def test_mean_over_counts_what_is_set() -> None:
    values = torch.tensor([1.0, 2.0, 30.0])
    assert mean_over(values, torch.tensor([True, True, False])).item() == 1.5
    assert mean_over(values, torch.zeros(3, dtype=torch.bool)).item() == 0
    assert mean_over(values[:0], torch.zeros(0, dtype=torch.bool)).item() == 0


def test_what_is_not_set_does_no_harm() -> None:
    values = torch.tensor([1.0, float("inf"), float("nan")], requires_grad=True)
    loss = mean_over(values * 2, torch.tensor([True, False, False]))
    assert loss.item() == 2
    loss.backward()
    assert values.grad is not None
    assert values.grad.tolist() == [2.0, 0.0, 0.0]
