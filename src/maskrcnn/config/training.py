"""Settings of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskrcnn.config.rules import require

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: int = 90_000  # training steps, each with one batch
    batch_size: int = 16  # images in a step
    optimizer: Literal["sgd", "adamw"] = "sgd"  # stochastic gradient descent, or AdamW
    learning_rate: float = 0.02  # highest rate, reached after warm-up
    momentum: float = 0.9  # momentum of sgd
    weight_decay: float = 1e-4  # weight decay of the optimizer
    warmup_steps: int = 1000  # steps in which the learning rate rises to its highest value
    schedule: Literal["step", "cosine"] = "step"  # how the learning rate falls: at `drops`, or along a cosine to zero
    drops: tuple[float, ...] = (2 / 3, 8 / 9)  # fractions of `steps` after which the rate is divided by 10
    clip_norm: float | None = None  # gradients with a larger L2 norm are scaled down to it; None: no clipping
    precision: Precision = "auto"  # auto: bf16 if faster, else fp32
    # Compile the network; on CUDA its graphs are replayed. The first steps then take minutes, and batches are padded to
    # a few sizes.
    compile: bool = False
    evaluate_every: int = 5000  # steps between evaluations; 0: at the end
    checkpoint_every: int = 1000  # steps between checkpoints
    workers: int = 2  # processes that load images; 0: none
    seed: int = 0  # seed of the random numbers

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
