"""The processes that train one model together, as `torchrun` starts them on one machine or several.

Each process has a rank, and the first one alone writes files. Sums over all ranks make the losses and the gradients
those of one large batch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist

from maskrcnn.errors import ConfigError, MaskRCNNError, TrainingError

_LOST = re.compile("gloo|NCCL|[Cc]onnection (closed|reset|refused)|Socket")  # in what the transports say
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets

# How long processes wait for the first one while it alone works, such as on validation losses. NCCL's default is ten
# minutes. A process that has ended is noticed at once in any case.
_PATIENCE = timedelta(hours=2)

Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """The processes of a run, seen from one of them.

    Attributes:
        device: of this process.
        rank: the number of this process.
        size: the number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the files and speaks."""
        return self.rank == 0

    def answering(self) -> AbstractContextManager[None]:
        """The context in which the error of a lost process becomes one line, if there are other processes."""
        return _others_answer() if self.size > 1 else nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """The sum of a tensor over all processes, without gradient."""
        if self.size == 1:
            return values
        total = values.detach().clone()
        with _others_answer():
            dist.all_reduce(total)
        return total

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, in the order of the ranks. They are pickled."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _others_answer():
            dist.all_gather_object(values, value)
        return values

    def share_weights(self, network: nn.Module) -> None:
        """Copies the weights and buffers of the first process to the others."""
        if self.size > 1:
            with _others_answer():
                for value in network.state_dict().values():
                    dist.broadcast(value, 0)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replaces the gradients by their sums over all processes, in one message. A missing one counts as zeros."""
        if self.size == 1:
            return
        given = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in given:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in given if parameter.grad is not None]
        total = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with _others_answer():
            dist.all_reduce(total)
        for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def from_leader(self, make: Callable[[], Value]) -> Value:
        """What `make` returns in the first process, which alone calls it. An error of ours is raised in all."""
        if self.size == 1:
            return make()
        told: list[Any] = [None, None]
        if self.leads:
            try:
                told[0] = make()
            except MaskRCNNError as error:
                told[1] = error
        with _others_answer():
            dist.broadcast_object_list(told)
        if told[1] is not None:
            raise told[1]
        return told[0]


@contextmanager
def joined_world() -> Iterator[World]:
    """Joins the processes that `torchrun` has started, until the block ends; without `torchrun`, there is one process.

    Raises:
        ConfigError: the environment of `torchrun` is not whole, or the machine has fewer GPUs than processes.
        TrainingError: the other processes cannot be reached.
    """
    gpus = torch.cuda.device_count()
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield World(torch.device("cuda" if gpus else "cpu"))
        return
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE is {size}: expected the environment that torchrun makes, found no {', '.join(missing)}; start "
            "with torchrun --nproc-per-node N -m maskrcnn train ..., or unset WORLD_SIZE"
        )
    rank, local = _number("RANK", 0), _number("LOCAL_RANK", 0)
    if gpus and local >= gpus:
        raise ConfigError(
            f"expected a GPU for each process of this machine, found {gpus} for process {local + 1}; lower "
            "--nproc-per-node"
        )
    device = torch.device("cuda", local) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    with _others_answer():
        dist.init_process_group("nccl" if gpus else "gloo", timeout=_PATIENCE, rank=rank, world_size=size)
    try:
        yield World(device, rank, size)
    finally:
        dist.destroy_process_group()


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{name}: expected a number, as torchrun sets it, found {text!r}") from None


@contextmanager
def _others_answer() -> Iterator[None]:
    """Turns the error of a lost process into one line."""
    try:
        yield
    except MaskRCNNError:  # one line already, of this process or about another one
        raise
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise TrainingError(
            f"another process of this run has ended or does not answer ({str(error).splitlines()[0][:200]}); its own "
            "message says why"
        ) from error
