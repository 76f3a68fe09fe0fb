"""Finds the number of steps that fit a budget, once the time of a step is known."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path

from maskrcnn.config import Config
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.budget import Costs, Pace, fitted
from maskrcnn.training.evaluate import results_of
from maskrcnn.training.recipes.choices import RECIPE, note_choices

_COPIES = 5  # of the weights in a checkpoint and a model file: network, average, two moments of AdamW, model
_DISK = 150e6  # bytes a second that a slow disk writes
_PREDICTED = 8  # validation images whose prediction is timed


def steps_that_fit(
    pace: Pace,
    step: int,
    config: Config,
    network: MaskRCNN,
    validation: Dataset | None,
    free: Collection[str],
    processes: int,
    out: Path,
) -> tuple[dict[str, int], str]:
    """The settings that fit the budget, by whole name, and a sentence about them. They are added to `recipe.json`.

    Args:
        step: steps done.
        network: is evaluated, and in evaluation mode afterwards.
        free: as for `fitted`.
        processes: that share an evaluation.
        out: the folder of the run.

    Raises:
        BudgetError: the budget is too short.
        TrainingError: the file cannot be written.
    """
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    seconds = None if validation is None else _prediction_seconds(config, network, validation) / processes
    costs = Costs(pace.step, seconds, weights * _COPIES / _DISK)
    found = fitted(config.train, step, pace.left, costs, free)
    note_choices(out / RECIPE, found, f"fits the budget: a step takes {costs.step:.2g} s")
    judged = f", an evaluation about {costs.judging:.0f} s" if costs.judging else ""
    return found, f"a step takes {costs.step:.2g} s{judged}: {found['train.steps']} steps fit the budget"


def _prediction_seconds(config: Config, network: MaskRCNN, validation: Dataset) -> float:
    """The time that predicting the validation images takes in one process, from a few of them."""
    count = len(validation)
    some = validation.subset(range(0, count, -(-count // _PREDICTED)))
    predictor = Predictor(TorchBackend(network.eval(), config.train.precision), config)
    began = time.monotonic()
    results_of(predictor, some)
    return (time.monotonic() - began) / len(some) * count
