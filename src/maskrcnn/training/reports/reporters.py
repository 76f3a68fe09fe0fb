"""Who is told about a run while it goes on: the metrics file always, and other programs if they are asked for.

The other programs are in `trackers.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Protocol

from maskrcnn.config import Config
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
    with ExitStack() as begun:
        for reporter in reporters:
            reporter.begin(config, step)
            begun.callback(reporter.end)
        yield


class RunTracker(ABC):
    """A reporter that gives all figures with their names and steps to another program.

    Attributes:
        package: the Python package that it needs, and the extra of this package that installs it.

    Raises:
        MissingPackageError: the package is not installed.
    """

    package: ClassVar[str]
    extra: ClassVar[str]

    def __init__(self, out: Path) -> None:
        if find_spec(self.package) is None:
            raise MissingPackageError(
                f"--reporters {type(self).__name__.lower()} needs {self.package}, which is missing: "
                f"pip install 'maskrcnn[{self.extra}]'"
            )
        self.out = out

    @abstractmethod
    def begin(self, config: Config, step: int) -> None:
        """As `Reporter.begin`."""

    @abstractmethod
    def write(self, figures: Mapping[str, float], step: int) -> None:
        """Gives figures by name: `train/...` and `val/...`."""

    @abstractmethod
    def end(self) -> None:
        """As `Reporter.end`."""

    def losses(self, step: int, row: Mapping[str, Any]) -> None:
        self.write(_numbers("train", row), step)

    def evaluation(self, step: int, report: Report, more: Mapping[str, Any]) -> None:
        self.write(_numbers("val", metrics_of(report, more.get("validation_losses", {}))), step)


def _numbers(group: str, row: Mapping[str, Any]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in row.items() if isinstance(value, int | float)}
