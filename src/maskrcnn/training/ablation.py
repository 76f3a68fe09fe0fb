"""The paper's ablations as one table. Each row changes one base configuration and is trained and evaluated several
times.

The paper's figures come from its tables 2, 3 and 6 (COCO minival, ResNet-50 unless a row says otherwise).
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
from maskrcnn.errors import ConfigError, DataError, TrainingError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.training.evaluate import evaluate
from maskrcnn.training.loop import train
from maskrcnn.weights.initialise import WeightsFile

Metric = Literal["masks", "boxes", "keypoints"]


@dataclass(frozen=True)
class AblationRow:
    """One line of a table. The other rows of a table are compared with its first one, their reference.

    Attributes:
        change: makes the configuration of this row from the base, an FPN model with sigmoid masks.
        metric: which AP is compared.
        paper: this AP in the paper, in percent.
    """

    table: str
    name: str
    change: Callable[[Config], Config]
    metric: Metric
    paper: float

    @property
    def reference(self) -> AblationRow:
        return next(other for other in ROWS if other.table == self.table)


def _deeper(config: Config) -> Config:
    """The same with a ResNet of the next depth: 10, 18, 34, 50, 101, 152."""
    backbone = config.model.resnet
    depth: Any = {10: 18, 18: 34, 34: 50, 50: 101, 101: 152}.get(backbone.depth)
    if depth is None:
        raise ConfigError(
            f"the ablation of the backbone needs a ResNet deeper than {backbone.depth}; lower backbone.depth"
        )
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
    AblationRow("backbone", "C4", with_c4, "masks", 30.3),
    AblationRow("backbone", "C4, deeper", lambda c: with_c4(_deeper(c)), "masks", 32.7),
    AblationRow("backbone", "FPN", lambda c: c, "masks", 33.6),
    AblationRow("backbone", "FPN, deeper", _deeper, "masks", 35.4),
    AblationRow("mask loss", "sigmoid", with_c4, "masks", 30.3),
    AblationRow("mask loss", "softmax", lambda c: _mask(with_c4(c), loss="softmax"), "masks", 24.8),
    AblationRow("mask classes", "class-specific", with_c4, "masks", 30.3),
    AblationRow("mask classes", "class-agnostic", lambda c: _mask(with_c4(c), class_agnostic=True), "masks", 29.7),
    AblationRow("RoI layer, stride 16", "RoIAlign, average", with_c4, "masks", 30.3),
    AblationRow("RoI layer, stride 16", "RoIAlign, max", lambda c: _rois(with_c4(c), reduce="max"), "masks", 30.2),
    AblationRow("RoI layer, stride 16", "RoIWarp, average", lambda c: _rois(with_c4(c), op="warp"), "masks", 27.1),
    AblationRow(
        "RoI layer, stride 16", "RoIWarp, max", lambda c: _rois(with_c4(c), op="warp", reduce="max"), "masks", 27.2
    ),
    AblationRow("RoI layer, stride 16", "RoIPool", lambda c: _rois(with_c4(c), op="pool", reduce="max"), "masks", 26.9),
    AblationRow("RoI layer, stride 32", "RoIAlign", with_c5, "masks", 30.9),
    AblationRow("RoI layer, stride 32", "RoIPool", lambda c: _rois(with_c5(c), op="pool", reduce="max"), "masks", 23.6),
    AblationRow("RoI layer, stride 32, boxes", "RoIAlign", with_c5, "boxes", 34.0),
    AblationRow(
        "RoI layer, stride 32, boxes", "RoIPool", lambda c: _rois(with_c5(c), op="pool", reduce="max"), "boxes", 28.2
    ),
    AblationRow("mask branch", "FCN", lambda c: c, "masks", 33.6),
    AblationRow("mask branch", "MLP", lambda c: _mask(c, kind="mlp", norm="none"), "masks", 31.5),
    AblationRow("boxes", "with masks", _mask, "boxes", 38.2),
    AblationRow("boxes", "without masks", lambda c: _model(c, mask_head=None), "boxes", 37.3),
    AblationRow("keypoints", "alone", lambda c: _keypoints(_model(c, mask_head=None)), "keypoints", 64.2),
    AblationRow("keypoints", "with masks", lambda c: _mask(_keypoints(c)), "keypoints", 64.7),
)
TABLES = tuple(dict.fromkeys(row.table for row in ROWS))


@dataclass(frozen=True)
class Measured:
    """A measured row: its AP and the AP of its reference row, in percent, for each seed in the same order."""

    row: AblationRow
    ap: tuple[float, ...]
    reference: tuple[float, ...]

    @property
    def difference(self) -> float:
        return statistics.fmean(self._differences())

    @property
    def spread(self) -> float:
        """Standard deviation of the difference over the seeds, 0 for one seed."""
        return _std(self._differences())

    @property
    def paper_difference(self) -> float:
        return self.row.paper - self.row.reference.paper

    def verdict(self) -> str:
        """Whether the difference exceeds its spread and has the direction of the paper's. Needs two seeds or more."""
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
    """The base configuration of an ablation, its data, its folder, and the weights from which training starts."""

    base: Config
    data: Path
    val: Path
    out: Path
    weights: Path | str | WeightsFile | None = None

    def score(self, row: AblationRow, seed: int, say: Callable[[str], None]) -> float:
        """AP of one run in percent. Trains the run unless its folder already holds the result.

        Raises:
            TrainingError: the run was interrupted.
            ConfigError, DataError: the row cannot be built on this base or this data.
        """
        config = row.change(self.base)
        config = replace(config, train=replace(config.train, seed=seed, evaluate_every=0))
        # Rows that share a configuration, such as the references of several tables, share its run.
        identity = json.dumps(
            [config_to_dict(config), str(self.data), str(self.val), str(self.weights)], sort_keys=True
        )
        folder = self.out / "runs" / hashlib.sha256(identity.encode()).hexdigest()[:12]
        result = folder / "result.json"
        if not result.exists():
            resume = (folder / "last.ckpt").exists()
            say(f"{row.table}: {row.name}, seed {seed}, {'continued' if resume else 'started'} in {folder}")
            summary = train(config, self.data, out=folder, weights=self.weights, resume=resume)
            if not summary.finished:
                raise TrainingError(f"{folder} was interrupted; the same command continues it")
            report = evaluate(summary.model, self.val)
            if report.figures.get(row.metric, {}).get("AP") is None:
                raise DataError(f"{self.val}: the AP of {row.metric} is undefined; {row.table}: {row.name} needs it")
            with atomic_write(result) as temporary:
                figures = {"row": f"{row.table}: {row.name}", "seed": seed, "seconds": summary.seconds}
                temporary.write_text(json.dumps(figures | report.to_dict()), encoding="utf-8")
        figures = json.loads(result.read_text(encoding="utf-8"))[row.metric]
        return 100 * float(figures["AP"])

    def measure(self, row: AblationRow, seeds: int, say: Callable[[str], None] = print) -> Measured:
        """A row and its reference, each trained `seeds` times; raises as `score`."""
        own = tuple(self.score(row, seed, say) for seed in range(seeds))
        return Measured(row, own, tuple(self.score(row.reference, seed, say) for seed in range(seeds)))


def markdown(measured: list[Measured]) -> str:
    """The table: mean and standard deviation of the AP and of the difference to the reference, beside the paper's."""
    lines = [
        "| table | row | AP | difference | paper AP | paper difference | direction |",
        "|---|---|---|---|---|---|---|",
    ]
    for m in measured:
        first = m.row is m.row.reference
        difference = "" if first else f"{m.difference:+.1f} ± {m.spread:.1f}"
        paper = "" if first else f"{m.paper_difference:+.1f}"
        ap = f"{statistics.fmean(m.ap):.1f} ± {_std(m.ap):.1f}"
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
    FigureCanvasAgg(figure)  # draws without a window, whatever the user's settings
    axes = figure.add_subplot()
    places = range(len(measured))
    ours, spreads = [m.difference for m in measured], [m.spread for m in measured]
    upper, lower = [place - 0.2 for place in places], [place + 0.2 for place in places]
    axes.barh(upper, ours, height=0.4, xerr=spreads, capsize=3, color="#4361ee", label="here")
    axes.barh(lower, [m.paper_difference for m in measured], height=0.4, color="#c4c9d4", label="paper")
    axes.axvline(0, color="#111827", linewidth=0.8)
    axes.set_yticks(list(places), [f"{m.row.name} against {m.row.reference.name}\n({m.row.table})" for m in measured])
    axes.invert_yaxis()
    axes.set_xlabel("difference in AP, points; our bars show the standard deviation over the seeds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)


def _std(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
