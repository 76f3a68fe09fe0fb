"""What is given stays, and choices follow from it."""

from __future__ import annotations

import pytest

from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError
from maskrcnn.training.recipes.choices import GIVEN, Choice, Choices, rows_of


def test_a_choice_changes_what_is_not_given() -> None:
    choices = Choices(preset("mask_rcnn_R_18_FPN"), {"train.steps": 7})
    choices.set({"train.steps": 90, "train.batch_size": 2}, "why")
    assert (choices.config.train.steps, choices.config.train.batch_size) == (7, 2)
    assert choices.rows == [Choice("train.steps", 7, GIVEN), Choice("train.batch_size", 2, "why")]


def test_a_part_that_is_given_or_missing_keeps_its_settings() -> None:
    choices = Choices(preset("faster_rcnn_R_50_FPN"), {"model.rpn": {"samples": 64}})
    choices.set({"model.mask_head.samples": 24, "model.rpn.samples": 256}, "why")
    assert choices.config.model.mask_head is None
    assert choices.config.model.rpn.samples == 64
    assert [row.setting for row in choices.rows] == ["model.rpn.samples"]
    choices = Choices(preset("mask_rcnn_R_50_FPN"), {"model.mask_head.convs": 2})
    choices.set({"model.mask_head": None}, "why")
    assert choices.config.model.mask_head is not None


def test_a_given_setting_with_a_slip_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"train\.stepz: there is no such setting"):
        Choices(preset("mask_rcnn_tiny"), {"train.stepz": 7})


def test_rows_are_a_table() -> None:
    rows = rows_of([Choice("train.steps", 5, "why"), Choice("model.anchors.sizes", ((8.0,), (16.0, 24.0)), GIVEN)])
    assert rows[0].split() == ["setting", "value", "reason"]
    assert rows[1:] == ["train.steps          5        why", "model.anchors.sizes  8 16,24  given"]
