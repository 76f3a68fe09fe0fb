"""Training: one plain loop. Evaluation and checkpoints are visible calls in it."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from maskrcnn.config import Config, differing_settings
from maskrcnn.data.doubts import crowded_images
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.learnable import require_examples, with_files
from maskrcnn.data.loader import Batch, training_batches
from maskrcnn.data.processes import STOP_SIGNALS
from maskrcnn.errors import DataError, MaskRCNNError, TrainingError
from maskrcnn.evaluation.coco import Report
from maskrcnn.evaluation.truth import require_objects
from maskrcnn.files.atomic import check_folder, remove_temporaries
from maskrcnn.files.lock import locked
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import compiled, resolve_precision
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import NAME, Progress, load_checkpoint, save_checkpoint, writing
from maskrcnn.training.curves import curves
from maskrcnn.training.evaluate import check_categories, evaluate
from maskrcnn.training.optimiser import build_optimiser, learning_rate
from maskrcnn.training.progress import METRICS, MetricsFile, TrainingBar
from maskrcnn.training.step import LossWindow, on_device, train_step
from maskrcnn.weights.initialise import InitialWeights, read_initial_weights, with_conventions
from maskrcnn.weights.model_file import save_model

LOG_EVERY = 20  # steps averaged in one line of the metrics


@dataclass(frozen=True)
class Summary:
    """The results of a run.

    Attributes:
        out: the folder of the run.
        model: the model file with the best validation AP; without validation data, the model of the last step.
        checkpoint: the resumable state of the last step.
        steps: optimiser steps done in all.
        seconds: duration of this call.
        report: figures of the last evaluation; None without one.
        skipped: broken annotations and images of the training data that were left out, and why.
        finished: False when the run was interrupted; `--resume` continues it.
    """

    out: Path
    model: Path
    checkpoint: Path
    steps: int
    seconds: float
    report: Report | None
    skipped: tuple[str, ...]
    finished: bool


def train(
    config: Config,
    data: Dataset | Path | str,
    *,
    val: Dataset | Path | str | None = None,
    out: Path | str,
    weights: Path | str | None = None,
    resume: bool = False,
    strict: bool = False,
    limit: int | None = None,
) -> Summary:
    """Trains a model and leaves in `out`: model.safetensors, last.ckpt, metrics.jsonl and curves.png.

    Args:
        config: classes and category names are taken from the data set.
        data, val: a data set, its annotation file of any format, or the folder that holds it.
        weights: any detector that `maskrcnn.load` opens, or ImageNet backbone weights (file or name). A detector also
            brings its conventions, and the model and image settings that `config` leaves at their defaults.
        resume: continue the run in `out` from its last checkpoint, to the same weights as without the break.
        strict: refuse broken annotations and images instead of skipping them.
        limit: number of training images, from the first on.

    Raises:
        ConfigError, DataError, WeightsError, TrainingError: one line says what cannot be used and what to do.
    """
    out = Path(out)
    check_folder(out)
    with locked(out):
        remove_temporaries(out)
        given = config
        saved = load_checkpoint(out) if resume else None
        initial: InitialWeights | None = None
        if saved is not None and weights is not None:  # the settings of the run include those of the weights
            config = with_conventions(config, saved.config)
        elif weights is not None:
            initial = read_initial_weights(weights, config)
            config = initial.with_conventions(config)
        from_weights = [name for name in differing_settings(given, config) if name != "categories"]
        dataset, validation, config = _read_data(config, data, val, strict, limit)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.train.seed)
        network = build_model(config)
        origin = "random weights" if initial is None else initial.fill(network, config)
        del initial  # it may hold a file in memory
        network.to(device)
        optimiser = build_optimiser(network, config.train)
        if not resume and (out / NAME).exists():
            raise TrainingError(
                f"{out} already holds a run ({NAME}); continue it with --resume or choose another --out"
            )
        progress = Progress() if saved is None else saved.restore(network, optimiser, config)
        del saved
        began = time.monotonic()
        run = _Run(config, network, optimiser, device, out, validation, progress, origin, progress.step)
        run.skipped = dict.fromkeys(dataset.problems)
        # Closing it ends the processes of the loader even if something keeps a reference to this frame.
        loading = closing(training_batches(dataset, config, start_step=progress.step, strict=strict))
        bar_of_run = TrainingBar(config.train.steps, progress.step)
        with loading as batches, bar_of_run as bar, _interrupts() as interrupted:
            run.say_beginning(dataset, from_weights, bar)
            run.train(on_device(batches, device), bar, interrupted)
        if (out / METRICS).stat().st_size:
            curves(out / METRICS, out / "curves.png")
        return Summary(
            out=out,
            model=out / "model.safetensors",
            checkpoint=out / NAME,
            steps=run.step,
            seconds=time.monotonic() - began,
            report=run.report,
            skipped=tuple(run.skipped),
            finished=run.step >= config.train.steps,
        )


@dataclass
class _Run:
    """The training loop, and the state that its steps, checkpoints and evaluations share."""

    config: Config
    network: MaskRCNN
    optimiser: torch.optim.Optimizer
    device: torch.device
    out: Path
    validation: Dataset | None
    progress: Progress
    origin: str
    step: int
    report: Report | None = None
    skipped: dict[str, None] = field(default_factory=dict)

    def say_beginning(self, dataset: Dataset, from_weights: Sequence[str], bar: TrainingBar) -> None:
        """Says on what the run trains, which settings the weights have brought, and what is left out of the data."""
        dtype = resolve_precision(self.config.train.precision, self.device)
        bar.say(
            f"{len(dataset)} images, {self.config.model.num_classes} classes, {self.origin}, {self.device.type} "
            f"{'bf16' if dtype == torch.bfloat16 else 'fp32'}, writing to {self.out}"
        )
        if from_weights:
            bar.say(f"{len(from_weights)} settings come from the weights: {', '.join(from_weights[:4])}, ...")
        for note in (*dataset.notes, *crowded_images(dataset, self.config.model.detect.max_detections)):
            bar.say(note)
        if self.skipped:
            bar.say(f"{len(self.skipped)} broken entries are left out, first: {dataset.problems[0]}")
            bar.say(f"all of them: maskrcnn data check {dataset.path}")

    def train(self, batches: Iterator[Batch], bar: TrainingBar, interrupted: Sequence[int]) -> None:
        """Trains, evaluates and saves until the last step, or until `interrupted` is no longer empty."""
        config = self.config.train
        losses_of = compiled(self.network, self.device) if config.compile else self.network
        metrics = MetricsFile(self.out, self.step)
        losses, began = LossWindow(), time.monotonic()
        self.network.train()
        while self.step < config.steps and not interrupted:
            batch = self._next(batches)
            self._say_skipped(batch, bar)
            found = train_step(losses_of, self.optimiser, batch, config, self.step)
            self.step += 1
            bar.step(self.step)
            losses.add(self.step, batch.image_ids, found)
            log_due = _due(self.step, LOG_EVERY, config.steps)
            evaluation_due = self.validation is not None and _due(self.step, config.evaluate_every, config.steps)
            save_due = _due(self.step, config.checkpoint_every, config.steps)
            if self.device.type == "cpu" or log_due or evaluation_due or save_due:  # reading waits for a GPU
                losses.read()
            if log_due:
                rate = losses.steps / (time.monotonic() - began)
                row = losses.means() | {
                    "lr": learning_rate(self.step - 1, config),
                    "images_per_second": rate * config.batch_size,
                }
                metrics.write({"step": self.step, **row})
                bar.losses(self.step, row, (config.steps - self.step) / rate)
                began = time.monotonic()
            if evaluation_due:
                stopped = time.monotonic()
                report = self.evaluate(bar)
                metrics.write({"step": self.step, **report.to_dict()})
                bar.say(f"step {self.step}: {report.line()}")
                began += time.monotonic() - stopped
            if save_due:
                self.save()
        if interrupted and self.step < config.steps:
            losses.read()
            self.save()

    def _next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch. If it cannot be loaded, the steps that are done are saved, and the error says so."""
        try:
            return next(batches)
        except MaskRCNNError as error:
            if not self.step:
                raise
            if self.step > self.progress.step:
                self.save()
            raise type(error)(f"{error}; {self.step} steps are saved: continue with --resume") from error

    def _say_skipped(self, batch: Batch, bar: TrainingBar) -> None:
        """Reports each broken image once."""
        for message in batch.skipped:
            if message not in self.skipped:
                self.skipped[message] = None
                bar.say(f"skipped: {message}")

    def evaluate(self, bar: TrainingBar) -> Report:
        """Evaluates the current weights, and writes the model file if their score is the best so far, or if no score
        has been defined yet."""
        self.network.eval()
        predictor = Predictor(TorchBackend(self.network, self.config.train.precision), self.config)
        assert self.validation is not None
        report = evaluate(predictor, self.validation, batch_size=self.config.train.batch_size, track=bar.track)
        self.network.train()
        self.report = report
        best = self.progress.best
        if best is None or (report.score is not None and report.score > best):
            self.progress = replace(self.progress, best=report.score)
            self._save_model(report)
        return report

    def save(self) -> None:
        self.progress = replace(self.progress, step=self.step)
        save_checkpoint(self.out, self.network, self.optimiser, self.config, self.progress)
        if self.validation is None or self.progress.best is None:
            self._save_model(None)

    def _save_model(self, report: Report | None) -> None:
        provenance: dict[str, Any] = {"initial_weights": self.origin, "step": self.step}
        if report is not None:
            provenance["validation"] = report.to_dict()
        path = self.out / "model.safetensors"
        with writing(path):
            save_model(path, self.network, self.config, provenance)


def _read_data(
    config: Config, data: Dataset | Path | str, val: Dataset | Path | str | None, strict: bool, limit: int | None
) -> tuple[Dataset, Dataset | None, Config]:
    dataset = data if isinstance(data, Dataset) else read_dataset(data, strict=strict)
    if limit is not None:
        dataset = dataset.subset(range(min(limit, len(dataset))))
    if len(dataset) == 0:
        raise DataError(f"{dataset.path}: no images to train on")
    dataset = with_files(dataset, strict=strict)
    require_examples(dataset, masks=config.model.mask_head is not None)
    model = replace(config.model, num_classes=len(dataset.categories))
    conventions = config.conventions
    if dataset.categories != config.categories:
        conventions = replace(conventions, detections=replace(conventions.detections, unused_classes=0))
    if model.keypoint_head is not None:
        model = replace(model, keypoint_head=replace(model.keypoint_head, num_keypoints=_keypoint_count(dataset)))
    config = replace(config, model=model, conventions=conventions, categories=dataset.categories)
    if val is None:
        return dataset, None, config
    validation = val if isinstance(val, Dataset) else read_dataset(val, strict=strict)
    check_categories(config.categories, validation)
    validation = with_files(validation, strict=strict)
    require_objects(validation)
    if model.keypoint_head is not None:
        _keypoint_count(validation)
    return dataset, validation, config


def _keypoint_count(dataset: Dataset) -> int:
    """The number of keypoints of an object. Raises DataError if there are none, or if categories differ in it."""
    counts = {len(category.keypoints): category.name for category in dataset.categories if category.keypoints}
    if not counts:
        raise DataError(
            f"{dataset.path}: model.keypoint_head needs keypoints, and no category names any; use annotations with "
            "keypoints (COCO's person_keypoints_*.json) or a preset without them"
        )
    if len(counts) > 1:
        listed = " and ".join(f"{count} of {name}" for count, name in counts.items())
        raise DataError(
            f"{dataset.path}: expected the same number of keypoints in every category that has some, found {listed}; "
            "the network predicts the same number for every class"
        )
    return next(iter(counts))


def _due(step: int, every: int, last: int) -> bool:
    return step == last or (every > 0 and step % every == 0)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Collects the first Ctrl-C or termination signal, so that the loop can stop between two steps. A second one stops
    the process at once."""
    received: list[int] = []

    def first(number: int, frame: object) -> None:
        received.append(number)
        for kind, handler in previous.items():
            signal.signal(kind, handler)

    previous = {}
    with suppress(ValueError):  # only the main thread can handle signals; elsewhere the caller does
        previous = {kind: signal.signal(kind, first) for kind in STOP_SIGNALS}
    try:
        yield received
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
