"""Settings of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskrcnn.config.rules import require

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """The training run."""

    steps: int = 90_000
    batch_size: int = 16
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.02
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_steps: int = 1000
    schedule: Literal["step", "cosine"] = "step"
    drops: tuple[float, ...] = (2 / 3, 8 / 9)  # fractions of `steps` at which the rate is divided by 10
    clip_norm: float | None = None  # largest L2 norm of the whole gradient
    # auto: bf16 where the processor multiplies it faster, else fp32.
    precision: Precision = "auto"
    # Compile the network, on CUDA into graphs that are replayed: the first steps take minutes. Batches then are padded
    # to a few sizes.
    compile: bool = False
    evaluate_every: int = 5000  # steps; 0: only at the end
    checkpoint_every: int = 1000  # steps
    workers: int = 2  # loader processes; 0 loads in the training process
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            require(getattr(self, name) > 0, f"train.{name} must be positive, found {getattr(self, name)}")
        for name in ("warmup_steps", "evaluate_every", "workers", "weight_decay"):
            require(getattr(self, name) >= 0, f"train.{name} must not be negative, found {getattr(self, name)}")
        require(self.learning_rate > 0, f"train.learning_rate must be positive, found {self.learning_rate}")
        require(
            all(0 < drop < 1 for drop in self.drops),
            f"train.drops are fractions of train.steps between 0 and 1, found {self.drops}",
        )
