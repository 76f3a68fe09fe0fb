"""The rules in which frameworks differ, each with the value that every framework has.

None of them is a choice that a user has to make: a rule is here because a checkpoint gives the outputs of the framework
that trained it only where the rule is followed. They hold in training as in prediction, and no part of the network asks
which framework a model comes from. The text below a field explains it here and in the table of docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from maskrcnn.config.rules import require


@dataclass(frozen=True)
class PixelRules:
    """How an image is resized and placed in the network input."""

    kernel: Literal["antialias", "pil", "bilinear", "opencv", "truncated"] = "antialias"
    """Kernel that resizes the image. antialias: a triangle filter that widens when the image shrinks, uint8 in and out.
    pil: the same by PIL, which rounds a few values to another grey level. bilinear: the four nearest pixels, result
    float32. opencv: the four nearest pixels, uint8 with OpenCV's rounding. truncated: the four nearest pixels, black
    beyond the border, the fraction is cut off (scikit-image)."""
    rounding: Literal["round", "floor", "half_even", "short_side"] = "round"
    """Rounding of the resized height and width. round: half up. floor: down. half_even: as Python rounds, and
    image.long_side caps only what rounds to more than it. short_side: the short side is rounded, and the long side is
    its multiple, rounded down."""
    exact_scale: bool = False
    """Pixels and boxes are scaled by the scale itself, not by the ratio of the rounded sizes."""
    letterbox: Literal["none", "square", "divisor"] = "none"
    """Letterbox padding, which centres the image. It is black and counts as image: it is normalised, proposals may lie
    on it, and detections are clipped to the image inside it. square: to image.long_side on both sides. divisor: to the
    next multiples of image.divisor. none: padding at bottom and right, zero after normalisation."""
    min_scale: float = 0.0
    """Minimum scale factor: an image is never shrunk below it to reach image.short_side."""

    def __post_init__(self) -> None:
        require(self.min_scale >= 0, f"pixels.min_scale must not be negative, found {self.min_scale}")
        require(
            not self.exact_scale or (self.kernel == "bilinear" and self.letterbox == "none"),
            "pixels.exact_scale needs pixels.kernel bilinear and pixels.letterbox none, "
            f"found {self.kernel} and {self.letterbox}",
        )


@dataclass(frozen=True)
class AnchorRules:
    """Where anchors lie."""

    rounding: Literal["none", "corners", "base"] = "none"
    """What is rounded to whole pixels. corners: the corners of each anchor around its cell. base: the sides of an
    anchor that is as large as the stride of its level, which is then enlarged to the anchor's size."""
    stride: Literal["constant", "grid"] = "constant"
    """Distance of the cells. constant: the stride of the level. grid: the size of the padded batch divided by the size
    of the feature map, rounded down."""
    offset: float = 0.0
    """Centre of the first cell's anchors, in strides."""


@dataclass(frozen=True)
class FeatureRules:
    """How features are computed from the image and read for a RoI."""

    pool_padding: Literal["around", "after"] = "around"
    """Padding of the max pooling in the stem. around: on all four sides. after: at bottom and right only, as
    TensorFlow's SAME pads even sizes."""
    crop_and_resize: bool = False
    """RoIs are read by TensorFlow's crop_and_resize instead of RoIAlign: one sample a bin, the outer ones on the border
    of the RoI, where the centres of a map's outermost cells are the ends of the image. rois.sampling_ratio,
    rois.reduce and features.aligned then have no effect."""
    aligned: bool = True
    """RoIAlign subtracts the half pixel between continuous coordinates and the centres of samples. Without it, samples
    lie half a pixel further and RoIs are at least one cell wide."""
    level_rounding: Literal["floor", "round"] = "floor"
    """Rounding of the level of a RoI (FPN equation 1)."""
    level_epsilon: float = 1e-6
    """Added to the level before it is rounded, so that exact powers of two keep their level."""
    size_epsilon: float = 0.0
    """The same, added to size / rois.canonical_size inside the logarithm."""


@dataclass(frozen=True)
class MatchingRules:
    """Which object an anchor or a RoI is matched with in training, and which of them are left out."""

    rpn_low_quality_iou: float | None = 0.0
    """The anchors that overlap an object most are positive too, even below rpn.positive_iou, if they overlap it by at
    least this. None: they are not."""
    box_low_quality_iou: float | None = None
    """The same for RoIs and box_head.positive_iou."""
    low_quality_target: Literal["highest_iou", "own"] = "highest_iou"
    """The object that such an anchor or RoI is matched with. highest_iou: the one that it overlaps most. own: the one
    that made it positive, and the last one if there are several."""
    allowed_border: tuple[float, float] | None = None
    """Anchors are left out if they begin more than the first number of pixels before the image, or end at least the
    second number of pixels after it. None: none is left out."""
    ignore_padding_anchors: bool = False
    """Anchors are left out if their cell lies beyond the image, padded by itself to a multiple of image.divisor."""
    ground_truth_rois: bool = True
    """The ground-truth boxes are added to the proposals before RoIs are sampled."""


@dataclass(frozen=True)
class LossRules:
    """What the sums of the losses are divided by."""

    rpn_divisor: Literal["sampled", "full"] = "sampled"
    """Both losses of the RPN. sampled: the number of sampled anchors. full: rpn.samples an image, even where fewer
    anchors could be sampled."""
    box_divisor: Literal["sampled", "offsets"] = "sampled"
    """The box losses of the RPN and of the box head. sampled: the number of sampled anchors or RoIs, positive or not
    (in the RPN as losses.rpn_divisor says). offsets: four times the number of positive ones."""


@dataclass(frozen=True)
class ProposalRules:
    """How the RPN chooses proposals."""

    merge_levels: bool = False
    """The highest-scoring anchors are chosen, and non-maximum suppression is run, over all levels together instead of
    level by level."""
    post_nms_per: Literal["image", "batch"] = "image"
    """Whose highest-scoring rpn.post_nms_train proposals are kept in training: those of each image, or of the batch."""
    min_size: float = 0.0
    """Proposals with a shorter side, in pixels of the network input, are dropped."""


@dataclass(frozen=True)
class BoxRules:
    """What a box stands for, and how far a prediction may move it."""

    end: Literal["edge", "last_pixel", "roi_last_pixel"] = "edge"
    """Where a box ends. edge: x2 and y2 are the edges behind the last pixel. last_pixel: from the proposals to the
    detections they are the last pixel, one less; anchors, ground truth and results keep their edges. roi_last_pixel:
    RoI features, masks and keypoints span a box from its first to its last pixel, and these pixels are scaled to the
    original image; everything else uses edges."""
    growth_bound: Literal["above", "both", "none"] = "above"
    """Bound of log(w / w_a), by which a prediction enlarges a box. above: at most log(62.5). both: at least -log(62.5)
    too. none: unbounded."""

    @property
    def trim(self) -> float:
        """Pixels by which boxes end before their edge from the proposals to the detections."""
        return float(self.end == "last_pixel")

    @property
    def roi_trim(self) -> float:
        """Pixels at the right and bottom of such a box that a RoI does not span."""
        return float(self.end == "roi_last_pixel")


@dataclass(frozen=True)
class DetectionRules:
    """Which of the scored boxes become detections."""

    one_class_per_roi: bool = False
    """A RoI gives at most one detection, of its most probable class, and none if that is the background."""
    unused_classes: int = 0
    """Rows of the classifier after the background that take part in the softmax and are never detected. torchvision's
    models of COCO have ten: ids without a category."""
    min_size: float = 0.0
    """Boxes with a shorter side, in pixels of the network input, are dropped."""
    whole_pixels: bool = False
    """Boxes are rounded to whole pixels of the original image, and dropped if no area remains."""

    def __post_init__(self) -> None:
        require(
            self.unused_classes >= 0, f"detections.unused_classes must not be negative, found {self.unused_classes}"
        )


@dataclass(frozen=True)
class MaskRules:
    """How mask targets are read from the ground truth, and how predicted masks are pasted into the image."""

    target_sampling_ratio: int = 2
    """Samples a cell and axis, which are averaged. 0: as many as the cell has pixels, rounded up."""
    target_aligned: bool = True
    """As features.aligned, for the samples of targets."""
    target_threshold: float | None = None
    """Makes targets binary, 1 from this average on. None: the averages are the targets."""
    target_pixels: Literal["original", "network", "network_corner"] = "original"
    """The pixels that samples lie between. original: those of the ground-truth bitmap. network: those of the network
    input, each with the value of the original pixel under its centre, as if the bitmap were resized with the image.
    network_corner: the same with the pixel under its top left corner, as OpenCV resizes."""
    target_crop_and_resize: bool = False
    """Targets are read by crop_and_resize, as features.crop_and_resize reads features. target_sampling_ratio and
    target_aligned then have no effect."""
    paste: Literal["pixel_centres", "expanded_box", "whole_box"] = "pixel_centres"
    """How a mask comes into the image. pixel_centres: each pixel has the probability at its centre. expanded_box: the
    mask is padded by one cell, the box is expanded alike and truncated to whole pixels, the mask is resized to it.
    whole_box: the box is rounded, the mask is resized to it, nothing lies outside."""


@dataclass(frozen=True)
class KeypointRules:
    """How keypoint maps are enlarged and scored."""

    border: Literal["repeat", "zero"] = "repeat"
    """Cells beyond the border in the last doubling of the maps. repeat: those on the border. zero: zeros, as in a
    transposed convolution."""
    score: Literal["probability", "logit"] = "probability"
    """Score of a keypoint: its probability in the softmax over the map, or its logit."""


@dataclass(frozen=True)
class CascadeRules:
    """How the stages of a cascade work together. Without a cascade they have no effect."""

    scores: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over the stages to score a detection."""
    sampling: Literal["once", "each_stage"] = "once"
    """RoIs of the later stages in training. once: all RoIs of the first stage, moved. each_stage: they are sampled
    again from those and the ground truth."""
    gradient: Literal["mean", "sum"] = "mean"
    """How the gradients of the stages are joined in the features."""
    loss_weights: tuple[float, ...] = ()
    """Weight of the losses of each stage. Empty: 1 each."""
    mask_head_per_stage: bool = False
    """Each stage of boxes has a mask head, and the probabilities of all are averaged. Otherwise there is one."""

    def weights(self, stages: int) -> tuple[float, ...]:
        """The weight of the losses of each stage, of which a plain head has one."""
        return self.loss_weights if stages > 1 and self.loss_weights else (1.0,) * stages


@dataclass(frozen=True)
class Conventions:
    """All rules of a model, by the part that follows them."""

    pixels: PixelRules = field(default_factory=PixelRules)
    anchors: AnchorRules = field(default_factory=AnchorRules)
    features: FeatureRules = field(default_factory=FeatureRules)
    matching: MatchingRules = field(default_factory=MatchingRules)
    losses: LossRules = field(default_factory=LossRules)
    proposals: ProposalRules = field(default_factory=ProposalRules)
    boxes: BoxRules = field(default_factory=BoxRules)
    detections: DetectionRules = field(default_factory=DetectionRules)
    masks: MaskRules = field(default_factory=MaskRules)
    keypoints: KeypointRules = field(default_factory=KeypointRules)
    cascade: CascadeRules = field(default_factory=CascadeRules)


OURS = Conventions()

TORCHVISION = Conventions(  # torchvision/models/detection
    pixels=PixelRules(kernel="bilinear", rounding="floor"),
    anchors=AnchorRules(rounding="corners", stride="grid"),
    features=FeatureRules(aligned=False),
    proposals=ProposalRules(min_size=1e-3),
    detections=DetectionRules(min_size=1e-2),
    masks=MaskRules(target_sampling_ratio=0, target_aligned=False, paste="expanded_box"),
    keypoints=KeypointRules(score="logit"),
)

DETECTRON2 = Conventions(
    pixels=PixelRules(kernel="pil"),
    features=FeatureRules(level_epsilon=0.0, size_epsilon=1e-8),
    losses=LossRules(rpn_divisor="full"),
    masks=MaskRules(target_sampling_ratio=0, target_threshold=0.5, target_pixels="network"),  # BitMasks.crop_and_resize
)

DETECTRON = Conventions(
    pixels=PixelRules(kernel="bilinear", exact_scale=True),  # OpenCV resizes float32 images (prep_im_for_blob)
    anchors=AnchorRules(rounding="base", offset=0.5),
    features=FeatureRules(aligned=False, level_epsilon=0.0, size_epsilon=1e-6),
    matching=MatchingRules(allowed_border=(0.0, 1.0)),
    losses=LossRules(rpn_divisor="full"),
    proposals=ProposalRules(post_nms_per="batch"),
    boxes=BoxRules(end="roi_last_pixel"),
    # Its targets are polygons that are drawn on the cells of a mask. This is how bitmaps come nearest to that.
    masks=MaskRules(target_sampling_ratio=0, target_threshold=0.5, paste="expanded_box"),
    keypoints=KeypointRules(border="zero", score="logit"),
)

MASKRCNN_BENCHMARK = Conventions(
    pixels=PixelRules(kernel="pil", rounding="short_side"),
    anchors=DETECTRON.anchors,
    features=DETECTRON.features,
    matching=DETECTRON.matching,
    proposals=DETECTRON.proposals,
    boxes=DETECTRON.boxes,
    masks=DETECTRON.masks,
    keypoints=KeypointRules(score="logit"),
)

MMDETECTION = Conventions(
    pixels=PixelRules(kernel="opencv"),
    features=FeatureRules(level_epsilon=0.0, size_epsilon=1e-6),
    matching=MatchingRules(
        rpn_low_quality_iou=0.3, box_low_quality_iou=0.5, low_quality_target="own", ignore_padding_anchors=True
    ),
    boxes=BoxRules(growth_bound="both"),
    # BitmapMasks.crop_and_resize
    masks=MaskRules(target_sampling_ratio=0, target_threshold=0.5, target_pixels="network_corner"),
    cascade=CascadeRules("logits", "each_stage", "sum", loss_weights=(1.0, 0.5, 0.25), mask_head_per_stage=True),
)

MATTERPORT = Conventions(
    pixels=PixelRules(kernel="truncated", rounding="half_even", letterbox="square", min_scale=1.0),
    features=FeatureRules(pool_padding="after", crop_and_resize=True, level_rounding="round"),
    matching=MatchingRules(ground_truth_rois=False),
    losses=LossRules(box_divisor="offsets"),
    proposals=ProposalRules(merge_levels=True),
    boxes=BoxRules(end="last_pixel", growth_bound="none"),
    detections=DetectionRules(one_class_per_roi=True, whole_pixels=True),
    masks=MaskRules(target_threshold=0.5, target_crop_and_resize=True, paste="whole_box"),
)

TENSORPACK = Conventions(
    pixels=PixelRules(kernel="opencv"),
    features=FeatureRules(level_epsilon=0.0, size_epsilon=1e-6),
    # Anchors may end with the image, and they end at halves of pixels.
    matching=MatchingRules(allowed_border=(0.0, 0.25)),
    losses=LossRules(rpn_divisor="full"),
    masks=MaskRules(target_sampling_ratio=1, target_pixels="network"),  # one sample at the centre of each cell
)
