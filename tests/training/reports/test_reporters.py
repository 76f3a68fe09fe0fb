"""What other programs are told about a run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from maskrcnn.errors import MissingPackageError
from maskrcnn.evaluation.coco import Report
from maskrcnn.training.reports import reporters
from maskrcnn.training.reports.reporters import Reporter, TensorBoard, reporting
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


def test_a_missing_package_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporters, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"pip install 'maskrcnn\[logs\]'"):
        TensorBoard(tmp_path)


def test_what_has_begun_ends_whatever_happens() -> None:
    calls: list[str] = []

    def one(name: str, error: type[Exception] | None = None) -> Reporter:
        def begin(*given: Any) -> None:
            if error is not None:
                raise error
            calls.append(f"begin {name}")

        return cast(Reporter, SimpleNamespace(begin=begin, end=lambda: calls.append(f"end {name}")))

    with pytest.raises(KeyError), reporting([one("a"), one("b", KeyError)], small_config(), 0):
        calls.append("never")
    with pytest.raises(ValueError, match="inside"), reporting([one("c")], small_config(), 0):
        raise ValueError("inside")
    assert calls == ["begin a", "end a", "begin c", "end c"]
