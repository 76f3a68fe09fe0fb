"""The progress of training: a bar or lines for people, and the metrics file for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from maskrcnn.config import Config
from maskrcnn.errors import DataError, printable
from maskrcnn.evaluation.coco import Report
from maskrcnn.files.atomic import atomic_write
from maskrcnn.training.checkpoint import writing

METRICS = "metrics.jsonl"
SECONDS = "seconds"  # in a line of the metrics: the seconds of each activity since the line before

_Item = TypeVar("_Item")


class TrainingBar:
    """A progress bar on standard error with every loss, images per second and the time left. Without a terminal, it
    prints lines. A quiet one shows nothing."""

    def __init__(self, total: int | None, start: int, *, quiet: bool = False) -> None:
        """
        Args:
            total: steps; None if they are not known yet.
        """
        # Names may hold brackets.
        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False, quiet=quiet)
        self.total = total
        self._bar = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.description}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=start)

    def __enter__(self) -> TrainingBar:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def known(self, total: int) -> None:
        """The number of steps has been found."""
        self.total = total
        self._bar.update(self._task, total=total)

    def step(self, step: int) -> None:
        self._bar.update(self._task, completed=step)

    def losses(self, step: int, row: Mapping[str, float], seconds_left: float) -> None:
        text = f"loss {row['loss']:.3f}"
        text += "".join(f" {name[5:]} {row[name]:.3f}" for name in row if name.startswith("loss_"))
        text += f" lr {row['lr']:.2g} {row['images_per_second']:.2f} images/s"
        self._bar.update(self._task, description=text)
        if not self.console.is_terminal:
            minutes, seconds = divmod(int(seconds_left), 60)
            self.console.print(
                f"step {step}{'' if self.total is None else f'/{self.total}'} {text} left {minutes}:{seconds:02d}",
                soft_wrap=True,
            )

    def track(self, items: Iterable[_Item], total: int) -> Iterator[_Item]:
        """Yields the items, and shows their progress in a second bar below the first one."""
        task = self._bar.add_task("evaluating", total=total)
        try:
            for count, item in enumerate(items, start=1):
                yield item
                self._bar.update(task, completed=count)
        finally:
            self._bar.remove_task(task)

    def say(self, text: str) -> None:
        self.console.print(printable(text, "\n"), soft_wrap=True)


class Clock:
    """Where the time goes: seconds of each activity since they were last taken."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}

    @contextmanager
    def of(self, activity: str) -> Iterator[None]:
        """Counts the time of the block."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._spent[activity] = self._spent.get(activity, 0.0) + time.monotonic() - began

    def take(self) -> dict[str, float]:
        taken, self._spent = self._spent, {}
        return taken


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics file: its lines that are JSON objects with a step.

    Other lines are ignored, such as the cut last line of a killed run.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: the metrics of a run cannot be read ({error.strerror})") from None
    rows = []
    for line in lines:
        with suppress(ValueError, RecursionError):
            row = json.loads(line)
            if isinstance(row, dict) and type(row.get("step")) is int:
                rows.append(row)
    return rows


class MetricsFile:
    """`metrics.jsonl`, with one JSON object on each line: a `Reporter` that every run has."""

    def __init__(self, out: Path) -> None:
        self.path = out / METRICS

    def begin(self, config: Config, step: int) -> None:
        """Removes the lines of an earlier run, or those after the first step of a resumed one."""
        rows = read_metrics(self.path) if step and self.path.exists() else []
        with writing(self.path), atomic_write(self.path) as temporary:
            temporary.write_text("".join(f"{json.dumps(row)}\n" for row in rows if row["step"] <= step))

    def losses(self, step: int, row: Mapping[str, Any]) -> None:
        self._write({"step": step, **row})

    def evaluation(self, step: int, report: Report, more: Mapping[str, Any]) -> None:
        self._write({"step": step, **report.to_dict(), **more})

    def end(self) -> None:
        """Does nothing: the file is closed after each line, so that a killed run leaves all of them."""

    def _write(self, row: Mapping[str, Any]) -> None:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)  # someone may have deleted the folder
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
