"""`report.html` in the folder of a run: curves, recipe, settings, the last evaluation, and where the time went."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from maskrcnn.config import Config
from maskrcnn.errors import counted
from maskrcnn.evaluation.coco import Report
from maskrcnn.files.atomic import atomic_write
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import writing
from maskrcnn.training.curves import plot_losses, plot_rate, plot_scores, series
from maskrcnn.training.progress import METRICS, SECONDS, read_metrics
from maskrcnn.training.recipes.choices import RECIPE, setting_text
from maskrcnn.training.reports.evaluation import sections
from maskrcnn.training.reports.settings import nearest_preset
from maskrcnn.visualise.page import Section, gallery, new_figure, page, paragraph, plot, table

PAGE = "report.html"


def write_page(out: Path, config: Config, validation: Dataset, report: Report) -> None:
    """Writes the page of the run in the folder `out`, after an evaluation.

    Raises:
        TrainingError: the file cannot be written.
    """
    rows = read_metrics(out / METRICS)
    step = rows[-1]["step"]
    judges = f"{counted(len(validation), 'image')} of {validation.path}"
    lead = [
        paragraph(f"Step {step} of {config.train.steps}, judged by {judges}", "soft"),
        paragraph(report.line()),
    ]
    parts = [
        Section("Curves", [gallery(_curves(rows), plots=True)]),
        *sections(validation, report),
        *_recipe(out),
        Section("Settings", _settings(config)),
        Section("Time", [_time(rows)]),
    ]
    with writing(out / PAGE), atomic_write(out / PAGE) as temporary:
        temporary.write_text(page(f"Run {out.resolve().name}", lead, parts), encoding="utf-8")


def _curves(rows: list[dict[str, Any]]) -> list[str]:
    """Losses, validation figures and learning rate over the steps; what has no line yet is left out."""
    plots = []
    if series(rows, "loss")[0]:
        figure, axes = new_figure(height=3.6)
        plot_losses(axes, rows)
        axes.set(title="", xlabel="step")
        plots.append(plot(figure, "Losses of training"))
    figure, axes = new_figure(height=3.6)
    plot_scores(axes, rows)
    axes.set(title="", xlabel="step")
    plots.append(plot(figure, "Figures on the validation data"))
    if series(rows, "lr")[0]:
        figure, axes = new_figure(height=2.2)
        plot_rate(axes, rows)
        plots.append(plot(figure, "Learning rate"))
    return plots


def _recipe(out: Path) -> list[Section]:
    """The choices of the recipe with their reasons; nothing for a run without one."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        rows = json.loads((out / RECIPE).read_text(encoding="utf-8"))["choices"]
        cells = [[row["setting"], setting_text(row["value"]), row["reason"]] for row in rows]
        return [Section("Recipe", [table(["setting", "value", "reason"], cells)])]
    return []


def _settings(config: Config) -> list[str]:
    preset, differing = nearest_preset(config)
    if not differing:
        return [paragraph(f"All settings are those of {preset}.")]
    rows = [[name, setting_text(default), setting_text(value)] for name, (default, value) in differing.items()]
    return [
        paragraph(f"The nearest preset is {preset}; all other settings are as in it."),
        table(["setting", preset, "this run"], rows),
    ]


def _time(rows: list[dict[str, Any]]) -> str:
    """A table of the seconds that the run has spent waiting for images, in steps and in evaluations."""
    spent = seconds_of(rows)
    total = sum(spent.values())
    words = {"loading": "waiting for images", "steps": "training steps", "evaluation": "evaluation"}
    return table(
        ["", "seconds", "share"],
        [[words.get(name, name), round(value, 1), f"{value / total:.0%}"] for name, value in spent.items()],
    )


def seconds_of(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The seconds of each activity, summed over the lines of the metrics."""
    spent: dict[str, float] = {}
    for row in rows:
        found = row.get(SECONDS)
        for name, value in found.items() if isinstance(found, dict) else ():
            if isinstance(value, int | float):
                spent[name] = spent.get(name, 0.0) + value
    return spent
