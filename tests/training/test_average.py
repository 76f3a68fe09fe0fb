"""The average of the weights follows them by its decay, and buffers with them."""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn.config import TrainConfig
from maskrcnn.training.average import WeightAverage


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def test_floats_are_averaged_and_counts_are_copied() -> None:
    trained = network()
    average = WeightAverage(trained, 0.9)
    expected = {name: value.clone() for name, value in trained.state_dict().items()}
    for number in range(1, 120):
        for value in trained.state_dict().values():
            value.copy_(torch.rand(value.shape) * 10)  # whole numbers stay whole
        average.update(trained)
        decay = min(0.9, (1 + number) / (10 + number))
        for name, value in trained.state_dict().items():
            expected[name] = (
                value.clone() if not value.is_floating_point() else decay * expected[name] + (1 - decay) * value
            )
    assert average.updates == 119
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value, expected[name])
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())


def test_the_decay_follows_from_the_length_of_the_run_unless_it_is_given() -> None:
    assert [TrainConfig(steps=steps).average_decay for steps in (10, 3000, 10**6)] == [0.0, 1 - 20 / 3000, 0.9999]
    assert TrainConfig(steps=10, ema_decay=0.5).average_decay == 0.5
