"""`maskrcnn train`: trains a model; every setting is a flag."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count, takewhile
from pathlib import Path
from typing import Annotated, Literal

import tyro

from maskrcnn.cli.flags import Flag, Flags
from maskrcnn.cli.reading import HintFlags, hints_of_both, open_dataset
from maskrcnn.cli.settings import (
    Settings,
    Start,
    flag_value,
    given_settings,
    parse_with_settings,
    settings_file,
)
from maskrcnn.config import RecipeName
from maskrcnn.config.presets import preset
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.errors import ConfigError, counted

DEFAULT_PRESET = "mask_rcnn_R_50_FPN"


@dataclass(frozen=True)
class Train:
    """Train a model. A recipe chooses for the data and machine what you do not set:

    maskrcnn train train.json
    """

    data: tyro.conf.Positional[Path]
    """Annotations to train on, or their folder."""
    settings: Annotated[Settings, Flags]
    hints: HintFlags = NO_HINTS
    out: Path | None = None
    """Folder of the run; by default runs/ and the name of the data."""
    val: Path | None = None
    """Annotations to judge by, in place of held-out images."""
    recipe: RecipeName | None = None
    """Rules for settings; none with --preset or --config."""
    budget: str | None = None
    """Fit the steps to this time, such as 90s, 30m or 2h."""
    hold_out: float | None = None
    """Share of the images to hold out without --val; 0.15 with a recipe."""
    images: Path | None = None
    """Folder of the images, if it is not beside DATA."""
    val_images: Path | None = None
    """Folder of the images of --val, if it is not beside it."""
    start: Annotated[Start, Flags] = field(default_factory=Start)
    resume: Flag = False
    """Continue from the last checkpoint in --out."""
    resume_with_changes: Flag = False
    """The same, and accept other settings or data."""
    limit: int | None = None
    """Train only on the first images, up to this many."""
    strict: Flag = False
    """Refuse broken images and annotations."""
    reporters: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Programs to report to, beside metrics.jsonl."""
    json: Flag = False
    """Print the summary as one JSON object on stdout."""
    argv: tyro.conf.Suppress[tuple[str, ...]] = ()  # as typed, for the command that resumes

    def run(self) -> int:
        began = time.monotonic()
        if self.settings.print_config:
            return self.settings.print()
        if self.val is None and self.val_images is not None:
            raise ConfigError("expected --val with --val-images, found none")
        if self.val is not None and self.hold_out:
            raise ConfigError("--hold-out takes images from DATA, and --val gives others: leave one of them out")
        budget = None if self.budget is None else seconds_in(self.budget)
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.training.loop import train
        from maskrcnn.training.recipes.recipe import Recipe
        from maskrcnn.training.reports.trackers import TRACKERS

        resume = self.resume or self.resume_with_changes
        out = default_folder(self.data, resume=resume) if self.out is None else self.out
        reporters = [TRACKERS[name](out) for name in dict.fromkeys(self.reporters)]  # before data are read
        of_preset = preset(self.settings.preset)
        in_file = self.settings.file is not None and "preset" in settings_file(str(self.settings.file))
        base = of_preset if in_file or flag_value(self.argv, "--preset") is not None else None
        recipe = Recipe(
            self.recipe_name,
            self.settings.config if self.recipe_name == "none" else base,
            given_settings(self.argv, self.settings.config, of_preset),
            budget,
            self.hold_out,
            began,
        )
        of_data, of_val = hints_of_both(self.data, self.val, self.hints)
        summary = train(
            recipe,
            open_dataset(self.data, of_data, self.images, strict=self.strict),
            val=None if self.val is None else open_dataset(self.val, of_val, self.val_images, strict=self.strict),
            out=out,
            weights=self.start.file(),
            resume="with changes" if self.resume_with_changes else self.resume,
            strict=self.strict,
            limit=self.limit,
            reporters=reporters,
        )
        figures = summary.report.to_dict() if summary.report else {}
        if self.json:
            print_json(
                {
                    "model": summary.model,
                    "checkpoint": summary.checkpoint,
                    "steps": summary.steps,
                    "seconds": summary.seconds,
                    "finished": summary.finished,
                    "skipped": summary.skipped,
                    **figures,
                }
            )
        else:
            say = console(stderr=False).print
            if summary.report:
                say(summary.report.line())
            say(f"{summary.steps} steps in {summary.seconds:.0f} s, model {summary.model}")
            if summary.skipped:
                problems = counted(len(summary.skipped), "problem")
                say(f"what is broken was left out ({problems}); maskrcnn data check names it")
        if not summary.finished:
            console(stderr=True).print(f"interrupted; to continue: {resume_command(self.argv, out)}")
            return 130
        return 0

    @property
    def recipe_name(self) -> RecipeName:
        """The recipe that is meant: none where a preset or a file names the settings, unless it is given."""
        if self.recipe is not None:
            return self.recipe
        named = self.settings.file is not None or flag_value(self.argv, "--preset") is not None
        return "none" if named else "auto"


def default_folder(data: Path, *, resume: bool) -> Path:
    """The folder of a run without --out: runs/NAME after the data, then runs/NAME-2 and so on. The first that holds no
    run yet; to resume, the last that holds one.

    Raises:
        ConfigError: several processes train together, which must agree on the folder, or there is no run to resume.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ConfigError("expected --out with several processes, which all need to know the folder, found none")
    name = data.resolve().stem or "data"
    folders = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in count(1))
    taken = list(takewhile(Path.exists, folders))
    if resume and not taken:
        raise ConfigError(f"there is no run of {data} in {Path('runs')}: name its folder with --out")
    return taken[-1] if resume else Path("runs") / (name if not taken else f"{name}-{len(taken) + 1}")


def seconds_in(text: str) -> float:
    """A duration such as 90s, 30m, 1.5h or 1h30m in seconds. Raises ConfigError for anything else, and for 0."""
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)s)?", text.strip().lower())
    with suppress(ValueError):
        parts = [float(part) if part else 0.0 for part in found.groups()] if found and text.strip() else []
        if sum(parts) > 0:
            return sum(value * factor for value, factor in zip(parts, (3600, 60, 1), strict=True))
    raise ConfigError(f"--budget: expected a time above 0 such as 90s, 30m or 2h, found {text!r}")


def resume_command(argv: Sequence[str], out: Path) -> str:
    """The command line to type again, with --resume and the folder, for as many processes as now."""
    more = [*([] if flag_value(argv, "--out") else ["--out", str(out)]), *([] if "--resume" in argv else ["--resume"])]
    processes, here = (os.environ.get(name, "1") for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    started = f"torchrun --standalone --nproc-per-node {here} -m " if processes == here else "torchrun ... -m "
    return ("" if processes == "1" else started) + shlex.join(["maskrcnn", "train", *argv, *more])


def parse(argv: Sequence[str]) -> Train:
    """The command with the file and every flag applied to the preset's settings; raises as `parse_with_settings`."""
    train: Train = parse_with_settings(Train, "maskrcnn train", argv, DEFAULT_PRESET, required=("data",))
    return train
