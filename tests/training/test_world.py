"""Several processes train one model: the losses of one large batch, the figures of one process, one writer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from maskrcnn.cli import main
from maskrcnn.errors import ConfigError, TrainingError
from maskrcnn.predict import load
from maskrcnn.training.evaluate import evaluate
from maskrcnn.training.world import VARIABLES, World, joined_world
from small_data import write_small

SETTINGS = (
    *(
        "--preset",
        "mask_rcnn_tiny",
        "--image.short-side",
        "64",
        "--image.long-side",
        "96",
        "--augment.crop",
        "64",
        "64",
    ),
    *("--train.workers", "0", "--train.warmup-steps", "5"),
)
ALONE = dict.fromkeys(VARIABLES, "") | {"WORLD_SIZE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    return write_small(folder, "train", 8), write_small(folder, "val", 5, seed=1)


def command(data: tuple[Path, Path], out: Path, *flags: object) -> list[str]:
    given = ("train", data[0], "--val", data[1], "--out", out, *SETTINGS, *flags)
    return ["-m", "maskrcnn", *map(str, given)]


def start(args: list[str], processes: int = 1) -> subprocess.Popen[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    launch = torchrun if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launch, *args], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "two"}, r"WORLD_SIZE: expected a number, as torchrun sets it, found 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, r"WORLD_SIZE is 2: .* found no LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_half_an_environment_is_refused(
    environment: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (dict.fromkeys(VARIABLES, "") | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message), joined_world():
        pass


def test_one_process_is_a_world_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined_world() as world:
        values = torch.arange(3.0)
        assert world.leads
        assert world.sum(values) is values
        assert world.gather("a") == ["a"]
        assert world.from_leader(lambda: 7) == 7


def test_a_lost_process_is_said_once_and_an_own_error_stays() -> None:
    world = World(torch.device("cpu"), size=2)
    with pytest.raises(TrainingError) as found, world.answering(), world.answering():
        raise RuntimeError("gloo: Connection reset by peer")
    assert str(found.value).count("another process of this run has ended or does not answer") == 1
    with pytest.raises(TrainingError, match=r"^NCCL is not what failed$"), world.answering():
        raise TrainingError("NCCL is not what failed")


@pytest.mark.slow
def test_processes_give_the_losses_of_one_large_batch_and_the_figures_of_one_process(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    # At a high rate, a rounding error soon decides which of two equal samples is drawn.
    steps = (
        *("--train.steps", 20, "--train.evaluate-every", 20, "--train.precision", "fp32"),
        *("--model.backbone.norm", "frozen_batch_norm", "--train.optimizer", "sgd", "--train.learning-rate", 1e-5),
    )
    runs = {
        "large": start(command(data, tmp_path / "large", *steps, "--train.batch-size", 4)),
        "added": start(command(data, tmp_path / "added", *steps, "--train.batch-size", 1, "--train.accumulate", 4)),
        "shared": start(command(data, tmp_path / "shared", *steps, "--train.batch-size", 2), processes=2),
        "both": start(
            command(data, tmp_path / "both", *steps, "--train.batch-size", 1, "--train.accumulate", 2), processes=2
        ),
    }
    for name, process in runs.items():
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
        assert out.count("20 steps in") == 1, f"{name}: one process speaks, not {out!r}"
    losses = {name: {k: v for k, v in rows(tmp_path / name)[0].items() if k.startswith("loss")} for name in runs}
    for name in runs:
        assert losses[name] == pytest.approx(losses["large"], rel=1e-5), name
    found = rows(tmp_path / "shared")[1]
    alone = evaluate(load(tmp_path / "shared" / "model.safetensors", precision="fp32"), data[1]).to_dict()
    assert {name: found[name] for name in ("masks", "boxes", "detections")} == {
        name: alone[name] for name in ("masks", "boxes", "detections")
    }


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_which_resumes(data: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("--train.steps", 4000, "--train.batch-size", 1, "--train.evaluate-every", 0, "--train.checkpoint-every", 5)
    job = start(command(data, out, *flags), processes=2)
    end = time.monotonic() + 300
    while not (out / "last.ckpt").exists():
        assert time.monotonic() < end
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.2)
    children = Path(f"/proc/{job.pid}/task/{job.pid}/children").read_text().split()
    victim = next(pid for pid in children if b"RANK=1" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
    os.kill(int(victim), signal.SIGKILL)
    _, err = job.communicate(timeout=120)
    assert job.returncode
    assert "Signal 9 (SIGKILL)" in err
    saved = torch.load(out / "last.ckpt", weights_only=True)["step"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ALONE.items():
            patch.setenv(name, value)
        assert main(command(data, out, *flags, "--resume")[2:]) == 2, "another number of processes is another batch"
    flags = ("--train.steps", saved + 3, *flags[2:], "--resume", "--resume-with-changes")
    resumed = start(command(data, out, *flags), processes=2)
    _, err = resumed.communicate(timeout=300)
    assert resumed.returncode == 0, err
    assert torch.load(out / "last.ckpt", weights_only=True)["step"] == saved + 3


@pytest.mark.slow
def test_processes_judge_the_network_that_is_written(data: tuple[Path, Path], tmp_path: Path) -> None:
    """Batch norm collects other statistics in each process."""
    flags = ("--train.steps", 30, "--train.evaluate-every", 30, "--train.precision", "fp32", "--train.batch-size", 1)
    norm = ("--model.backbone.norm", "batch_norm", "--train.optimizer", "adamw", "--train.learning-rate", 1e-3)
    process = start(command(data, tmp_path / "run", *flags, *norm), processes=2)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    found = rows(tmp_path / "run")[-1]
    alone = evaluate(load(tmp_path / "run" / "model.safetensors", precision="fp32"), data[1]).to_dict()
    assert {name: found[name] for name in ("masks", "boxes", "detections")} == {
        name: alone[name] for name in ("masks", "boxes", "detections")
    }
