"""All that a training step changes, in one object that a checkpoint stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.config import TrainConfig
from maskrcnn.training.average import WeightAverage
from maskrcnn.training.optimiser import build_optimiser, learning_rate
from maskrcnn.training.restore import checked_count, checked_scaler, checked_tensors, matching_state, restored_state


@dataclass
class TrainingState:
    """
    Attributes:
        scaler: scales the loss in fp16, so that small gradients do not vanish; in other precisions it does nothing.
        average: the average of the weights, if there is one.
    """

    network: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: WeightAverage | None

    @classmethod
    def begin(cls, network: nn.Module, config: TrainConfig) -> TrainingState:
        """The state before the first step. The network must be on its device and have its initial weights."""
        device = next(network.parameters()).device
        scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        average = WeightAverage(network, config.average_decay) if config.ema else None
        return cls(network, build_optimiser(network, config), scaler, average)

    @property
    def result(self) -> nn.Module:
        """The network to evaluate and to write as the model: the average, if there is one."""
        return self.network if self.average is None else self.average.network

    def update(self, loss: Tensor, config: TrainConfig, step: int) -> None:
        """Changes the weights by their gradients. If the loss is not finite, they stay as they are.

        Args:
            loss: scalar on the device; the host does not wait for it.
            step: counted from 0.
        """
        optimiser, scaler = self.optimiser, self.scaler
        if config.clip_norm is not None:
            scaler.unscale_(optimiser)
            parameters = [p for group in optimiser.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, config) * group["rate"]
        if scaler.is_enabled():
            self._start_momentum()
            scaler.step(optimiser)
            scaler.update()
        else:
            # Fused optimisers read `found_inf` on the device and skip the step if it is 1, as the scaler also uses it.
            optimiser.found_inf = (~loss.isfinite()).to(torch.float32)  # type: ignore[attr-defined]
            optimiser.step()
        if self.average is not None:
            self.average.update(self.network)

    def _start_momentum(self) -> None:
        """Begins the momentum of SGD with zeros. The fused SGD leaves it uninitialised if it skips its first step."""
        if self.optimiser.defaults.get("momentum") and not self.optimiser.state:
            for group in self.optimiser.param_groups:
                for parameter in group["params"]:
                    self.optimiser.state[parameter] = {"momentum_buffer": torch.zeros_like(parameter)}

    def state_dict(self) -> dict[str, Any]:
        """Everything of it in tensors and plain data. Random numbers need no state: they follow from seed and step."""
        average = self.average
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            # The name under which `files.parts` looks first, so that the file opens as the model that it gives.
            "model": None if average is None else average.network.state_dict(),
            "average_updates": 0 if average is None else average.updates,
        }

    def load_state_dict(self, stored: dict[str, Any], *, begun: bool, changed: bool = False) -> None:
        """Fills it with what `state_dict` gave. Everything is checked before anything is filled.

        Args:
            begun: whether there was a step, after which every parameter has a state in the optimiser.
            changed: whether the settings may have changed. What does not fit them then begins anew: the optimiser, the
                scaler, the average.

        Raises:
            ValueError: it is the state of another network or optimiser, or damaged.
        """
        network = checked_tensors(self.network, stored["network"], "network")
        restore = matching_state if changed else restored_state
        optimiser = restore(self.optimiser, stored["optimiser"], begun=begun)
        scaler = self.scaler.state_dict()
        if not changed or bool(scaler) == bool(stored["scaler"]):
            scaler = checked_scaler(scaler, stored["scaler"])
        if self.average is not None:
            kept = stored["model"] is not None or not changed
            averaged = checked_tensors(self.average.network, stored["model"], "average") if kept else network
            self.average.updates = checked_count(stored["average_updates"], "average_updates")
            self.average.network.load_state_dict(averaged)
        self.network.load_state_dict(network)
        self.optimiser.load_state_dict(optimiser)
        self.scaler.load_state_dict(scaler)
