"""What to do when the memory is not enough for a training step."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from maskrcnn.config import TrainConfig
from maskrcnn.data.loading.loader import Batch
from maskrcnn.errors import TrainingError

# Plain RuntimeErrors on CPUs: of PyTorch's allocator (c10/core/impl/alloc_cpu.cpp), and of oneDNN, without a reason. A
# primitive that it cannot create lacks memory, as under `ulimit -v`. One that it does not have lacks a descriptor.
_ON_CPU = re.compile(r"DefaultCPUAllocator: can't allocate memory|could not create a primitive(?! descriptor)")


class TooLittleMemoryError(TrainingError):
    """The memory is not enough for a step with these settings."""


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether the error says that a device, or the machine, has no memory left."""
    return isinstance(error, torch.OutOfMemoryError) or _ON_CPU.search(str(error)) is not None


def out_of_memory(parts: Sequence[Batch], config: TrainConfig, processes: int) -> str:
    """What was too large, and the settings that need less memory.

    Args:
        parts: the batches that passed the network one after the other.
    """
    images = max(len(part.images) for part in parts)
    height, width = max((tuple(part.images.pixels.shape[2:]) for part in parts), key=lambda size: size[0] * size[1])
    found = f"out of memory with {images} images of {height}x{width} pixels at once"
    if images == 1:
        return (
            f"out of memory with one image of {height}x{width} pixels; lower --image.short-side and --image.long-side, "
            "set --augment.crop, or add --train.activation-checkpointing"
        )
    half, twice = -(-config.batch_size // 2), 2 * config.accumulate
    advice = f"set --train.batch-size {half} --train.accumulate {twice}, which gives the same losses"
    return f"{found}; {advice}" + ("" if processes > 1 else ", or add --train.auto-batch, which does so by itself")
