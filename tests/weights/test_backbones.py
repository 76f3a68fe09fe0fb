"""Backbones of other frameworks: small random ones, written in each one's names and layout by a second table."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn.config import Config, ImageConfig, ModelConfig, ResNetConfig
from maskrcnn.config.conventions import OURS, FeatureRules
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.resnet import ResNet
from maskrcnn.weights.backbones import check_rules, fill_backbone, read_backbone, with_rules_of
from maskrcnn.weights.initialise import read_initial_weights
from odd_shapes import check_odd_shapes
from older_twins import KINDS, convolutions
from small_network import load_backbone

ARCHITECTURE = ResNetConfig(depth=50, width=8, frozen_stages=0)
TINY = replace(KINDS["FPN"], backbone=ARCHITECTURE)
NORM = ("weight", "bias", "running_mean", "running_var")


def lively(config: ResNetConfig, pool_padding: Any = "around") -> ResNet:
    torch.manual_seed(0)
    network = ResNet(config, pool_padding=pool_padding).eval()
    state = network.state_dict()
    for name, value in state.items():
        if ".norm." in name:
            value.copy_(0.5 + 0.5 * torch.rand_like(value) if name.endswith(("weight", "var")) else value.normal_() / 5)
    return network


def bgr(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return state | {"stem.conv.weight": state["stem.conv.weight"][:, [2, 1, 0]]}


def places() -> list[tuple[str, int, int, str]]:
    return [(ours.removeprefix("backbone."), *rest) for ours, *rest in convolutions(TINY)]  # type: ignore[misc]


def as_detectron(network: ResNet) -> dict[str, Tensor]:
    state = bgr(network.state_dict())
    result = {"conv1_b": torch.zeros(8), "pred_w": torch.zeros(5, 5), "pred_b": torch.zeros(5)}

    def move(module: str, conv: str, norm: str) -> None:
        scale, shift, mean, var = (state[f"{module}.norm.{leaf}"].double() for leaf in NORM)
        factor = scale / (var + 1e-5).sqrt()
        result[f"{conv}_w"] = state[f"{module}.conv.weight"]
        result[f"{norm}_bn_s"], result[f"{norm}_bn_b"] = factor.float(), (shift - mean * factor).float()

    move("stem", "conv1", "res_conv1")
    for ours, stage, block, place in places():
        branch = {"1": "2a", "2": "2b", "3": "2c", "shortcut": "1"}[place]
        move(ours, *[f"res{stage}_{block}_branch{branch}"] * 2)
    return result


def as_detectron2(network: ResNet, *, flipped: bool = True) -> dict[str, Tensor]:
    state = bgr(network.state_dict()) if flipped else network.state_dict()
    result = {"stem.fc.weight": torch.zeros(5, 5)}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        module = module.removesuffix(".conv")
        module = module.replace("stem", "stem.conv1")
        result[f"{module}.{leaf}"] = value
    return result


def as_keras(network: ResNet, form: int) -> dict[str, Tensor]:
    """Of Keras 2 or of Keras 1, with biases that the norms behind them take away again."""
    leaves = {"kernel": "W", "bias": "b", "moving_mean": "running_mean", "moving_variance": "running_std"}
    state = bgr(network.state_dict())
    result: dict[str, Tensor] = {}

    def put(layer: str, leaf: str, value: Tensor) -> None:
        last = f"{leaf}:0" if form == 2 else f"{layer}_{leaves.get(leaf, leaf)}_1:0"
        result[f"{layer}/{layer}/{last}" if form == 2 else f"{layer}/{last}"] = value

    def move(module: str, conv: str, norm: str) -> None:
        weight = state[f"{module}.conv.weight"]
        bias = torch.randn(len(weight))
        put(conv, "kernel", weight.permute(2, 3, 1, 0))
        put(conv, "bias", bias)
        names = ("gamma", "beta", "moving_mean", "moving_variance")
        for leaf, name in zip(NORM, names, strict=True):
            put(norm, name, state[f"{module}.norm.{leaf}"] + (bias if name == "moving_mean" else 0))

    move("stem", "conv1", "bn_conv1")
    for ours, stage, block, place in places():
        base = f"{stage}{'abcdef'[block]}_branch" + {"1": "2a", "2": "2b", "3": "2c", "shortcut": "1"}[place]
        move(ours, f"res{base}", f"bn{base}")
    return result


def checkpoint(tensors: dict[str, Tensor], **extra: Any) -> Checkpoint:
    return Checkpoint("pickle", tensors, extra, ())


CASES: dict[str, tuple[Any, ResNetConfig, dict[str, Any]]] = {
    "Detectron": (
        as_detectron,
        replace(ARCHITECTURE, stride_in_1x1=True, norm_eps=0.0),
        {"mean": (122.7717, 115.9465, 102.9801), "std": (1.0, 1.0, 1.0)},
    ),
    "Detectron2": (
        as_detectron2,
        replace(ARCHITECTURE, stride_in_1x1=True),
        {"mean": (123.675, 116.28, 103.53), "std": (1.0, 1.0, 1.0)},
    ),
    **{
        f"Keras {form}": (
            lambda network, form=form: as_keras(network, form),
            replace(ARCHITECTURE, stride_in_1x1=True, norm_eps=1e-3),
            {"mean": (123.68, 116.779, 103.939), "std": (1.0, 1.0, 1.0)},
        )
        for form in (1, 2)
    },
}


@pytest.mark.parametrize("kind", CASES)
def test_features_and_rules(kind: str) -> None:
    """The config that comes of the rules makes a network that gives the same features as the one that was stored."""
    write, expected, pixels = CASES[kind]
    # Detectron's file holds folded norms: the network of which it was made had an epsilon.
    pool_padding: Any = "after" if kind.startswith("Keras") else "around"
    original = lively(replace(expected, norm_eps=expected.norm_eps or 1e-5), pool_padding)
    file = read_backbone(checkpoint(write(original)))
    config = with_rules_of(Config(TINY), file)
    assert config.model.backbone == expected
    assert config.conventions == replace(OURS, features=FeatureRules(pool_padding=pool_padding))
    assert (config.image.mean, config.image.std) == (pixels["mean"], pixels["std"])
    check_rules(config, file)
    found = ResNet(expected, pool_padding=pool_padding).eval()
    found.load_state_dict(file.state)
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for a, b in zip(found(image), original(image), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_files_open_by_their_content(tmp_path: Path) -> None:
    path = tmp_path / "R-50.pkl"
    tensors = as_detectron(lively(replace(ARCHITECTURE, stride_in_1x1=True)))
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in tensors.items()}, protocol=2))
    config = read_initial_weights(path, Config(TINY)).with_conventions(Config(TINY))
    assert isinstance(config.model.backbone, ResNetConfig)
    assert config.model.backbone.stride_in_1x1
    assert load_backbone(ResNet(config.model.backbone), path) == "backbone from R-50.pkl"
    tensors["more_w"] = torch.zeros(1)
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in tensors.items()}, protocol=2))
    with pytest.raises(WeightsError, match="1 unexpected: more_w"):
        load_backbone(ResNet(config.model.backbone), path)


def test_own_settings_that_contradict_are_named() -> None:
    file = read_backbone(checkpoint(as_detectron(lively(ARCHITECTURE))))
    config = with_rules_of(Config(TINY, image=ImageConfig(mean=(1.0, 2.0, 3.0))), file)
    assert config.image.mean == (1.0, 2.0, 3.0)
    with pytest.raises(match=r"image\.mean is \(1\.0, 2\.0, 3\.0\), and these weights of Detectron .*122"):
        check_rules(config, file)
    trained = Config(replace(TINY, backbone=replace(ARCHITECTURE, norm="batch_norm")))
    with pytest.raises(match=r"model\.backbone\.norm is batch_norm, .* hold no statistics"):
        check_rules(with_rules_of(trained, file), file)
    with pytest.raises(match=r"model\.backbone\.stride_in_1x1 is False"):
        check_rules(replace(with_rules_of(Config(TINY), file), model=TINY), file)


def test_detectron2s_copy_of_torchvision_is_rgb() -> None:
    original = lively(ARCHITECTURE)
    file = read_backbone(checkpoint(as_detectron2(original, flipped=False), __author__="torchvision"))
    assert file.rules == {}
    assert torch.equal(file.state["stem.conv.weight"], original.state_dict()["stem.conv.weight"])


def test_resnext_has_a_deviation_and_its_stride_in_the_3x3() -> None:
    grouped = replace(ARCHITECTURE, groups=4, bottleneck_width=16)
    file = read_backbone(checkpoint(as_detectron2(lively(grouped))))
    assert file.rules["image.std"] == (58.395, 57.12, 57.375)
    assert file.rules["model.backbone.stride_in_1x1"] is False
    old = read_backbone(checkpoint(as_detectron(lively(grouped))))
    assert (old.rules["image.std"], old.rules["model.backbone.stride_in_1x1"]) == ((1.0, 1.0, 1.0), False)


def test_detectrons_group_norm_has_its_stride_in_the_3x3() -> None:
    tensors = {
        name.replace("res_conv1_bn", "conv1_gn").replace("_bn_", "_gn_"): value
        for name, value in as_detectron(lively(ARCHITECTURE)).items()
    }
    file = read_backbone(checkpoint(tensors))
    network = ResNet(replace(ARCHITECTURE, width=32, norm="group_norm"))
    assert file.state.keys() == network.state_dict().keys()
    assert file.rules["model.backbone.stride_in_1x1"] is False
    assert not file.folded


def test_timms_resnets(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    theirs = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    whole = timm.create_model("resnet18").eval()
    whole.load_state_dict(theirs.state_dict(), strict=False)
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    ours = ResNet(ResNetConfig(depth=18)).eval()
    load_backbone(ours, tmp_path / "resnet18.pth")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for a, b in zip(ours(image), theirs(image), strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["conv1.0.weight", "layer1.0.se.fc1.weight"])
def test_timms_other_resnets_are_refused(name: str) -> None:
    tensors = {"layer1.0.conv1.weight": torch.zeros(1), name: torch.zeros(1)}
    with pytest.raises(WeightsError, match="which our ResNet does not support"):
        read_backbone(checkpoint(tensors))


def test_torchvisions_layout_brings_no_rules() -> None:
    config = Config(ModelConfig())
    assert with_rules_of(config, read_backbone(checkpoint({"conv1.weight": torch.zeros(1)}))) is config


@pytest.mark.parametrize("kind", CASES)
def test_odd_shapes_are_refused(kind: str) -> None:
    write, expected, _ = CASES[kind]
    pool_padding: Any = "after" if kind.startswith("Keras") else "around"
    network = lively(replace(expected, norm_eps=expected.norm_eps or 1e-5), pool_padding)

    def opened(tensors: Any) -> None:
        file = read_backbone(checkpoint(dict(tensors)))
        with_rules_of(Config(TINY), file)
        fill_backbone(network, file, "w.pkl")

    check_odd_shapes(opened, write(network))
