from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from maskrcnn.benchmark.pair import build_theirs, v1_config, without_sampling
from maskrcnn.benchmark.predict import as_float, bench_predict, exported_place, generate_images
from maskrcnn.benchmark.settings import PredictSettings, Timing
from maskrcnn.config import Config
from maskrcnn.errors import ImageError
from maskrcnn.export.int8 import Calibration
from maskrcnn.export.save import export_model, require_writable
from maskrcnn.files.images import read_image
from maskrcnn.models.build import build_model

SMALL = PredictSettings(size=(64, 96), count=2, short_side=64, long_side=96, batch_size=2, detections=10)


def test_generated_images_differ_and_have_contrast_at_every_scale(tmp_path: Path) -> None:
    files = generate_images(tmp_path, 2, (64, 100))
    first, second = (read_image(file) for file in files)
    assert first.shape == (64, 100, 3)
    assert (first != second).mean() > 0.5
    coarse = first[:, :96].reshape(8, 8, 12, 8, 3).mean((1, 3))
    assert coarse.std() > 20
    assert np.diff(first.astype(float), axis=1).std() > 10
    again = read_image(generate_images(tmp_path, 1, (64, 100))[0])
    np.testing.assert_array_equal(first, again)


def test_torchvision_takes_images_in_0_to_1() -> None:
    image = np.array([[[255, 0, 51]]], dtype=np.uint8)
    torch.testing.assert_close(as_float(image), torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1))


def test_the_same_parts_are_trained_on_both_sides() -> None:
    config = without_sampling(v1_config(64, 96, detections=7, score_threshold=0.3))
    with torch.device("meta"):
        theirs, ours = build_theirs(config), build_model(config)
    count = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (theirs, ours)]
    # torchvision has four rows of box offsets for the background, and one mask for it.
    assert count[0] - count[1] == 4 * 1025 + 257
    assert theirs.roi_heads.detections_per_img == 7  # type: ignore[union-attr]
    assert theirs.roi_heads.score_thresh == 0.3  # type: ignore[union-attr]


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"a\.jpg"):
        bench_predict([tmp_path / "a.jpg"], SMALL, Timing(rounds=1))


@pytest.fixture
def few_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides of this process look at a few proposals, which take most of the time."""

    def config(*settings: float) -> Config:
        whole = v1_config(*settings)  # type: ignore[arg-type]
        return replace(whole, model=replace(whole.model, rpn=replace(whole.model.rpn, post_nms_test=50)))

    monkeypatch.setattr("maskrcnn.benchmark.predict.v1_config", config)


@pytest.mark.slow
@pytest.mark.usefixtures("few_proposals")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_detections_agree_and_predictions_are_timed(precision: str) -> None:
    report = bench_predict([], SMALL, Timing(1, 0, precision, memory=precision == "fp32"))  # type: ignore[arg-type]
    assert report.agreement.agree
    found = report.to_dict()
    assert found["detections_per_image"] == 10
    assert report.times.ratio > 0
    assert found["stages"]["backbone"]["median"] > 0
    assert found["network"]["median"] > 0
    assert found["images_per_second"]["files"] > 0
    if precision == "bf16":
        assert found["memory_bytes"] == {}
        return
    for side in ("ours", "torchvision"):
        memory = found["memory_bytes"][side]
        assert memory is None or memory["peak"] > memory["before"]


@pytest.mark.parametrize("backend", ["onnx", "openvino", "torch-package"])
def test_the_place_of_an_export_can_be_written(
    backend: Literal["onnx", "openvino", "torch-package"], tmp_path: Path
) -> None:
    form, place = exported_place(tmp_path, replace(SMALL, backend=backend))
    require_writable(place, form)


@pytest.mark.slow
@pytest.mark.usefixtures("few_proposals")
def test_an_exported_network_is_compared_in_fp32_and_timed_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    exports: list[Calibration | None] = []
    write = export_model

    def export(*args: Any, calibration: Calibration | None = None, **kwargs: Any) -> None:
        exports.append(calibration)
        if calibration is None:
            write(*args, **kwargs)  # tests/export/test_int8.py has a network in int8; a ResNet-50 takes minutes

    monkeypatch.setattr("maskrcnn.benchmark.predict.export_model", export)
    report = bench_predict([], replace(SMALL, backend="onnx", int8=True), Timing(1, 0))
    first, second = exports
    assert first is None
    assert second is not None
    assert len(second.files) == 8
    assert report.agreement.agree
    assert report.times.ratio > 0
    assert report.memory["ours"] is not None


@pytest.mark.slow
@pytest.mark.usefixtures("few_proposals")
def test_compiled_detections_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    # One graph, run operation by operation: to generate code for it takes minutes on two cores.
    calls: list[object] = []
    whole = partial(torch.compile, backend="aot_eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: calls.append(args) or whole(*args, **kwargs))
    report = bench_predict([], SMALL, Timing(1, 0, compile=True, memory=False))
    assert calls
    assert report.agreement.agree


@pytest.mark.gpu
@pytest.mark.slow
def test_on_a_gpu() -> None:
    report = bench_predict([], SMALL, Timing(rounds=2, device="cuda"))
    assert report.agreement.agree
    assert sum(np.median(seconds) for stage, seconds in report.stages.items() if stage != "all") > 0
    assert report.memory["ours"] is not None
