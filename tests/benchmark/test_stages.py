from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn.benchmark.measure import Sitting
from maskrcnn.benchmark.settings import Timing
from maskrcnn.benchmark.stages import parts_of, stage_seconds
from maskrcnn.config import KeypointHeadConfig
from maskrcnn.predict import Predictor, TorchBackend
from small_network import lively_network, network_config

STAGES = (
    *("decode", "preprocess", "backbone", "neck", "RPN head", "proposals", "box head", "mask head"),
    *("postprocess", "other", "all"),
)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / f"{name}.png")
    return sorted(tmp_path.iterdir())


def sitting(rounds: int, warmup: int) -> Sitting:
    return Sitting(Timing(rounds=rounds, warmup=warmup), torch.device("cpu"))


def small_predictor(**model: object) -> Predictor:
    config = network_config(**model)
    return Predictor(TorchBackend(lively_network(config).eval()), config)


def test_stages_cover_the_whole(files: list[Path]) -> None:
    found = stage_seconds(small_predictor(), [files], sitting(3, 1))
    assert set(found) == set(STAGES)
    assert all(len(seconds) == 3 for seconds in found.values())
    parts = np.sum([seconds for stage, seconds in found.items() if stage != "all"], axis=0)
    np.testing.assert_allclose(parts, found["all"])
    assert min(min(seconds) for seconds in found.values()) > 0  # no part is counted twice, or `other` were negative
    assert np.median(found["other"]) < 0.3 * np.median(found["all"])


def test_time_is_put_down_to_its_stage(files: list[Path]) -> None:
    predictor = small_predictor()
    network = predictor.network
    for stage, owner, name in parts_of(network):
        plain = getattr(owner, name)

        def slow(*args: object, plain: object = plain) -> object:
            time.sleep(0.03)
            return plain(*args)  # type: ignore[operator]

        setattr(owner, name, slow)
        found = stage_seconds(predictor, [files[:1]], sitting(1, 0))
        assert found[stage][0] >= 0.03, stage
        assert found["other"][0] < 0.03, stage
        setattr(owner, name, plain)


def test_the_network_is_left_as_it_was(files: list[Path]) -> None:
    predictor = small_predictor()
    before = predictor.predict(files)
    stage_seconds(predictor, [files], sitting(1, 0))
    assert not any(name in vars(owner) for _, owner, name in parts_of(predictor.network))
    for a, b in zip(before, predictor.predict(files), strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        assert len(a)


def test_the_stages_are_those_that_the_network_has(files: list[Path]) -> None:
    boxes = small_predictor(mask_head=None, keypoint_head=KeypointHeadConfig(3, convs=1, channels=16))
    found = stage_seconds(boxes, [files], sitting(1, 0))
    assert set(STAGES) ^ set(found) == {"mask head", "keypoint head"}
