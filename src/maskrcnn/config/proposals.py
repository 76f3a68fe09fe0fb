"""Settings of anchors and of the region proposal network."""

from __future__ import annotations

from dataclasses import dataclass

from maskrcnn.config.rules import BoxLoss, require


@dataclass(frozen=True)
class AnchorConfig:
    """Boxes around every cell of every level, P2 first. Ratio is height / width."""

    sizes: tuple[tuple[float, ...], ...] = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

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
    samples: int = 256  # anchors an image in the loss
    positive_fraction: float = 0.5
    pre_nms_train: int = 2000  # a level
    pre_nms_test: int = 1000
    post_nms_train: int = 1000  # an image, all levels together
    post_nms_test: int = 1000
    nms_iou: float = 0.7
    box_weights: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: float = 1 / 9  # 0 is plain L1

    def __post_init__(self) -> None:
        require(self.convs > 0, f"rpn.convs must be positive, found {self.convs}")
        require(self.channels is None or self.channels > 0, f"rpn.channels must be positive, found {self.channels}")
        require(
            0 <= self.negative_iou <= self.positive_iou <= 1,
            f"rpn needs 0 <= negative_iou <= positive_iou <= 1, found {self.negative_iou} and {self.positive_iou}",
        )
