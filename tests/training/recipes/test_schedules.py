"""The published schedules, for one batch and another."""

from __future__ import annotations

from typing import Any

import pytest

from drawn_data import drawn
from maskrcnn.config import Config
from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError
from maskrcnn.training.recipes.hardware import Hardware
from maskrcnn.training.recipes.recipe import Recipe, plan

EIGHT = Hardware("cuda", 8, 80.0, processes=8)


def planned(name: Any, machine: Hardware, images: int = 100, **given: Any) -> Config:
    recipe = Recipe(name, given={f"train.{key}": value for key, value in given.items()})
    return plan(recipe, recipe.start(machine), drawn(images, 2, 30), machine, "resnet50", "backbone").config


def test_the_schedule_1x_is_that_of_the_preset() -> None:
    config = planned("1x", EIGHT)
    own = preset("mask_rcnn_R_50_FPN").train
    train = config.train
    assert (train.batch_size, train.steps, train.learning_rate) == (2, 90_000, 0.02)
    assert (train.warmup_steps, train.weight_decay, train.optimizer) == (1000, 1e-4, "sgd")
    assert train.drops == pytest.approx(own.drops)
    assert config.model == preset("mask_rcnn_R_50_FPN").model


def test_fewer_images_in_a_step_mean_more_steps_and_a_lower_rate() -> None:
    train = planned("3x", Hardware("cpu", 2)).train
    assert (train.batch_size, train.steps, train.learning_rate) == (2, 270_000 * 8, 0.0025)
    assert train.drops == pytest.approx((210 / 270, 250 / 270))
    assert planned("3x", Hardware("cpu", 2), accumulate=8).train.learning_rate == 0.02


def test_large_scale_jitter_counts_epochs() -> None:
    config = planned("lsj-200", Hardware("cuda", 8, 80.0, processes=2), images=640)
    train = config.train
    assert train.batch_size * 2 == 32
    assert train.steps == 200 * 640 / 32
    assert train.learning_rate == 0.05
    assert (config.augment.scale_jitter, config.augment.crop) == ((0.1, 2.0), (1024, 1024))
    assert (config.model.resnet.norm, config.model.resnet.frozen_stages) == ("sync_batch_norm", 0)
    assert (config.model.box_head.convs, config.model.box_head.layers, config.model.rpn.convs) == (4, 1, 2)


def test_a_recipe_with_impossible_values_is_refused() -> None:
    for wrong, message in (
        ({"name": "2x"}, "unknown recipe '2x'"),
        ({"budget": 0.0}, "a number of seconds above 0"),
        ({"budget": 60.0, "given": {"train.steps": 5}}, "either the budget or train.steps"),
        ({"hold_out": 1.0}, "--hold-out: expected a share of the images from 0 to below 1, found 1.0"),
        ({"base": "mask_rcnn_tiny"}, "expected a Config"),
    ):
        with pytest.raises(ConfigError, match=message):
            Recipe(**wrong)  # type: ignore[arg-type]
