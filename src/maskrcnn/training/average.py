"""The exponential moving average of the weights, which is evaluated and written in place of the last weights."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A copy of a network whose weights follow those of the network slowly.

    Floating-point buffers, such as the statistics of batch norm, are averaged as the parameters are. Others are copied.
    The average moves faster in the first updates, so that the first weights do not stay in it for long.

    Attributes:
        network: the averaged network, in evaluation mode.
        updates: updates done. The decay of the next one follows from it, so a checkpoint must keep it.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.network = deepcopy(network).eval().requires_grad_(False)
        state = self.network.state_dict()  # tensors that share the memory of the network
        self._averaged = {name: value for name, value in state.items() if value.is_floating_point()}
        self._copied = {name: value for name, value in state.items() if not value.is_floating_point()}

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Moves the average towards the present weights. Nothing waits for the device."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        present = network.state_dict()
        torch._foreach_lerp_(list(self._averaged.values()), _of(present, self._averaged), 1 - decay)
        if self._copied:
            torch._foreach_copy_(list(self._copied.values()), _of(present, self._copied))


def _of(state: dict[str, Tensor], names: dict[str, Tensor]) -> list[Tensor]:
    return [state[name] for name in names]
