"""Settings of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from maskrcnn.config.ranges import (
    Count,
    CountOrZero,
    FewOrZero,
    InnerShare,
    NotNegative,
    Positive,
    Range,
    Seed,
    require_ranges,
)

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: Count = 90_000  # training steps, each with one batch
    batch_size: Count = 16  # images in a step
    optimizer: Literal["sgd", "adamw"] = "sgd"  # stochastic gradient descent, or AdamW
    learning_rate: Positive = 0.02  # highest rate, reached after warm-up
    momentum: Annotated[float, Range(0, 0.999999)] = 0.9  # momentum of sgd
    weight_decay: NotNegative = 1e-4  # weight decay of the optimizer
    warmup_steps: CountOrZero = 1000  # steps in which the learning rate rises to its highest value
    schedule: Literal["step", "cosine"] = "step"  # how the learning rate falls: at `drops`, or along a cosine to zero
    drops: tuple[InnerShare, ...] = (2 / 3, 8 / 9)  # fractions of `steps` after which the rate is divided by 10
    clip_norm: Positive | None = None  # gradients with a larger L2 norm are scaled down to it; None: no clipping
    precision: Precision = "auto"  # auto: bf16 if faster, else fp32
    # Compile the network; on CUDA its graphs are replayed. The first steps then take minutes, and batches are padded to
    # a few sizes.
    compile: bool = False
    evaluate_every: CountOrZero = 5000  # steps between evaluations; 0: at the end
    checkpoint_every: Count = 1000  # steps between checkpoints
    max_objects: Count = 1000  # annotations of an image in a step, at most; the others are left out at random
    workers: FewOrZero = 2  # processes that load images; 0: none
    seed: Seed = 0  # seed of the random numbers

    def __post_init__(self) -> None:
        require_ranges(self, "train")
