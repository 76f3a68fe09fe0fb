"""Finds the number of steps that fit a budget, once the time of a step is known."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from maskrcnn.config import Config, with_settings
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import Progress
from maskrcnn.training.evaluate import results_of
from maskrcnn.training.progress import TrainingBar
from maskrcnn.training.recipes.budget import Costs, Pace, fitted
from maskrcnn.training.recipes.choices import RECIPE, note_choices
from maskrcnn.training.state import TrainingState
from maskrcnn.training.world import World

_COPIES = 5  # of the weights in a checkpoint and a model file: network, average, two moments of AdamW, model
_DISK = 150e6  # bytes a second that a slow disk writes
_PREDICTED = 8  # validation images whose prediction is timed
_FORWARD = 1 / 3  # of the time of a step, in which its images pass forward through the network
_FOUND = 2  # detections of a trained network for each object; `nuclei` has 6,276 on images with 3,123


class BudgetedRun(Protocol):
    """What is read and changed of a run (`training/run.py`)."""

    pace: Pace | None
    config: Config
    progress: Progress
    state: TrainingState
    network: MaskRCNN
    validation: Dataset | None
    world: World
    out: Path

    @property
    def result(self) -> MaskRCNN: ...

    def save(self) -> None: ...


def fit_steps(run: BudgetedRun, bar: TrainingBar) -> None:
    """Fixes the number of steps if the time of a step is known, notes it in `recipe.json`, and saves the run.

    Raises:
        BudgetError: the budget is too short.
        TrainingError: a file cannot be written.
    """
    pace, world, settings = run.pace, run.world, run.config.train
    if pace is None or not world.from_leader(lambda: pace.is_known(run.progress.step, settings.warmup_steps)):
        return
    found, sentence = world.from_leader(lambda: _found(run, pace))
    run.network.train()
    run.config, run.pace = with_settings(run.config, found), None
    run.progress = replace(run.progress, budget=None)
    if run.state.average is not None:
        run.state.average.decay = run.config.train.average_decay
    bar.known(run.config.train.steps)
    bar.say(sentence)
    run.save()


def _found(run: BudgetedRun, pace: Pace) -> tuple[dict[str, int], str]:
    """The settings that fit the budget, and a sentence about them. They are added to `recipe.json`."""
    weights = sum(value.numel() * value.element_size() for value in run.network.state_dict().values())
    settings, seconds = run.config.train, None
    if run.validation is not None:
        seconds = _prediction_seconds(run.config, run.result, run.validation) / run.world.size
        # Statistics of batch norm are computed by each process, and losses on the validation images by one.
        also = settings.batch_norm_images + (len(run.validation) if settings.validation_losses else 0)
        seconds += also * _FORWARD * pace.step / settings.images_per_step
    costs = Costs(pace.step, seconds, weights * _COPIES / _DISK)
    found = fitted(settings, run.progress.step, pace.left, costs, pace.free)
    note_choices(run.out / RECIPE, found, f"fits the budget: a step takes {costs.step:.2g} s")
    judged = f", an evaluation about {costs.judging:.0f} s" if costs.judging else ""
    steps, warmup = found["train.steps"], settings.warmup_steps
    doubt = ""
    if warmup > steps / 2:
        doubt = f"; the learning rate rises for {warmup} steps (--train.warmup-steps), which is most of them"
    return found, f"a step takes {costs.step:.2g} s{judged}: {steps} steps fit the budget{doubt}"


def _prediction_seconds(config: Config, network: MaskRCNN, validation: Dataset) -> float:
    """The time that predicting the validation images takes in one process, from a few of them."""
    count = len(validation)
    some = validation.subset(range(0, count, -(-count // _PREDICTED)))
    predictor = Predictor(TorchBackend(network.eval(), config.train.precision), config)
    began = time.monotonic()
    results_of(predictor.with_detections(usual_detections(config, some)), some)
    return (time.monotonic() - began) / len(some) * count


def usual_detections(config: Config, dataset: Dataset) -> int:
    """How many objects a trained network finds in an image, up to its limit.

    A network that has learned little finds as many as it may, and their masks would take most of the time.
    """
    return max(1, min(config.model.detect.max_detections, math.ceil(_FOUND * float(dataset.records.counts.mean()))))
