"""Settings of anchors and of the region proposal network."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn.config.ranges import BoxWeights, Channels, Count, Layers, NotNegative, Positive, Share, require_ranges
from maskrcnn.config.rules import BoxLoss, require


@dataclass(frozen=True)
class AnchorConfig:
    """Anchors of each level, from P2 on."""

    # square roots of the areas in pixels, one or several sizes for each level
    sizes: tuple[tuple[Positive, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[Positive, ...] = (0.5, 1.0, 2.0)  # height divided by width

    def __post_init__(self) -> None:
        require_ranges(self, "model.anchors")
        require(
            len({len(level) for level in self.sizes}) == 1,
            "anchors.sizes needs the same number of sizes on every level, because the levels share the RPN head, "
            f"found {self.sizes}",
        )
        require(
            self.per_cell > 0,
            f"anchors.sizes and anchors.ratios must not be empty, found {self.sizes} and {self.ratios}",
        )

    @property
    def per_cell(self) -> int:
        return len(self.sizes[0]) * len(self.ratios)


@dataclass(frozen=True)
class RPNConfig:
    """Region proposal network (paper section 3, Ren et al. 2015)."""

    convs: Layers = 1  # 3x3 convolutions before the predictions
    channels: Channels | None = None  # channels of these convolutions; None: as many as the features have
    positive_iou: Share = 0.7  # an anchor is positive if it overlaps an object by at least this IoU
    negative_iou: Share = 0.3  # an anchor is negative if it overlaps every object by less than this IoU
    samples: Count = 256  # anchors of each image that are sampled for the loss
    positive_fraction: Share = 0.5  # share of positive anchors among them, at most
    pre_nms_train: Count = 2000  # highest-scoring anchors of each level that enter non-maximum suppression in training
    pre_nms_test: Count = 1000  # the same in prediction
    post_nms_train: Count = 1000  # proposals of each image in training, at most
    post_nms_test: Count = 1000  # the same in prediction
    nms_iou: Share = 0.7  # non-maximum suppression drops a box that overlaps a higher-scoring one by more than this IoU
    box_weights: BoxWeights = (1.0, 1.0, 1.0, 1.0)  # factors on the four box offsets x, y, w, h
    # smooth_l1: on the offsets (Girshick 2015); giou: on the boxes (Rezatofighi et al. 2019)
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: NotNegative = 1 / 9  # smooth L1 is quadratic below this difference; 0: plain L1

    def __post_init__(self) -> None:
        require_ranges(self, "model.rpn")
        require(
            self.negative_iou <= self.positive_iou,
            f"rpn needs negative_iou <= positive_iou, found {self.negative_iou} and {self.positive_iou}",
        )
