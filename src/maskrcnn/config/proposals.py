"""Settings of anchors and of the region proposal network."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn.config.rules import BoxLoss, require, require_layers


@dataclass(frozen=True)
class AnchorConfig:
    """Anchors of each level, from P2 on."""

    # square roots of the areas in pixels, one or several sizes for each level
    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)  # height divided by width

    def __post_init__(self) -> None:
        require(
            len({len(level) for level in self.sizes}) == 1,
            "anchors.sizes needs the same number of sizes on every level, because the levels share the RPN head, "
            f"found {self.sizes}",
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
    """Region proposal network (paper section 3, Ren et al. 2015)."""

    convs: int = 1  # 3x3 convolutions before the predictions
    channels: int | None = None  # channels of these convolutions; None: as many as the features have
    positive_iou: float = 0.7  # an anchor is positive if it overlaps an object by at least this IoU
    negative_iou: float = 0.3  # an anchor is negative if it overlaps every object by less than this IoU
    samples: int = 256  # anchors of each image that are sampled for the loss
    positive_fraction: float = 0.5  # share of positive anchors among them, at most
    pre_nms_train: int = 2000  # highest-scoring anchors of each level that enter non-maximum suppression in training
    pre_nms_test: int = 1000  # the same in prediction
    post_nms_train: int = 1000  # proposals of each image in training, at most
    post_nms_test: int = 1000  # the same in prediction
    nms_iou: float = 0.7  # non-maximum suppression drops a box that overlaps a higher-scoring one by more than this IoU
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)  # factors on the four box offsets x, y, w, h
    # smooth_l1: on the offsets (Girshick 2015); giou: on the boxes (Rezatofighi et al. 2019)
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: float = 1 / 9  # smooth L1 is quadratic below this difference; 0: plain L1

    def __post_init__(self) -> None:
        require_layers("rpn.convs", self.convs, 1)
        require(self.channels is None or self.channels > 0, f"rpn.channels must be positive, found {self.channels}")
        require(
            0 <= self.negative_iou <= self.positive_iou <= 1,
            f"rpn needs 0 <= negative_iou <= positive_iou <= 1, found {self.negative_iou} and {self.positive_iou}",
        )
