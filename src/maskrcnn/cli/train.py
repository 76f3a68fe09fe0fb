"""`maskrcnn train`: trains a model; every setting of the preset is a flag."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from maskrcnn.cli.flags import Flag, Flags
from maskrcnn.cli.reading import HintFlags, hints_of_both, open_dataset
from maskrcnn.cli.settings import Settings, Start, parse_with_settings
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.errors import ConfigError

DEFAULT_PRESET = "mask_rcnn_R_50_FPN"


@dataclass(frozen=True)
class Train:
    """Train a model with the settings of a preset, a file and flags:

    maskrcnn train train.json --val val.json --out runs/x --train.steps 5000
    """

    data: Path
    """Annotations to train on, or their folder."""
    out: Path
    """Folder for the model and checkpoints."""
    settings: Annotated[Settings, Flags]
    hints: HintFlags = NO_HINTS
    val: Path | None = None
    """Annotations to evaluate on; the best model is kept."""
    images: Path | None = None
    """Folder of the images, if it is not beside --data."""
    val_images: Path | None = None
    """The same for --val."""
    start: Annotated[Start, Flags] = field(default_factory=Start)
    resume: Flag = False
    """Continue from the last checkpoint in --out."""
    resume_with_changes: Flag = False
    """The same with other settings or data."""
    limit: int | None = None
    """Train only on the first images, up to this many."""
    strict: Flag = False
    """Refuse broken images and annotations."""
    reporters: tuple[Literal["tensorboard"], ...] = ()
    """Programs to report to, beside metrics.jsonl."""
    json: Flag = False
    """Print the summary as one JSON object on stdout."""
    argv: tyro.conf.Suppress[tuple[str, ...]] = ()  # as typed, for the command that resumes

    def run(self) -> int:
        if self.settings.print_config:
            return self.settings.print()
        if self.val is None and self.val_images is not None:
            raise ConfigError("expected --val with --val-images, found none")
        from maskrcnn.cli.output import console, print_json
        from maskrcnn.training.loop import train
        from maskrcnn.training.reports.reporters import REPORTERS

        reporters = [REPORTERS[name](self.out) for name in dict.fromkeys(self.reporters)]  # before data are read
        of_data, of_val = hints_of_both(self.data, self.val, self.hints)
        summary = train(
            self.settings.config,
            open_dataset(self.data, of_data, self.images, strict=self.strict),
            val=None if self.val is None else open_dataset(self.val, of_val, self.val_images, strict=self.strict),
            out=self.out,
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
                say(f"{len(summary.skipped)} broken entries were left out; maskrcnn data check names them")
        if not summary.finished:
            console(stderr=True).print(f"interrupted; to continue: {resume_command(self.argv)}")
            return 130
        return 0


def resume_command(argv: Sequence[str]) -> str:
    """The command line to type again, with --resume."""
    return shlex.join(["maskrcnn", "train", *argv, *([] if "--resume" in argv else ["--resume"])])


def parse(argv: Sequence[str]) -> Train:
    """The command with the file and every flag applied to the preset's settings; raises as `parse_with_settings`."""
    train: Train = parse_with_settings(Train, "maskrcnn train", argv, DEFAULT_PRESET, required=("data", "out"))
    return train
