"""Draws losses, learning rate and validation AP of a run in one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.training.progress import read_metrics
from maskrcnn.visualise.palette import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = {"masks": "#ff4d6d", "boxes": "#4361ee", "keypoints": "#2ec4b6"}  # kinds of figures, and their colours
_LARGEST = 1e30  # numbers beyond it are no figures of a run, and cannot be drawn


def curves(metrics: Path, out: Path) -> None:
    """Writes the losses, the learning rate and the validation AP of a run as a PNG.

    Args:
        metrics: JSON lines of the run, as `read_metrics` reads them.
        out: path of the PNG.

    Raises:
        DataError: the file cannot be read or holds no training step.
    """
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(metrics)
    if not series(rows, "loss")[0]:
        raise DataError(f"{metrics}: expected lines with step and loss, found none among {len(rows)}")
    evaluations = any(series(rows, kind, "AP")[0] for kind in _KINDS)
    style = {"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25}
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(11.0 if evaluations else 6.5, 5.0), layout="constrained")
        FigureCanvasAgg(figure)  # draws without a window, whatever the user's settings
        grid = figure.add_gridspec(2, 2 if evaluations else 1, height_ratios=(3, 1))
        losses = figure.add_subplot(grid[0, 0])
        plot_losses(losses, rows)
        losses.tick_params(labelbottom=False)
        rate = figure.add_subplot(grid[1, 0], sharex=losses)
        plot_rate(rate, rows)
        if evaluations:
            plot_scores(figure.add_subplot(grid[:, 1]), rows)
        with atomic_write(out) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def series(rows: list[dict[str, Any]], *names: str) -> tuple[list[float], list[float]]:
    """The steps and the values of the rows that have a number under these names, one inside the other."""
    found = []
    for row in rows:
        value: Any = row
        for name in names:
            value = value.get(name) if isinstance(value, dict) else None
        if type(value) in (int, float) and max(abs(value), abs(row["step"])) < _LARGEST:  # not NaN either
            found.append((row["step"], value))
    return [step for step, _ in found], [value for _, value in found]


def plot_losses(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draws every loss twice: the measured values in a faint colour, and their moving average."""
    names = ["loss", *dict.fromkeys(name for row in rows for name in row if name.startswith("loss_"))]
    colours = ["#000000", *(f"#{r:02x}{g:02x}{b:02x}" for r, g, b in PALETTE)]
    for name, colour in zip(names, colours, strict=False):
        x, values = series(rows, name)
        if not x:
            continue
        smooth = _smoothed(np.array(values, dtype=np.float64), span=len(values) // 25)
        label = "sum" if name == "loss" else name.removeprefix("loss_").replace("_", " ")
        axes.plot(x, values, color=colour, alpha=0.22, linewidth=0.8)
        marker = "." if len(x) == 1 else ""
        axes.plot(x, smooth, color=colour, linewidth=1.6, marker=marker, label=f"{label}  {smooth[-1]:.3f}")
    axes.set(title="Training losses")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9, ncols=2)


def plot_rate(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draws the learning rate; a single value as a dot."""
    steps, rates = series(rows, "lr")
    axes.plot(steps, rates, color="#6b7280", marker="." if len(steps) == 1 else "")
    axes.set(xlabel="step", ylabel="learning rate")
    axes.set_ylim(bottom=0)


def plot_scores(axes: Axes, rows: list[dict[str, Any]]) -> None:
    """Draws the AP and the AP50 of masks, boxes and keypoints."""
    for kind, colour in _KINDS.items():
        for name, dashes in (("AP", "-"), ("AP50", ":")):
            x, y = series(rows, kind, name)
            if not x:
                continue
            label = f"{kind.removesuffix('s').replace('boxe', 'box')} {name}  {y[-1]:.3f}"
            axes.plot(x, y, dashes, color=colour, marker="o", markersize=3.5, linewidth=1.6, label=label)
    axes.set(title="Validation", xlabel="step", ylim=(0, 1))
    axes.set_xlim(left=0)
    if axes.get_legend_handles_labels()[0]:  # no figure may be defined
        axes.legend(frameon=False, fontsize=9)


def _smoothed(values: np.ndarray, span: int) -> np.ndarray:
    """The mean of each of N values and up to `span` neighbours on each side, (N,) float64."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    starts, ends = np.maximum(0, places - span), np.minimum(len(values), places + span + 1)
    smooth: np.ndarray = (sums[ends] - sums[starts]) / (ends - starts)
    return smooth
