"""One run: the training loop, and the state that its steps, evaluations and checkpoints share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.data.loading.loader import Batch
from maskrcnn.errors import MaskRCNNError, TrainingError
from maskrcnn.evaluation.coco import Report
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import compiled
from maskrcnn.predict import SHORT_SIDE, Predictor, TorchBackend
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import Progress, SavedRun, go_back, save_checkpoint, writing
from maskrcnn.training.evaluate import results_of
from maskrcnn.training.interrupts import InterruptedEvaluationError, Track, until_interrupted
from maskrcnn.training.memory import TooLittleMemoryError, is_out_of_memory, out_of_memory
from maskrcnn.training.optimiser import learning_rate
from maskrcnn.training.progress import SECONDS, Clock, TrainingBar
from maskrcnn.training.recipes.budget import BudgetError, Pace
from maskrcnn.training.recipes.fit import fit_steps
from maskrcnn.training.reports.evaluation import thresholds
from maskrcnn.training.reports.reporters import Reporter, reporting
from maskrcnn.training.reports.run import write_page
from maskrcnn.training.state import TrainingState
from maskrcnn.training.statistics import estimate_statistics
from maskrcnn.training.step import DivergedError, LossSums, LossWindow, train_step
from maskrcnn.training.validation import is_better, joint_report, metrics_of, validation_losses
from maskrcnn.training.world import World
from maskrcnn.weights.model_file import save_model

LOG_EVERY = 20  # steps averaged in one line of the metrics
MODEL = "model.safetensors"


@dataclass
class Run:
    """A run in its folder.

    Attributes:
        data: fingerprints of the data sets.
        world: the processes that train together. The first one alone writes files.
        progress: how far the run has come.
        saved: the progress in the checkpoint of the folder; None without one.
        interrupted: the signals that asked for a stop; the loop ends when there is one.
        report: the figures of the last evaluation.
        skipped: the reported messages about broken annotations and images.
        remarked: whether a remark about an image was reported.
        parts: into how many parts each batch is divided, because the memory was not enough for fewer.
        clock: seconds of loading, steps and evaluation since the last line of the metrics.
        reporters: are told about losses and evaluations.
        pace: measures the first steps while the number of steps is still to be fitted to a budget.
    """

    config: Config
    network: MaskRCNN
    state: TrainingState
    world: World
    out: Path
    training: Dataset
    validation: Dataset | None
    data: Mapping[str, Any]
    progress: Progress
    saved: Progress | None = None
    interrupted: Sequence[int] = ()
    report: Report | None = None
    skipped: dict[str, None] = field(default_factory=dict)
    remarked: bool = False
    parts: int = 1
    clock: Clock = field(default_factory=Clock)
    reporters: Sequence[Reporter] = ()
    pace: Pace | None = None

    @property
    def device(self) -> torch.device:
        return self.world.device

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return self.progress.step

    @property
    def result(self) -> MaskRCNN:
        """The network that is evaluated and written as the model."""
        result = self.state.result
        assert isinstance(result, MaskRCNN)
        return result

    @property
    def finished(self) -> bool:
        return self.stopped_early or (self.step >= self.config.train.steps and not self._evaluation_due())

    @property
    def stopped_early(self) -> bool:
        """Whether the run has ended because its evaluations no longer became better."""
        return 0 < self.config.train.patience <= self.progress.stale

    def restore(self, saved: SavedRun, *, changes: bool = False) -> list[str]:
        """Continues from a checkpoint; arguments, result and errors are those of `SavedRun.restore`."""
        self.progress, changed = saved.restore(self.state, self.config, self.data, changes=changes)
        self.saved = self.progress
        return changed

    def repair(self, bar: TrainingBar) -> None:
        """Writes the model file of the checkpoint anew. A killed run may have written only one of the two."""
        best = self.progress.best
        if self.world.from_leader(lambda: best is not None and not (self.out / MODEL).exists()):
            bar.say(f"{self.out / MODEL} is missing: the model with the best AP up to now is lost")
            self.progress = replace(self.progress, best=None, evaluated=0, stale=0)
        if self.progress.best is None:
            self._save_model(None)

    def train(self, batches: Iterator[Batch], bar: TrainingBar) -> None:
        """Trains, evaluates and saves until the last step, or until the run is interrupted."""
        sums_of = self.network.loss_sums
        sums_of = compiled(sums_of, self.device) if self.config.train.compile else sums_of
        losses, began = LossWindow(), time.monotonic()
        self.network.train()
        with reporting(self.reporters, self.config, self.step), self._saved_on_error(losses):
            if self._evaluation_due():  # the run was interrupted before it was done
                self._evaluate(bar)
            while self.step < self.config.train.steps and not self._stop_asked() and not self.stopped_early:
                config, step_began = self.config.train, time.monotonic()
                with self.clock.of("loading"):
                    parts = list(islice(batches, config.accumulate))
                self._say_found(parts, bar)
                with self.clock.of("steps"), self.world.answering():
                    found = self._step(sums_of, parts, bar)
                self.progress = replace(self.progress, step=self.step + 1)
                bar.step(self.step)
                losses.add(self.step, [name for part in parts for name in part.image_ids], found)
                log_due, save_due = (_due(self.step, n, config.steps) for n in (LOG_EVERY, config.checkpoint_every))
                evaluation_due = self._evaluation_due()
                reading_due = log_due or evaluation_due or save_due or self.pace is not None
                if self.device.type == "cpu" or reading_due:  # reading waits for a GPU
                    with self.clock.of("steps"):
                        losses.read()
                if self.pace is not None:
                    self.pace.spent.append(time.monotonic() - step_began)
                if log_due:
                    rate = losses.steps / (time.monotonic() - began)
                    row = losses.means() | {
                        "lr": learning_rate(self.step - 1, config),
                        "images_per_second": rate * config.images_per_step * self.world.size,
                    }
                    spent = self.clock.take()
                    for reporter in self.reporters:
                        reporter.losses(self.step, {**row, SECONDS: spent})
                    bar.losses(self.step, row, self.pace.left if self.pace else (config.steps - self.step) / rate)
                    began = time.monotonic()
                if evaluation_due:
                    stopped = time.monotonic()
                    self._evaluate(bar)
                    began += time.monotonic() - stopped
                if save_due:
                    if self.validation is None and self.step == config.steps:
                        self._ready_result()
                    self.save()
                if self.pace is not None:
                    fit_steps(self, bar)
        self._save_the_rest(losses)

    def _step(self, sums_of: Callable[..., LossSums], batches: Sequence[Batch], bar: TrainingBar) -> dict[str, Tensor]:
        """One training step, whose losses are returned. If memory is not enough, it is repeated in smaller parts.

        Raises:
            TrainingError: memory is not enough, and the settings do not allow smaller parts, or there are none.
        """
        config = self.config.train
        while True:
            try:
                parts = [part for batch in batches for part in batch.parts(self.parts)]
                return train_step(sums_of, self.state, parts, config, self.step, self.world)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Only here, after the block, nothing holds the tensors of the failed step any more.
            at_once = max(len(part.images) for part in parts)
            if at_once == 1 or not config.auto_batch or self.world.size > 1:
                raise TooLittleMemoryError(out_of_memory(parts, config, self.world.size))
            self.parts *= 2
            bar.say(
                f"step {self.step + 1}: out of memory with {at_once} images at once; from now on at most "
                f"{-(-at_once // 2)} pass the network together, with the same losses"
            )

    def _stop_asked(self) -> bool:
        """Whether a signal has asked one of the processes to stop. All of them must know before they stop together."""
        if self.world.size == 1:
            return bool(self.interrupted)
        # Asking waits for a GPU. An evaluation that is still due was interrupted.
        if self.device.type != "cpu" and self.step % LOG_EVERY and not self._evaluation_due():
            return False
        return bool(self.world.sum(torch.tensor(len(self.interrupted), device=self.device)))

    @contextmanager
    def _saved_on_error(self, losses: LossWindow) -> Iterator[None]:
        """If the block fails, the steps that are done are saved, and one of our errors says so."""
        try:
            yield
        except DivergedError as error:
            raise TrainingError(f"{error}; {self._go_back(error.step)}") from error
        except MaskRCNNError as error:
            if not self.step or isinstance(error, BudgetError):
                raise
            self._save_the_rest(losses)
            again = "--resume-with-changes" if isinstance(error, TooLittleMemoryError) else "--resume"
            raise type(error)(f"{error}; the run is saved up to step {self.step}: continue with {again}") from error
        except Exception:
            if self.step:
                with suppress(TrainingError):  # the first error says more
                    self._save_the_rest(losses)
            raise

    def _save_the_rest(self, losses: LossWindow) -> None:
        """Saves what was done since the last checkpoint; raises TrainingError if a loss was not finite."""
        losses.read()
        if self.progress != self.saved:
            self.save()

    def _go_back(self, step: int) -> str:
        """Returns to the last checkpoint that can be trusted, and says in words how to go on."""
        good = self.world.from_leader(lambda: go_back(self.out, self.saved, step))
        if good is None:
            return f"no checkpoint is from long enough before step {step}: start anew with another --out"
        if good.progress != self.saved:
            self.restore(good, changes=True)  # it may be from before a change that was asked for
            if self.progress.best is None:
                self._save_model(None)
        return (
            f"the last good checkpoint is that of step {good.progress.step}; to go on from it: "
            f"--resume-with-changes --train.learning-rate {self.config.train.learning_rate / 3:.2g}"
        )

    def _say_found(self, batches: Sequence[Batch], bar: TrainingBar) -> None:
        """Reports each broken image once, and the first remark of the run."""
        for message in (message for batch in batches for message in batch.skipped):
            if message not in self.skipped:
                self.skipped[message] = None
                bar.say(f"skipped: {message}")
        remarks = [remark for batch in batches for remark in batch.remarks]
        if remarks and not self.remarked:
            bar.say(f"note: {remarks[0]}; remarks about other images are not repeated")
            self.remarked = True

    def _ready_result(self) -> MaskRCNN:
        """The network to evaluate or write, in evaluation mode, with new statistics if the settings ask for it.

        Each process has seen other images, so their statistics of batch norm differ; all take those of the first one.
        """
        network = self.result.eval()
        self.world.share_weights(network)
        if self.config.train.batch_norm_images:
            estimate_statistics(network, self.training, self.config)
        return network

    def _evaluation_due(self) -> bool:
        settings = self.config.train
        due = _due(self.step, settings.evaluate_every, settings.steps)
        return self.validation is not None and due and self.progress.evaluated < self.step

    def _evaluate(self, bar: TrainingBar) -> None:
        """Evaluates the current weights, each process on a part of the images.

        If the run is interrupted meanwhile, that is left to the resumed run.
        """
        assert self.validation is not None
        world, validation = self.world, self.validation
        network = self._ready_result()
        predictor = Predictor(TorchBackend(network, self.config.train.precision), self.config)
        # A CPU gains nothing from batches, and alone the objects of an image are the same in any part of the images.
        size = 1 if self.device.type == "cpu" else self.config.train.batch_size
        part = validation.subset(range(world.rank, len(validation), world.size))
        track: Track[Any] = until_interrupted(bar.track, self.interrupted)
        try:
            with self.clock.of("evaluation"):
                own = results_of(predictor, part, batch_size=size, track=track)
                losses = {}
                if self.config.train.validation_losses and world.leads:
                    losses = validation_losses(network, validation, self.config, track)
        except InterruptedEvaluationError:
            own = None
        finally:
            self.network.train()
        with self.clock.of("evaluation"):
            parts = world.gather(own)
            found = [one for one in parts if one is not None]
            if len(found) < len(parts):
                return
            most = self.config.model.detect.max_detections
            report, losses = world.from_leader(lambda: (joint_report(validation, found, most), losses))
        self.report = report
        self._judge(report, losses, bar)
        more = {**({"validation_losses": losses} if losses else {}), SECONDS: self.clock.take()}
        for reporter in self.reporters:
            reporter.evaluation(self.step, report, more)
        if world.leads:
            write_page(self.out, self.config, validation, report)
        bar.say(f"step {self.step}: {report.line()}" + (f"   loss {losses['loss']:.3f}" if losses else ""))

    def _judge(self, report: Report, losses: dict[str, float], bar: TrainingBar) -> None:
        """Writes the model file if the evaluation is the best one so far, and counts the evaluations since then."""
        name, best = self.config.train.best_metric, self.progress.best
        value = metrics_of(report, losses).get(name)
        better = is_better(name, value, best)
        stale = 0 if better else self.progress.stale + 1
        self.progress = replace(self.progress, evaluated=self.step, best=value if better else best, stale=stale)
        if better:
            self._save_model(report)
        if self.stopped_early:
            bar.say(f"{stale} evaluations have not improved {name}: the run ends at step {self.step}")

    def save(self) -> None:
        """Writes the checkpoint, and without a best validation AP the model file."""
        if self.pace is not None:
            self.progress = replace(self.progress, budget=self.pace.left)
        if self.world.leads:
            save_checkpoint(self.out, self.state, self.config, self.progress, self.data, self.saved)
        if self.progress.best is None:
            self._save_model(None)
        self.saved = self.progress

    def _save_model(self, report: Report | None) -> None:
        if not self.world.leads:
            return
        provenance: dict[str, Any] = {"initial_weights": self.progress.origin, "step": self.step}
        provenance[SHORT_SIDE] = self.training.records.median_short_side
        provenance["data"] = {part: self.data[part] for part in ("train", "val") if part in self.data}
        if report is not None:
            provenance |= {"validation": report.to_dict(), "thresholds": thresholds(report.analysis)}
        with writing(self.out / MODEL):
            save_model(self.out / MODEL, self.result, self.config, provenance)


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)
