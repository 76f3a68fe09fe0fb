"""What TensorBoard, MLflow, and Weights & Biases show of a run, read back by their own code from local files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from maskrcnn.errors import MissingPackageError, TrainingError
from maskrcnn.evaluation.coco import Report
from maskrcnn.training.reports import reporters
from maskrcnn.training.reports.reporters import reporting
from maskrcnn.training.reports.trackers import TRACKERS, MLflow, TensorBoard, WandB
from small_data import small_config

REPORT = Report(None, {"AP": 0.25, "AP50": None}, {"owl": {"masks": None, "boxes": 0.5}}, 1, 1, 1, max_detections=100)


def test_tensorboard_shows_losses_and_figures_and_forgets_what_a_resumed_run_repeats(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, steps in ((0, (20, 40)), (20, (40, 60))):
        board = TensorBoard(tmp_path)
        with reporting([board], small_config(), start):
            for step in steps:
                board.losses(step, {"loss": step / 10 + start, "seconds": {"steps": 1.0}})
            board.evaluation(steps[-1], REPORT, {"validation_losses": {"loss_mask": 0.75}})
    shown = EventAccumulator(str(tmp_path / "tensorboard"))
    shown.Reload()
    assert set(shown.Tags()["scalars"]) == {"train/loss", "val/AP", "val/boxes.AP", "val/boxes.AP.owl", "val/loss_mask"}
    assert [(event.step, event.value) for event in shown.Scalars("train/loss")] == [(20, 2), (40, 24), (60, 26)]
    assert shown.Scalars("val/AP")[-1].value == 0.25
    assert shown.Tags()["tensors"] == ["settings/text_summary"]


BLOCK, HEADER, WHOLE_OR_LAST = 1 << 15, struct.Struct("<IHB"), (1, 4)  # LevelDB's doc/log_format.md


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    (tmp_path / "night").mkdir()
    return tmp_path / "night"


@pytest.mark.slow
def test_mlflow_holds_one_run_for_a_run_that_was_resumed(offline: Path) -> None:
    import mlflow

    for start, step in ((0, 20), (20, 40)):
        told = MLflow(offline)
        with reporting([told], small_config(), start):
            told.losses(step, {"loss": step / 10, "seconds": {"steps": 1.0}})
            told.evaluation(step, REPORT, {"validation_losses": {"loss_mask": 0.75}})
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("maskrcnn")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("night", "FINISHED")
    assert [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train/loss")] == [
        (20, 2),
        (40, 4),
    ]
    assert run.data.metrics["val/AP"] == 0.25
    assert run.data.metrics["val/boxes.AP.owl"] == 0.5


@pytest.mark.slow
def test_wandb_holds_the_figures_by_step(offline: Path) -> None:
    import wandb

    told = WandB(offline)
    with reporting([told], small_config(), 0):
        told.losses(20, {"loss": 2.0, "seconds": {"steps": 1.0}})
        told.evaluation(20, REPORT, {})
    wandb.teardown()  # its own process writes the file, at the latest when it ends
    ids = (offline / "wandb_run.txt").read_text().split()
    assert len(ids) == 1
    assert wandb_history(offline, ids[0]) == [{"train/loss": 2.0, "val/AP": 0.25, "val/boxes.AP.owl": 0.5}]


def wandb_history(folder: Path, run: str) -> list[dict[str, float]]:
    """The figures in the file of an offline run: protocol buffers in the log format of LevelDB, after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob(f"wandb/offline-run-*/run-{run}.wandb")
    content, place, message, rows = path.read_bytes(), 7, b"", []
    while place < len(content):
        if (left := BLOCK - place % BLOCK) < HEADER.size:  # the rest of a block that is too short for a header
            place += left
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        message += content[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        if kind in WHOLE_OR_LAST:
            items = Record.FromString(message).history.item
            rows += [{"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}]
            message = b""
    figures = ("train/loss", "val/AP", "val/boxes.AP.owl")
    return [{name: row[name] for name in figures} for row in rows if "train/loss" in row]


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(
        TrainingError, match=r"^mlflow cannot be told about the run \(.*\); look at MLFLOW_TRACKING_URI$"
    ):
        MLflow(tmp_path).begin(small_config(), 0)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_API_KEY", "no key")
    with pytest.raises(
        TrainingError, match=r"^wandb cannot be told about the run \(.*\); call `wandb login`, or set WAN"
    ):
        WandB(tmp_path).begin(small_config(), 0)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_said_in_a_line(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=rf"^--reporters {name} needs .*pip install 'maskrcnn\[\w+\]'$"):
        TRACKERS[name](tmp_path)
