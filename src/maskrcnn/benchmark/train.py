"""Compares our training steps with torchvision's: the same weights, images and optimiser, in turns in one process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maskrcnn.benchmark.measure import Comparison, Sitting, Track, no_track, open_device
from maskrcnn.benchmark.memory import Memory, SideName, compare_memory, memory_to_dict
from maskrcnn.benchmark.pair import (
    Pair,
    build_theirs,
    make_pair,
    stored_ours,
    stored_theirs,
    v1_config,
    without_sampling,
)
from maskrcnn.benchmark.settings import Timing, TrainSettings
from maskrcnn.config import AugmentConfig, Config
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import Batch, collate
from maskrcnn.data.loading.sample import Sample
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.data.shapes import write_shapes
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import compiled, in_precision
from maskrcnn.structures.tensors import to_device
from maskrcnn.training.optimiser import build_optimiser, learning_rate
from maskrcnn.training.state import TrainingState
from maskrcnn.training.step import train_step

LOSS = 1e-4  # largest relative difference of a loss
# torchvision's name -> ours
LOSSES = {
    "loss_objectness": "loss_rpn_class",
    "loss_rpn_box_reg": "loss_rpn_box",
    "loss_classifier": "loss_class",
    "loss_box_reg": "loss_box",
    "loss_mask": "loss_mask",
}


@dataclass(frozen=True)
class Data:
    """The same batch for both sides; torchvision takes (3, H, W) float32 images in 0..1, and dictionaries."""

    ours: Batch
    their_images: list[Tensor]
    their_targets: list[dict[str, Tensor]]


@dataclass(frozen=True)
class TrainReport:
    """
    Attributes:
        losses: our name of a loss -> our value and torchvision's, with nothing sampled at random.
        times: seconds per step: forward, backward and update.
        memory: of "ours" and "torchvision"; empty if it was not measured.
    """

    settings: TrainSettings
    environment: dict[str, Any]
    losses: dict[str, tuple[float, float]]
    times: Comparison
    memory: dict[str, Memory | None]

    @property
    def agree(self) -> bool:
        return all(abs(ours - theirs) <= LOSS * abs(theirs) for ours, theirs in self.losses.values())

    def line(self) -> str:
        verdict = "losses agree" if self.agree else "LOSSES DIFFER"
        values = ", ".join(f"{name} {ours:.5f} and {theirs:.5f}" for name, (ours, theirs) in self.losses.items())
        return f"{verdict} (ours and torchvision's, without sampling, to a relative {LOSS:g}): {values}"

    def to_dict(self) -> dict[str, Any]:
        return {
            "bench": "train",
            "environment": self.environment,
            "settings": asdict(self.settings),
            "agreement": {
                "agree": self.agree,
                **{name: {"ours": ours, "torchvision": theirs} for name, (ours, theirs) in self.losses.items()},
            },
            "seconds": self.times.to_dict(),
            "memory_bytes": memory_to_dict(self.memory),
        }


def bench_train(settings: TrainSettings, timing: Timing, track: Track = no_track) -> TrainReport:
    """Compares training steps on the generated images of `maskrcnn demo`.

    Raises:
        ConfigError: the device does not exist.
    """
    sitting = Sitting(timing, open_device(timing.device), track)
    with tempfile.TemporaryDirectory(prefix="maskrcnn-bench-") as name:
        folder = Path(name)
        losses, times = _in_this_process(folder, settings, sitting)
        # Both networks are freed by now, so that the memory of each is measured alone.
        alone = partial(_alone, folder, settings, timing, sitting.device)
        memory = compare_memory(alone, sitting.device) if timing.memory else {}
    return TrainReport(settings, sitting.environment(), losses, times, memory)


def train_config(settings: TrainSettings, *, compile: bool = False) -> Config:
    """The settings that both sides follow, without augmentation.

    With `compile`, mask targets use two samples per cell and axis, as in our own presets. torchvision's number of
    samples depends on the box, which would break the graph.
    """
    config = replace(v1_config(settings.size, settings.size), augment=AugmentConfig(flip_horizontal=0.0))
    if not compile:
        return config
    masks = replace(config.conventions.masks, target_sampling_ratio=2)
    return replace(config, conventions=replace(config.conventions, masks=masks))


def _in_this_process(
    folder: Path, settings: TrainSettings, sitting: Sitting
) -> tuple[dict[str, tuple[float, float]], Comparison]:
    """Losses and times. Writes the weights to `folder`."""
    config, timing = train_config(settings), sitting.timing
    data = generate_batch(folder, settings, config)
    pair = make_pair(config, data.their_images)
    pair.store(folder)
    losses = losses_without_sampling(pair, data)
    compiled_config = train_config(settings, compile=timing.compile)
    ours = our_steps(stored_ours(folder, compiled_config, sitting.device), data, compiled_config, timing)
    return losses, sitting.in_turns(ours, their_steps(pair.theirs.to(sitting.device), data, config, timing))


def our_steps(network: MaskRCNN, data: Data, config: Config, timing: Timing) -> Callable[[int], object]:
    """A function that runs one of our training steps, given its number, as `maskrcnn train` does."""
    device = network.pixel_mean.device
    settings = replace(config.train, precision=timing.precision)
    state = TrainingState.begin(network.train(), settings)
    sums_of = compiled(network.loss_sums, device) if timing.compile else network.loss_sums
    batch = to_device(data.ours, device)
    return lambda step: train_step(sums_of, state, [batch], settings, step)


def their_steps(model: nn.Module, data: Data, config: Config, timing: Timing) -> Callable[[int], object]:
    """A function that runs one training step of torchvision's network, given its number, with our optimiser."""
    device = next(model.parameters()).device
    model.train()
    model.transform._skip_resize = True  # type: ignore[union-attr]  # ours does not resize either
    optimiser = build_optimiser(model, config.train)
    images = [image.to(device) for image in data.their_images]
    targets = [{name: value.to(device) for name, value in target.items()} for target in data.their_targets]

    def step(number: int) -> Tensor:
        with in_precision(timing.precision, device):
            losses = model(images, targets)
        total = torch.stack(list(losses.values())).sum()
        optimiser.zero_grad(set_to_none=True)
        total.backward()
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(number, config.train)
        optimiser.step()
        return total.detach()

    return step


@torch.no_grad()
def losses_without_sampling(pair: Pair, data: Data) -> dict[str, tuple[float, float]]:
    """Our name of a loss -> our value and torchvision's, in float32 on the CPU; see `without_sampling`."""
    config = without_sampling(pair.config)
    ours, theirs = build_model(config).train(), build_theirs(config).train()
    ours.load_state_dict(pair.ours.state_dict())
    theirs.load_state_dict(pair.theirs.state_dict())
    theirs.transform._skip_resize = True  # type: ignore[union-attr]
    found = ours(data.ours.images, data.ours.targets)
    expected = theirs(data.their_images, data.their_targets)
    return {ours: (float(found[ours]), float(expected[theirs])) for theirs, ours in LOSSES.items()}


def generate_batch(folder: Path, settings: TrainSettings, config: Config) -> Data:
    """A batch of generated images for both sides, read as in training."""
    dataset = read_dataset(write_shapes(folder, "train", settings.batch_size, size=settings.size))
    rng = np.random.default_rng(0)
    samples = [training_sample(dataset, i, config, rng) for i in range(settings.batch_size)]
    return Data(
        collate(samples, config.image),
        [sample.image.float() / 255 for sample in samples],
        [their_target(sample) for sample in samples],
    )


def their_target(sample: Sample) -> dict[str, Tensor]:
    """torchvision's target, with 1-based labels and (N, H, W) uint8 masks."""
    masks = np.zeros((len(sample.boxes), *sample.frame.original_hw), dtype=np.uint8)
    for mask, (bitmap, (x, y)) in zip(masks, sample.crops, strict=True):
        mask[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
    return {
        "boxes": torch.from_numpy(sample.boxes),
        "labels": torch.from_numpy(sample.labels) + 1,
        "masks": torch.from_numpy(masks),
    }


def _alone(
    folder: Path, settings: TrainSettings, timing: Timing, device: torch.device, side: SideName
) -> Callable[[], object]:
    """A call by which one side alone runs a training step, with the weights in `folder`."""
    config = train_config(settings, compile=timing.compile and side == "ours")
    data = generate_batch(folder, settings, config)
    if side == "ours":
        return partial(our_steps(stored_ours(folder, config, device), data, config, timing), 0)
    return partial(their_steps(stored_theirs(folder, config, device), data, config, timing), 0)
