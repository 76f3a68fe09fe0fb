"""What a recipe wants to know of the machine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from maskrcnn.errors import counted
from maskrcnn.threads import usable_cores
from maskrcnn.training.world import World

_GB = 1e9
# Detectron2 trains 2 images of 800 x 1100 pixels with ResNet-50-FPN in 3.4 GB (its model zoo), of which the network,
# its gradients and the optimiser take about 0.7 GB.
_NETWORK_GB, _IMAGE_GB, _IMAGE_PIXELS = 0.7, 1.35, 800 * 1100
_USABLE = 0.6  # of the memory of a GPU, as crowded images need more than the mean


@dataclass(frozen=True)
class Hardware:
    """
    Attributes:
        device: `cpu` or `cuda`.
        cores: of the processor that this process may use.
        memory_gb: of one GPU; 0 on a CPU.
        processes: that train together.
    """

    device: str
    cores: int
    memory_gb: float = 0.0
    processes: int = 1

    @property
    def has_gpu(self) -> bool:
        return self.device == "cuda"

    @property
    def name(self) -> str:
        """In words, for a reason."""
        return f"a GPU of {self.memory_gb:.0f} GB" if self.has_gpu else f"a CPU, {counted(self.cores, 'core')}"

    def batch(self, pixels: float, most: int) -> int:
        """Images that one process trains at once: 2 on a CPU, on a GPU the power of 2 that fits its memory.

        Args:
            pixels: of one network input.
            most: images, at most.
        """
        fits = 2.0
        if self.has_gpu:
            fits = (_USABLE * self.memory_gb - _NETWORK_GB) / (_IMAGE_GB * pixels / _IMAGE_PIXELS)
        found = 1
        while 2 * found <= min(fits, most):
            found *= 2
        return found


def this_machine(world: World) -> Hardware:
    """The machine on which this process runs."""
    cores = len(usable_cores())
    memory = torch.cuda.get_device_properties(world.device).total_memory / _GB if world.device.type == "cuda" else 0.0
    return Hardware(world.device.type, cores, memory, world.size)
