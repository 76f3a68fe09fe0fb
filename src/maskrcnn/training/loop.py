"""Training from files: reads data and weights, begins or resumes a run, and trains it (`training/run.py`)."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from maskrcnn import threads
from maskrcnn.config import Config, differing_settings
from maskrcnn.data.channels import measured_channels, said
from maskrcnn.data.doubts import crowded_images, limited_images
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.learnable import require_examples, with_files
from maskrcnn.data.loading.loader import training_batches
from maskrcnn.errors import ConfigError, DataError, TrainingError
from maskrcnn.evaluation.coco import Report
from maskrcnn.evaluation.truth import require_objects
from maskrcnn.files.atomic import check_folder, remove_temporaries
from maskrcnn.files.lock import locked
from maskrcnn.files.streams import lasting_output
from maskrcnn.models.build import build_model
from maskrcnn.ops.device import resolve_precision
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import NAME, Progress, SavedRun, load_checkpoint
from maskrcnn.training.curves import curves
from maskrcnn.training.evaluate import match_categories
from maskrcnn.training.fingerprint import fingerprint
from maskrcnn.training.interrupts import interrupts
from maskrcnn.training.progress import METRICS, MetricsFile, TrainingBar, measuring
from maskrcnn.training.reports.reporters import Reporter
from maskrcnn.training.run import MODEL, Run
from maskrcnn.training.state import TrainingState
from maskrcnn.training.step import on_device
from maskrcnn.training.validation import require_validation
from maskrcnn.training.world import World, joined_world
from maskrcnn.weights.initialise import InitialWeights, WeightsFile, read_initial_weights, with_conventions


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
    weights: Path | str | WeightsFile | None = None,
    resume: bool | Literal["with changes"] = False,
    strict: bool = False,
    limit: int | None = None,
    reporters: Sequence[Reporter] = (),
) -> Summary:
    """Trains a model and leaves in `out`: model.safetensors, last.ckpt, metrics.jsonl, curves.png and, with validation
    data, report.html.

    Args:
        config: classes and category names are taken from the data set.
        data, val: a data set, its annotation file of any format, or the folder that holds it.
        weights: any detector that `maskrcnn.load` opens, or ImageNet backbone weights (file or name). A `WeightsFile`
            also says how to open it. A detector also brings its conventions, and the model and image settings that
            `config` leaves at their defaults.
        resume: continue the run in `out` from its last checkpoint, to the same weights as without the break. Other
            settings or data are refused, unless it is "with changes".
        strict: refuse broken annotations and images instead of skipping them.
        limit: number of training images, from the first on.
        reporters: are told about losses and evaluations beside metrics.jsonl (`training/reports/reporters.py`).

    Raises:
        ConfigError, DataError, WeightsError, TrainingError: one line says what cannot be used and what to do.
    """
    began = time.monotonic()
    if not isinstance(config, Config):
        raise ConfigError(f"expected a Config, such as maskrcnn.presets.preset('mask_rcnn_R_50_FPN'), found {config!r}")
    out = Path(out)
    check_folder(out)
    with lasting_output(), joined_world() as world, ExitStack() as held:
        _require_norms(config, world)
        saved = world.from_leader(lambda: _enter(out, held, resume=bool(resume)))
        given = config
        initial: InitialWeights | None = None
        if saved is not None and weights is not None:  # the settings of the run include those of the weights
            config = with_conventions(config, saved.config)
        elif weights is not None:
            initial = read_initial_weights(weights, config)
            config = initial.with_conventions(config)
        from_weights = [name for name in differing_settings(given, config) if name != "categories"]
        assumed = () if initial is None else initial.assumed
        dataset, validation, config = _read_data(config, data, val, strict, limit)
        config = _with_channels(config, dataset, saved)
        require_validation(config, validation)
        data_sets = {"train": dataset} | ({} if validation is None else {"val": validation})
        run = _begin(config, data_sets, initial, out, world)
        changed = [] if saved is None else run.restore(saved, changes=resume == "with changes")
        held.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(min(run.progress.threads, os.cpu_count() or 1))  # so that it ends with the same weights
        del saved, initial  # they may hold files in memory
        run.skipped = dict.fromkeys(dataset.problems)
        run.reporters = [MetricsFile(out), *reporters] if world.leads else []
        # Closing it ends the processes of the loader even if something keeps a reference to this frame.
        loading = closing(
            training_batches(dataset, config, start_step=run.step, strict=strict, rank=world.rank, processes=world.size)
        )
        showing = TrainingBar(config.train.steps, run.step, quiet=not world.leads)
        with interrupts() as run.interrupted, loading as batches, showing as bar:
            _say_beginning(run, dataset, from_weights, assumed, bar)
            for sentence in changed:
                bar.say(f"changed: {sentence}")
            if resume:
                run.repair(bar)
            run.train(on_device(batches, run.device), bar)
        if world.leads:
            with suppress(DataError):  # the run was interrupted before its first line of metrics
                curves(out / METRICS, out / "curves.png")
        return Summary(
            out=out,
            model=out / MODEL,
            checkpoint=out / NAME,
            steps=run.step,
            seconds=time.monotonic() - began,
            report=run.report,
            skipped=tuple(run.skipped),
            finished=run.finished,
        )


def _with_channels(config: Config, dataset: Dataset, saved: SavedRun | None) -> Config:
    """The config with measured channels. Those of the saved run stay, unless others are asked for."""
    names = config.image.channel_names
    if saved is not None and names in ((), saved.config.image.channel_names):
        return replace(config, image=replace(config.image, channels=saved.config.image.channels))
    return replace(config, image=measured_channels(config.image, dataset, measuring))


def _enter(out: Path, held: ExitStack, *, resume: bool) -> SavedRun | None:
    """Locks the folder of a run until `held` is closed, tidies it, and reads the checkpoint of a run to resume."""
    held.enter_context(locked(out))
    remove_temporaries(out)
    if resume:
        return load_checkpoint(out)
    _require_no_run(out)
    return None


def _require_norms(config: Config, world: World) -> None:
    """Raises ConfigError if a norm needs GPUs."""
    backbone, model = config.model.backbone, config.model
    norms = {getattr(backbone, "norm", ""), model.fpn_norm, model.box_head.norm}
    norms |= {model.mask_head.norm} if model.mask_head is not None else set()
    if world.size > 1 and world.device.type == "cpu" and "sync_batch_norm" in norms:
        raise ConfigError(
            "sync_batch_norm: PyTorch exchanges its statistics between GPUs only, found processes on CPUs; use "
            "group_norm or batch_norm"
        )


def _require_no_run(out: Path) -> None:
    if (out / NAME).exists():
        raise TrainingError(f"{out} already holds a run ({NAME}); continue it with --resume or choose another --out")
    if (out / MODEL).exists():
        raise TrainingError(f"{out} already holds a model ({MODEL}), which the run would replace; choose another --out")


def _begin(config: Config, data: Mapping[str, Dataset], initial: InitialWeights | None, out: Path, world: World) -> Run:
    """A new run.

    Args:
        data: the data sets: `train`, and `val` if there is one.
    """
    torch.manual_seed(config.train.seed)
    network = build_model(config)
    origin = "random weights" if initial is None else initial.fill(network, config)
    network.to(world.device)
    world.share_weights(network)
    return Run(
        config,
        network,
        TrainingState.begin(network, config.train),
        world,
        out,
        training=data["train"],
        validation=data.get("val"),
        data={name: fingerprint(part) for name, part in data.items()} | {"world": {"processes": world.size}},
        progress=Progress(origin=origin),
    )


def _say_beginning(
    run: Run, dataset: Dataset, from_weights: Sequence[str], assumed: Sequence[str], bar: TrainingBar
) -> None:
    """Says on what the run trains, which settings the weights have brought, what was assumed about them, and what is
    left out of the data."""
    dtype = resolve_precision(run.config.train.precision, run.device)
    name = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    processes = f" in {run.world.size} processes" if run.world.size > 1 else ""
    bar.say(
        f"{len(dataset)} images, {run.config.model.num_classes} classes, {run.progress.origin}, {run.device.type} "
        f"{name}{processes}, writing to {run.out}"
    )
    if threads.sentence:
        bar.say(threads.sentence)
    for channel in run.config.image.channels:
        bar.say(said(channel))
    augment = run.config.augment
    if len(run.config.image.channels) not in (0, 3) and (augment.saturation or augment.hue):
        bar.say("augment.saturation and augment.hue are left out, because they change RGB colours")
    if from_weights:
        bar.say(f"{len(from_weights)} settings come from the weights: {', '.join(from_weights[:4])}, ...")
    for sentence in assumed:
        bar.say(f"assumed: {sentence}")
    crowded = crowded_images(dataset, run.config.model.detect.max_detections)
    for note in (*dataset.notes, *crowded, *limited_images(dataset, run.config.train.max_objects)):
        bar.say(note)
    if run.skipped:
        bar.say(f"{len(run.skipped)} broken entries are left out, first: {dataset.problems[0]}")
        bar.say(f"all of them: maskrcnn data check {dataset.path}")


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
    validation = match_categories(config.categories, validation)
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
