"""The resumable state of a training run, in one file that is replaced as a whole."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from maskrcnn.config import Config, config_from_dict, config_to_dict, differing_settings
from maskrcnn.errors import ConfigError, TrainingError, WeightsError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.torch_zip import read_torch
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.weights.model_file import fill

NAME = "last.ckpt"


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    Attributes:
        step: optimiser steps done.
        best: best validation AP so far, None before the first evaluation.
    """

    step: int = 0
    best: float | None = None


def save_checkpoint(
    out: Path, network: MaskRCNN, optimiser: torch.optim.Optimizer, config: Config, progress: Progress
) -> None:
    """Writes `out/last.ckpt`. Random numbers need no state: they are derived from the seed and the step.

    Raises:
        TrainingError: the file cannot be written; the previous one is kept.
    """
    state = {
        "config": config_to_dict(config),
        "step": progress.step,
        "best": progress.best,
        "network": network.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    with writing(out / NAME), atomic_write(out / NAME) as temporary:
        torch.save(state, temporary)


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
    state: dict[str, Any]

    def restore(self, network: MaskRCNN, optimiser: torch.optim.Optimizer, config: Config) -> Progress:
        """Fills a network and its optimiser, both built for `config`.

        Raises:
            TrainingError: the checkpoint belongs to a run with other settings.
        """
        if self.config != config:
            raise TrainingError(
                f"{self.path}: {_difference(self.config, config)}; resume with the settings that the run began with"
            )
        with _of_this_run(self.path):
            fill(network, self.state["network"], str(self.path))
            # The optimiser keeps these tensors, so it gets a copy: the next save replaces the file in which they lie.
            optimiser.load_state_dict(copy.deepcopy(self.state["optimiser"]))
            return Progress(self.state["step"], self.state["best"])


def load_checkpoint(out: Path) -> SavedRun:
    """Reads `out/last.ckpt`.

    Raises:
        TrainingError: the file is missing, or it is not a checkpoint.
    """
    path = out / NAME
    if not path.is_file():
        raise TrainingError(f"{path}: nothing to resume, no such file; start without --resume")
    with _of_this_run(path):
        state: Any = read_torch(path)[0]
        return SavedRun(path, config_from_dict(state["config"]), state)


@contextmanager
def _of_this_run(path: Path) -> Iterator[None]:
    """Turns the errors that a wrong file causes into a TrainingError."""
    try:
        yield
    except (KeyError, TypeError, ConfigError, WeightsError) as error:
        raise TrainingError(f"{path}: not a checkpoint of this run ({error})") from None


def _difference(stored: Config, config: Config) -> str:
    changed = differing_settings(stored, config)
    shown = ", ".join(f"{name} was {old!r} and is {new!r}" for name, (old, new) in list(changed.items())[:3])
    return shown + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
