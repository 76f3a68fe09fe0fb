"""Settings of anchors and of the region proposal network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskrcnn.config.rules import BoxLoss, BoxMean, GrowthBound, require


@dataclass(frozen=True)
class AnchorConfig:
    """Boxes around every cell of every level, P2 first. Ratio is height / width."""

    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    rounded: bool = False  # torchvision rounds the corners to whole pixels
    # Sides are rounded to whole pixels for an anchor as large as the level's stride, and then enlarged (Detectron,
    # maskrcnn-benchmark).
    whole_cells: bool = False
    # constant: the level's stride. grid: padded size // grid size, as torchvision computes it per batch.
    stride: Literal["constant", "grid"] = "constant"
    offset: float = 0.0  # centre of the first cell's anchors, in strides: a setting of Detectron2 and MMDetection

    def __post_init__(self) -> None:
        require(
            len({len(level) for level in self.sizes}) == 1,
            f"anchors.sizes needs as many sizes on every level (the RPN head is shared), found {self.sizes}",
        )
        require(
            all(value > 0 for level in (*self.sizes, self.ratios) for value in level),
            f"anchors.sizes and anchors.ratios must be positive, found {self.sizes} and {self.ratios}",
        )

    @property
    def per_cell(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)


@dataclass(frozen=True)
class RPNConfig:
    """Region proposal network (paper section 3, Ren et al. 2015; figures as in FPN)."""

    convs: int = 1  # 3x3 convolutions before the predictions
    channels: int | None = None  # of these convolutions, a setting of MMDetection and Matterport; None: of the features
    positive_iou: float = 0.7
    negative_iou: float = 0.3
    # The best anchors of an object are positive too if they overlap it by this (MMDetection 0.3); None: they are not.
    best_iou: float | None = 0.0
    # What such an anchor aims at. nearest: the object that it overlaps most. own: the one that made it positive, and of
    # several the last (MMDetection).
    best_aims: Literal["nearest", "own"] = "nearest"
    # Anchors left out of the loss: those that begin further than the first number of pixels before the image, or end
    # at the second number behind it or later (0 0 in some of MMDetection's configs; Detectron, whose boxes end a pixel
    # earlier, 0 1), and those of cells beyond the image padded for itself to a multiple of this (MMDetection).
    allowed_border: tuple[float, float] | None = None
    padded_to: int | None = None
    samples: int = 256  # anchors an image in the loss
    positive_fraction: float = 0.5
    # together: the best of all levels suppress each other (Matterport). apart: each level by itself, then merged.
    levels: Literal["apart", "together"] = "apart"
    pre_nms_train: int = 2000  # a level, or of all levels together
    pre_nms_test: int = 1000
    post_nms_train: int = 1000  # an image, all levels together
    post_nms_test: int = 1000
    # Whose best `post_nms_train` are kept in training: each image's, or the batch's (Detectron, maskrcnn-benchmark).
    post_nms_train_of: Literal["image", "batch"] = "image"
    nms_iou: float = 0.7
    min_size: float = 0.0  # proposals with a shorter side are dropped
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    growth_bound: GrowthBound = "above"
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: float = 1 / 9  # 0 is plain L1
    # What the sums of the losses are divided by. drawn: the anchors that were drawn. samples: `samples` an image,
    # also where fewer could be drawn (Detectron2).
    normaliser: Literal["drawn", "samples"] = "drawn"
    loss_box_over: BoxMean = "drawn"

    def __post_init__(self) -> None:
        require(self.convs > 0, f"rpn.convs must be positive, found {self.convs}")
        require(self.channels is None or self.channels > 0, f"rpn.channels must be positive, found {self.channels}")
        require(
            0 <= self.negative_iou <= self.positive_iou <= 1,
            f"rpn needs 0 <= negative_iou <= positive_iou <= 1, found {self.negative_iou} and {self.positive_iou}",
        )
