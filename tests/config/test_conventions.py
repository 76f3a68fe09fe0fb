"""Conventions: what excludes each other is refused, they are stored whole, and the documentation shows them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

import conventions_table
from conventions_table import BEGIN, END, FRAMEWORKS, PAGE, explanations, tables, with_tables
from maskrcnn.config import (
    BoxHeadConfig,
    Config,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    PointRendConfig,
    RoIConfig,
    config_from_dict,
    config_to_dict,
)
from maskrcnn.config import conventions as module
from maskrcnn.config.conventions import (
    MATTERPORT,
    MMDETECTION,
    OURS,
    BoxRules,
    CascadeRules,
    Conventions,
    DetectionRules,
    FeatureRules,
    PixelRules,
)
from maskrcnn.errors import ConfigError

CASCADE = BoxHeadConfig(cascade_ious=(0.6, 0.7), cascade_weights=((20.0, 20.0, 10.0, 10.0),) * 2)
SQUARE = replace(OURS, pixels=PixelRules(letterbox="square"))
LAST_PIXEL = replace(OURS, boxes=BoxRules(end="last_pixel"))
POINT_REND = MaskHeadConfig(point_rend=PointRendConfig())

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a negative scale": (
        lambda: PixelRules(min_scale=-1),
        r"pixels\.min_scale must be .* from 0 to 1e\+38, found -1",
    ),
    "an exact scale of whole numbers": (
        lambda: PixelRules(exact_scale=True),
        r"pixels\.exact_scale needs pixels\.kernel bilinear .* found antialias and none",
    ),
    "fewer than no classes": (
        lambda: DetectionRules(unused_classes=-1),
        "unused_classes must be .* from 0 to 1000000000, found -1",
    ),
    "two rules for the size": (
        lambda: Config(image=ImageConfig(fixed_size=(64, 64)), conventions=SQUARE),
        r"pixels\.letterbox and image\.fixed_size",
    ),
    "a square that the divisor does not divide": (
        lambda: Config(image=ImageConfig(short_side=96, long_side=100), conventions=SQUARE),
        r"letterbox square .* multiple of image\.divisor 32, found 100",
    ),
    "two layers for RoIs": (
        lambda: Config(
            ModelConfig(rois=RoIConfig(op="warp")),
            conventions=replace(OURS, features=FeatureRules(crop_and_resize=True)),
        ),
        r"features\.crop_and_resize .* set rois\.op align, found warp",
    ),
    "keypoints up to the last pixel": (
        lambda: Config(ModelConfig(keypoint_head=KeypointHeadConfig()), conventions=LAST_PIXEL),
        r"keypoint_head and .*boxes\.end edge, found last_pixel",
    ),
    "points up to the last pixel": (
        lambda: Config(ModelConfig(mask_head=POINT_REND), conventions=LAST_PIXEL),
        r"point_rend .*boxes\.end edge, found last_pixel",
    ),
    "loss weights of other stages": (
        lambda: Config(
            ModelConfig(box_head=CASCADE), conventions=replace(OURS, cascade=CascadeRules(loss_weights=(1.0, 0.5)))
        ),
        r"cascade\.loss_weights needs one number for each of the 3 box stages.*found 2",
    ),
    "PointRend in each stage": (
        lambda: Config(ModelConfig(box_head=CASCADE, mask_head=POINT_REND), conventions=MMDETECTION),
        r"point_rend has one head .*mask_head_per_stage False",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused(case: str) -> None:
    build, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        build()


def test_rules_of_a_cascade_do_not_matter_without_one() -> None:
    for framework in FRAMEWORKS.values():
        if framework != MATTERPORT:
            Config(ModelConfig(mask_head=POINT_REND), conventions=framework)


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_every_framework_is_stored_and_read_again(name: str) -> None:
    config = Config(image=ImageConfig(long_side=1024), conventions=FRAMEWORKS[name])
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    assert config_from_dict({}).conventions == OURS
    expected = r"conventions\.pixels\.kernels: there is no such setting; nearest: conventions\.pixels\.kernel"
    with pytest.raises(ConfigError, match=expected):
        config_from_dict({"conventions": {"pixels": {"kernels": "pil"}}})


def test_every_rule_is_explained_and_followed_by_some_framework() -> None:
    texts = explanations()
    unlike = {"detections.unused_classes"}  # a number of each model
    for group in fields(Conventions):
        rules = getattr(OURS, group.name)
        assert is_dataclass(rules)
        assert texts[type(rules).__name__, ""]
        for rule in fields(rules):
            assert texts[type(rules).__name__, rule.name], rule.name
            values: list[Any] = [getattr(getattr(other, group.name), rule.name) for other in FRAMEWORKS.values()]
            assert any(value != values[0] for value in values) or f"{group.name}.{rule.name}" in unlike, rule.name


def test_the_tables_name_every_constant() -> None:
    constants = [value for value in vars(module).values() if isinstance(value, Conventions)]
    assert constants == list(FRAMEWORKS.values())


def test_the_documentation_has_the_tables_of_the_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    page = PAGE.read_text()
    assert page.count(BEGIN) == page.count(END) == 1
    assert with_tables(page) == page, "docs/conventions.md: run python tests/conventions_table.py"
    other = replace(MATTERPORT, boxes=OURS.boxes)
    monkeypatch.setattr(conventions_table, "FRAMEWORKS", FRAMEWORKS | {"Matterport": other})
    assert tables() not in page
