"""A run repairs what a killed one left, and goes on or saves its state whatever happens to it."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import maskrcnn
from maskrcnn.data.loading.loader import Batch
from maskrcnn.errors import DataError, TrainingError
from maskrcnn.evaluation.coco import Report
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.training import checkpoint, loop
from maskrcnn.training.checkpoint import earlier_checkpoints, load_checkpoint
from maskrcnn.training.loop import Summary, train
from maskrcnn.training.run import MODEL, Run
from maskrcnn.training.state import TrainingState
from maskrcnn.training.step import train_step
from maskrcnn.weights.open import open_weights
from small_data import small_config, write_small

CONFIG = small_config(steps=2, batch_size=1, checkpoint_every=1000)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"), "train", 4)


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(CONFIG, data, out=tmp_path_factory.mktemp("finished")).out


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return open_weights(path)[0].state_dict()


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights_of(a), weights_of(b)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def steps(out: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, b"of an older step"])
def test_a_model_file_that_the_last_save_did_not_reach_is_written(
    data: Path, run: Path, finished: Path, left: bytes | None
) -> None:
    (run / MODEL).unlink()
    if left is not None:
        (run / MODEL).write_bytes(left)
    assert train(CONFIG, data, out=run, resume=True).finished
    assert same_weights(run / MODEL, finished / MODEL)


def fake_evaluation(
    monkeypatch: pytest.MonkeyPatch, *scores: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Evaluations of two images that give these scores, one after the other."""
    left = list(scores)

    def predict(*args: Any, track: Callable[..., Iterator[int]], **settings: Any) -> tuple[list[Any], list[int]]:
        for _ in track(range(2), 2):
            meanwhile()
        return [], [1, 2]

    def judge(*args: Any, **settings: Any) -> Report:
        return Report(
            None,
            {"AP": left.pop(0), "AP50": None, "AP75": None},
            {},
            images=2,
            objects=2,
            detections=2,
            max_detections=100,
        )

    monkeypatch.setattr("maskrcnn.training.run.results_of", predict)
    monkeypatch.setattr("maskrcnn.training.validation.evaluate_results", judge)
    monkeypatch.setattr("maskrcnn.training.run.write_page", lambda *args: None)


@pytest.mark.slow
def test_a_lost_best_model_is_replaced_by_the_last_one(
    data: Path, run: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fake_evaluation(monkeypatch, 0.5, 0.4)
    train(CONFIG, data, val=data, out=run, resume=True)  # validation data may come later
    assert load_checkpoint(run).progress.best == 0.5
    (run / MODEL).unlink()
    summary = train(CONFIG, data, val=data, out=run, resume=True)
    assert "model.safetensors is missing: the model with the best AP up to now is lost" in capfd.readouterr().err
    assert maskrcnn.load(summary.model).provenance["validation"]["boxes"]["AP"] == 0.4
    assert same_weights(summary.model, finished / MODEL)


@pytest.mark.slow
def test_a_signal_during_the_evaluation_leaves_it_to_the_resumed_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_evaluation(monkeypatch, 0.5, meanwhile=lambda: os.kill(os.getpid(), signal.SIGTERM))
    out = tmp_path / "run"
    stopped = train(CONFIG, data, val=data, out=out)
    assert (stopped.steps, stopped.finished, stopped.report) == (2, False, None)
    fake_evaluation(monkeypatch, 0.5)
    resumed = train(CONFIG, data, val=data, out=out, resume=True)
    assert resumed.finished
    assert resumed.report is not None
    assert load_checkpoint(out).progress.evaluated == 2


def test_the_steps_are_saved_when_the_evaluation_fails(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise DataError("val.json: deleted")

    fake_evaluation(monkeypatch, 0.5, meanwhile=fail)
    with pytest.raises(DataError, match=r"val\.json: deleted; the run is saved up to step 2: continue with --resume"):
        train(CONFIG, data, val=data, out=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").progress.step == 2


def before_batch(monkeypatch: pytest.MonkeyPatch, number: int, what: Callable[[], object]) -> None:
    """Calls `what` before a batch, counted from 1, is given to the run."""
    batches = loop.training_batches

    def changed(*args: Any, **settings: Any) -> Iterator[Batch]:
        for count, batch in enumerate(batches(*args, **settings), start=1):
            if count == number:
                what()
            yield batch

    monkeypatch.setattr(loop, "training_batches", changed)


def test_a_deleted_folder_does_not_end_the_run(
    data: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    before_batch(monkeypatch, 2, lambda: shutil.rmtree(out))
    assert train(CONFIG, data, out=out).finished
    assert {path.name for path in out.iterdir()} == {path.name for path in finished.iterdir()}
    assert same_weights(out / MODEL, finished / MODEL)


@pytest.mark.slow
def test_a_run_that_is_stopped_before_its_first_line_of_metrics_is_saved(
    data: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    before_batch(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGHUP))
    stopped = train(CONFIG, data, out=out)
    assert (stopped.steps, stopped.finished, steps(out)) == (1, False, [])
    monkeypatch.undo()
    assert same_weights(train(CONFIG, data, out=out, resume=True).model, finished / MODEL)


def test_a_full_disk_ends_the_run_and_the_resumed_run_equals_the_whole(
    data: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    every_step = replace(CONFIG, train=replace(CONFIG.train, checkpoint_every=1))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of files fails the write in the same place as a full disk does.
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before_batch(monkeypatch, 2, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard)))
    try:
        with pytest.raises(
            TrainingError, match=r"last\.ckpt: cannot write \(File too large\); the previous file is kept"
        ):
            train(every_step, data, out=out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    monkeypatch.undo()
    assert load_checkpoint(out).progress.step == 1
    assert same_weights(train(every_step, data, out=out, resume=True).model, finished / MODEL)


PROGRAM = """
import sys
from pathlib import Path
from maskrcnn.training.loop import train
from small_data import small_config
out = Path(sys.argv[2])
config = small_config(
    steps=16, batch_size=1, accumulate=2, checkpoint_every=3, evaluate_every=8, workers=1, ema=True,
    repeat_threshold=0.9, patience=1, best_metric="loss", validation_losses=True, learning_rate=1e-3,
)
train(config, sys.argv[1], val=sys.argv[1], out=out, resume=(out / "last.ckpt").exists())
"""


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_weights(data: Path, tmp_path: Path) -> None:
    def start(out: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", PROGRAM, str(data), str(out)]
        return subprocess.Popen(command, cwd=Path(__file__).parents[1], stderr=subprocess.DEVNULL)

    def saves(out: Path) -> int:
        """A number that changes with every checkpoint."""
        return (out / "last.ckpt").stat().st_ino if (out / "last.ckpt").exists() else 0

    assert start(tmp_path / "whole").wait(120) == 0
    out, moments = tmp_path / "run", random.Random(0)
    for _ in range(3):
        before, process = saves(out), start(out)
        while process.poll() is None and saves(out) == before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.4))  # in a step, an evaluation, or while a file is written
        process.kill()
        process.wait()
    assert start(out).wait(120) == 0
    assert same_weights(out / MODEL, tmp_path / "whole" / MODEL)
    assert steps(out) == steps(tmp_path / "whole")
    assert {path.name for path in out.iterdir()} == {path.name for path in (tmp_path / "whole").iterdir()}


def test_evaluations_that_do_not_improve_end_the_run_also_after_a_break(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, steps=9, evaluate_every=1, patience=2))
    fake_evaluation(monkeypatch, 0.3, 0.5, 0.4)
    before_batch(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM))  # before its evaluation
    out = tmp_path / "run"
    stopped = train(config, data, val=data, out=out)
    assert (stopped.steps, stopped.finished, load_checkpoint(out).progress.stale) == (4, False, 1)
    monkeypatch.undo()
    fake_evaluation(monkeypatch, 0.5)
    ended = train(config, data, val=data, out=out, resume=True)
    assert (ended.steps, ended.finished) == (4, True)
    assert "2 evaluations have not improved AP: the run ends at step 4" in capfd.readouterr().err
    assert maskrcnn.load(ended.model).provenance["step"] == 2, "the best one"
    assert train(config, data, val=data, out=out, resume=True).steps == 4, "it stays ended"
    assert "2 evaluations did not improve the run, so it ended at step 4" in capfd.readouterr().err


@pytest.mark.slow
def test_the_last_checkpoints_are_kept(data: Path, tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, steps=5, checkpoint_every=1, keep_checkpoints=3))
    out = train(config, data, out=tmp_path / "run").out
    assert [step for step, _ in earlier_checkpoints(out)] == [4, 3]
    (out / "last.ckpt").write_bytes((out / "last.ckpt").read_bytes()[:-100])
    with pytest.raises(
        TrainingError, match=r"damaged .*put back step-4\.ckpt, the checkpoint before it, under this name"
    ):
        train(config, data, out=out, resume=True)
    (out / "step-4.ckpt").replace(out / "last.ckpt")
    assert train(config, data, out=out, resume=True).steps == 5


@pytest.mark.slow
def test_a_run_that_diverges_goes_back_to_a_checkpoint_from_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights may already have been wrong at the checkpoints of the last steps, which is 3 here and not 20."""
    monkeypatch.setattr(checkpoint, "DOUBT", 3)
    good = replace(CONFIG, train=replace(CONFIG.train, steps=3, checkpoint_every=1))
    whole = train(good, data, out=tmp_path / "whole")
    config = replace(good, train=replace(good.train, steps=9, keep_checkpoints=4))
    losses = {"loss_mask": torch.tensor(float("nan")), "loss": torch.tensor(float("nan"))}

    def diverging(
        sums_of: Any, state: Any, batches: Any, config: Any, step: int, *more: Any
    ) -> dict[str, torch.Tensor]:
        return losses if step == 6 else train_step(sums_of, state, batches, config, step, *more)

    monkeypatch.setattr("maskrcnn.training.run.train_step", diverging)
    message = r"step 7: loss_mask is nan on images \d; lower --train.learning-rate.* that of step 3; to go on"
    with pytest.raises(TrainingError, match=message):
        train(config, data, out=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").progress.step == 3
    assert [step for step, _ in earlier_checkpoints(tmp_path / "run")] == [], "later ones belong to what diverged"
    assert same_weights(tmp_path / "run" / MODEL, whole.model)
    faster = replace(config, train=replace(config.train, learning_rate=1e-1))
    with pytest.raises(TrainingError, match=r"that of step 3; to go on from it: --resume-with-changes .*-rate 0\.033$"):
        train(faster, data, out=tmp_path / "run", resume="with changes")
    slower = replace(config, train=replace(config.train, learning_rate=1e-4, steps=6))
    assert train(slower, data, out=tmp_path / "run", resume="with changes").steps == 6
    monkeypatch.setattr(checkpoint, "DOUBT", 30)
    with pytest.raises(TrainingError, match="no checkpoint is from long enough before step 7: start anew"):
        train(config, data, out=tmp_path / "young")


@pytest.mark.slow
def test_changes_are_refused_by_name_unless_they_are_meant(
    data: Path, run: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {"steps": 4, "learning_rate": 1e-3, "optimizer": "sgd", "ema": True, "layer_decay": 0.9}
    config = replace(CONFIG, train=replace(CONFIG.train, **settings))
    with pytest.raises(TrainingError, match=r"train\.ema was False and is True, .* or add --resume-with-changes"):
        train(config, data, out=run, resume=True)
    other = write_small(tmp_path / "other", "train", 5)
    with pytest.raises(TrainingError, match=r"ckpt: data\.train\.\w+ was .*; resume with"):
        train(CONFIG, other, out=run, resume=True)
    assert train(config, other, out=run, resume="with changes").steps == 4
    said = capfd.readouterr().err
    for change in ("data.train.images was 4 and is 5", "train.optimizer was 'adamw' and is 'sgd'"):
        assert f"changed: {change}" in said
    assert load_checkpoint(run).config.train == config.train
    assert train(config, other, out=run, resume=True).finished, "they are the settings of the run from now on"


def test_a_changed_rate_keeps_the_momentum_of_each_parameter(data: Path, run: Path) -> None:
    """Other groups give other numbers to the parameters; the names decide."""
    saved = load_checkpoint(run)
    config = replace(CONFIG, train=replace(CONFIG.train, backbone_rate=0.1, learning_rate=0.5))
    network = build_model(saved.config)
    state = TrainingState.begin(network, config.train)
    assert len(state.optimiser.param_groups) == 4
    saved.restore(state, replace(saved.config, train=config.train), saved.state["data"], changes=True)
    groups = saved.state["optimiser"]["param_groups"]
    numbers = {name: i for group in groups for name, i in zip(group["param_names"], group["params"], strict=True)}
    for name, parameter in network.named_parameters():
        expected = saved.state["optimiser"]["state"][numbers[name]]["exp_avg"]
        assert torch.equal(state.optimiser.state[parameter]["exp_avg"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("ema", [False, True])
def test_a_checkpoint_opens_as_the_model_that_its_run_gives(data: Path, tmp_path: Path, ema: bool) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, ema=ema, ema_decay=0.9))
    out = train(config, data, out=tmp_path / "run").out
    assert same_weights(out / "last.ckpt", out / MODEL)
    model = maskrcnn.load(out / "last.ckpt")
    assert [category.name for category in model.config.categories] == ["blue", "red"]
    assert model.provenance["step"] == 2
    tuned = train(CONFIG, data, out=tmp_path / "tuned", weights=out / "last.ckpt")
    assert "last.ckpt" in maskrcnn.load(tuned.model).provenance["initial_weights"]


def test_a_run_goes_on_when_nobody_reads_its_messages(
    data: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    with open(write, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        before_batch(monkeypatch, 2, lambda: os.close(read))
        assert train(CONFIG, data, out=tmp_path / "run").finished
    assert same_weights(tmp_path / "run" / MODEL, finished / MODEL)


def test_lines_that_are_no_metrics_do_not_end_a_resumed_run(data: Path, run: Path) -> None:
    lines = [
        b'{"step": 1, "loss": "low", "lr": [1]}',
        b"[3]",
        b"null",
        b'{"step": "2"}',
        b"\xff\xfe\x00",
        b"[" * 99_999,
    ]
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(b"\n".join([*lines, metrics.read_bytes().strip(), b'{"step": 2, "los']))
    more = replace(CONFIG, train=replace(CONFIG.train, steps=3))
    assert train(more, data, out=run, resume=True).finished
    assert steps(run) == [1, 2, 3]


@pytest.mark.slow
def test_a_resumed_run_may_have_other_workers_and_more_steps_and_nothing_else(data: Path, run: Path) -> None:
    def resumed(**settings: Any) -> Summary:
        return train(replace(CONFIG, train=replace(CONFIG.train, **settings)), data, out=run, resume=True)

    assert resumed(workers=1).finished
    assert resumed(steps=3).steps == 3
    with pytest.raises(TrainingError, match=r"train\.steps was 3 and is 2; .*train\.steps may rise"):
        resumed(steps=2)
    with pytest.raises(TrainingError, match=r"ckpt: train\.seed was 0 and is 5; resume with"):
        resumed(steps=4, seed=5, workers=1)


@pytest.mark.slow
def test_the_provenance_names_the_weights_that_a_resumed_run_began_with(data: Path, run: Path, tmp_path: Path) -> None:
    began = train(CONFIG, data, out=tmp_path / "tuned", weights=run / MODEL)
    origin = maskrcnn.load(began.model).provenance["initial_weights"]
    assert str(run / MODEL) in str(origin)
    more = replace(CONFIG, train=replace(CONFIG.train, steps=3))
    resumed = train(more, data, out=tmp_path / "tuned", weights=run / MODEL, resume=True)
    assert maskrcnn.load(resumed.model).provenance["initial_weights"] == origin


@pytest.fixture
def memory_for(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[int]]:
    """Pretends that the memory is enough for some images at once, because no test can exhaust the real one safely."""

    def limit(most: int) -> list[int]:
        passed: list[int] = []
        original = MaskRCNN.loss_sums

        def loss_sums(self: MaskRCNN, images: Any, targets: Any) -> Any:
            passed.append(len(images))
            if len(images) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return original(self, images, targets)

        monkeypatch.setattr(MaskRCNN, "loss_sums", loss_sums)
        return passed

    return limit


@pytest.mark.slow
def test_memory_for_half_a_batch_is_enough_and_gives_the_same_losses(
    data: Path, tmp_path: Path, memory_for: Callable[[int], list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    config = small_config(steps=2, batch_size=4, checkpoint_every=1000, auto_batch=True, learning_rate=1e-5)
    backbone = replace(config.model.resnet, norm="frozen_batch_norm")  # trained batch norm is another in each part
    config = replace(config, model=replace(config.model, backbone=backbone))
    whole = train(config, data, out=tmp_path / "whole")
    passed = memory_for(1)
    halved = train(config, data, out=tmp_path / "halved")
    assert passed == [4, 2, *[1] * 8, *[1] * 8]  # four images pass twice: for the divisors, and for the gradients
    said = capfd.readouterr().err
    assert "step 1: out of memory with 4 images at once; from now on at most 2 pass" in said
    assert said.count("out of memory") == 2
    for first, second in zip(metrics(whole.out), metrics(halved.out), strict=True):
        for name, value in first.items():
            if name.startswith("loss"):
                assert second[name] == pytest.approx(value, rel=1e-5), name


def metrics(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_too_little_memory_names_the_settings_and_keeps_the_steps(
    data: Path, tmp_path: Path, memory_for: Callable[[int], list[int]]
) -> None:
    config = small_config(steps=3, batch_size=4, checkpoint_every=1000)
    one = train(replace(config, train=replace(config.train, steps=1)), data, out=tmp_path / "run")
    memory_for(2)
    expected = (
        r"^out of memory with 4 images of \d+x96 pixels at once; set --train.batch-size 2 --train.accumulate 2, .*, or "
        r"add --train.auto-batch, .*; the run is saved up to step 1: continue with --resume-with-changes$"
    )
    with pytest.raises(TrainingError, match=expected):
        train(config, data, out=one.out, resume=True)
    halved = replace(config, train=replace(config.train, steps=2, batch_size=2, accumulate=2))
    assert train(halved, data, out=one.out, resume="with changes").steps == 2
    automatic = replace(config, train=replace(config.train, auto_batch=True))
    resumed = train(automatic, data, out=one.out, resume="with changes")
    assert resumed.steps == 3


def test_an_image_that_the_memory_never_holds_ends_the_run(
    data: Path, tmp_path: Path, memory_for: Callable[[int], list[int]]
) -> None:
    memory_for(0)
    with pytest.raises(TrainingError, match=r"out of memory with one image of \d+x96 pixels; lower --image.short-side"):
        train(small_config(steps=1, auto_batch=True), data, out=tmp_path / "run")


def test_other_runtime_errors_stay(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(MaskRCNN, "loss_sums", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        train(small_config(steps=1, auto_batch=True), data, out=tmp_path / "run")
    assert not (tmp_path / "run" / "last.ckpt").exists()  # nothing was learned, so the same command may start again


def test_a_validation_loss_that_is_no_number_is_never_the_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may come from fp16. The checkpoint stays readable."""
    config = replace(CONFIG.train, steps=2, evaluate_every=1, validation_losses=True, best_metric="loss")
    fake_evaluation(monkeypatch, 0.5, 0.5)
    losses = [{"loss": float("nan")}, {"loss": 2.0}]
    monkeypatch.setattr("maskrcnn.training.run.validation_losses", lambda *given: losses.pop(0))
    out = train(replace(CONFIG, train=config), data, val=data, out=tmp_path / "run").out
    assert load_checkpoint(out).progress.best == 2.0


def test_processes_with_gpus_agree_to_stop_where_an_evaluation_was_interrupted() -> None:
    run: Any = SimpleNamespace(interrupted=[15], step=50, device=torch.device("meta"), _evaluation_due=lambda: True)
    run.world = SimpleNamespace(size=2, sum=lambda values: torch.tensor(1))
    assert Run._stop_asked(run)
    run._evaluation_due = lambda: False
    assert not Run._stop_asked(run), "asking at each step would wait for the GPU"
