"""Weights for images of some channels in a network for others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskrcnn.config import Channel, ImageConfig
from maskrcnn.models.build import build_model
from maskrcnn.weights.initialise import read_initial_weights
from maskrcnn.weights.model_file import save_model
from maskrcnn.weights.stem import adapted_stem
from small_data import small_config

WEIGHT = torch.randn(8, 3, 7, 7, generator=torch.Generator().manual_seed(0))
RGB = ImageConfig()


def of_channels(number: int) -> ImageConfig:
    return ImageConfig(channels=tuple(Channel(f"c{i}", "none", mean=0, std=1) for i in range(number)))


def test_one_channel_gets_the_sum_and_several_the_scaled_mean() -> None:
    assert adapted_stem(WEIGHT, RGB, RGB) is WEIGHT
    torch.testing.assert_close(adapted_stem(WEIGHT, RGB, of_channels(1)), WEIGHT.sum(1, keepdim=True))
    five = adapted_stem(WEIGHT, RGB, of_channels(5))
    torch.testing.assert_close(five, (WEIGHT.mean(1, keepdim=True) * 3 / 5).expand(-1, 5, -1, -1))
    torch.testing.assert_close(five.sum(1), WEIGHT.sum(1))  # the response to equal channels
    torch.testing.assert_close(adapted_stem(five, of_channels(5), RGB).sum(1), WEIGHT.sum(1))


def test_weights_without_a_standard_deviation_are_scaled_for_measured_channels() -> None:
    plain = ImageConfig(std=(1.0, 1.0, 1.0))
    scaled = WEIGHT * torch.tensor(RGB.std)[:, None, None]
    torch.testing.assert_close(adapted_stem(WEIGHT, plain, of_channels(3)), scaled)
    torch.testing.assert_close(adapted_stem(WEIGHT, plain, of_channels(1)), scaled.sum(1, keepdim=True))
    assert adapted_stem(WEIGHT, plain, plain) is WEIGHT


@pytest.mark.parametrize("number", [1, 4])
def test_training_begins_from_rgb_weights(tmp_path: Path, number: int) -> None:
    config = small_config()
    torch.manual_seed(0)
    rgb = build_model(config)
    save_model(tmp_path / "rgb.safetensors", rgb, config, {})
    backbone = {
        name.removeprefix("backbone."): value
        for name, value in rgb.state_dict().items()
        if name.startswith("backbone.")
    }
    other = replace(config, image=replace(config.image, channels=of_channels(number).channels))
    network = build_model(other)
    said = read_initial_weights(tmp_path / "rgb.safetensors", other).fill(network, other)
    assert said.endswith(f"first convolution adapted from 3 to {number} channels")
    stem = network.backbone.stem.conv.weight  # type: ignore[union-attr]
    torch.testing.assert_close(stem.sum(1), rgb.backbone.stem.conv.weight.sum(1))  # type: ignore[union-attr]
    assert backbone["stem.conv.weight"].shape[1] == 3
