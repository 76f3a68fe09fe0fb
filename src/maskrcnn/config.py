"""All settings as frozen dataclasses, validated when they are built. Imports neither torch nor any file.

Names follow the paper and the field. Lengths are pixels, of the network input unless a field says
otherwise. Rules in which frameworks differ are fields, so that the model code never asks where a
model came from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from maskrcnn.errors import ConfigError

# fixed_batch_norm: the statistics stay, weight and bias are trained (MMDetection's norm_eval); frozen: both stay.
Norm = Literal["frozen_batch_norm", "fixed_batch_norm", "batch_norm", "sync_batch_norm", "group_norm"]
HeadNorm = Literal["none", "batch_norm", "sync_batch_norm", "group_norm"]
NORM_GROUPS = 32  # of group norm (Wu & He 2018)
# smooth_l1: on the four offsets (Girshick 2015). giou: on the decoded box (Rezatofighi et al. 2019).
BoxLoss = Literal["smooth_l1", "giou"]
# Of the box loss. drawn: its sum over those drawn (Fast R-CNN). offsets: mean over the four offsets of the positives
# (Matterport).
BoxMean = Literal["drawn", "offsets"]
# Of the enlargement that a prediction may ask for. above: 62.5 times a side (Detectron). both: nor less than 1/62.5 of
# it (MMDetection). none: any (Matterport).
GrowthBound = Literal["above", "both", "none"]


def _require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def _require_groups(what: str, channels: int, setting: str, norm: str) -> None:
    _require(
        norm != "group_norm" or channels % NORM_GROUPS == 0,
        f"{setting} group_norm works on {NORM_GROUPS} groups of channels: {what} must be a multiple of {NORM_GROUPS}, "
        f"found {channels}; change it or choose another norm",
    )


@dataclass(frozen=True)
class Category:
    """One class of the data set: its id there and its name. Labels are positions in `Config.categories`."""

    id: int
    name: str
    keypoints: tuple[str, ...] = ()  # their names; a class without keypoints has none
    skeleton: tuple[tuple[int, int], ...] = ()  # limbs for drawing, pairs of 0-based positions in `keypoints`

    def __post_init__(self) -> None:
        _require(
            len(set(self.keypoints)) == len(self.keypoints),
            f"category {self.name}: expected keypoints with names of their own, found {', '.join(self.keypoints)}",
        )
        _require(
            all(0 <= end < len(self.keypoints) for limb in self.skeleton for end in limb),
            f"category {self.name}: skeleton joins positions 0..{len(self.keypoints) - 1} of its "
            f"{len(self.keypoints)} keypoints, found {self.skeleton}",
        )


@dataclass(frozen=True)
class ImageConfig:
    """How an image becomes network input, in prediction and as the base of the training augmentation.

    The scale is, in this order: `fixed_size` (fit inside, pad to exactly that size), `scale` (the same
    enlargement for every image, for data whose objects have one natural size), or `short_side` and
    `long_side` (paper section 3.1). `long_side` always caps the result except with `fixed_size`.
    """

    short_side: int = 800
    long_side: int = 1333
    min_scale: float = 0.0  # no image is made smaller than this times itself to reach short_side; Matterport: 1
    scale: float | None = None
    fixed_size: tuple[int, int] | None = None  # (height, width)
    divisor: int = 32  # the batch is padded at bottom and right to a multiple of this
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)  # RGB, 0..255
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    # Bars that centre the image and that the network sees as black image, as Matterport has them: up to long_side x
    # long_side, or to the next multiples of `divisor`. none: padding at bottom and right, zero once normalised.
    letterbox: Literal["none", "square", "divisor"] = "none"
    # antialias: uint8 in and out, a filter that widens when the image shrinks. pil: the same by PIL, whose rounding
    # differs in a few values by one grey level (Detectron2). bilinear: float, no antialiasing, like torchvision.
    # opencv: uint8 between the four nearest pixels, with OpenCV's rounding (MMDetection).
    # truncated: uint8 in and out, no antialiasing, black beyond the border, like scikit-image in Matterport.
    kernel: Literal["antialias", "pil", "bilinear", "opencv", "truncated"] = "antialias"
    # Of the resized height and width. half_even: as Python; long_side then caps only what rounds to more (Matterport).
    # short_side: the short side is whole, the long one its multiple rounded down (maskrcnn-benchmark).
    rounding: Literal["round", "floor", "half_even", "short_side"] = "round"
    # Pixels and boxes move by the scale itself, not by the ratio of the whole sizes that it was rounded to (Detectron).
    exact_scale: bool = False

    def __post_init__(self) -> None:
        _require(
            0 < self.short_side <= self.long_side,
            f"image.short_side must lie in 1..long_side, found {self.short_side} with long_side {self.long_side}",
        )
        _require(self.scale is None or self.scale > 0, f"image.scale must be positive, found {self.scale}")
        _require(
            self.scale is None or self.fixed_size is None,
            "image.scale and image.fixed_size both set the size of the image: leave one of them None",
        )
        _require(self.divisor > 0, f"image.divisor must be positive, found {self.divisor}")
        _require(self.min_scale >= 0, f"image.min_scale must not be negative, found {self.min_scale}")
        _require(
            self.letterbox == "none" or self.fixed_size is None,
            "image.letterbox and image.fixed_size both set the size of the network input: set letterbox none or "
            "fixed_size None",
        )
        _require(
            self.letterbox != "square" or self.long_side % self.divisor == 0,
            f"image.letterbox square makes every network input long_side x long_side: image.long_side must be a "
            f"multiple of image.divisor {self.divisor}, found {self.long_side}",
        )
        _require(
            not self.exact_scale or (self.kernel == "bilinear" and self.letterbox == "none"),
            "image.exact_scale is of an image that is resized alone and by floating point: set image.kernel bilinear "
            f"and image.letterbox none, found {self.kernel} and {self.letterbox}",
        )
        if self.fixed_size is not None:
            _require(
                all(side > 0 and side % self.divisor == 0 for side in self.fixed_size),
                f"image.fixed_size must be positive multiples of image.divisor {self.divisor}, found {self.fixed_size}",
            )


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of a training image. Geometry composes into one matrix; colour follows it."""

    scale_jitter: tuple[float, float] = (1.0, 1.0)  # factor on the scale that ImageConfig gives, drawn log-uniformly
    crop: tuple[int, int] | None = None  # (height, width) of a random window of the scaled image
    flip_horizontal: float = 0.5  # probability
    flip_vertical: float = 0.0  # probability
    quarter_turns: bool = False  # rotate by 0, 90, 180 or 270 degrees: only where up and down mean nothing
    brightness: float = 0.0  # strengths as in torchvision's ColorJitter
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        low, high = self.scale_jitter
        _require(0 < low <= high, f"augment.scale_jitter must be 0 < low <= high, found {self.scale_jitter}")
        for name in ("flip_horizontal", "flip_vertical"):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name} is a probability, found {getattr(self, name)}")
        for name in ("brightness", "contrast", "saturation"):
            _require(0 <= getattr(self, name) <= 1, f"augment.{name} must lie in 0..1, found {getattr(self, name)}")
        _require(0 <= self.hue <= 0.5, f"augment.hue must lie in 0..0.5, found {self.hue}")


@dataclass(frozen=True)
class ResNetConfig:
    """The backbone (He et al. 2016). Stage numbers are the literature's: stem 1, res2..res5 2..5."""

    depth: Literal[10, 18, 34, 50, 101, 152] = 50  # 10: one basic block a stage, for tests and the demo
    width: int = 64  # channels inside res2's blocks; 64 in the literature
    stem_width: int | None = None  # channels of the stem; None: `width`
    # Of the stem's max pool. after: at bottom and right only, TensorFlow's SAME on even sizes (Matterport).
    pool_padding: Literal["around", "after"] = "around"
    # ResNeXt (Xie et al. 2017): groups of the 3x3 convolution, and its channels at res2, all groups together.
    groups: int = 1  # 32x8d: 32
    bottleneck_width: int | None = None  # 32x8d: 256; None: `width`
    stride_in_1x1: bool = False  # of a bottleneck: the original ResNet's place; torchvision has it in the 3x3
    norm: Norm = "frozen_batch_norm"
    norm_eps: float = 1e-5
    frozen_stages: int = 2  # stages 1..this are not trained; 0 trains everything
    deformable_stages: tuple[int, ...] = ()  # stages whose 3x3 convolutions are deformable: 3 4 5 (Dai et al. 2017)
    deformable_modulated: bool = False  # with a learned weight for each sample (Zhu et al. 2019)

    def __post_init__(self) -> None:
        _require(0 <= self.frozen_stages <= 5, f"backbone.frozen_stages must lie in 0..5, found {self.frozen_stages}")
        _require(self.width > 0, f"backbone.width must be positive, found {self.width}")
        plain = self.groups == 1 and self.bottleneck_width is None and not self.stride_in_1x1
        _require(
            self.depth >= 50 or (plain and not self.deformable_stages),
            "backbone.groups, bottleneck_width, stride_in_1x1 and deformable_stages belong to bottleneck blocks: "
            f"leave them alone or set backbone.depth to 50 or more, found {self.depth}",
        )
        _require(
            all(2 <= stage <= 5 for stage in self.deformable_stages),
            f"backbone.deformable_stages are numbers of stages, 2..5, found {self.deformable_stages}",
        )
        inner = self.width if self.bottleneck_width is None else self.bottleneck_width
        _require(
            self.groups > 0 and inner > 0 and inner % self.groups == 0,
            f"backbone.groups must divide backbone.bottleneck_width, found {self.groups} groups of {inner} channels",
        )
        stem = self.width if self.stem_width is None else self.stem_width
        _require(stem > 0, f"backbone.stem_width must be positive, found {stem}")
        for name, channels in (("width", self.width), ("stem_width", stem), ("bottleneck_width", inner)):
            _require_groups(f"backbone.{name}", channels, "backbone.norm", self.norm)


@dataclass(frozen=True)
class TimmConfig:
    """A backbone of the timm library that gives features at strides 4, 8, 16 and 32."""

    name: str  # as in timm.list_models(): convnext_tiny
    frozen: bool = False  # nothing of it is trained


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
        _require(
            len({len(level) for level in self.sizes}) == 1,
            f"anchors.sizes needs as many sizes on every level (the RPN head is shared), found {self.sizes}",
        )
        _require(
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
        _require(self.convs > 0, f"rpn.convs must be positive, found {self.convs}")
        _require(self.channels is None or self.channels > 0, f"rpn.channels must be positive, found {self.channels}")
        _require(
            0 <= self.negative_iou <= self.positive_iou <= 1,
            f"rpn needs 0 <= negative_iou <= positive_iou <= 1, found {self.negative_iou} and {self.positive_iou}",
        )


@dataclass(frozen=True)
class RoIConfig:
    """From a box to features of one size (paper section 3)."""

    # RoIAlign; RoIPool and RoIWarp for the paper's ablation. crop: TensorFlow's crop_and_resize, one sample a bin, the
    # outer ones on the border of the RoI (Matterport); sampling_ratio, aligned and reduce are then not read.
    op: Literal["align", "pool", "warp", "crop"] = "align"
    reduce: Literal["average", "max"] = "average"  # over the samples of a bin; RoIPool takes the maximum anyway
    sampling_ratio: int = 2  # samples a bin and axis; 0: as many as the bin has cells (Detectron2)
    aligned: bool = True
    canonical_level: int = 4  # k0 of FPN equation 1
    canonical_size: float = 224.0
    # Added before rounding down, so that exact powers of two keep their level: to the level (torchvision), or to
    # size / canonical_size, whose logarithm it is (Detectron2 1e-8, MMDetection 1e-6).
    level_epsilon: float = 1e-6
    size_epsilon: float = 0.0
    level_rounding: Literal["floor", "round"] = "floor"  # of equation 1; round: to the nearest level (Matterport)

    def __post_init__(self) -> None:
        _require(self.sampling_ratio >= 0, f"rois.sampling_ratio must not be negative, found {self.sampling_ratio}")
        _require(
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
    best_iou: float | None = None  # as in RPNConfig, of which None makes no use: MMDetection's Mask R-CNN has 0.5
    samples: int = 512  # RoIs an image in the loss
    positive_fraction: float = 0.25
    resolution: int = 7
    convs: int = 0
    conv_channels: int = 256
    norm: HeadNorm = "none"  # of the convolutions
    layers: int = 2
    hidden: int = 1024
    class_agnostic: bool = False
    # Rows of the classifier, after the background, that take part in the softmax and are never found: torchvision's
    # 91 rows of COCO hold ten ids that no category has.
    unused_classes: int = 0
    box_weights: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    growth_bound: GrowthBound = "above"
    box_loss: BoxLoss = "smooth_l1"
    smooth_l1_beta: float = 1 / 9  # 0 is plain L1
    loss_box_over: BoxMean = "drawn"
    learn_ground_truth: bool = True  # ground-truth boxes are RoIs of the loss too; Matterport: only proposals are
    cascade_ious: tuple[float, ...] = ()  # of the stages after the first: 0.6 0.7
    cascade_weights: tuple[tuple[float, float, float, float], ...] = ()  # 20 20 10 10 and 30 30 15 15
    # Of the cascade, where Detectron2 (first) and MMDetection differ: the weight of each stage's losses, none being 1
    # (MMDetection 1 0.5 0.25); what the scores are the mean of; whether later stages learn from all RoIs of the first,
    # or draw anew from those and the ground truth; and how the gradients of the stages meet in the features.
    cascade_loss_weights: tuple[float, ...] = ()
    cascade_scores: Literal["probabilities", "logits"] = "probabilities"
    cascade_draws: Literal["once", "each"] = "once"
    cascade_gradient: Literal["mean", "sum"] = "mean"

    def __post_init__(self) -> None:
        for name in ("layers", "unused_classes"):
            _require(getattr(self, name) >= 0, f"box_head.{name} must not be negative, found {getattr(self, name)}")
        _require(
            len(self.cascade_ious) == len(self.cascade_weights),
            "box_head.cascade_ious and box_head.cascade_weights need one entry for each stage after the first, "
            f"found {len(self.cascade_ious)} and {len(self.cascade_weights)}",
        )
        _require(
            len(self.cascade_loss_weights) in (0, len(self.cascade_ious) + 1),
            "box_head.cascade_loss_weights needs a number for each stage, one more than box_head.cascade_ious, "
            f"found {len(self.cascade_loss_weights)} and {len(self.cascade_ious)}",
        )
        _require(
            self.norm == "none" or self.convs > 0,
            f"box_head.norm {self.norm} is of the convolutions, and box_head.convs is {self.convs}: "
            "set box_head.convs 4 or box_head.norm none",
        )
        _require_groups("box_head.conv_channels", self.conv_channels, "box_head.norm", self.norm)


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
        _require(0 <= self.important <= 1, f"point_rend.important is a share, found {self.important}")
        _require(self.oversample >= 1, f"point_rend.oversample must be at least 1, found {self.oversample}")


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
    cascade: bool = False  # a head for each stage of boxes, whose probabilities are averaged (MMDetection)
    samples: int = 128  # most positive RoIs an image in the mask loss, drawn at random beyond that
    class_agnostic: bool = False
    # Targets are sampled from the box-cropped bitmaps as RoIAlign does: 0 samples adaptively, like
    # torchvision and Detectron2; a threshold makes them binary, as Detectron2 does.
    target_sampling_ratio: int = 2
    target_aligned: bool = True
    target_threshold: float | None = None
    # Whose pixels the samples lie between. original: the bitmap's. network: those of the network input, each with the
    # value of the original pixel under its centre, as if the bitmap were resized with the image (Detectron2).
    # network_corner: under its top left corner, as OpenCV resizes (MMDetection).
    target_pixels: Literal["original", "network", "network_corner"] = "original"
    # One sample a cell, the outer ones on the border of the RoI, as rois.op crop reads features (Matterport).
    target_corners: bool = False
    # pixel_centres: probability at each pixel's centre (Detectron2, MMDetection).
    # expanded_box: pad by one cell, truncate the box, resize (Detectron, torchvision).
    # whole_box: round the box, resize, nothing outside of it (Matterport).
    paste: Literal["pixel_centres", "expanded_box", "whole_box"] = "pixel_centres"

    def __post_init__(self) -> None:
        _require_groups("mask_head.channels", self.channels, "mask_head.norm", self.norm)
        _require(
            self.loss == "sigmoid" or not self.class_agnostic,
            "mask_head.loss softmax lets classes compete, and mask_head.class_agnostic leaves one: "
            "set mask_head.loss sigmoid or mask_head.class_agnostic False",
        )
        _require(
            self.kind == "fcn" or self.norm == "none",
            f"mask_head.norm {self.norm} is of convolutions, and mask_head.kind is mlp: set mask_head.norm none",
        )
        _require(
            self.point_rend is None
            or (self.kind == "fcn" and self.loss == "sigmoid" and self.norm == "none" and not self.cascade),
            "mask_head.point_rend brings its own head: leave mask_head.kind fcn, loss sigmoid, norm none and cascade "
            f"False, found {self.kind}, {self.loss}, {self.norm} and {self.cascade}",
        )


@dataclass(frozen=True)
class KeypointHeadConfig:
    """Keypoint branch (paper section 5). Its maps have four times `resolution`."""

    num_keypoints: int = 17
    resolution: int = 14
    convs: int = 8
    channels: int | tuple[int, ...] = 512  # of each of them, or a number for each (Detectron2's CONV_DIMS)
    samples: int = 128  # most positive RoIs an image in the loss, drawn at random beyond that
    # Of the last doubling of the maps. repeat: bilinear, cells beyond the border repeat it. zero: they are zeros, as of
    # the transposed convolution in Detectron.
    border: Literal["repeat", "zero"] = "repeat"
    # probability: of the point in a softmax over the map (Detectron2). logit: as it is (torchvision).
    score: Literal["probability", "logit"] = "probability"

    def __post_init__(self) -> None:
        _require(self.num_keypoints > 0, f"keypoint_head.num_keypoints must be positive, found {self.num_keypoints}")
        _require(
            isinstance(self.channels, int) or len(self.channels) == self.convs,
            f"keypoint_head.channels needs a number for each of keypoint_head.convs {self.convs}, "
            f"found {self.channels}",
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each convolution."""
        return (self.channels,) * self.convs if isinstance(self.channels, int) else self.channels


@dataclass(frozen=True)
class DetectConfig:
    """From scored boxes to detections (paper section 3.1, inference)."""

    score_threshold: float = 0.05
    nms_iou: float = 0.5
    max_detections: int = 100
    min_size: float = 0.0  # network-input pixels
    classes: Literal["all", "best"] = "all"  # of a RoI that may be found; best: the most probable one (Matterport)
    whole_boxes: bool = False  # boxes are rounded to whole pixels of the original image (Matterport)
    mask_threshold: float = 0.5

    def __post_init__(self) -> None:
        _require(self.max_detections > 0, f"detect.max_detections must be positive, found {self.max_detections}")
        _require(0 < self.mask_threshold < 1, f"detect.mask_threshold must lie in 0..1, found {self.mask_threshold}")
        for name in ("score_threshold", "nms_iou"):
            _require(0 <= getattr(self, name) <= 1, f"detect.{name} must lie in 0..1, found {getattr(self, name)}")


@dataclass(frozen=True)
class ModelConfig:
    """The network. `mask_head=None` is Faster R-CNN, with `keypoint_head` Keypoint R-CNN.

    RPN and RoIs read the pyramid (fpn), or one map of the backbone: res4, with res5 in the head (c4), res5 at
    stride 32 (c5), or res5 dilated, at stride 16 (dc5).
    """

    num_classes: int = 80
    backbone: ResNetConfig | TimmConfig = field(default_factory=ResNetConfig)
    neck: Literal["fpn", "c4", "c5", "dc5"] = "fpn"
    fpn_channels: int = 256
    fpn_norm: HeadNorm = "none"
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    rois: RoIConfig = field(default_factory=RoIConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig | None = field(default_factory=MaskHeadConfig)
    keypoint_head: KeypointHeadConfig | None = None
    detect: DetectConfig = field(default_factory=DetectConfig)
    # Inside the network x2 y2 of a box are the last pixel and not the edge after it, one less: the rule of Matterport,
    # whose boxes run from 0 at the first pixel to 1 at the last.
    last_pixel: bool = False
    # Boxes stand for their first and last pixels where they leave the arithmetic of edges: RoIs, masks and keypoints
    # span x1 y1 to x2 - 1 y2 - 1, and these pixels are what is scaled to the original image. The "+ 1" of Detectron and
    # maskrcnn-benchmark.
    pixel_boxes: bool = False

    def __post_init__(self) -> None:
        _require(self.num_classes > 0, f"model.num_classes must be positive, found {self.num_classes}")
        _require_groups("model.fpn_channels", self.fpn_channels, "model.fpn_norm", self.fpn_norm)
        levels = 5 if self.neck == "fpn" else 1
        have = {1: "one level, with all sizes on it (32,64,128,256,512)", 5: "the levels P2..P6, a size on each"}
        _require(
            len(self.anchors.sizes) == levels,
            f"model.neck {self.neck} has {have[levels]}, and model.anchors.sizes is of {len(self.anchors.sizes)}: "
            "change one of the two",
        )
        _require(
            self.mask_head is None or not self.mask_head.cascade or bool(self.box_head.cascade_ious),
            "mask_head.cascade gives every stage of boxes a mask head: set box_head.cascade_ious, or "
            "mask_head.cascade False",
        )
        _require(
            self.neck != "c4" or self.mask_head is None or self.mask_head.point_rend is None,
            "mask_head.point_rend reads features at points, and model.neck c4 keeps res5 for whole RoIs: "
            "choose model.neck fpn or leave mask_head.point_rend None",
        )
        _require(
            not self.last_pixel
            or (self.keypoint_head is None and (self.mask_head is None or self.mask_head.point_rend is None)),
            "model.keypoint_head and mask_head.point_rend read points between the edges of a box, and model.last_pixel "
            "has boxes end one pixel earlier: set model.last_pixel False",
        )
        _require(
            not (self.last_pixel and self.pixel_boxes),
            "model.last_pixel and model.pixel_boxes both say where a box ends: set one of them False",
        )
        _require(
            self.neck == "fpn" or isinstance(self.backbone, ResNetConfig),
            f"model.neck {self.neck} is made of the stages of a ResNet: choose model.neck fpn for a timm backbone",
        )


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
    # auto: bf16 where the processor multiplies it natively, else fp32.
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    evaluate_every: int = 5000  # steps; 0: only at the end
    checkpoint_every: int = 1000  # steps
    workers: int = 2  # loader processes; 0 loads in the training process
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "checkpoint_every"):
            _require(getattr(self, name) > 0, f"train.{name} must be positive, found {getattr(self, name)}")
        for name in ("warmup_steps", "evaluate_every", "workers", "weight_decay"):
            _require(getattr(self, name) >= 0, f"train.{name} must not be negative, found {getattr(self, name)}")
        _require(self.learning_rate > 0, f"train.learning_rate must be positive, found {self.learning_rate}")
        _require(
            all(0 < drop < 1 for drop in self.drops),
            f"train.drops are fractions of train.steps between 0 and 1, found {self.drops}",
        )


@dataclass(frozen=True)
class Config:
    """Everything that makes a model what it is; stored whole in the model file."""

    model: ModelConfig = field(default_factory=ModelConfig)
    image: ImageConfig = field(default_factory=ImageConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    categories: tuple[Category, ...] = ()  # filled from the data set when training starts

    def __post_init__(self) -> None:
        _require(
            not self.categories or len(self.categories) == self.model.num_classes,
            f"config.categories has {len(self.categories)} entries, model.num_classes is {self.model.num_classes}",
        )
        _require(
            self.model.neck != "fpn" or self.image.divisor % 32 == 0,
            f"image.divisor must be a multiple of 32, the top stride of model.neck fpn, found {self.image.divisor}",
        )


def config_to_dict(config: Config) -> dict[str, Any]:
    """The config as plain JSON types (tuples become lists when written)."""
    return asdict(config)


def config_from_dict(data: Mapping[str, Any]) -> Config:
    """The inverse of `config_to_dict`. Missing fields take their defaults.

    Raises:
        ConfigError: an unknown field or a value of the wrong type, with its path.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        config = TypeAdapter(Config).validate_python(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"config field {path or '(root)'}: {first['msg']}, found {first['input']!r}; "
            "was the file written by a newer version?"
        ) from None
    unknown = next(_unknown_fields(data, config_to_dict(config)), None)
    _require(
        unknown is None, f"config field {unknown}: there is no such field; was the file written by a newer version?"
    )
    return config


def differing_settings(one: Config, other: Config) -> dict[str, tuple[Any, Any]]:
    """Values that differ, by the name of the setting (`image.kernel`): of the first and of the second."""

    def flat(value: Any, path: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            return {path: value}
        return {
            name: leaf
            for key, item in value.items()
            for name, leaf in flat(item, f"{path}.{key}" if path else key).items()
        }

    first, second = flat(config_to_dict(one), ""), flat(config_to_dict(other), "")
    return {
        name: (first.get(name), second.get(name))
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    }


def _unknown_fields(given: Any, known: Any, path: str = "") -> Iterator[str]:
    """The paths of all keys in `given` that `known` has not."""
    if isinstance(given, Mapping) and isinstance(known, Mapping):
        for key, value in given.items():
            if key in known:
                yield from _unknown_fields(value, known[key], f"{path}{key}.")
            else:
                yield f"{path}{key}"
