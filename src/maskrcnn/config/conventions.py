"""The rules in which frameworks differ, and the values that each framework has for them.

Users need not choose any of them. A checkpoint gives the outputs of its framework only if the model follows the rules
of that framework, in training as in prediction. No part of the network asks which framework a model comes from. The
text below a field also stands in the table of docs/conventions.md.
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
    pil: the same filter as PIL computes it, which rounds some values to another grey level. bilinear: bilinear
    interpolation of the four nearest pixels, float32 out. opencv: the same in uint8, rounded as OpenCV does. truncated:
    the same in uint8, with black beyond the border and the fraction cut off (scikit-image)."""
    rounding: Literal["round", "floor", "half_even", "short_side"] = "round"
    """Rounding of the resized height and width. round: half up. floor: down. half_even: halves to the
    even number, and image.long_side takes effect only if the rounded long side exceeds it. short_side: the short side
    is rounded; the long side is the short side times the aspect ratio, rounded down."""
    exact_scale: bool = False
    """Pixels and boxes are scaled by the scale itself, not by the ratio of the rounded sizes."""
    letterbox: Literal["none", "square", "divisor"] = "none"
    """Letterbox padding, which centres the image. The padding is black and counts as image: it is normalised, and
    proposals may lie on it. Detections are clipped to the image inside it. square: both sides are padded to
    image.long_side. divisor: both sides are padded to the next multiple of image.divisor. none: padding at bottom and
    right, zero after normalisation."""
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
    """What is rounded to whole pixels. corners: the corners of each anchor around its cell. base: the sides of a
    base anchor whose size is the stride of its level; the rounded base anchor is then enlarged to the anchor's size."""
    stride: Literal["constant", "grid"] = "constant"
    """Distance between neighbouring cells. constant: the stride of the level. grid: the size of the padded
    batch divided by the size of the feature map, rounded down."""
    offset: float = 0.0
    """Centre of the first cell's anchors, in strides."""


@dataclass(frozen=True)
class FeatureRules:
    """How features are computed from the image and pooled for a RoI."""

    pool_padding: Literal["around", "after"] = "around"
    """Padding of the max pooling in the stem. around: on all four sides. after: at bottom and right only, as
    TensorFlow's SAME pads even sizes."""
    crop_and_resize: bool = False
    """TensorFlow's crop_and_resize replaces RoIAlign. It takes one sample a bin, and the outermost samples lie on the
    border of the RoI. The ends of the image are the centres of the outermost cells of the map. rois.sampling_ratio,
    rois.reduce and features.aligned then have no effect."""
    aligned: bool = True
    """RoIAlign subtracts half a cell from coordinates, because the centre of cell i lies at i + 0.5. Without it,
    samples lie half a cell too far right and down, and RoIs are at least one cell wide and high."""
    level_rounding: Literal["floor", "round"] = "floor"
    """Rounding of the level of a RoI (FPN equation 1)."""
    level_epsilon: float = 1e-6
    """Added to the level before it is rounded, so that exact powers of two keep their level."""
    size_epsilon: float = 0.0
    """Added to size / rois.canonical_size inside the logarithm of the level."""


@dataclass(frozen=True)
class MatchingRules:
    """Which object an anchor or a RoI is matched with in training, and which anchors are left out."""

    rpn_low_quality_iou: float | None = 0.0
    """The anchors with the highest IoU for an object are positive even below rpn.positive_iou, if that IoU is at least
    this. None: they are not."""
    box_low_quality_iou: float | None = None
    """The same for RoIs and box_head.positive_iou."""
    low_quality_target: Literal["highest_iou", "own"] = "highest_iou"
    """The object that such an anchor or RoI is matched with. highest_iou: the one with the highest IoU. own: the one
    that made it positive, or the last of several."""
    allowed_border: tuple[float, float] | None = None
    """Two numbers of pixels. An anchor is left out if it begins more than the first before the left or top edge of the
    image, or ends at least the second beyond the right or bottom edge. None: no anchor is left out."""
    ignore_padding_anchors: bool = False
    """Anchors are left out if their cell lies beyond the size of their image, rounded up to a multiple of
    image.divisor."""
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
    """What rpn.post_nms_train limits in training: the proposals of each image, or those of the whole batch."""
    min_size: float = 0.0
    """Proposals with a shorter side, in pixels of the network input, are dropped."""


@dataclass(frozen=True)
class BoxRules:
    """What the coordinates of a box mean, and how far a prediction may enlarge it."""

    end: Literal["edge", "last_pixel", "roi_last_pixel"] = "edge"
    """What x2 and y2 of a box mean. edge: the edge behind the last pixel. last_pixel: the index of the last pixel,
    one less, from the proposals to the detections; anchors, ground truth and results use edges. roi_last_pixel: RoI
    features, masks and keypoints span a box from its first to its last pixel, and this span is scaled to the original
    image; everything else uses edges."""
    growth_bound: Literal["above", "both", "none"] = "above"
    """Bound of the predicted log(w / w_a) and log(h / h_a). above: at most log(62.5). both: also at least -log(62.5).
    none: unbounded."""

    @property
    def trim(self) -> float:
        """Pixels by which x2 and y2 of proposals and detections lie before the edge."""
        return float(self.end == "last_pixel")

    @property
    def roi_trim(self) -> float:
        """Pixels at the right and bottom of a box that its RoI does not span."""
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
    """How mask targets are sampled from the ground truth, and how predicted masks are pasted into the image."""

    target_sampling_ratio: int = 2
    """Samples of a cell along each axis, which are averaged. 0: as many as the cell has pixels, rounded up."""
    target_aligned: bool = True
    """The same as features.aligned, for the samples of targets."""
    target_threshold: float | None = None
    """Targets are 1 where the average is at least this, else 0. None: the averages are the targets."""
    target_pixels: Literal["original", "network", "network_corner"] = "original"
    """The pixels that samples are interpolated from. original: those of the ground-truth bitmap. network: those of the
    network input, each with the value of the original pixel under its centre, as if the bitmap were resized with the
    image. network_corner: the same with the pixel under its top left corner, as OpenCV resizes."""
    target_crop_and_resize: bool = False
    """Targets are sampled by crop_and_resize, as in features.crop_and_resize. target_sampling_ratio and
    target_aligned then have no effect."""
    paste: Literal["pixel_centres", "expanded_box", "whole_box"] = "pixel_centres"
    """How a mask is pasted into the image. pixel_centres: each pixel has the probability at its centre. expanded_box:
    the mask is padded by one cell, the box is expanded alike and truncated to whole pixels, and the mask is resized to
    it. whole_box: the box is rounded, the mask is resized to it, and no pixel lies outside."""


@dataclass(frozen=True)
class KeypointRules:
    """How keypoint maps are enlarged and scored."""

    border: Literal["repeat", "zero"] = "repeat"
    """Values beyond the border when the maps are doubled the last time. repeat: the values on the border. zero: zeros,
    as in a transposed convolution."""
    score: Literal["probability", "logit"] = "probability"
    """Score of a keypoint: its probability in the softmax over the map, or its logit."""


@dataclass(frozen=True)
class CascadeRules:
    """How the stages of a cascade work together. Without a cascade they have no effect."""

    scores: Literal["probabilities", "logits"] = "probabilities"
    """What is averaged over the stages to score a detection."""
    sampling: Literal["once", "each_stage"] = "once"
    """RoIs of the later stages in training. once: the refined boxes of all RoIs of the stage before. each_stage: RoIs
    are sampled again, from the refined boxes and the ground truth."""
    gradient: Literal["mean", "sum"] = "mean"
    """How the gradients of the stages are combined in the features."""
    loss_weights: tuple[float, ...] = ()
    """Weight of the losses of each stage. Empty: 1 each."""
    mask_head_per_stage: bool = False
    """Each box stage has its own mask head, and their probabilities are averaged. Otherwise there is one mask head."""

    def weights(self, stages: int) -> tuple[float, ...]:
        """The loss weight of each of `stages` box stages; 1 for the only stage of a plain head."""
        return self.loss_weights if stages > 1 and self.loss_weights else (1.0,) * stages


@dataclass(frozen=True)
class Conventions:
    """All rules of a model, grouped by the part that follows them."""

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
    # Detectron fills polygons on the cells of a mask. For bitmaps, this is the closest rule.
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
    # Anchors may end at the edge of the image. Their edges lie at halves of pixels, so that any number up to 0.5 works.
    matching=MatchingRules(allowed_border=(0.0, 0.25)),
    losses=LossRules(rpn_divisor="full"),
    masks=MaskRules(target_sampling_ratio=1, target_pixels="network"),  # one sample at the centre of each cell
)
