"""Settings of RoI features and of the box, mask and keypoint heads that use them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskrcnn.config.ranges import (
    BoxWeights,
    Cells,
    Channels,
    Count,
    Doublings,
    Factor,
    FewOrZero,
    Layers,
    LayersOrZero,
    NotNegative,
    Positive,
    Share,
    require_ranges,
)
from maskrcnn.config.rules import BoxLoss, HeadNorm, require, require_groups


@dataclass(frozen=True)
class RoIConfig:
    """How the features of a RoI are pooled (paper section 3)."""

    op: Literal["align", "pool", "warp"] = "align"  # RoIAlign, or RoIPool and RoIWarp of the paper's ablation
    reduce: Literal["average", "max"] = "average"  # how the samples of a bin are combined; RoIPool needs max
    sampling_ratio: FewOrZero = 2  # samples of a bin in each direction; 0: as many as the bin has cells
    canonical_level: FewOrZero = 4  # pyramid level of a RoI of canonical_size (k0 in FPN equation 1)
    canonical_size: Positive = 224.0  # square root of the area of such a RoI, in pixels

    def __post_init__(self) -> None:
        require_ranges(self, "model.rois")
        require(
            self.op != "pool" or self.reduce == "max",
            f"rois.op pool takes the maximum of the cells of a bin: set rois.reduce max, found {self.reduce}",
        )


@dataclass(frozen=True)
class BoxHeadConfig:
    """The box head. In Cascade R-CNN, further stages refine the boxes of the stage before them."""

    positive_iou: Share = 0.5  # a RoI is positive if it overlaps an object by at least this IoU
    samples: Count = 512  # RoIs of each image that are sampled for the loss
    positive_fraction: Share = 0.25  # share of positive RoIs among them, at most
    resolution: Cells = 7  # cells of the RoI features in each direction
    convs: LayersOrZero = 0  # 3x3 convolutions; 4 in torchvision's V2
    conv_channels: Channels = 256  # channels of the convolutions
    norm: HeadNorm = "none"  # norm of the convolutions
    layers: LayersOrZero = 2  # fully connected layers after the convolutions; 0: the mean over the RoI, as with C4
    hidden: Channels = 1024  # channels of the fully connected layers
    class_agnostic: bool = False  # one box for all classes, instead of one for each
    # factors on the four box offsets x, y, w, h
    box_weights: BoxWeights = (10.0, 10.0, 5.0, 5.0)
    # smooth_l1: on the offsets (Girshick 2015); giou: on the boxes (Rezatofighi et al. 2019)
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: NotNegative = 1 / 9  # smooth L1 is quadratic below this difference; 0: plain L1
    cascade_ious: tuple[Share, ...] = ()  # positive_iou of the further stages of Cascade R-CNN, for example 0.6 0.7
    cascade_weights: tuple[BoxWeights, ...] = ()  # box_weights of the further stages

    def __post_init__(self) -> None:
        require_ranges(self, "model.box_head")
        stages = len(self.cascade_ious)
        require(stages <= 100, f"the length of box_head.cascade_ious must lie in 0..100, found {stages}")
        require(
            len(self.cascade_ious) == len(self.cascade_weights),
            "box_head.cascade_ious and box_head.cascade_weights need one entry for each stage after the first, "
            f"found {len(self.cascade_ious)} and {len(self.cascade_weights)}",
        )
        require(
            self.norm == "none" or self.convs > 0,
            f"box_head.norm {self.norm} belongs to convolutions, and box_head.convs is {self.convs}: "
            "set box_head.convs 4 or box_head.norm none",
        )
        require_groups("box_head.conv_channels", self.conv_channels, "box_head.norm", self.norm)


@dataclass(frozen=True)
class PointRendConfig:
    """PointRend (Kirillov et al. 2020): an MLP refines a coarse mask at chosen points."""

    layers: Layers = 3  # layers of the MLP
    channels: Channels = 256  # channels of the MLP
    train_points: Count = 196  # points of each RoI in training
    oversample: Factor = 3.0  # random candidates for the uncertain points, as a multiple of train_points
    important: Share = 0.75  # share of train_points that are the most uncertain candidates; the others are random
    subdivision_steps: Doublings = 5  # how often the resolution of the mask is doubled in prediction
    subdivision_points: Count = 784  # most uncertain points that are refined after each doubling

    def __post_init__(self) -> None:
        require_ranges(self, "model.mask_head.point_rend")


@dataclass(frozen=True)
class MaskHeadConfig:
    """The mask head (paper section 3)."""

    resolution: Cells = 14  # cells of the RoI features in each direction; masks have twice as many
    # fcn: convolutions; mlp: fully connected layers, as in the paper's table 2e
    kind: Literal["fcn", "mlp"] = "fcn"
    convs: LayersOrZero = 4  # 3x3 convolutions of fcn
    channels: Channels = 256  # channels of the convolutions
    upsampled_channels: Channels | None = None  # channels of the transposed convolution of fcn; None: `channels`
    norm: HeadNorm = "none"  # norm of the convolutions
    layers: LayersOrZero = 2  # fully connected layers of mlp and of PointRend's coarse head
    hidden: Channels = 1024  # channels of the fully connected layers
    # softmax: the classes compete for each pixel, as in the paper's table 2b
    loss: Literal["sigmoid", "softmax"] = "sigmoid"
    point_rend: PointRendConfig | None = None  # None: without PointRend
    samples: Count = 128  # positive RoIs of each image in the loss, at most
    class_agnostic: bool = False  # one mask for all classes, instead of one for each

    def __post_init__(self) -> None:
        require_ranges(self, "model.mask_head")
        require(
            self.upsampled_channels is None or (self.kind == "fcn" and self.point_rend is None),
            "mask_head.upsampled_channels belongs to mask_head.kind fcn without point_rend: leave it None, found "
            f"{self.upsampled_channels}",
        )
        require_groups("mask_head.channels", self.channels, "mask_head.norm", self.norm)
        require(
            self.loss == "sigmoid" or not self.class_agnostic,
            "mask_head.loss softmax lets classes compete, and mask_head.class_agnostic leaves only one class: "
            "set mask_head.loss sigmoid or mask_head.class_agnostic False",
        )
        require(
            self.kind == "fcn" or self.norm == "none",
            f"mask_head.norm {self.norm} belongs to convolutions, and mask_head.kind is mlp: set mask_head.norm none",
        )
        require(
            self.point_rend is None or (self.kind == "fcn" and self.loss == "sigmoid" and self.norm == "none"),
            "mask_head.point_rend brings its own head: set mask_head.kind fcn, loss sigmoid and norm none, "
            f"found {self.kind}, {self.loss} and {self.norm}",
        )


@dataclass(frozen=True)
class KeypointHeadConfig:
    """The keypoint head (paper section 5)."""

    num_keypoints: Count = 17  # keypoints of an object; training takes the number from the data
    resolution: Cells = 14  # cells of the RoI features in each direction; keypoint maps have four times as many
    convs: LayersOrZero = 8  # 3x3 convolutions
    channels: Channels | tuple[Channels, ...] = 512  # channels of the convolutions: one number for all, or one for each
    samples: Count = 128  # positive RoIs of each image in the loss, at most

    def __post_init__(self) -> None:
        require_ranges(self, "model.keypoint_head")
        require(
            isinstance(self.channels, int) or len(self.channels) == self.convs,
            f"keypoint_head.channels needs a number for each of keypoint_head.convs {self.convs}, "
            f"found {self.channels}",
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each convolution."""
        return (self.channels,) * self.convs if isinstance(self.channels, int) else self.channels
