"""Which weight decay and learning rate each parameter gets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from maskrcnn.models.build import build_model
from maskrcnn.training.optimiser import build_optimiser, layer_of
from small_data import small_config


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_vectors_are_not_decayed(name: str) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))
    groups = build_optimiser(network, small_config(optimizer=name).train).param_groups
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert decayed == {id(network[0].weight)}


def test_layers_of_our_backbones_and_of_timm() -> None:
    names = [
        "backbone.res2.0.conv1.conv.weight",
        "backbone.stem.conv.weight",
        "backbone.net.stages_0.blocks.2.norm.bias",
    ]
    assert [layer_of(name) for name in names] == ["res2.0", "stem", "stages_0.blocks.2"]
    assert [layer_of(name) for name in ("rpn.head.convs.0.weight", "neck.lateral.0.weight")] == ["", ""]


def test_the_backbone_has_a_rate_of_its_own_that_falls_from_layer_to_layer() -> None:
    config = small_config(backbone_rate=0.5, layer_decay=0.8)
    resnet = replace(config.model.resnet, depth=10, frozen_stages=2)
    network = build_model(replace(config, model=replace(config.model, backbone=resnet)))
    optimiser = build_optimiser(network, config.train)
    rates = {name: group["rate"] for group in optimiser.param_groups for name in group["param_names"]}
    assert not any(name.startswith(("backbone.stem", "backbone.res2")) for name in rates), "frozen"
    found = {name.split(".")[1]: rate for name, rate in rates.items() if name.startswith("backbone.")}
    assert found == pytest.approx({"res3": 0.5 * 0.8**3, "res4": 0.5 * 0.8**2, "res5": 0.5 * 0.8})
    assert {rate for name, rate in rates.items() if not name.startswith("backbone.")} == {1.0}
