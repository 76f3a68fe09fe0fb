"""Training from files: reads data and weights, begins or resumes a run, and trains it (`training/run.py`)."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from maskrcnn import threads
from maskrcnn.config import Config, ResNetConfig, TimmConfig
from maskrcnn.data.channels import said
from maskrcnn.data.doubts import crowded_images, labelled_keypoints, limited_images, unused_classes
from maskrcnn.data.editing.copies import shared_files
from maskrcnn.data.loading.loader import training_batches
from maskrcnn.errors import ConfigError, DataError, TrainingError, counted
from maskrcnn.evaluation.coco import Report
from maskrcnn.files.atomic import check_folder, remove_temporaries
from maskrcnn.files.lock import locked
from maskrcnn.files.streams import lasting_output
from maskrcnn.models.build import build_model
from maskrcnn.ops.device import resolve_precision
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.checkpoint import NAME, Progress, SavedRun, load_checkpoint
from maskrcnn.training.curves import curves
from maskrcnn.training.fingerprint import fingerprint
from maskrcnn.training.interrupts import interrupts
from maskrcnn.training.progress import METRICS, MetricsFile, TrainingBar
from maskrcnn.training.recipes.budget import FREE, Pace
from maskrcnn.training.recipes.recipe import Recipe
from maskrcnn.training.recipes.settle import Settled, Sources, settle
from maskrcnn.training.reports.reporters import Reporter
from maskrcnn.training.run import MODEL, Run
from maskrcnn.training.state import TrainingState
from maskrcnn.training.step import on_device
from maskrcnn.training.validation import require_validation
from maskrcnn.training.world import World, joined_world
from maskrcnn.weights.initialise import WeightsFile


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
        skipped: broken annotations and images of the training data that were left out, and why; of several processes
            those that the first one has met.
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
    config: Config | Recipe | None,
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
    """Trains a model and leaves in `out`: model.safetensors, last.ckpt, metrics.jsonl, curves.png, with a recipe
    recipe.json and, with validation data, report.html.

    Args:
        config: the settings, of which classes and category names are taken from the data set, or a recipe that finds
            them. None is the automatic recipe, `Recipe()`.
        data, val: a data set, its annotation file of any format, or the folder that holds it. Without `val`, a recipe
            holds images out to judge by.
        weights: any detector that `maskrcnn.load` opens, or ImageNet backbone weights (file or name). A `WeightsFile`
            also says how to open it. A detector also brings its conventions, and the model and image settings that
            `config` leaves at their defaults. None: those of the recipe; without a recipe, random ones, as with "none".
        resume: continue the run in `out` from its last checkpoint, to the same weights as without the break. Other
            settings or data are refused, unless it is "with changes". A recipe chooses nothing anew.
        strict: refuse broken annotations and images instead of skipping them.
        limit: number of training images, from the first on.
        reporters: are told about losses and evaluations beside metrics.jsonl (`training/reports/reporters.py`).

    Raises:
        ConfigError, DataError, WeightsError, TrainingError: one line says what cannot be used and what to do.
    """
    began = time.monotonic()
    recipe = config if isinstance(config, Recipe) else Recipe() if config is None else Recipe("none", config)
    out = Path(out)
    check_folder(out)
    with lasting_output(), joined_world() as world, ExitStack() as held:
        saved = world.from_leader(lambda: _enter(out, held, resume=bool(resume)))
        found = settle(recipe, Sources(data, val, weights, saved, strict, limit), world)
        _require_norms(found.config, world)
        require_validation(found.config, found.validation)
        run = _begin(found, out, world)
        changed = [] if saved is None else run.restore(saved, changes=resume == "with changes")
        held.callback(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(min(run.progress.threads, os.cpu_count() or 1))  # so that it ends with the same weights
        if found.plan is not None and world.leads:
            found.plan.write(out)
        del saved  # it may hold files in memory
        if run.progress.budget is not None:
            free = [name for name in FREE if recipe.name == "auto" and name not in recipe.given]
            run.pace = Pace(run.progress.budget, began if recipe.began is None else recipe.began, free)
        run.skipped = dict.fromkeys(found.training.problems)
        run.reporters = [MetricsFile(out), *reporters] if world.leads else []
        # Closing it ends the processes of the loader even if something keeps a reference to this frame.
        loading = closing(
            training_batches(
                found.training, found.config, start_step=run.step, strict=strict, rank=world.rank, processes=world.size
            )
        )
        showing = TrainingBar(None if run.pace else found.config.train.steps, run.step, quiet=not world.leads)
        with interrupts() as run.interrupted, loading as batches, showing as bar:
            _say_beginning(run, found, bar)
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


def _begin(found: Settled, out: Path, world: World) -> Run:
    """A new run."""
    config, initial = found.config, found.initial
    data = {"train": found.training} | ({} if found.validation is None else {"val": found.validation})
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
        training=found.training,
        validation=found.validation,
        data={
            "held_out": {"share": found.share_held_out},
            "budget": {"seconds": found.budget},
            "world": {"processes": world.size},
            **{name: fingerprint(part) for name, part in data.items()},
        },
        progress=Progress(origin=origin, budget=found.budget),
    )


def _say_beginning(run: Run, found: Settled, bar: TrainingBar) -> None:
    """Says what a recipe has chosen, on what the run trains, which settings the weights have brought, what was assumed
    about them, and what is left out of the data."""
    dataset = found.training
    for line in () if found.plan is None else found.plan.lines():
        bar.say(line)
    if run.step and run.finished:
        bar.say(
            f"{counted(run.progress.stale, 'evaluation')} did not improve the run, so it ended at step {run.step}; "
            "--resume-with-changes --train.patience N trains longer"
            if run.stopped_early
            else f"the run has done its {counted(run.step, 'step')}; a higher --train.steps trains longer"
        )
    if found.share_held_out and found.validation is not None:
        bar.say(
            f"{len(found.validation)} of {len(found.validation) + len(dataset)} images are held out to judge by: --val "
            "gives others, and --hold-out 0 trains on all of them"
        )
    elif found.share_held_out:
        bar.say(f"{len(dataset)} images are too few to hold some out: nothing judges this run; --val gives others")
    dtype = resolve_precision(run.config.train.precision, run.device)
    name = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[dtype]
    processes = f" in {run.world.size} processes" if run.world.size > 1 else ""
    resumed = f", continuing after step {run.step}" if run.step else ""
    bar.say(
        f"{counted(len(dataset), 'image')}, {counted(run.config.model.num_classes, 'class')}, {run.progress.origin}, "
        f"{run.device.type} {name}{processes}, writing to {run.out}{resumed}"
    )
    if threads.sentence:
        bar.say(threads.sentence)
    for channel in run.config.image.channels:
        bar.say(said(channel))
    augment = run.config.augment
    if len(run.config.image.channels) not in (0, 3) and (augment.saturation or augment.hue):
        bar.say("augment.saturation and augment.hue are left out, because they change RGB colours")
    if found.from_weights:
        listed = ", ".join(found.from_weights[:4]) + (", ..." if len(found.from_weights) > 4 else "")
        bar.say(f"{counted(len(found.from_weights), 'setting')} of the weights: {listed}")
    for sentence in () if found.initial is None else found.initial.assumed:
        bar.say(f"assumed: {sentence}")
    for note in (*dataset.notes, *_doubts(run, found)):
        bar.say(note)
    if run.skipped:
        bar.say(f"what is broken is left out ({counted(len(run.skipped), 'problem')}), first: {dataset.problems[0]}")
        bar.say(f"all of them: maskrcnn data check {dataset.path}")


def _doubts(run: Run, settled: Settled) -> list[str]:
    """What can be trained on and judged by but is probably not meant, one sentence each."""
    dataset, config = run.training, run.config
    found = [
        *unused_classes(dataset),
        *crowded_images(dataset, config.model.detect.max_detections),
        *limited_images(dataset, config.train.max_objects),
    ]
    if config.model.keypoint_head is None:
        found += labelled_keypoints(dataset)
    if settled.initial is None and not run.step:
        found += _frozen_at_random(config.model.backbone)
    if run.validation is not None and not settled.share_held_out and run.world.leads:
        found += shared_files(dataset, run.validation)
    size = config.train.images_per_step * run.world.size
    if size > len(dataset):
        found.append(
            f"a step learns from {size} images and the data set has {len(dataset)}, so a step shows images more than "
            "once; lower --train.batch-size"
        )
    return found


def _frozen_at_random(backbone: ResNetConfig | TimmConfig) -> list[str]:
    """One sentence if parts of a backbone with random weights are not trained."""
    if not isinstance(backbone, ResNetConfig):
        return []
    frozen = [counted(backbone.frozen_stages, "stage")] if backbone.frozen_stages else []
    frozen += ["all norms"] if backbone.norm == "frozen_batch_norm" else []
    if not frozen:
        return []
    return [
        f"the backbone begins at random weights, and training leaves {' and '.join(frozen)} of it as they are; begin "
        f"from trained ones (--weights resnet{backbone.depth}, others: maskrcnn weights list), or train all of it: "
        "--model.backbone.frozen-stages 0 --model.backbone.norm group_norm"
    ]
