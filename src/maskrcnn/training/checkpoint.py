"""The resumable state of a training run, in one file that is replaced as a whole."""

from __future__ import annotations

import math
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
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
MAX_THREADS = 4096  # of a checkpoint, which may be damaged
DOUBT = 20  # steps before a loss that is not finite, in which a checkpoint is not trusted
_EARLIER = re.compile(r"step-(\d+)\.ckpt")


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        best: best value of `train.best_metric` so far, None before the first evaluation.
        evaluated: step of the last evaluation, 0 before the first one.
        origin: the weights from which the run began, in words.
        stale: evaluations since the best one.
        budget: seconds that are left to the run, to which its number of steps is still to be fitted; None if that is
            done, or if there is no budget.
        threads: threads of torch on the CPU. The rounding of a sum depends on how it is divided among them.
    """

    step: int = 0
    best: float | None = None
    evaluated: int = 0
    origin: str = "random weights"
    stale: int = 0
    budget: float | None = None
    threads: int = field(default_factory=torch.get_num_threads)


def save_checkpoint(
    out: Path, state: TrainingState, config: Config, progress: Progress, data: Mapping[str, Any], saved: Progress | None
) -> None:
    """Writes `out/last.ckpt`. The one before becomes `step-N.ckpt` while `train.keep_checkpoints` keeps it.

    Args:
        data: the fingerprints of the data sets.
        saved: the progress in the present `last.ckpt`, None without one.

    Raises:
        TrainingError: the file cannot be written; the previous one is kept.
    """
    content = {"config": config_to_dict(config), **asdict(progress), "data": dict(data), **state.state_dict()}
    last, keep = out / NAME, config.train.keep_checkpoints
    with writing(last):
        with atomic_write(last) as temporary:
            with open(temporary, "wb") as file:  # torch's own file would not say that the disk is full
                torch.save(content, file)
            if keep > 1 and saved is not None and saved.step < progress.step and last.exists():
                _second_name(last, out / f"step-{saved.step}.ckpt")
        for _, path in earlier_checkpoints(out)[keep - 1 :]:
            path.unlink(missing_ok=True)


def _second_name(path: Path, name: Path) -> None:
    """Gives a file a second name, so that the file remains when the first name is given to another one."""
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, name)


def earlier_checkpoints(out: Path) -> list[tuple[int, Path]]:
    """Step and path of the checkpoints before `last.ckpt` in the folder of a run, the latest first."""
    found = [(int(match[1]), path) for path in out.glob("step-*.ckpt") if (match := _EARLIER.fullmatch(path.name))]
    return sorted(found, reverse=True)


class ChangedRunError(TrainingError):
    """The settings or the data are not those that a run began with.

    Attributes:
        changes: the file and what differs, in words.
    """

    def __init__(self, changes: str) -> None:
        super().__init__(
            f"{changes}; resume with the settings and data that the run began with (only train.workers may change, and "
            "train.steps may rise), or add --resume-with-changes"
        )
        self.changes = changes


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns the errors of torch and safetensors on a full disk into a TrainingError that says how to continue."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch reports a writer that failed; the reason is the error of the system before it.
        cause = error.__context__ if isinstance(error.__context__, OSError) else error
        reason = (isinstance(cause, OSError) and cause.strerror) or first_line(cause)
        kept = "; the previous file is kept" if path.exists() else ""
        again = "continue with --resume" if (path.parent / NAME).exists() else "start again"
        raise TrainingError(
            f"{path}: cannot write ({reason}){kept}; free some space, or make the folder writable, and {again}"
        ) from error


@dataclass(frozen=True)
class SavedRun:
    """A checkpoint in memory, before its network is built."""

    path: Path
    config: Config
    progress: Progress
    state: dict[str, Any]

    @property
    def share_held_out(self) -> float:
        """Share of the training images that the run holds out to judge by."""
        with _of_this_run(self.path):
            return float(self.state["data"]["held_out"]["share"])

    @property
    def budget(self) -> float | None:
        """Seconds of the budget with which the run began; None without one."""
        with _of_this_run(self.path):
            seconds = self.state["data"]["budget"]["seconds"]
            return None if seconds is None else float(seconds)

    def restore(
        self, state: TrainingState, config: Config, data: Mapping[str, Any], *, changes: bool = False
    ) -> tuple[Progress, list[str]]:
        """Fills a state that was begun for `config`. Everything is checked before anything is filled.

        Only `train.workers` and `train.auto_batch` may differ from the settings of the run, and `train.steps` may be
        higher. Validation data may be added.

        Args:
            data: the fingerprints of the data sets.
            changes: whether all settings and the data may differ. What does not fit begins anew.

        Returns:
            The progress of the run, and a sentence for each change.

        Raises:
            ChangedRunError: the checkpoint belongs to a run with other settings or data.
            TrainingError: it is damaged.
        """
        differing = differing_settings(self.config, config)
        for name in ("train.workers", "train.auto_batch"):
            differing.pop(name, None)
        if config.train.steps >= self.config.train.steps:
            differing.pop("train.steps", None)
        with _of_this_run(self.path):
            differing |= _differing_data(self.state["data"], data)
        sentences = [f"{name} was {short_repr(old)} and is {short_repr(new)}" for name, (old, new) in differing.items()]
        if sentences and not changes:
            more = f" and {len(sentences) - 3} more" if len(sentences) > 3 else ""
            raise ChangedRunError(f"{self.path}: {', '.join(sentences[:3])}{more}")
        with _of_this_run(self.path):
            state.load_state_dict(self.state, begun=self.progress.step > 0, changed=bool(sentences))
        if "train.best_metric" in differing or any(name.startswith("data.val.") for name in differing):
            return replace(self.progress, best=None, stale=0), sentences  # the best value is one of something else
        return self.progress, sentences


def _differing_data(stored: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between the fingerprints of data sets that are in both, by name."""
    return {
        f"data.{part}.{name}": (old, data[part][name])
        for part, values in stored.items()
        if part in data
        for name, old in values.items()
        if data[part][name] != old
    }


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


def go_back(out: Path, saved: Progress | None, diverged: int) -> SavedRun | None:
    """The latest checkpoint that is at least `DOUBT` steps older than a loss that was not finite; None without one.

    Weights go wrong some steps before a loss shows it. The checkpoint becomes `last.ckpt`, and later ones are removed.
    """
    if saved is None:
        return None
    found = [(saved.step, out / NAME), *earlier_checkpoints(out)]
    good = next((path for step, path in found if step + DOUBT < diverged), None)
    if good is None:
        return None
    if good.name != NAME:
        for _, path in earlier_checkpoints(out):
            if path == good:
                break
            path.unlink(missing_ok=True)
        os.replace(good, out / NAME)
    return load_checkpoint(out)


def _progress(state: Any, steps: int) -> Progress:
    step, best, evaluated, origin, stale, budget, threads = (state[one.name] for one in fields(Progress))
    for name, value in (("step", step), ("evaluated", evaluated), ("stale", stale)):
        if type(value) is not int or not 0 <= value <= steps:
            raise ValueError(f"expected {name} as a number from 0 to {steps}, found {short_repr(value)}")
    for name, value in (("best", best), ("budget", budget)):
        if value is not None and (type(value) is not float or not math.isfinite(value)):
            raise ValueError(f"expected {name} as a finite number, found {short_repr(value)}")
    if type(origin) is not str:
        raise ValueError(f"expected origin as text, found {short_repr(origin)}")
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise ValueError(f"expected threads as a number from 1 to {MAX_THREADS}, found {short_repr(threads)}")
    return Progress(step, best, evaluated, origin, stale, budget, threads)


@contextmanager
def _of_this_run(path: Path) -> Iterator[None]:
    """Turns the errors that a wrong or damaged file causes into a TrainingError."""
    try:
        yield
    except (*DAMAGES, OSError, zipfile.BadZipFile) as error:
        # Only the fact is told: what to do with a damaged file in general comes after a semicolon.
        fact = first_line(error).removeprefix(f"{path}: ").partition("; ")[0]
        reason = f"it has no {fact}" if type(error) is KeyError else fact
        raise TrainingError(
            f"{path}: not a checkpoint of this run and this version, or damaged ({reason}); put back "
            f"{_copy_of(path)}, or start anew with another --out"
        ) from None


def _copy_of(path: Path) -> str:
    """What can replace a damaged checkpoint, in words."""
    earlier = earlier_checkpoints(path.parent)
    return f"{earlier[0][1].name}, the checkpoint before it, under this name" if earlier else "a copy of the file"
