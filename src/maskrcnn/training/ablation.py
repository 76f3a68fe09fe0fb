"""The paper's ablations as one table: each row a change of one base configuration, trained and evaluated several times.

The numbers of the paper are those of its tables 2, 3 and 6 (COCO minival, ResNet-50 unless a row says otherwise).
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from maskrcnn.config import Config, KeypointHeadConfig, MaskHeadConfig, config_to_dict
from maskrcnn.config.presets import with_c4, with_c5
from maskrcnn.errors import ConfigError, TrainingError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.training.evaluate import evaluate
from maskrcnn.training.loop import train

Metric = Literal["masks", "boxes", "keypoints"]


@dataclass(frozen=True)
class Row:
    """One line; the first of each table is the one that the others of it are compared with.

    Attributes:
        change: from the base configuration, a pyramid with sigmoid masks, to this row's.
        metric: whose AP counts.
        paper: that AP in the paper, in percent.
    """

    table: str
    name: str
    change: Callable[[Config], Config]
    metric: Metric
    paper: float

    @property
    def reference(self) -> Row:
        return next(other for other in ROWS if other.table == self.table)


def _deeper(config: Config) -> Config:
    """The next depth: 10, 18, 34, 50, 101, 152."""
    backbone = config.model.resnet
    depth: Any = {10: 18, 18: 34, 34: 50, 50: 101, 101: 152}.get(backbone.depth)
    if depth is None:
        raise ConfigError(f"the ablation of the backbone needs a deeper ResNet than {backbone.depth}; there is none")
    return _model(config, backbone=replace(backbone, depth=depth))


def _model(config: Config, **changes: Any) -> Config:
    return replace(config, model=replace(config.model, **changes))


def _mask(config: Config, **changes: Any) -> Config:
    return _model(config, mask_head=replace(config.model.mask_head or MaskHeadConfig(), **changes))


def _rois(config: Config, **changes: Any) -> Config:
    return _model(config, rois=replace(config.model.rois, **changes))


def _keypoints(config: Config) -> Config:
    return _model(config, keypoint_head=config.model.keypoint_head or KeypointHeadConfig())


ROWS = (
    Row("backbone", "C4", with_c4, "masks", 30.3),
    Row("backbone", "C4, deeper", lambda c: with_c4(_deeper(c)), "masks", 32.7),
    Row("backbone", "FPN", lambda c: c, "masks", 33.6),
    Row("backbone", "FPN, deeper", _deeper, "masks", 35.4),
    Row("mask loss", "sigmoid", with_c4, "masks", 30.3),
    Row("mask loss", "softmax", lambda c: _mask(with_c4(c), loss="softmax"), "masks", 24.8),
    Row("mask classes", "class-specific", with_c4, "masks", 30.3),
    Row("mask classes", "class-agnostic", lambda c: _mask(with_c4(c), class_agnostic=True), "masks", 29.7),
    Row("RoI layer, stride 16", "RoIAlign, average", with_c4, "masks", 30.3),
    Row("RoI layer, stride 16", "RoIAlign, max", lambda c: _rois(with_c4(c), reduce="max"), "masks", 30.2),
    Row("RoI layer, stride 16", "RoIWarp, average", lambda c: _rois(with_c4(c), op="warp"), "masks", 27.1),
    Row("RoI layer, stride 16", "RoIWarp, max", lambda c: _rois(with_c4(c), op="warp", reduce="max"), "masks", 27.2),
    Row("RoI layer, stride 16", "RoIPool", lambda c: _rois(with_c4(c), op="pool", reduce="max"), "masks", 26.9),
    Row("RoI layer, stride 32", "RoIAlign", with_c5, "masks", 30.9),
    Row("RoI layer, stride 32", "RoIPool", lambda c: _rois(with_c5(c), op="pool", reduce="max"), "masks", 23.6),
    Row("RoI layer, stride 32, boxes", "RoIAlign", with_c5, "boxes", 34.0),
    Row("RoI layer, stride 32, boxes", "RoIPool", lambda c: _rois(with_c5(c), op="pool", reduce="max"), "boxes", 28.2),
    Row("mask branch", "FCN", lambda c: c, "masks", 33.6),
    Row("mask branch", "MLP", lambda c: _mask(c, kind="mlp", norm="none"), "masks", 31.5),
    Row("boxes", "with masks", _mask, "boxes", 38.2),
    Row("boxes", "without masks", lambda c: _model(c, mask_head=None), "boxes", 37.3),
    Row("keypoints", "alone", lambda c: _keypoints(_model(c, mask_head=None)), "keypoints", 64.2),
    Row("keypoints", "with masks", lambda c: _mask(_keypoints(c)), "keypoints", 64.7),
)
TABLES = tuple(dict.fromkeys(row.table for row in ROWS))


@dataclass(frozen=True)
class Measured:
    """A measured row: AP of each seed in percent, and of its reference row in the order of the same seeds."""

    row: Row
    ap: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def difference(self) -> float:
        return statistics.fmean(self._differences())

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds of the difference, 0 of one seed."""
        return _deviation(self._differences())

    @property
    def paper_difference(self) -> float:
        return self.row.paper - self.row.reference.paper

    def verdict(self) -> str:
        """Whether the paper's direction shows: a difference counts when it is larger than its spread, for which it
        takes two seeds."""
        if self.row is self.row.reference:
            return "reference"
        if len(self.ap) == 1:
            return "one seed"
        if abs(self.difference) <= self.spread:
            return "no difference seen"
        return "as in the paper" if (self.difference > 0) == (self.paper_difference > 0) else "opposite"

    def _differences(self) -> list[float]:
        return [own - other for own, other in zip(self.ap, self.reference, strict=True)]


@dataclass(frozen=True)
class Runs:
    """Where an ablation trains: the base configuration, the data, the folder, and what the weights begin from."""

    base: Config
    data: Path
    val: Path
    out: Path
    weights: str | None = None

    def score(self, row: Row, seed: int, say: Callable[[str], None]) -> float:
        """AP of one run in percent, read from the folder when an earlier call has trained it.

        Raises:
            TrainingError: the run was interrupted.
            ConfigError, DataError: the row cannot be built on this base or this data.
        """
        config = row.change(self.base)
        config = replace(config, train=replace(config.train, seed=seed, evaluate_every=0))
        # Rows that share a configuration, such as the references of several tables, share its run.
        identity = json.dumps([config_to_dict(config), str(self.data), str(self.val), self.weights], sort_keys=True)
        folder = self.out / "runs" / hashlib.sha256(identity.encode()).hexdigest()[:12]
        result = folder / "result.json"
        if not result.exists():
            resume = (folder / "last.ckpt").exists()
            say(f"{row.table}: {row.name}, seed {seed}, {'going on' if resume else 'beginning'} in {folder}")
            summary = train(config, self.data, out=folder, weights=self.weights, resume=resume)
            if not summary.finished:
                raise TrainingError(f"{folder} was interrupted; the same command goes on with it")
            report = evaluate(summary.model, self.val)
            with atomic_write(result) as temporary:
                figures = {"row": f"{row.table}: {row.name}", "seed": seed, "seconds": summary.seconds}
                temporary.write_text(json.dumps(figures | report.to_dict()), encoding="utf-8")
        figures = json.loads(result.read_text(encoding="utf-8"))[row.metric]
        return 100 * float(figures["AP"] or 0.0)

    def measure(self, row: Row, seeds: int, say: Callable[[str], None] = print) -> Measured:
        """A row and the one that it is compared with, each trained `seeds` times; raises as `score`."""
        own = tuple(self.score(row, seed, say) for seed in range(seeds))
        return Measured(row, own, tuple(self.score(row.reference, seed, say) for seed in range(seeds)))


def markdown(measured: list[Measured]) -> str:
    """The table: AP and difference to the reference row, mean and standard deviation, beside the paper's."""
    lines = [
        "| table | row | AP | difference | paper AP | paper difference | direction |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in measured:
        first = m.row is m.row.reference
        difference = "" if first else f"{m.difference:+.1f} ± {m.spread:.1f}"
        paper = "" if first else f"{m.paper_difference:+.1f}"
        ap = f"{statistics.fmean(m.ap):.1f} ± {_deviation(m.ap):.1f}"
        lines.append(
            f"| {m.row.table} | {m.row.name} | {ap} | {difference} | {m.row.paper:.1f} | {paper} | {m.verdict()} |"
        )
    return "\n".join(lines) + "\n"


def write_tables(measured: list[Measured], out: Path) -> None:
    """`ablations.md`, `ablations.json` and `ablations.png` in the folder."""
    with atomic_write(out / "ablations.md") as temporary:
        temporary.write_text(markdown(measured), encoding="utf-8")
    rows = [
        {
            "table": m.row.table,
            "row": m.row.name,
            "metric": m.row.metric,
            "ap": m.ap,
            "difference": m.difference,
            "spread": m.spread,
            "paper_ap": m.row.paper,
            "paper_difference": m.paper_difference,
            "direction": m.verdict(),
        }
        for m in measured
    ]
    with atomic_write(out / "ablations.json") as temporary:
        temporary.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    _draw([m for m in measured if m.row is not m.row.reference], out / "ablations.png")


def _draw(measured: list[Measured], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 1.2 + 0.42 * len(measured)), layout="constrained")
    FigureCanvasAgg(figure)  # no window, whatever the user's settings
    axes = figure.add_subplot()
    places = range(len(measured))
    axes.barh(
        [place - 0.2 for place in places],
        [m.difference for m in measured],
        height=0.4,
        xerr=[m.spread for m in measured],
        capsize=3,
        color="#4361ee",
        label="here",
    )
    axes.barh(
        [place + 0.2 for place in places],
        [m.paper_difference for m in measured],
        height=0.4,
        color="#c4c9d4",
        label="paper",
    )
    axes.axvline(0, color="#111827", linewidth=0.8)
    axes.set_yticks(list(places), [f"{m.row.name} against {m.row.reference.name}\n({m.row.table})" for m in measured])
    axes.invert_yaxis()
    axes.set_xlabel("difference in AP, points; bars of ours end in their standard deviation over the seeds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
