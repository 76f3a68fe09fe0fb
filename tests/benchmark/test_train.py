from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.benchmark.pair import v1_config
from maskrcnn.benchmark.settings import Timing, TrainSettings
from maskrcnn.benchmark.train import bench_train, generate_batch, train_config
from maskrcnn.config import Config, differing_settings

SMALL = TrainSettings(batch_size=3, size=64)


def test_both_sides_get_the_same_batch(tmp_path: Path) -> None:
    data = generate_batch(tmp_path, SMALL, train_config(SMALL))
    images, targets = data.ours.images, data.ours.targets
    assert images.pixels.shape == (3, 3, 64, 64)
    assert targets.masks is not None
    objects = 0
    for i, (image, target) in enumerate(zip(data.their_images, data.their_targets, strict=True)):
        np.testing.assert_allclose(image * 255, images.pixels[i].float(), atol=1e-3)
        valid = targets.valid[i]
        assert torch.equal(target["boxes"], targets.boxes[i][valid])
        assert torch.equal(target["labels"], targets.labels[i][valid] + 1)
        areas = [int(mask.sum()) for mask in target["masks"]]
        assert len(areas) == int(valid.sum())
        for j, area in enumerate(areas):
            start, (height, width) = int(targets.masks.offsets[i, j]), targets.masks.sizes_hw[i, j].tolist()
            assert int(targets.masks.pixels[start : start + height * width].sum()) == area > 0
            x1, y1, x2, y2 = target["boxes"][j].round().int().tolist()
            assert int(target["masks"][j, y1:y2, x1:x2].sum()) >= 0.95 * area
            objects += 1
    assert objects >= 3


def test_compiled_steps_have_masks_of_a_fixed_number_of_samples() -> None:
    plain, compiled = train_config(SMALL), train_config(SMALL, compile=True)
    assert differing_settings(plain, compiled) == {"conventions.masks.target_sampling_ratio": (0, 2)}


@pytest.fixture
def few_rois(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of this process learn from a few RoIs, which take most of the time."""

    def config(*size: int) -> Config:
        whole = v1_config(*size)
        assert whole.model.mask_head is not None
        box, mask = replace(whole.model.box_head, samples=16), replace(whole.model.mask_head, samples=16)
        return replace(whole, model=replace(whole.model, box_head=box, mask_head=mask))

    monkeypatch.setattr("maskrcnn.benchmark.train.v1_config", config)


@pytest.mark.slow
@pytest.mark.usefixtures("few_rois")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_losses_agree_and_steps_are_timed(precision: str) -> None:
    report = bench_train(SMALL, Timing(1, 0, precision, memory=precision == "fp32"))  # type: ignore[arg-type]
    assert report.agree
    assert len(report.losses) == 5
    assert all(ours > 0 for ours, _ in report.losses.values())
    assert report.times.ratio > 0
    found = report.to_dict()
    if precision == "bf16":
        assert found["memory_bytes"] == {}
        return
    for side in ("ours", "torchvision"):
        memory = found["memory_bytes"][side]
        assert memory is None or memory["peak"] > memory["before"]


@pytest.mark.slow
@pytest.mark.usefixtures("few_rois")
def test_compiled_steps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    # One graph, run operation by operation: to generate code for it takes minutes on two cores.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager", fullgraph=True))
    report = bench_train(SMALL, Timing(1, 0, compile=True, memory=False))
    assert report.agree
    assert report.times.ratio > 0


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu() -> None:
    report = bench_train(SMALL, Timing(rounds=2, device="cuda", precision="bf16"))
    assert report.agree
    assert report.memory["ours"] is not None
