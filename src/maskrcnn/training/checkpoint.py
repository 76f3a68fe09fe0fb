"""The resumable state of a training run, in one file that is replaced as a whole."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import torch
from safetensors import SafetensorError

from maskrcnn.config import Config, config_from_dict, config_to_dict, differing_settings
from maskrcnn.errors import TrainingError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.pickle_reader import DAMAGES, first_line
from maskrcnn.files.torch_zip import read_torch
from maskrcnn.training.state import TrainingState

NAME = "last.ckpt"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        best: best validation AP so far, None before the first evaluation.
        evaluated: step of the last evaluation, 0 before the first one.
        origin: the weights from which the run began, in words.
    """

    step: int = 0
    best: float | None = None
    evaluated: int = 0
    origin: str = "random weights"


def save_checkpoint(out: Path, state: TrainingState, config: Config, progress: Progress) -> None:
    """Writes `out/last.ckpt`.

    Raises:
        TrainingError: the file cannot be written; the previous one is kept.
    """
    content = {"config": config_to_dict(config), **asdict(progress), **state.state_dict()}
    with writing(out / NAME), atomic_write(out / NAME) as temporary:
        torch.save(content, temporary)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the errors of torch and safetensors on a full disk into a TrainingError that says how to continue."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(
            f"{path}: cannot write ({str(error).splitlines()[0]}); the previous file is kept: "
            "free some space and continue with --resume"
        ) from error


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint in memory, before its network is built."""

    path: Path
    config: Config
    progress: Progress
    state: dict[str, Any]

    def restore(self, state: TrainingState, config: Config) -> Progress:
        """Fills a state that was begun for `config`. Everything is checked before anything is filled.

        Only `train.workers` may differ from the settings of the run, and `train.steps` may be higher.

        Raises:
            TrainingError: the checkpoint belongs to a run with other settings, or it is damaged.
        """
        steps = max(self.config.train.steps, config.train.steps)
        stored = replace(self.config, train=replace(self.config.train, workers=config.train.workers, steps=steps))
        if stored != config:
            raise TrainingError(
                f"{self.path}: {_difference(stored, config)}; resume with the settings that the run began with "
                "(only train.workers may change, and train.steps may rise)"
            )
        with _of_this_run(self.path):
            state.load_state_dict(self.state, begun=self.progress.step > 0)
        return self.progress


def load_checkpoint(out: Path) -> SavedRun:
    """Reads `out/last.ckpt`.

    Raises:
        TrainingError: the file is missing or damaged, or it is not a checkpoint.
    """
    path = out / NAME
    if not path.is_file():
        found = "a folder of this name" if path.is_dir() else "no such file"
        raise TrainingError(f"{path}: nothing to resume, found {found}; start without --resume")
    with _of_this_run(path):
        state: Any = read_torch(path)[0]
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"the checksum of {damaged} is wrong")
        config = config_from_dict(state["config"])
        return SavedRun(path, config, _progress(state, config.train.steps), state)


def _progress(state: Any, steps: int) -> Progress:
    step, best, evaluated, origin = (state[field.name] for field in fields(Progress))
    for name, value in (("step", step), ("evaluated", evaluated)):
        if type(value) is not int or not 0 <= value <= steps:
            raise ValueError(f"expected {name} as a number from 0 to {steps}, found {short_repr(value)}")
    if best is not None and (type(best) is not float or not math.isfinite(best)):
        raise ValueError(f"expected best as a finite AP, found {short_repr(best)}")
    if type(origin) is not str:
        raise ValueError(f"expected origin as text, found {short_repr(origin)}")
    return Progress(step, best, evaluated, origin)


@contextmanager
def _of_this_run(path: Path) -> Iterator[None]:
    """Turns the errors that a wrong or damaged file causes into a TrainingError."""
    try:
        yield
    except (*DAMAGES, OSError, zipfile.BadZipFile) as error:
        raise TrainingError(
            f"{path}: not a checkpoint of this run, or damaged ({first_line(error)}); "
            "put back a copy of the file, or start anew with another --out"
        ) from None


def _difference(stored: Config, config: Config) -> str:
    changed = differing_settings(stored, config)
    changed.pop("train.workers", None)
    shown = ", ".join(
        f"{name} was {short_repr(old)} and is {short_repr(new)}" for name, (old, new) in list(changed.items())[:3]
    )
    return shown + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
