"""Settings of RoI features and of what reads them: boxes, masks and keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from maskrcnn.config.rules import BoxLoss, HeadNorm, require, require_groups


@dataclass(frozen=True)
class RoIConfig:
    """From a box to features of one size (paper section 3)."""

    op: Literal["align", "pool", "warp"] = "align"  # RoIAlign; RoIPool and RoIWarp for the paper's ablation
    reduce: Literal["average", "max"] = "average"  # over the samples of a bin; RoIPool takes the maximum anyway
    sampling_ratio: int = 2  # samples a bin and axis; 0: as many as the bin has cells (Detectron2)
    canonical_level: int = 4  # k0 of FPN equation 1
    canonical_size: float = 224.0

    def __post_init__(self) -> None:
        require(self.sampling_ratio >= 0, f"rois.sampling_ratio must not be negative, found {self.sampling_ratio}")
        require(
            self.op != "pool" or self.reduce == "max",
            f"rois.op pool takes the maximum of the cells of a bin: set rois.reduce max, found {self.reduce}",
        )


@dataclass(frozen=True)
class BoxHeadConfig:
    """Second stage: sampling of RoIs, classification and box regression.

    The branch is two fully connected layers (FPN paper), or `convs` 3x3 convolutions with a norm and then
    `layers` fully connected ones: four and one in the group-norm paper and in torchvision's V2. No layers at all
    means the mean over the RoI, as after res5 with C4.

    Cascade R-CNN has further stages, each trained with its own overlap and weights on the boxes of the one before.
    """

    positive_iou: float = 0.5
    samples: int = 512  # RoIs an image in the loss
    positive_fraction: float = 0.25
    resolution: int = 7
    convs: int = 0
    conv_channels: int = 256
    norm: HeadNorm = "none"  # of the convolutions
    layers: int = 2
    hidden: int = 1024
    class_agnostic: bool = False
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: float = 1 / 9  # 0 is plain L1
    cascade_ious: tuple[float, ...] = ()  # of the stages after the first: 0.6 0.7
    cascade_weights: tuple[tuple[float, float, float, float], ...] = ()  # 20 20 10 10 and 30 30 15 15

    def __post_init__(self) -> None:
        require(self.layers >= 0, f"box_head.layers must not be negative, found {self.layers}")
        require(
            len(self.cascade_ious) == len(self.cascade_weights),
            "box_head.cascade_ious and box_head.cascade_weights need one entry for each stage after the first, "
            f"found {len(self.cascade_ious)} and {len(self.cascade_weights)}",
        )
        require(
            self.norm == "none" or self.convs > 0,
            f"box_head.norm {self.norm} is of the convolutions, and box_head.convs is {self.convs}: "
            "set box_head.convs 4 or box_head.norm none",
        )
        require_groups("box_head.conv_channels", self.conv_channels, "box_head.norm", self.norm)


@dataclass(frozen=True)
class PointRendConfig:
    """PointRend (Kirillov et al. 2020): the mask head is coarse, and an MLP refines it at chosen points."""

    layers: int = 3
    channels: int = 256
    train_points: int = 196  # a RoI
    oversample: float = 3.0  # random points drawn for each one that is chosen
    important: float = 0.75  # share chosen for being uncertain; the others stay random
    subdivision_steps: int = 5  # doublings from the coarse mask
    subdivision_points: int = 784  # cells computed anew after each

    def __post_init__(self) -> None:
        require(0 <= self.important <= 1, f"point_rend.important is a share, found {self.important}")
        require(self.oversample >= 1, f"point_rend.oversample must be at least 1, found {self.oversample}")


@dataclass(frozen=True)
class MaskHeadConfig:
    """Mask branch: convolutions and masks of twice `resolution`, or one of the other forms that are chosen here."""

    resolution: int = 14
    kind: Literal["fcn", "mlp"] = "fcn"  # mlp: the paper's table 2e
    convs: int = 4
    channels: int = 256
    norm: HeadNorm = "none"
    layers: int = 2  # fully connected ones of `mlp` and of PointRend's coarse head
    hidden: int = 1024  # their width
    loss: Literal["sigmoid", "softmax"] = "sigmoid"  # softmax: classes compete for each pixel, the paper's table 2b
    point_rend: PointRendConfig | None = None
    samples: int = 128  # most positive RoIs an image in the mask loss, drawn at random beyond that
    class_agnostic: bool = False

    def __post_init__(self) -> None:
        require_groups("mask_head.channels", self.channels, "mask_head.norm", self.norm)
        require(
            self.loss == "sigmoid" or not self.class_agnostic,
            "mask_head.loss softmax lets classes compete, and mask_head.class_agnostic leaves one: "
            "set mask_head.loss sigmoid or mask_head.class_agnostic False",
        )
        require(
            self.kind == "fcn" or self.norm == "none",
            f"mask_head.norm {self.norm} is of convolutions, and mask_head.kind is mlp: set mask_head.norm none",
        )
        require(
            self.point_rend is None or (self.kind == "fcn" and self.loss == "sigmoid" and self.norm == "none"),
            "mask_head.point_rend brings its own head: leave mask_head.kind fcn, loss sigmoid and norm none, "
            f"found {self.kind}, {self.loss} and {self.norm}",
        )


@dataclass(frozen=True)
class KeypointHeadConfig:
    """Keypoint branch (paper section 5). Its maps have four times `resolution`."""

    num_keypoints: int = 17
    resolution: int = 14
    convs: int = 8
    channels: int | tuple[int, ...] = 512  # of each of them, or a number for each (Detectron2's CONV_DIMS)
    samples: int = 128  # most positive RoIs an image in the loss, drawn at random beyond that

    def __post_init__(self) -> None:
        require(self.num_keypoints > 0, f"keypoint_head.num_keypoints must be positive, found {self.num_keypoints}")
        require(
            isinstance(self.channels, int) or len(self.channels) == self.convs,
            f"keypoint_head.channels needs a number for each of keypoint_head.convs {self.convs}, "
            f"found {self.channels}",
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each convolution."""
        return (self.channels,) * self.convs if isinstance(self.channels, int) else self.channels
