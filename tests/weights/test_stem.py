"""Weights for images of some channels in a network for others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from maskrcnn.config import AnchorConfig, Channel, ImageConfig, ResNetConfig
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.frameworks.settings import pixel_statistics
from maskrcnn.weights.initialise import read_initial_weights
from maskrcnn.weights.model_file import save_model
from maskrcnn.weights.open import detector_in
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


def test_the_first_convolution_is_trained_where_the_stem_is_frozen() -> None:
    base = small_config()
    config = replace(base, model=replace(base.model, backbone=ResNetConfig(depth=10, width=8, frozen_stages=2)))
    for image, trained in ((RGB, False), (of_channels(4), True)):
        network = build_model(replace(config, image=image))
        assert network.backbone.stem.conv.weight.requires_grad == trained  # type: ignore[union-attr]
        frozen = [name for name, value in network.backbone.named_parameters() if not value.requires_grad]
        assert any(name.startswith("res2") for name in frozen)


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
    other = replace(config, image=replace(config.image, channels=of_channels(number).channels))
    network = build_model(other)
    said = read_initial_weights(tmp_path / "rgb.safetensors", other).fill(network, other)
    assert said.endswith(f"first convolution adapted from 3 to {number} channels")
    stem = network.backbone.stem.conv.weight  # type: ignore[union-attr]
    torch.testing.assert_close(stem.sum(1), rgb.backbone.stem.conv.weight.sum(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [1, 4])
def test_a_checkpoint_of_detectron2_opens_with_the_statistics_in_it(number: int) -> None:
    base = small_config()
    resnet = ResNetConfig(depth=50, width=8)
    config = replace(base, model=replace(base.model, backbone=resnet, anchors=AnchorConfig()))
    config = replace(config, image=of_channels(number))
    network = build_model(config)
    state = Detectron2().export_state(config, network.state_dict())
    statistics = {"pixel_mean": torch.arange(number).view(-1, 1, 1), "pixel_std": torch.full((number, 1, 1), 2)}
    opened = detector_in(Checkpoint("torch", state | statistics, {}, ()), "w.pth")
    assert opened.config.image.statistics == (tuple(map(float, range(number))), (2.0,) * number)
    name = "backbone.stem.conv.weight"
    assert torch.equal(opened.state[name], network.state_dict()[name])  # in the order of the file
    assert "the channels have the order of the file" in opened.provenance["assumed"]


def test_matterport_means_of_four_channels() -> None:
    image = pixel_statistics([123.7, 116.8, 103.9, 90], [1.0] * 4)["channels"]
    assert [(one.mean, one.std, one.stretch) for one in image[2:]] == [(103.9, 1, "none"), (90, 1, "none")]
    assert pixel_statistics([1, 2, 3], [4, 5, 6], bgr=True) == {"mean": (3, 2, 1), "std": (6, 5, 4)}
