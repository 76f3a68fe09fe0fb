"""Runs side by side: final and best figures, steps, seconds, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskrcnn.config import Config, config_to_dict, flat_settings
from maskrcnn.errors import DataError
from maskrcnn.evaluation.coco import digits
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.training.curves import series
from maskrcnn.training.progress import METRICS, read_metrics
from maskrcnn.training.recipes.choices import setting_text
from maskrcnn.training.reports.run import seconds_of
from maskrcnn.training.reports.settings import chosen
from maskrcnn.training.run import MODEL
from maskrcnn.visualise.page import Section, colour, gallery, new_figure, page, paragraph, plot, table
from maskrcnn.weights.model_file import is_model_file, saved_model

_KINDS = ("masks", "keypoints", "boxes")  # the first one that has an AP ranks runs, as `Report.score`
_SHOWN = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class PastRun:
    """A run, read from its folder.

    Attributes:
        name: its folder, as short as it can be told from those of the other runs.
        data: the fingerprints of its data sets by `train` and `val`; empty if its model file has none.
        rows: the lines of its metrics.
    """

    name: str
    folder: Path
    config: Config
    data: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def kind(self) -> str | None:
        """The kind of figures by which the run is ranked; None without an evaluation."""
        return next((kind for kind in _KINDS if series(self.rows, kind, "AP")[0]), None)

    def facts(self) -> dict[str, Any]:
        """Numbers of images, steps, seconds, last loss, and the figures of the last and of the best evaluation.

        What is unknown is None.
        """
        losses = series(self.rows, "loss")[1]
        seconds = seconds_of(self.rows)
        figures = {
            f"{kind} {name}": values[-1]
            for kind in _KINDS
            for name in _SHOWN
            if (values := series(self.rows, kind, name)[1])
        }
        steps, aps = series(self.rows, self.kind, "AP") if self.kind else ([], [])
        best = max(range(len(aps)), key=aps.__getitem__, default=None)
        images = {part: self.data.get(part, {}).get("images") for part in ("train", "val")}
        return {
            "training images": images["train"],
            "validation images": images["val"],
            "steps": max((row["step"] for row in self.rows), default=0),
            "seconds": sum(seconds.values()) if seconds else None,
            "loss": losses[-1] if losses else None,
            **figures,
            "best AP": None if best is None else aps[best],
            "at step": None if best is None else steps[best],
        }


def read_runs(folders: Sequence[Path]) -> list[PastRun]:
    """Reads runs from their folders.

    Raises:
        DataError: there are fewer than two, one is named twice, or a folder holds no run.
        WeightsError: the model file of a run cannot be read.
    """
    if len(folders) < 2:
        raise DataError(f"expected the folders of two or more runs to compare, found {len(folders)}")
    places = [folder.resolve() for folder in folders]
    twice = next((folder for i, folder in enumerate(folders) if places[i] in places[:i]), None)
    if twice is not None:
        raise DataError(f"{twice}: expected each run once, found it twice")
    short = [place.name for place in places]
    return [
        _read_run(folder, place.name if short.count(place.name) == 1 else str(folder))
        for folder, place in zip(folders, places, strict=True)
    ]


def _read_run(folder: Path, name: str) -> PastRun:
    lacking = [file for file in (METRICS, MODEL) if not (folder / file).is_file()]
    if lacking:
        found = f"one without {' and '.join(lacking)}" if folder.is_dir() else "no folder"
        raise DataError(f"{folder}: expected the folder of a run of `maskrcnn train`, found {found}")
    checkpoint = read_checkpoint(folder / MODEL)
    if not is_model_file(checkpoint):
        raise DataError(f"{folder / MODEL}: expected the model file of a run, found weights of another kind")
    rows = read_metrics(folder / METRICS)
    if not rows:
        raise DataError(f"{folder / METRICS}: expected lines with a step, found none: the run has just begun")
    saved = saved_model(checkpoint, folder / MODEL)
    return PastRun(name, folder, saved.config, saved.provenance.get("data", {}), rows)


def doubts(runs: Sequence[PastRun]) -> list[str]:
    """Why the figures of the runs may not be comparable, one sentence each."""
    judges = [run.data["val"] for run in runs if run.kind and "val" in run.data]
    if all(judge == judges[0] for judge in judges):
        return []
    return ["The runs were judged by different validation data, so the differences of their figures say little."]


def differing(runs: Sequence[PastRun]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, by name, each with its value in every run."""
    flat = [chosen(flat_settings(config_to_dict(run.config))) for run in runs]
    names = sorted({name for settings in flat for name in settings})
    values = {name: [settings.get(name) for settings in flat] for name in names}
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def comparison(runs: Sequence[PastRun]) -> list[tuple[str, list[str]]]:
    """The table: for each fact and each differing setting its name, and its value in every run in words."""
    facts = [run.facts() for run in runs]
    names = list(dict.fromkeys(name for of_run in facts for name in of_run))
    names = [*(name for name in names if name not in ("best AP", "at step")), "best AP", "at step"]
    rows = [(name, [_word(name, of_run.get(name)) for of_run in facts]) for name in names]
    return rows + [(name, [setting_text(value) for value in values]) for name, values in differing(runs).items()]


def _word(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if name == "seconds" else digits(value)


def comparison_page(runs: Sequence[PastRun]) -> str:
    """The page: the AP and the loss of all runs over their steps, and the table."""
    plots = []
    kind = next((run.kind for run in runs if run.kind), "boxes")
    for names, caption in (((kind, "AP"), "AP on the validation data"), (("loss",), "Loss")):
        figure, axes = new_figure(height=3.6)
        for number, run in enumerate(runs):
            steps, values = series(run.rows, *names)
            axes.plot(steps, values, color=colour(number), marker=".", label=f"run {number + 1}")
        axes.set(xlabel="step")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=8)
        plots.append(plot(figure, caption))
    heads = [f"{number}: {run.name}" for number, run in enumerate(runs, start=1)]
    rows = [[name, *values] for name, values in comparison(runs)]
    count = len(rows) - len(differing(runs))
    settings = table(["", *heads], rows[count:]) if rows[count:] else paragraph("All settings are equal.")
    return page(
        f"{len(runs)} runs",
        [],
        [
            Section("Figures", [*map(paragraph, doubts(runs)), table(["", *heads], rows[:count])]),
            Section("Curves", [gallery(plots, plots=True)]),
            Section("Settings that differ", [settings]),
        ],
    )
