"""FLOPs counted by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maskrcnn.config import Config
from maskrcnn.config.presets import preset
from maskrcnn.models.cost import cost

CELLS = [200 * 336, 100 * 168, 50 * 84, 25 * 42, 13 * 21]  # of 800 x 1333, padded to 800 x 1344


@pytest.fixture(scope="module")
def config() -> Config:
    return preset("mask_rcnn_R_50_FPN")


def test_the_standard_model_by_hand(config: Config) -> None:
    found = cost(config)
    rpn = 9 * 256 * 256 + 256 * 3 + 256 * 12
    assert found.rpn == 2 * rpn * sum(CELLS)
    box = 49 * 256 * 1024 + 1024 * 1024 + 1024 * (81 + 320)
    assert found.box_head == 2 * box * 1000
    mask = 4 * 9 * 256 * 256 * 14 * 14 + 4 * 256 * 256 * 14 * 14 + 256 * 28 * 28
    assert found.mask_head == 2 * mask * 100
    stem, pyramid = (
        64 * 3 * 49 * 400 * 672,
        sum(c * 256 * n for c, n in zip((256, 512, 1024, 2048), CELLS, strict=False)),
    )
    pyramid += 9 * 256 * 256 * sum(CELLS[:4])
    assert found.backbone > 2 * (stem + pyramid)
    assert found.flops == found.backbone + found.rpn + found.box_head + found.mask_head


def test_stages_are_counted_apart(config: Config) -> None:
    faster = cost(replace(config, model=replace(config.model, mask_head=None)))
    assert faster.mask_head == 0
    assert faster[1:4] == cost(config)[1:4]


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("mask_rcnn_R_50_FPN_dconv_c3_c5", "mask_rcnn_R_50_FPN"),
        ("cascade_mask_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN"),
        ("pointrend_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN"),
        ("keypoint_rcnn_R_50_FPN", "faster_rcnn_R_50_FPN"),
        ("mask_rcnn_R_50_C4", "faster_rcnn_R_50_C4"),
    ],
)
def test_a_part_more_costs_more_there_and_nowhere_else(name: str, plain: str) -> None:
    found, base = cost(preset(name))._asdict(), cost(preset(plain))._asdict()
    dearer = {
        "mask_rcnn_R_50_FPN_dconv_c3_c5": {"backbone"},  # the convolutions that find the offsets
        "cascade_mask_rcnn_R_50_FPN": {"box_head"},
        "pointrend_rcnn_R_50_FPN": {"mask_head"},
        "keypoint_rcnn_R_50_FPN": {"keypoint_head"},
        "mask_rcnn_R_50_C4": {"mask_head"},
    }[name]
    found["box_head"] += {"keypoint_rcnn_R_50_FPN": 2 * 1000 * 1024 * 5 * 79}.get(name, 0)  # 79 classes fewer
    assert {part for part in found if part != "parameters" and found[part] > base[part]} == dearer
    assert {part for part in found if found[part] < base[part]} <= {"parameters"}


def test_arithmetic_follows_the_size(config: Config) -> None:
    small, large = cost(config, (320, 320)), cost(config, (640, 640))
    assert large.backbone == 4 * small.backbone
    assert large[3:] == small[3:]
    assert cost(config, (313, 300)) == small  # padded
