"""`maskrcnn bench predict|train|kernels|loader`: speed and memory compared with torchvision, at equal results.

`maskrcnn bench serve` compares the server with direct prediction.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.constructors import StructFieldSpec

from maskrcnn.benchmark.settings import (
    KernelSettings,
    LoaderSettings,
    PredictSettings,
    ServeSettings,
    Timing,
    TrainSettings,
)
from maskrcnn.cli.flags import Flag, Flags, parse_flags

if TYPE_CHECKING:
    from maskrcnn.benchmark.measure import Comparison
    from maskrcnn.benchmark.memory import Memory

Argv = tyro.conf.Suppress[tuple[str, ...]]

TableRow = tuple[str, str, str, str, str]
COLUMNS: TableRow = ("", "ms", "quartiles", "share", "memory MB")


@dataclass(frozen=True)
class BenchPredict:
    """Compare the prediction of images, with the same random weights in both packages."""

    images: tuple[str, ...] = ()
    """Image files, globs, and folders, whose subfolders are searched too; default: generated images."""
    settings: Annotated[PredictSettings, Flags] = field(default_factory=PredictSettings)
    timing: Annotated[Timing, Flags] = field(default_factory=Timing)
    json: Flag = False
    """Print one JSON object on stdout."""
    argv: Argv = ()

    def run(self) -> int:
        from maskrcnn.files.images import image_files

        files = image_files(self.images)  # before torch: a wrong path is noticed at once
        from maskrcnn.benchmark.predict import bench_predict

        report = bench_predict(files, self.settings, self.timing, _track)
        whole = sum(report.stages["all"])
        rows = _sides("", report.times, report.memory)
        rows += [
            _row(f"  our {stage}", seconds, share=f"{sum(seconds) / whole:.0%}")
            for stage, seconds in report.stages.items()
        ]
        rows.append(_row("our network alone", report.network))
        rates = f"images a second of the network alone {report.from_memory:.3g}, from files {report.from_files:.3g}"
        return _finish("predict", self, report, rows, f"{_outcome(report.times)}, {rates}")


@dataclass(frozen=True)
class BenchTrain:
    """Compare training steps, with the same weights, images and optimiser."""

    settings: Annotated[TrainSettings, Flags] = field(default_factory=TrainSettings)
    timing: Annotated[Timing, Flags] = field(default_factory=Timing)
    json: Flag = False
    """Print one JSON object on stdout."""
    argv: Argv = ()

    def run(self) -> int:
        from maskrcnn.benchmark.train import bench_train

        report = bench_train(self.settings, self.timing, _track)
        return _finish("train", self, report, _sides("", report.times, report.memory), _outcome(report.times))


@dataclass(frozen=True)
class BenchKernels:
    """Compare RoIAlign, non-maximum suppression and the encoding of masks."""

    settings: Annotated[KernelSettings, Flags] = field(default_factory=KernelSettings)
    timing: Annotated[Timing, Flags] = field(default_factory=Timing)
    json: Flag = False
    """Print one JSON object on stdout."""
    argv: Argv = ()

    def run(self) -> int:
        from maskrcnn.benchmark.kernels import bench_kernels

        report = bench_kernels(self.settings, self.timing, _track)
        rows = []
        for kernel in report.results:
            rows += _sides(f"{kernel.name}: ", kernel.times, kernel.memory)
            if kernel.copy:
                rows.append(_row(f"{kernel.name}: a copy of the {kernel.needed / 1e6:.0f} MB needed", kernel.copy))
        outcome = ", ".join(f"{kernel.name} x{kernel.times.ratio:.2f}" for kernel in report.results)
        return _finish("kernels", self, report, rows, outcome)


@dataclass(frozen=True)
class BenchLoader:
    """Compare the loading of training samples with large-scale jitter, on one core."""

    data: Path | None = None
    """COCO JSON, or its folder; default: generated images with polygons."""
    settings: Annotated[LoaderSettings, Flags] = field(default_factory=LoaderSettings)
    timing: Annotated[Timing, Flags] = field(default_factory=Timing)
    json: Flag = False
    """Print one JSON object on stdout."""
    argv: Argv = ()

    def run(self) -> int:
        from maskrcnn.benchmark.loader import bench_loader

        report = bench_loader(self.data, self.settings, self.timing, _track)
        sides = {"ours": report.times.ours, "torchvision": report.times.theirs}
        rows = [_row(side, seconds, memory=_worker_mb(report.memory.get(side))) for side, seconds in sides.items()]
        speed = report.images_per_second()
        outcome = (
            f"{_outcome(report.times)}, images a second on one core {speed['ours']:.1f} and {speed['torchvision']:.1f}"
        )
        return _finish("loader", self, report, rows, outcome)


@dataclass(frozen=True)
class BenchServe:
    """Ask a server of a model by many clients at once, and compare every answer with the direct prediction."""

    model: str
    """Model to serve, as in `maskrcnn serve`."""
    images: tuple[str, ...] = ()
    """Image files, globs, and folders, whose subfolders are searched too; default: generated images."""
    settings: Annotated[ServeSettings, Flags] = field(default_factory=ServeSettings)
    json: Flag = False
    """Print one JSON object on stdout."""
    argv: Argv = ()

    def run(self) -> int:
        from maskrcnn.files.images import image_files

        files = image_files(self.images)
        from maskrcnn.benchmark.load import bench_serve, percentiles

        with TemporaryDirectory(prefix="maskrcnn-bench-") as folder:
            report = bench_serve(self.model, files, self.settings, Path(folder))
        memory = ", ".join(f"{size / 1e6:.0f}" for size in report.memory or ()) or "-"
        rows = [_row("answers", report.tally.seconds, memory=memory)] if report.tally.seconds else []
        rows += [_row("refusals", report.tally.refused)] if report.tally.refused else []
        p99 = percentiles(report.tally.seconds).get("p99", math.nan)
        alone = " and ".join(f"{rate:.3g}" for rate in report.alone)
        outcome = f"{report.served:.3g} images a second, direct prediction {alone}, ratio {report.ratio:.2f}"
        return _finish("serve", self, report, rows, f"{outcome}, p99 {p99:.3g} s")


# Flags of `Timing` that do nothing in a benchmark. They are hidden everywhere, so that its errors name no other one.
IDLE = {"kernels": ("precision", "compile"), "loader": ("device", "precision", "compile")}

Bench = BenchPredict | BenchTrain | BenchKernels | BenchLoader | BenchServe


def _worker_mb(found: Mapping[int, int] | None) -> str:
    """MB of memory that a worker does not share, for each number of annotations."""
    return ", ".join(f"{size / 1e6:.0f} ({count:,})" for count, size in (found or {}).items()) or "-"


def _finish(name: str, command: Bench, report: Any, rows: Sequence[TableRow], outcome: str) -> int:
    """Prints the report. Returns 1 if the results differ, because speeds are then not comparable."""
    from rich.table import Table

    from maskrcnn.cli.output import console, print_json

    # One line to copy: the outcome, the versions and the machine, and the command that repeats it.
    line = f"{name}: {outcome}; {_machine(report.environment)}; {shlex.join(['maskrcnn', 'bench', *command.argv])}"
    if command.json:
        print_json({**report.to_dict(), "line": line})
    table = Table(*COLUMNS, box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    say = console(stderr=command.json)
    say.print(table)
    agreement = report.agreement if isinstance(command, BenchPredict | BenchLoader) else report
    say.print(agreement.line())
    say.print(line)
    return 0 if agreement.agree else 1


def _sides(prefix: str, times: Comparison, memory: Mapping[str, Memory | None]) -> list[TableRow]:
    """A row for each package. Memory is what its first call needs in addition to what was in use before."""
    rows = []
    for side, seconds in (("ours", times.ours), ("torchvision", times.theirs)):
        found = memory.get(side)
        rows.append(_row(f"{prefix}{side}", seconds, memory=f"{found.extra / 1e6:.0f}" if found else "-"))
    return rows


def _row(name: str, seconds: Iterable[float], share: str = "", memory: str = "") -> TableRow:
    from maskrcnn.benchmark.measure import quartiles

    found = {key: _ms(value) for key, value in quartiles(seconds).items()}
    return name, found["median"], f"{found['q1']}..{found['q3']}", share, memory


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}" if seconds >= 1 else f"{seconds * 1000:.3g}"


def _outcome(times: Comparison) -> str:
    figures = times.to_dict()
    ours, theirs, ratios = figures["ours"], figures["torchvision"], figures["ratio_of_rounds"]
    return (
        f"ours {ours['median']:.3g} s, torchvision {theirs['median']:.3g} s, ratio {times.ratio:.2f} "
        f"(quartiles of {figures['rounds']} rounds {ratios['q1']:.2f}..{ratios['q3']:.2f})"
    )


def _machine(found: Mapping[str, Any]) -> str:
    return (
        f"maskrcnn {found['maskrcnn']}, torch {found['torch']}, torchvision {found['torchvision']}, "
        f"Python {found['python']}, {found['processor']}, {found['cores']} cores, {found['threads']} threads, "
        f"load {found['load']}, {found['device']}, {found['precision']}"
    )


def _track(rounds: Iterable[Any], words: str) -> Iterable[Any]:
    from maskrcnn.files.progress import track

    return track(rounds, words)


Command = (
    Annotated[BenchPredict, tyro.conf.subcommand("predict", prefix_name=False)]
    | Annotated[BenchTrain, tyro.conf.subcommand("train", prefix_name=False)]
    | Annotated[BenchKernels, tyro.conf.subcommand("kernels", prefix_name=False)]
    | Annotated[BenchLoader, tyro.conf.subcommand("loader", prefix_name=False)]
    | Annotated[BenchServe, tyro.conf.subcommand("serve", prefix_name=False)]
)


def parse(argv: Sequence[str]) -> Bench:
    """The command with its flags; raises as `parse_flags`."""
    idle = IDLE.get(argv[0], ()) if argv else ()

    def hidden(kind: type, setting: StructFieldSpec) -> bool:
        return kind in (Timing, ServeSettings) and setting.name in idle

    bench: Bench = replace(parse_flags(Command, "maskrcnn bench", argv, hidden=hidden), argv=tuple(argv))
    return bench
