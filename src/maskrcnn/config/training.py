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
    Share,
    require_ranges,
)
from maskrcnn.config.rules import require

Precision = Literal["auto", "fp32", "bf16", "fp16"]
RecipeName = Literal["auto", "1x", "3x", "lsj-100", "lsj-200", "lsj-400", "none"]


@dataclass(frozen=True)
class TrainConfig:
    """How the model is trained."""

    steps: Count = 90_000  # updates of the weights
    batch_size: Count = 16  # images in one forward pass
    accumulate: Count = 1  # batches in a step, whose gradients are added; the losses are those of one large batch
    # If the memory is not enough for a batch, halve the images that pass the network together, and go on with the same
    # losses. This also holds for the rest of the run.
    auto_batch: bool = False
    optimizer: Literal["sgd", "adamw"] = "sgd"  # stochastic gradient descent, or AdamW
    learning_rate: Positive = 0.02  # highest rate, reached after warm-up
    backbone_rate: Positive = 1.0  # factor on the learning rate of the backbone
    # Factor on the rate of each block of the backbone for every block between it and the heads; 1: the same rate.
    layer_decay: Annotated[float, Range(0, 1)] = 1.0
    momentum: Annotated[float, Range(0, 0.999999)] = 0.9  # momentum of sgd, and the first beta of adamw
    weight_decay: NotNegative = 1e-4  # weight decay of the optimizer; biases and norms have none
    warmup_steps: CountOrZero = 1000  # steps in which the learning rate rises to its highest value
    schedule: Literal["step", "cosine"] = "step"  # how the learning rate falls: at `drops`, or along a cosine to zero
    drops: tuple[InnerShare, ...] = (2 / 3, 8 / 9)  # fractions of `steps` after which the rate is divided by 10
    clip_norm: Positive | None = None  # gradients with a larger L2 norm are scaled down to it; None: no clipping
    precision: Precision = "auto"  # auto: bf16 if faster, else fp32
    ema: bool = False  # evaluate and write an exponential moving average of the weights
    ema_decay: Share | None = None  # its decay; None: 0.9999, or 1 - 20 / steps if that is less
    # Compile the network; on CUDA its graphs are replayed. The first steps then take minutes, and batches are padded to
    # a few sizes.
    compile: bool = False
    # Images of a rare class come more often: sqrt(threshold / share of images with the class) times an epoch, at least
    # once (repeat-factor sampling, Gupta et al. 2019). 0: every image once.
    repeat_threshold: Share = 0.0
    class_weights: tuple[NotNegative, ...] = ()  # weights in loss_class, one for each category by id; none: all 1
    # Compute the blocks of the ResNet twice instead of keeping their activations: less memory, about a fifth more time.
    activation_checkpointing: bool = False
    # Images from which the statistics of trained batch norm are computed anew before an evaluation; 0: none.
    batch_norm_images: CountOrZero = 0
    evaluate_every: CountOrZero = 5000  # steps between evaluations; 0: at the end
    validation_losses: bool = False  # an evaluation also computes the losses on the validation data
    # The figure by which the model file is chosen: AP (of masks, else keypoints, else boxes), masks.AP50, boxes.AP.NAME
    # of a class, or a validation loss such as loss or loss_mask.
    best_metric: str = "AP"
    patience: CountOrZero = 0  # evaluations without a better best_metric after which the run ends; 0: it does not
    checkpoint_every: Count = 1000  # steps between checkpoints
    keep_checkpoints: Count = 2  # the latest checkpoints that are kept
    max_objects: Count = 1000  # annotations of an image in a step, at most; the others are left out at random
    workers: FewOrZero = 2  # processes that load images; 0: none
    seed: Seed = 0  # seed of the random numbers

    def __post_init__(self) -> None:
        require_ranges(self, "train")
        require(
            not (self.compile and self.activation_checkpointing),
            "train.compile decides by itself what is computed twice: leave train.activation_checkpointing False",
        )

    @property
    def images_per_step(self) -> int:
        """Images whose gradients are added before the weights change."""
        return self.batch_size * self.accumulate

    @property
    def average_decay(self) -> float:
        """The decay of the average of the weights. It then holds about the last twentieth of a run, or 10,000 steps."""
        return max(0.0, min(0.9999, 1 - 20 / self.steps)) if self.ema_decay is None else self.ema_decay
