"""Fits the number of steps of a run to a time. The first steps are measured, and then the number is fixed for good."""

from __future__ import annotations

import math
import time
from collections.abc import Collection
from dataclasses import dataclass, field

from maskrcnn.config import TrainConfig
from maskrcnn.errors import TrainingError

NOT_YET = 1_000_000_000  # train.steps until it is fitted: the learning rate of warm-up does not depend on it
FREE = ("train.evaluate_every", "train.checkpoint_every")  # settings that the automatic recipe leaves to the budget
_FEWEST = 5  # steps that are measured, and steps that must be left
_MEASURED = 0.1  # of the budget, in which the steps are measured at most
_JUDGED, _SAVED = 0.1, 0.02  # of the time left: all evaluations and all checkpoints, if their number is free
_PAGE = 5.0  # seconds of an evaluation for figures, pictures and plots
_END = 2.0  # seconds after the last step for the curves
_MARGIN = 0.98  # of the time left, because later steps tend to be slower


class BudgetError(TrainingError):
    """The budget is too short. Nothing is saved."""


@dataclass
class Pace:
    """The first steps of a run that has a budget.

    Attributes:
        budget: seconds left of it at `began`, on the clock of `time.monotonic`.
        free: which of `FREE` may be chosen with the steps.
        spent: seconds of each step, with the loading of its images.
    """

    budget: float
    began: float
    free: Collection[str] = ()
    spent: list[float] = field(default_factory=list)

    @property
    def left(self) -> float:
        return self.budget - (time.monotonic() - self.began)

    @property
    def step(self) -> float:
        """Seconds of a step: the mean of the later half of them, after the machine and the network have warmed up."""
        later = self.spent[len(self.spent) // 2 :]
        return sum(later) / len(later)

    def is_known(self, done: int, warmup_steps: int) -> bool:
        """Whether enough steps were measured: the rest of warm-up, or a tenth of the budget.

        Args:
            done: steps of the run.
        """
        enough = done >= warmup_steps or self.left < (1 - _MEASURED) * self.budget
        return enough and len(self.spent) >= _FEWEST


@dataclass(frozen=True)
class Costs:
    """Seconds of a step, of predicting the validation images (None without them), and of a checkpoint."""

    step: float
    prediction: float | None
    checkpoint: float

    @property
    def judging(self) -> float:
        """Seconds of an evaluation; 0 without validation images."""
        return 0.0 if self.prediction is None else self.prediction + _PAGE


def fitted(settings: TrainConfig, step: int, left: float, costs: Costs, free: Collection[str]) -> dict[str, int]:
    """The settings for the time that is left, by whole name.

    Args:
        step: steps done.
        left: seconds.
        free: which of `FREE` may be chosen.

    Raises:
        BudgetError: the time is too short for `_FEWEST` more steps.
    """
    judging = costs.judging
    usable = _MARGIN * left - _END
    choose_judged = "train.evaluate_every" in free and judging > 0
    choose_saved = "train.checkpoint_every" in free
    judged = max(1, min(10, int(_JUDGED * usable / judging))) if choose_judged else 1
    saved = max(1, min(20, int(_SAVED * usable / costs.checkpoint))) if choose_saved else 1
    each = costs.step
    if not choose_judged and settings.evaluate_every:
        each += judging / settings.evaluate_every
    if not choose_saved:
        each += costs.checkpoint / settings.checkpoint_every
    steps = math.floor((usable - judged * judging - saved * costs.checkpoint) / each)
    if steps < _FEWEST:
        missing = _FEWEST * each + judging + costs.checkpoint - usable
        seconds = max(1, math.ceil(missing / _MARGIN))
        raise BudgetError(
            f"the budget is too short by about {seconds} s: a step takes {costs.step:.2g} s here and an evaluation "
            f"{judging:.2g} s; give more time, or lower --train.batch-size or the size of the images"
        )
    found = {"train.steps": step + steps}
    found |= {"train.evaluate_every": math.ceil((step + steps) / judged)} if choose_judged else {}
    return found | ({"train.checkpoint_every": math.ceil((step + steps) / saved)} if choose_saved else {})
