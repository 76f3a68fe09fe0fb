"""One step of training, and the losses of the steps since anybody looked. Nothing in a step waits for a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import TrainConfig
from maskrcnn.data.loader import Batch
from maskrcnn.errors import TrainingError
from maskrcnn.ops.device import in_precision
from maskrcnn.structures.tensors import map_tensors, to_device
from maskrcnn.training.optimiser import learning_rate


def train_step(
    losses_of: Callable[..., dict[str, Tensor]],
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    config: TrainConfig,
    step: int,
) -> dict[str, Tensor]:
    """One forward, backward and update, which leaves the weights alone where a loss is not finite.

    Args:
        losses_of: the network in training mode, or what `compiled` made of it.
        batch: on the device of the network.
        step: counted from 0; with the seed it decides what is drawn, so that a resumed run draws the same.

    Returns:
        every loss by name and their sum as `loss`, scalars on the device.
    """
    device = batch.images.pixels.device
    torch.manual_seed(int(np.random.SeedSequence((config.seed, step)).generate_state(1, np.uint64)[0] >> 1))
    torch.compiler.cudagraph_mark_step_begin()
    with in_precision(config.precision, device):
        losses = losses_of(batch.images, batch.targets)
    # A copy: what a replayed graph returns is overwritten by the next step.
    values = torch.stack(list(losses.values()))
    total = values.sum()
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    if config.clip_norm is not None:
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
    for group in optimiser.param_groups:
        group["lr"] = learning_rate(step, config)
    # Fused optimisers look at it on the device and then do nothing: mixed precision's way to skip a step.
    optimiser.found_inf = (~total.detach().isfinite()).to(torch.float32)  # type: ignore[attr-defined]
    optimiser.step()
    return {**dict(zip(losses, values.detach().unbind(), strict=True)), "loss": total.detach()}


class LossWindow:
    """Losses since the last line of the metrics. On a device they stay there until `read` waits for them."""

    def __init__(self) -> None:
        self._unread: list[tuple[int, Sequence[Any], dict[str, Tensor]]] = []
        self._sums: dict[str, float] = {}
        self.steps = 0

    def add(self, step: int, image_ids: Sequence[Any], losses: dict[str, Tensor]) -> None:
        """
        Args:
            step: how many steps there were with this one.
        """
        self._unread.append((step, image_ids, losses))

    def read(self) -> None:
        """
        Raises:
            TrainingError: a loss was not finite; the weights have not been changed by that step.
        """
        if not self._unread:
            return
        rows = torch.stack([torch.stack(list(losses.values())) for _, _, losses in self._unread]).tolist()
        for (step, image_ids, losses), row in zip(self._unread, rows, strict=True):
            values = dict(zip(losses, row, strict=True))
            wrong = [name for name, value in values.items() if not math.isfinite(value) and name != "loss"]
            if wrong:
                raise TrainingError(
                    f"step {step}: {', '.join(f'{name} is {values[name]}' for name in wrong)} on images "
                    f"{', '.join(map(str, image_ids))}; lower --train.learning-rate, raise --train.warmup-steps or set "
                    "--train.clip-norm 5; the last checkpoint is from before this step"
                )
            self._sums = {name: self._sums.get(name, 0.0) + value for name, value in values.items()}
        self.steps += len(self._unread)
        self._unread.clear()

    def means(self) -> dict[str, float]:
        """Of each loss over the steps that were read; begins a new window."""
        means = {name: value / self.steps for name, value in self._sums.items()}
        self._sums, self.steps = {}, 0
        return means


def on_device(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """The batches there, copied on a stream of their own: beside the computation of the step before."""
    if device.type != "cuda":
        yield from batches
        return
    copying = torch.cuda.Stream(device)
    for batch in batches:
        with torch.cuda.stream(copying):
            copied = to_device(batch, device)
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(copying)
        # Memory of the copying stream may be given out again only once the computing one has read it.
        map_tensors(copied, partial(_in_use, stream=computing))
        yield copied


def _in_use(tensor: Tensor, stream: torch.cuda.Stream) -> Tensor:
    tensor.record_stream(stream)
    return tensor
