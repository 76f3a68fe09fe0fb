"""Who is told about a run while it goes on: the metrics file always, and other programs if they are asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from maskrcnn.config import Config, config_to_dict
from maskrcnn.errors import MissingPackageError
from maskrcnn.evaluation.coco import Report
from maskrcnn.training.validation import metrics_of


class Reporter(Protocol):
    """Is told about a run. Of several processes, only the first one tells."""

    def begin(self, config: Config, step: int) -> None:
        """The run starts, or is resumed after `step` steps."""

    def losses(self, step: int, row: Mapping[str, Any]) -> None:
        """The mean losses since the last call, `lr`, `images_per_second`, and `seconds` by activity."""

    def evaluation(self, step: int, report: Report, more: Mapping[str, Any]) -> None:
        """The figures of an evaluation; `more` has `seconds`, and `validation_losses` if they are computed."""

    def end(self) -> None:
        """The run ends, also by an error or an interruption."""


@contextmanager
def reporting(reporters: Sequence[Reporter], config: Config, step: int) -> Iterator[None]:
    """Begins the reporters, and ends those that have begun after the block."""
    begun: list[Reporter] = []
    try:
        for reporter in reporters:
            reporter.begin(config, step)
            begun.append(reporter)
        yield
    finally:
        for reporter in begun:
            reporter.end()


class TensorBoard:
    """Event files for TensorBoard in the folder `tensorboard` of the run.

    Raises:
        MissingPackageError: the package tensorboard is not installed.
    """

    def __init__(self, out: Path) -> None:
        if find_spec("tensorboard") is None:
            raise MissingPackageError(
                "--reporters tensorboard needs tensorboard, which is missing: pip install 'maskrcnn[logs]'"
            )
        self.folder = out / "tensorboard"

    def begin(self, config: Config, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # TensorBoard hides what an interrupted run has written after the step from which it is resumed.
        self._writer = SummaryWriter(str(self.folder), purge_step=step + 1 if step else None)
        settings = json.dumps(config_to_dict(config), indent=1).splitlines()
        self._writer.add_text("settings", "\n".join(f"    {line}" for line in settings), step)

    def losses(self, step: int, row: Mapping[str, Any]) -> None:
        self._write("train", row, step)

    def evaluation(self, step: int, report: Report, more: Mapping[str, Any]) -> None:
        self._write("val", metrics_of(report, more.get("validation_losses", {})), step)

    def _write(self, group: str, row: Mapping[str, Any], step: int) -> None:
        for name, value in row.items():
            if isinstance(value, int | float):
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()

    def end(self) -> None:
        self._writer.close()


REPORTERS: dict[str, Callable[[Path], Reporter]] = {"tensorboard": TensorBoard}
