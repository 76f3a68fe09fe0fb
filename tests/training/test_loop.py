"""The training loop: it repeats, resumes, stops with a reason, and leaves files that can be used."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import maskrcnn
from maskrcnn.config import Config, KeypointHeadConfig
from maskrcnn.data.formats.annotation_files import coco
from maskrcnn.data.loading.loader import Batch
from maskrcnn.errors import ConfigError, DataError, ImageError, TrainingError, WeightsError
from maskrcnn.evaluation.coco import Report
from maskrcnn.files import lock
from maskrcnn.models.build import build_model
from maskrcnn.ops.device import resolve_precision
from maskrcnn.predict import SHORT_SIDE, Predictor, TorchBackend
from maskrcnn.training import loop
from maskrcnn.training.checkpoint import NAME, Progress, load_checkpoint, save_checkpoint, writing
from maskrcnn.training.loop import Summary, train
from maskrcnn.training.optimiser import learning_rate
from maskrcnn.training.recipes.recipe import Recipe
from maskrcnn.training.state import TrainingState
from maskrcnn.weights.open import open_weights
from small_data import small_config, write_small
from small_people import write_people


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"), "train", 6)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Summary:
    """A run that nothing disturbs."""
    return train(small_config(), data, out=tmp_path_factory.mktemp("whole"))


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return open_weights(path)[0].state_dict()


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k.startswith("loss")} for row in rows(out)]


def same_weights(a: Path, b: Path) -> bool:
    return same_tensors(weights_of(a), weights_of(b))


def same_tensors(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


class Noted:
    """A reporter that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, config: Config, step: int) -> None:
        self.calls.append(f"begin {step}")

    def losses(self, step: int, row: Mapping[str, Any]) -> None:
        assert {"loss", "lr", "seconds"} <= row.keys()
        self.calls.append(f"losses {step}")

    def evaluation(self, step: int, report: Report, more: Mapping[str, Any]) -> None:
        assert report.analysis is not None
        self.calls.append(f"evaluation {step}")

    def end(self) -> None:
        self.calls.append("end")


@pytest.mark.slow
def test_a_run_leaves_its_files_and_two_runs_are_equal_digit_for_digit(
    data: Path, whole: Summary, tmp_path: Path
) -> None:
    config = small_config()
    noted = Noted()
    torch.manual_seed(7)  # whatever happened before must not matter, nor must an evaluation
    summary = train(config, data, val=data, out=tmp_path / "a", reporters=[noted])
    assert summary.finished
    assert summary.steps == 6
    assert summary.report is not None
    assert losses(tmp_path / "a")[:1] == losses(whole.out)
    assert {"loss", "loss_rpn_class", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"} <= rows(tmp_path / "a")[
        0
    ].keys()
    assert same_weights(tmp_path / "a" / "model.safetensors", whole.model)
    assert noted.calls == ["begin 0", "losses 6", "evaluation 6", "end"]
    assert {path.name for path in (tmp_path / "a").iterdir()} == {
        "model.safetensors",
        NAME,
        "step-4.ckpt",
        "metrics.jsonl",
        "curves.png",
        "report.html",
    }
    assert "Step 6 of 6" in (tmp_path / "a" / "report.html").read_text()
    other = train(replace(config, train=replace(config.train, seed=1)), data, out=tmp_path / "c")
    assert not same_weights(tmp_path / "a" / "model.safetensors", other.model)


@pytest.mark.slow
def test_worker_processes_change_nothing(data: Path, tmp_path: Path) -> None:
    train(small_config(steps=3, workers=0), data, out=tmp_path / "a")
    train(small_config(steps=3, workers=2), data, out=tmp_path / "b")
    assert losses(tmp_path / "a") == losses(tmp_path / "b")


@pytest.mark.slow
def test_an_interrupted_run_resumes_to_the_same_weights(data: Path, whole: Summary, tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    # A crash after the checkpoint of step 4: the batches end there.
    original = loop.training_batches

    def four_batches(*args, **kwargs):  # type: ignore[no-untyped-def]
        batches = original(*args, **kwargs)
        for _ in range(5):
            yield next(batches)
        raise StopError

    loop.training_batches = four_batches
    try:
        with pytest.raises(StopError):
            train(small_config(), data, out=tmp_path / "broken")
    finally:
        loop.training_batches = original
    resumed = train(small_config(), data, out=tmp_path / "broken", resume=True)
    assert resumed.finished
    assert same_weights(whole.model, resumed.model)
    assert [row["step"] for row in rows(tmp_path / "broken")] == [6]


@pytest.fixture
def threads() -> Iterator[None]:
    """Puts the number of torch's threads back after the test."""
    given = torch.get_num_threads()
    yield
    torch.set_num_threads(given)


@pytest.mark.slow
def test_a_resumed_run_has_the_threads_with_which_it_began(
    data: Path, tmp_path: Path, threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other threads divide sums differently, which changes the rounding of the weights."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    torch.set_num_threads(2)
    whole = train(small_config(), data, out=tmp_path / "whole")
    train(small_config(steps=3), data, out=tmp_path / "broken")
    torch.set_num_threads(1)
    alone = train(small_config(), data, out=tmp_path / "alone")
    assert not same_weights(whole.model, alone.model)
    assert load_checkpoint(tmp_path / "broken").progress.threads == 2
    resumed = train(small_config(), data, out=tmp_path / "broken", resume=True)
    assert torch.get_num_threads() == 1
    assert same_weights(whole.model, resumed.model)


@pytest.mark.slow
def test_steps_are_saved_when_a_batch_cannot_be_loaded(
    data: Path, whole: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = loop.training_batches

    def broken(*args: Any, **settings: Any) -> Iterator[Batch]:
        yield from itertools.islice(batches(*args, **settings), 2)
        raise ImageError("7.png: no such file")

    config = small_config(checkpoint_every=1000)
    monkeypatch.setattr(loop, "training_batches", broken)
    with pytest.raises(ImageError, match=r"7\.png: no such file; the run is saved up to step 2: continue"):
        train(config, data, out=tmp_path / "run")
    monkeypatch.undo()
    assert same_weights(train(config, data, out=tmp_path / "run", resume=True).model, whole.model)


def test_a_folder_in_use_is_refused(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.0)
    with (
        lock.locked(tmp_path / "run"),
        pytest.raises(TrainingError, match="another run is going on in this folder"),
    ):
        train(small_config(), data, out=tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1], ids=lambda kind: kind.name)
def test_a_signal_saves_and_the_resumed_run_equals_the_whole(
    data: Path, whole: Summary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: signal.Signals
) -> None:
    batches = loop.training_batches

    def interrupted(*args: Any, **settings: Any) -> Iterator[Batch]:
        for number, batch in enumerate(batches(*args, **settings), start=1):
            if number == 3:
                os.kill(os.getpid(), kind)
            yield batch

    config = small_config(checkpoint_every=1000)
    monkeypatch.setattr(loop, "training_batches", interrupted)
    stopped = train(config, data, out=tmp_path / "stopped")
    monkeypatch.undo()
    assert (stopped.finished, stopped.steps) == (False, 3)
    assert stopped.checkpoint.exists()
    assert same_weights(train(config, data, out=stopped.out, resume=True).model, whole.model)


@pytest.mark.slow
def test_ctrl_c_on_the_command_line_prints_the_command_that_resumes(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "maskrcnn", "train", str(data), "--preset", "mask_rcnn_tiny"]
    command += ["--out", str(out), "--train.steps", "500", "--train.batch-size", "1", "--train.workers", "1"]
    command += ["--image.short-side", "64", "--image.long-side", "96", "--augment.crop", "64", "64"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step 20/"):
                break
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
        rest = process.stderr.read()
        assert process.wait(60) == 130
    assert "--resume" in rest
    assert "Traceback" not in rest
    assert (out / NAME).exists()


def test_a_loss_that_is_not_finite_stops_names_it_and_leaves_the_last_good_checkpoint(
    data: Path, tmp_path: Path
) -> None:
    config = small_config(steps=40, learning_rate=1e30, warmup_steps=0, clip_norm=None, optimizer="sgd")
    config = replace(config, train=replace(config.train, checkpoint_every=1))
    with pytest.raises(TrainingError, match=r"loss_\w+ is (nan|inf).* on images \d, \d; lower --train.learning-rate"):
        train(config, data, out=tmp_path / "run")
    assert (tmp_path / "run" / NAME).exists()


def test_processes_that_load_end_with_the_run_whoever_holds_its_frame(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*paths: Path) -> None:
        assert multiprocessing.active_children() == []
        raise OSError("no pictures today")

    monkeypatch.setattr("maskrcnn.training.loop.curves", fail)
    config = small_config(steps=2)
    with pytest.raises(OSError, match="no pictures") as caught:
        train(replace(config, train=replace(config.train, workers=1)), data, out=tmp_path / "run")
    assert caught.traceback  # with all its frames
    assert multiprocessing.active_children() == []


def test_training_that_cannot_start_says_why(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(small_config(), data, out=tmp_path / "none", resume=True)
    train(small_config(steps=1, learning_rate=0.001), data, out=tmp_path / "run")
    with pytest.raises(TrainingError, match="already holds a run"):
        train(small_config(steps=1, learning_rate=0.001), data, out=tmp_path / "run")
    with pytest.raises(TrainingError, match=r"train.learning_rate was 0.001 and is 0.5"):
        train(small_config(steps=1, learning_rate=0.5), data, out=tmp_path / "run", resume=True)
    (tmp_path / "run" / NAME).rename(tmp_path / "moved.ckpt")
    with pytest.raises(TrainingError, match="already holds a model"):
        train(small_config(steps=1), data, out=tmp_path / "run")
    (tmp_path / "run" / NAME).write_bytes(b"half a file")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        train(small_config(steps=1), data, out=tmp_path / "run", resume=True)
    with pytest.raises(WeightsError, match="neither a file nor the name"):
        train(small_config(), data, out=tmp_path / "x", weights="resnet51")
    content = json.loads(data.read_text())
    content["categories"][0]["name"] = "green"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"green \(id 7\).*red \(id 7\)"):
        train(small_config(), data, val=other, out=tmp_path / "y")


def test_the_name_of_a_preset_is_no_config(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a Config, such as .*presets\.preset\(.*, found 'mask_rcnn_tiny'"):
        train("mask_rcnn_tiny", data, out=tmp_path / "run")  # type: ignore[arg-type]


def test_validation_data_without_objects_are_refused_before_training(data: Path, tmp_path: Path) -> None:
    val = write_small(tmp_path, "val", 2, seed=1)
    content = json.loads(val.read_text())
    val.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(DataError, match=r"val\.json: expected objects to judge by, found none"):
        train(small_config(steps=2), data, val=val, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_last_model_is_kept_where_no_ap_is_defined(data: Path, tmp_path: Path) -> None:
    val = write_small(tmp_path, "val", 2, seed=1)
    for image in (tmp_path / "val").iterdir():
        image.write_bytes(b"no image")
    summary = train(small_config(steps=3, evaluate_every=1), data, val=val, out=tmp_path / "run")
    assert summary.report is not None
    assert summary.report.score is None
    provenance = maskrcnn.load(summary.model).provenance
    assert (provenance["step"], provenance[SHORT_SIDE]) == (3, 64)


@pytest.mark.slow
def test_each_annotation_file_is_parsed_once_a_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validation = write_small(tmp_path, "val", 2, seed=1)
    read: list[Path] = []
    opened = coco.open_text
    monkeypatch.setattr(coco, "open_text", lambda path: (read.append(path), opened(path))[1])
    summary = train(small_config(steps=4, evaluate_every=2), data, val=validation, out=tmp_path / "run")
    monkeypatch.undo()
    assert [row["step"] for row in rows(summary.out) if "images" in row] == [2, 4], "two evaluations"
    assert sorted(path for path in read if path.suffix == ".json") == sorted([data, validation])


def test_a_keypoint_head_needs_as_many_keypoints_in_every_category(tmp_path: Path) -> None:
    path = write_people(tmp_path, "train", 1)
    content = json.loads(path.read_text())
    content["categories"].append({"id": 9, "name": "dog", "keypoints": ["tail"]})
    path.write_text(json.dumps(content))
    config = small_config(steps=1)
    config = replace(config, model=replace(config.model, mask_head=None))
    assert train(config, path, out=tmp_path / "boxes").finished, "without a keypoint head it does not matter"
    config = replace(config, model=replace(config.model, keypoint_head=KeypointHeadConfig()))
    with pytest.raises(DataError, match=r"the same number of keypoints in every category .* 5 of person and 1 of dog"):
        train(config, path, out=tmp_path / "keypoints")


@pytest.mark.slow
def test_pages_that_are_not_read_are_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_small(tmp_path, "train", 3)
    content = json.loads(data.read_text())
    for entry in content["images"]:
        page = Image.open(tmp_path / "train" / entry["file_name"])
        entry["file_name"] = f"{Path(entry['file_name']).stem}.tif"
        page.save(tmp_path / "train" / entry["file_name"], save_all=True, append_images=[page, page])
    data.write_text(json.dumps(content))
    train(small_config(steps=3), data, out=tmp_path / "run")
    (said,) = [line for line in capfd.readouterr().err.splitlines() if "3 pages" in line]
    assert said.startswith("note: ")
    assert "only the first of 3 pages is read" in said


@pytest.mark.slow
def test_broken_images_are_replaced_or_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_small(tmp_path, "train", 3)
    (tmp_path / "train" / "1.png").write_bytes(b"")
    content = json.loads(data.read_text())
    content["annotations"][0]["bbox"] = [1, 2]
    content["annotations"][1]["category_id"] = 99
    data.write_text(json.dumps(content))
    summary = train(small_config(steps=4), data, out=tmp_path / "run")
    assert summary.finished
    assert len(summary.skipped) == 2
    said = capfd.readouterr().err
    assert said.count("1.png: expected an image, found an empty file") == 1
    assert "what is broken is left out (1 problem), first: " in said
    assert "(annotations: 1), first: " in said, "the object with the broken box is kept, and the run says so"
    del content["annotations"][:2]
    data.write_text(json.dumps(content))
    with pytest.raises(ImageError, match="empty file"):
        train(small_config(steps=4), data, out=tmp_path / "strict", strict=True)


def test_a_full_disk_loses_nothing_that_was_written(tmp_path: Path) -> None:
    config = small_config()
    network = build_model(config)
    state = TrainingState.begin(network, config.train)
    save_checkpoint(tmp_path, state, config, Progress(best=0.2), {}, None)
    Predictor(TorchBackend(network), config).save(tmp_path / "model.safetensors")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # A limit on the size of files fails the write in the same place as a full disk does.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        kept = r"last.ckpt: cannot write \(File too large\); the previous file is kept; free .* continue with --resume"
        with pytest.raises(TrainingError, match=kept):
            save_checkpoint(tmp_path, state, config, Progress(best=0.4), {}, None)
        with pytest.raises(TrainingError, match=r"last.ckpt: cannot write \(File too large\); free .* and start again"):
            save_checkpoint(tmp_path / "new", state, config, Progress(best=0.4), {}, None)
        with (
            pytest.raises(TrainingError, match=r"model.safetensors: cannot write"),
            writing(tmp_path / "model.safetensors"),
        ):
            Predictor(TorchBackend(network), config).save(tmp_path / "model.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    assert load_checkpoint(tmp_path).restore(state, config, {}) == (Progress(best=0.2), [])


def test_learning_rate_warms_up_then_drops_or_falls_as_a_cosine() -> None:
    step = small_config(steps=100, warmup_steps=10, schedule="step", drops=(0.5, 0.9), learning_rate=1.0).train
    assert learning_rate(0, step) == pytest.approx(0.001)
    assert learning_rate(5, step) == pytest.approx(0.5005)
    assert [learning_rate(i, step) for i in (10, 49, 50, 89, 90)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = replace(step, schedule="cosine")
    assert learning_rate(10, cosine) == pytest.approx(1.0)
    assert learning_rate(55, cosine) == pytest.approx(0.5)
    assert learning_rate(99, cosine) < 0.001


@pytest.mark.slow
def test_with_an_average_of_the_weights_the_run_evaluates_and_writes_it(data: Path, tmp_path: Path) -> None:
    # The rate does not depend on the number of steps.
    constant = {"schedule": "step", "drops": (0.99,)}
    config = small_config(ema=True, ema_decay=0.9, accumulate=2, batch_size=1, **constant)
    stopped = train(replace(config, train=replace(config.train, steps=4)), data, out=tmp_path / "run")
    stored = load_checkpoint(tmp_path / "run").state
    assert stored["average_updates"] == 4
    assert all(torch.equal(value, stored["model"][name]) for name, value in weights_of(stopped.model).items())
    assert not same_tensors(stored["network"], stored["model"])
    whole = train(config, data, out=tmp_path / "whole")
    assert same_weights(whole.model, train(config, data, out=tmp_path / "run", resume=True).model)


@pytest.mark.slow
def test_bf16_trains(data: Path, tmp_path: Path) -> None:
    train(small_config(steps=3, precision="bf16"), data, out=tmp_path / "bf16")
    train(small_config(steps=3, precision="fp32"), data, out=tmp_path / "fp32")
    low, high = losses(tmp_path / "bf16")[0], losses(tmp_path / "fp32")[0]
    assert low != high
    assert low["loss"] == pytest.approx(high["loss"], rel=0.05)
    assert resolve_precision("bf16", torch.device("cpu")) == torch.bfloat16


@pytest.mark.slow
def test_a_small_model_learns_the_rectangles(tmp_path: Path) -> None:
    data, val = write_small(tmp_path, "train", 40), write_small(tmp_path, "val", 10, seed=1)
    config = small_config(steps=300, batch_size=4, warmup_steps=20, learning_rate=3e-3, precision="fp32")
    summary = train(config, data, val=val, out=tmp_path / "run")
    assert summary.report is not None
    assert summary.report.score > 0.6
    model = maskrcnn.load(summary.model, precision="fp32")
    found = model.predict([tmp_path / "val" / "0.png"])[0]
    assert len(found) >= 1
    assert found.masks is not None
    assert found.masks.dense().shape == (len(found), 64, 80)
    assert (np.diff(found.scores) <= 0).all()
    assert set(found.names) <= {"red", "blue"}
    again = maskrcnn.evaluate(model, val)
    assert again.score == pytest.approx(summary.report.score, abs=1e-6)


def test_what_is_probably_not_meant_is_said_before_the_first_step(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A class without objects, validation images that are trained on, and a step with more images than there are."""
    data = write_small(tmp_path, "train", 4)
    content = json.loads(data.read_text())
    content["categories"].append({"id": 9, "name": "green"})
    data.write_text(json.dumps(content))
    config = small_config(steps=1, batch_size=5, evaluate_every=0)
    out = train(config, data, val=data, out=tmp_path / "run").out
    said = capfd.readouterr().err
    assert "1 of 3 classes has no object to learn from, so the model will not find any: green" in said
    assert "4 of 4 validation images are also trained on" in said
    assert "a step learns from 5 images and the data set has 4" in said
    assert "continuing" not in said
    train(config, data, val=data, out=out, resume=True)
    assert "continuing after step 1" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("frozen_stages", "norm", "frozen"),
    [(2, "frozen_batch_norm", "2 stages and all norms"), (1, "batch_norm", "1 stage"), (0, "batch_norm", None)],
)
def test_a_backbone_that_stays_random_is_said(
    frozen_stages: int, norm: Any, frozen: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    data = write_small(tmp_path, "train", 2)
    config = small_config(steps=1, batch_size=1, evaluate_every=0)
    backbone = replace(config.model.resnet, frozen_stages=frozen_stages, norm=norm)
    config = replace(config, model=replace(config.model, backbone=backbone))
    first = train(config, data, out=tmp_path / "run")
    said = capfd.readouterr().err
    assert (f"training leaves {frozen} of it as they are" in said) if frozen else ("leaves" not in said)
    train(config, data, weights=first.model, out=tmp_path / "tuned")
    assert "leaves" not in capfd.readouterr().err


def test_held_out_images_are_no_shared_ones(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = write_small(tmp_path, "train", 20)
    recipe = Recipe("none", small_config(steps=1, batch_size=1, evaluate_every=0), hold_out=0.1)
    assert train(recipe, data, out=tmp_path / "run").report is not None
    assert "also trained on" not in capfd.readouterr().err
