"""A recipe, and what it chooses for a run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from maskrcnn.config import Config, RecipeName, ResNetConfig, TimmConfig
from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import writing
from maskrcnn.training.recipes.automatic import Start, choose
from maskrcnn.training.recipes.choices import GIVEN, RECIPE, Choice, Choices, rows_of
from maskrcnn.training.recipes.data_figures import DataFigures, measure
from maskrcnn.training.recipes.hardware import Hardware
from maskrcnn.training.recipes.schedules import (
    DETECTRON,
    LARGE_SCALE_JITTER,
    choose_detectron,
    choose_large_scale_jitter,
)
from maskrcnn.weights.initialise import InitialWeights, WeightsFile, read_initial_weights

NO_WEIGHTS = "none"  # as a name of weights: random ones
_COCO = "detectron2/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"
_RESNEXT = {"ResNeXt-50 32x4d": "resnext50_32x4d", "ResNeXt-101 32x8d": "resnext101_32x8d"}
_RESNEXT |= {"ResNeXt-101 64x4d": "resnext101_64x4d"}


@dataclass(frozen=True)
class Recipe:
    """How the settings of a run are found.

    Attributes:
        name: `auto` chooses for the data set and the machine; `1x` and `3x` are Detectron's schedules, `lsj-100` to
            `lsj-400` so many epochs of large-scale jitter from random weights; `none` keeps the settings of `base`.
        base: settings to start from, such as those of a preset. None: the recipe also chooses the network, to fit the
            weights or the machine.
        given: settings that no choice changes, by whole name (`train.steps`), as plain JSON types.
        budget: seconds that the run may take; the number of steps is fitted to it. None: no limit.
        hold_out: share of the images that are held out to judge by if there are no validation data, 0 for none. None:
            0.15, or 0 with `none`.
        began: when the budget began to be spent, on the clock of `time.monotonic`; None: with the call of `train`.

    Raises:
        ConfigError: a value is not one of these, or budget and `train.steps` are both given.
    """

    name: RecipeName = "auto"
    base: Config | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    budget: float | None = None
    hold_out: float | None = None
    began: float | None = None

    def __post_init__(self) -> None:
        if self.base is not None and not isinstance(self.base, Config):
            raise ConfigError(
                "expected a Config, such as maskrcnn.presets.preset('mask_rcnn_R_50_FPN'), a Recipe, or None for the "
                f"automatic recipe, found {self.base!r}"
            )
        if self.name not in get_args(RecipeName):
            raise ConfigError(f"unknown recipe {self.name!r}; there are: {', '.join(get_args(RecipeName))}")
        if self.budget is not None and not 0 < self.budget < math.inf:
            raise ConfigError(f"the budget must be a number of seconds above 0, found {self.budget}")
        if self.budget is not None and "train.steps" in self.given:
            raise ConfigError("a budget finds the number of steps: give either the budget or train.steps")
        if self.hold_out is not None and not 0 <= self.hold_out < 1:
            raise ConfigError(f"--hold-out: expected a share of the images from 0 to below 1, found {self.hold_out}")

    @property
    def share_held_out(self) -> float:
        return (0.0 if self.name == "none" else 0.15) if self.hold_out is None else self.hold_out

    def start(self, machine: Hardware) -> Config:
        """The settings before a choice: `base`, or those of a network that fits the machine."""
        if self.base is not None:
            return self.base
        small = not machine.has_gpu and self.name == "auto"
        return preset("mask_rcnn_R_18_FPN" if small else "mask_rcnn_R_50_FPN")

    def read_weights(
        self, weights: Path | str | WeightsFile | None, machine: Hardware
    ) -> tuple[InitialWeights | None, str]:
        """The weights that training begins from, None for random ones, and their name.

        Args:
            weights: those that a person has given. None: those of the recipe.

        Raises:
            WeightsError, ConfigError: as for `read_initial_weights`.
        """
        source = weights.source if isinstance(weights, WeightsFile) else weights
        config = self.start(machine)
        if source is None:
            name = self.usual_weights(machine)
            try:
                return (None if name == NO_WEIGHTS else read_initial_weights(name, config)), name
            except WeightsError as error:
                raise WeightsError(
                    f"the recipe begins from the weights {name}: {error}; begin from others with --weights PATH, or "
                    "from random ones with --weights none, which takes several times as many steps"
                ) from None
        if weights is None or str(source) == NO_WEIGHTS:
            return None, NO_WEIGHTS
        return read_initial_weights(weights, config), str(source)

    def usual_weights(self, machine: Hardware) -> str:
        """The weights if none are given: trained on COCO for fine-tuning on a GPU, else on ImageNet."""
        if self.name in ("none", *LARGE_SCALE_JITTER):
            return NO_WEIGHTS
        if self.name == "auto" and self.base is None and machine.has_gpu:
            return _COCO
        backbone = self.start(machine).model.backbone
        if isinstance(backbone, TimmConfig):
            return "timm"
        if backbone.width != ResNetConfig.width or backbone.depth == 10:
            return NO_WEIGHTS  # nobody has published any
        return _RESNEXT.get(backbone.name, f"resnet{backbone.depth}")


@dataclass(frozen=True)
class Plan:
    """What a recipe has chosen for a run.

    Attributes:
        weights: name of the weights that training begins from.
    """

    recipe: Recipe
    config: Config
    choices: tuple[Choice, ...]
    data: DataFigures
    machine: Hardware
    weights: str

    def lines(self) -> list[str]:
        """The table of the choices."""
        return rows_of(self.choices)

    def write(self, out: Path) -> None:
        """Writes `recipe.json` in the folder of the run: choices, reasons and what was measured.

        Raises:
            TrainingError: the file cannot be written.
        """
        content = {
            "recipe": self.recipe.name,
            "weights": self.weights,
            "budget": self.recipe.budget,
            "choices": [vars(choice) for choice in self.choices],
            "given": dict(self.recipe.given),
            "data": self.data.figures(),
            "machine": vars(self.machine),
        }
        with writing(out / RECIPE), atomic_write(out / RECIPE) as temporary:
            temporary.write_text(json.dumps(content, indent=1))


def plan(recipe: Recipe, config: Config, dataset: Dataset, machine: Hardware, weights: str, start: Start) -> Plan:
    """Chooses the settings of a new run.

    Args:
        config: the settings before a choice, with the rules of the weights.
        dataset: the training data, without what is held out.
        weights: their name.
        start: what kind of weights they are.

    Raises:
        ConfigError: a choice and what is given exclude each other.
    """
    data = measure(dataset)
    choices = Choices(config, recipe.given)
    if recipe.name in DETECTRON:
        choose_detectron(choices, recipe.name, data.images, machine)
    elif recipe.name in LARGE_SCALE_JITTER:
        choose_large_scale_jitter(choices, recipe.name, data.images, machine)
    elif recipe.name == "auto":
        choose(choices, data, machine, start, recipe.budget)
    usual = weights == recipe.usual_weights(machine)
    network = f"for {machine.name}" if usual or start == "random" else "that of the weights"
    first = (
        Choice("network", choices.config.model.backbone.name, GIVEN if recipe.base is not None else network),
        Choice("weights", weights, "those of the recipe" if usual else GIVEN),
    )
    return Plan(recipe, choices.config, (*first, *choices.rows), data, machine, weights)
