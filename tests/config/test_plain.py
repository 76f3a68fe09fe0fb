"""Settings from plain types: what changes, what stays, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from maskrcnn.config import (
    Config,
    KeypointHeadConfig,
    MaskHeadConfig,
    PointRendConfig,
    TimmConfig,
    config_from_dict,
    config_to_dict,
    with_settings,
)
from maskrcnn.config.presets import PRESETS, preset
from maskrcnn.errors import ConfigError


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_as_plain_types(name: str) -> None:
    assert config_from_dict(config_to_dict(preset(name))) == preset(name)


def test_settings_change_at_any_depth_and_the_others_stay() -> None:
    base = preset("mask_rcnn_tiny")
    given = {"train": {"steps": 7, "clip_norm": None}, "model": {"anchors": {"ratios": [1]}}}
    model = replace(base.model, anchors=replace(base.model.anchors, ratios=(1.0,)))
    expected = replace(base, model=model, train=replace(base.train, steps=7, clip_norm=None))
    assert with_settings(base, given) == expected
    assert with_settings(base, {}) == base
    dotted = {"train.steps": 7, "model.anchors": {"ratios": [1]}, "train": {"clip_norm": None}}
    assert with_settings(base, dotted) == expected


def test_parts_come_and_go() -> None:
    base = Config()
    changed = with_settings(base, {"model": {"mask_head": None, "keypoint_head": {"num_keypoints": 4}}}).model
    assert (changed.mask_head, changed.keypoint_head) == (None, KeypointHeadConfig(num_keypoints=4))
    pointed = with_settings(base, {"model": {"mask_head": {"point_rend": {"layers": 2}}}}).model
    assert pointed.mask_head == MaskHeadConfig(point_rend=PointRendConfig(layers=2))
    timm = with_settings(base, {"model": {"backbone": {"name": "convnext_tiny"}}})
    assert timm.model.backbone == TimmConfig("convnext_tiny")
    assert with_settings(timm, {"model": {"backbone": {"frozen": True}}}).model.backbone == TimmConfig(
        "convnext_tiny", frozen=True
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"train": {"stepz": 1}}, r"^train\.stepz: there is no such setting; nearest: train\.steps"),
        ({"xyzzy": 1}, r"^xyzzy: there is no such setting; there are: model, image, augment, train"),
        ({5: 1}, r"^5: there is no such setting"),
        ({"model": {"backbone": {"dept": 50}}}, r"^model\.backbone\.dept: .*nearest: model\.backbone\.depth"),
        ({"model": {"backbone": {"frozen": True}}}, r"^model\.backbone\.name: this setting has no default"),
        ({"train.stepz": 1}, r"^train\.stepz: there is no such setting; nearest: train\.steps"),
        ({"train": 5}, r"^train: expected the settings of this part by name, found 5"),
        ({"model": {"mask_head": [1]}}, r"^model\.mask_head: expected the settings of this part by name, found \[1\]"),
        ({"train": None}, r"^train: expected the settings"),
        ({"train": {"steps": "many"}}, r"^train\.steps: expected a whole number, found 'many'"),
        ({"augment": {"crop": 5}}, r"^augment\.crop: expected a list, found 5"),
        ({"train": {"steps": True}}, r"^train\.steps: expected a whole number, found True"),
        ({"train": {"steps": 2.5}}, r"^train\.steps: expected a whole number.*found 2\.5"),
        ({"train": {"steps": {(1, 2): 3}}}, r"^train\.steps: expected a whole number"),
        ({"train": {"optimizer": "adam"}}, r"^train\.optimizer: expected 'sgd' or 'adamw', found 'adam'"),
        ({"train": {"learning_rate": float("inf")}}, r"^train\.learning_rate: expected a finite number"),
        ({"image": {"mean": [1, 2, float("nan")]}}, r"^image\.mean\[2\]: expected a finite number"),
        ({"image": {"mean": [1, 2]}}, r"^image\.mean\[2\]: expected a value"),
        ({"categories": [{"id": 1}]}, r"^categories\[0\]\.name: expected a value"),
        ({"train": {"steps": -1}}, r"^train\.steps must be a whole number from 1 to 1000000000, found -1"),
        ({"train": {"steps": 1}, "train.steps": 1}, r"^train\.steps: expected each setting once"),
        ({"train.steps": 1, "train": {"seed": 1, "steps": 2}}, r"^train: expected each setting once"),
        ({"model": {"rpn": {"convs": 1}, "rpn.convs": 2}}, r"^model\.rpn\.convs: expected each setting once"),
        ({"model": {"rpn.convs": 1}, "model.rpn": {"convs": 2}}, r"^model\.rpn\.?.*: expected each setting once"),
        ({"train": 5, "train.steps": 1}, r"^train\.steps: expected each setting once"),
        (
            {"model.mask_head": None, "model.mask_head.convs": 1},
            r"^model\.mask_head\.convs: expected each setting once",
        ),
    ],
)
def test_what_cannot_be_read_is_named(given: dict[Any, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        with_settings(Config(), given)
    assert "\n" not in str(raised.value)
