"""One training step, and the losses since the last line of the metrics. No step waits for a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import TrainConfig
from maskrcnn.data.loading.loader import Batch
from maskrcnn.errors import TrainingError
from maskrcnn.models.losses import LossSum, mean_losses
from maskrcnn.models.norm import fixed_statistics
from maskrcnn.ops.device import in_precision
from maskrcnn.structures.tensors import map_tensors, to_device
from maskrcnn.training.state import TrainingState
from maskrcnn.training.world import World

LossSums = dict[str, LossSum]


def train_step(
    sums_of: Callable[..., LossSums],
    state: TrainingState,
    batches: Sequence[Batch],
    config: TrainConfig,
    step: int,
    world: World | None = None,
) -> dict[str, Tensor]:
    """Forward and backward passes of some batches, and one update by the gradients of all of them.

    The result is that of one large batch: every loss is divided by what is counted in all batches of all processes. For
    this, several batches first pass through the network without gradients. If a loss is not finite, the weights stay as
    they are.

    Args:
        sums_of: `loss_sums` of the network in training mode, or what `compiled` made of it.
        batches: images and targets on the device of the network.
        step: counted from 0. With the seed it decides the random numbers, so that a resumed run gets the same ones.
        world: the processes that train together; None for this one alone.

    Returns:
        Every loss by name, and their sum as `loss`: scalars on the device.
    """
    device = batches[0].images.pixels.device
    world = world or World(device)
    torch.manual_seed(int(np.random.SeedSequence((config.seed, step)).generate_state(1, np.uint64)[0] >> 1))
    sizes = [len(batch.images) for batch in batches]
    seeds = torch.randint(1 << 62, (world.size, sum(sizes)), device=device)[world.rank].split(sizes)

    def sums(number: int) -> LossSums:
        torch.compiler.cudagraph_mark_step_begin()
        with in_precision(config.precision, device):
            return sums_of(batches[number].images, replace(batches[number].targets, seeds=seeds[number]))

    divisors = None
    if len(batches) > 1:
        with torch.no_grad(), fixed_statistics(state.network):
            divisors = joint_divisors([sums(number) for number in range(len(batches))], world)
    state.optimiser.zero_grad(set_to_none=True)
    values: list[Tensor] = []
    for number in range(len(batches)):
        found = sums(number)
        losses = mean_losses(found, joint_divisors([found], world) if divisors is None else divisors)
        # This copies the losses, because the next batch overwrites what a replayed graph returns.
        part = torch.stack(list(losses.values()))
        state.scaler.scale(part.sum()).backward()
        values.append(part.detach())
    world.sum_gradients(state.network.parameters())
    value = world.sum(torch.stack(values).sum(0))
    total = value.sum()
    state.update(total, config, step)
    return {**dict(zip(losses, value.unbind(), strict=True)), "loss": total}


def joint_divisors(parts: Sequence[LossSums], world: World | None = None) -> dict[str, Tensor]:
    """The divisors of the losses in all batches of a step and in all processes, by the name of the loss."""
    own = {name: torch.stack([part[name].divisor for part in parts]).sum(0) for name in parts[0]}
    if world is None or world.size == 1:
        return own
    total = world.sum(torch.cat(list(own.values()))).split([len(value) for value in own.values()])
    return dict(zip(own, total, strict=True))


class DivergedError(TrainingError):
    """A loss was not finite.

    Attributes:
        step: the step of that loss, counted from 1. It has not changed the weights.
    """

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class LossWindow:
    """Losses since the last line of the metrics. They stay on the device until `read` waits for them."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, Sequence[Any], dict[str, Tensor]]] = []
        self._sums: dict[str, float] = {}
        self.steps = 0

    def add(self, step: int, image_ids: Sequence[Any], losses: dict[str, Tensor]) -> None:
        """Adds the scalar losses of a step, which is counted from 1."""
        self._pending.append((step, image_ids, losses))

    def read(self) -> None:
        """Fetches the losses that were added since the last call.

        Raises:
            DivergedError: a loss was not finite; that step has not changed the weights.
        """
        if not self._pending:
            return
        rows = torch.stack([torch.stack(list(losses.values())) for _, _, losses in self._pending]).tolist()
        for (step, image_ids, losses), row in zip(self._pending, rows, strict=True):
            values = dict(zip(losses, row, strict=True))
            wrong = [name for name, value in values.items() if not math.isfinite(value) and name != "loss"]
            if wrong:
                self._pending.clear()
                raise DivergedError(
                    step,
                    f"step {step}: {', '.join(f'{name} is {values[name]}' for name in wrong)} on images "
                    f"{', '.join(map(str, image_ids))}; lower --train.learning-rate, raise --train.warmup-steps or set "
                    "--train.clip-norm 5",
                )
            self._sums = {name: self._sums.get(name, 0.0) + value for name, value in values.items()}
        self.steps += len(self._pending)
        self._pending.clear()

    def means(self) -> dict[str, float]:
        """The mean of each loss over the steps that were read. Begins a new window."""
        means = {name: value / self.steps for name, value in self._sums.items()}
        self._sums, self.steps = {}, 0
        return means


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches on the device. On CUDA a second stream copies them while the previous step is computed."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = to_device(batch, device)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        # The memory may be reused only after the computing stream has read it.
        map_tensors(copied, partial(_record_stream, stream=computing))
        yield copied


def _record_stream(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor
