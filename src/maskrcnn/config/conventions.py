"""The rules in which frameworks differ, each with its value in every framework.

A user need not choose any of them. A checkpoint reproduces the outputs of the framework that trained it only if the
network follows that framework's rules, in training as in prediction. No part of the network asks which framework a
model comes from. The text below a field explains it here and in the tables of docs/conventions.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from maskrcnn.config.ranges import CountOrZero, FewOrZero, NotNegative, Number, Share, require_ranges
from maskrcnn.config.rules import require


@dataclass(frozen=True)
class PixelRules:
    """How an image is resized and placed in the network input."""

    kernel: Literal["antialias", "pil", "bilinear", "opencv", "truncated"] = "antialias"
    """Kernel that resizes the image. antialias: a triangle filter that widens when the image shrinks, uint8 in and out.
    pil: the same filter computed by PIL, which rounds some values differently. The other kernels interpolate between
    the four nearest pixels. bilinear: the result is float32. opencv: uint8 with OpenCV's rounding. truncated: black
    beyond the border, and the fraction is cut off (scikit-image)."""
    rounding: Literal["round", "floor", "half_even", "short_side"] = "round"
    """Rounding of the resized height and width. round: halves up. floor: down. half_even: halves to even, and
    image.long_side applies only if the long side rounds to more than it. short_side: the short side is rounded, and
    multiplied by the aspect ratio it gives the long side, rounded down."""
    exact_scale: bool = False
    """Pixels and boxes are scaled by the exact scale factor, not by the ratio of the rounded sizes."""
    letterbox: Literal["none", "square", "divisor"] = "none"
    """Letterbox padding, which centres the image. It is black before normalisation, proposals may lie on it, and
    detections are clipped to the image inside it. square: the padded image has image.long_side pixels on both sides.
    divisor: it has the next multiples of image.divisor. none: there is only padding at bottom and right, which is zero
    after normalisation."""
    min_scale: NotNegative = 0.0
    """Minimum scale factor: an image is never shrunk below it to reach image.short_side."""

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.pixels")
        require(
            not self.exact_scale or (self.kernel == "bilinear" and self.letterbox == "none"),
            "pixels.exact_scale needs pixels.kernel bilinear and pixels.letterbox none, "
            f"found {self.kernel} and {self.letterbox}",
        )


@dataclass(frozen=True)
class AnchorRules:
    """Where anchors lie."""

    rounding: Literal["none", "corners", "base"] = "none"
    """Rounding to whole pixels. none: anchors are not rounded. corners: the corners of the anchors of a cell at the
    origin are rounded. base: the sides of an anchor as large as the stride are rounded, and it is then enlarged."""
    stride: Literal["constant", "grid"] = "constant"
    """Distance between cells. constant: the stride of the level. grid: the size of the padded batch divided by the size
    of the feature map, rounded down."""
    offset: Number = 0.0
    """Position of the first cell's anchor centres, in units of the stride."""

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.anchors")


@dataclass(frozen=True)
class FeatureRules:
    """How features are computed, and how RoI features are sampled from them."""

    pool_padding: Literal["around", "after"] = "around"
    """Padding of the max pooling in the stem. around: on all four sides. after: at bottom and right only, as TensorFlow
    pads even sizes with SAME."""
    crop_and_resize: bool = False
    """TensorFlow's crop_and_resize replaces RoIAlign. It takes one sample per bin, and the outermost samples are on the
    border of the RoI. The centres of a map's outermost cells are at the ends of the image. rois.sampling_ratio,
    rois.reduce and features.aligned then have no effect."""
    aligned: bool = True
    """RoIAlign places cell centres at i + 0.5. Otherwise they are at i, so that samples lie half a cell further, and
    RoIs are at least one cell wide."""
    level_rounding: Literal["floor", "round"] = "floor"
    """Rounding of the pyramid level of a RoI (FPN, equation 1)."""
    level_epsilon: NotNegative = 1e-6
    """Added to the level before it is rounded, so that rounding errors do not lower exact powers of two."""
    size_epsilon: NotNegative = 0.0
    """Added for the same purpose to size / rois.canonical_size inside the logarithm."""

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.features")


@dataclass(frozen=True)
class MatchingRules:
    """How anchors and RoIs are matched with objects in training, and which of them the losses ignore."""

    rpn_low_quality_iou: Share | None = 0.0
    """The anchors with the highest IoU for an object are positive even below rpn.positive_iou, if that IoU is at least
    this. None: they are not."""
    box_low_quality_iou: Share | None = None
    """The same for RoIs and box_head.positive_iou."""
    low_quality_target: Literal["highest_iou", "own"] = "highest_iou"
    """The object that such an anchor or RoI is matched with. highest_iou: the object for which its IoU is highest. own:
    the object that made it positive, or the last one if there are several."""
    allowed_border: tuple[Number, Number] | None = None
    """Border around the image in network-input pixels. The losses ignore anchors that extend beyond the left or top
    edge by more than the first number, or beyond the right or bottom edge by the second number or more. None: no
    anchor is ignored."""
    ignore_padding_anchors: bool = False
    """The losses ignore anchors of cells outside their image. The image is first padded to multiples of image.divisor,
    but not to the size of the batch."""
    ground_truth_rois: bool = True
    """The ground-truth boxes are added to the proposals before RoIs are sampled."""

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.matching")


@dataclass(frozen=True)
class LossRules:
    """The numbers by which the sums of the losses are divided."""

    rpn_divisor: Literal["sampled", "full"] = "sampled"
    """Divisor of both RPN losses. sampled: the number of sampled anchors. full: rpn.samples per image, even if fewer
    anchors were sampled."""
    box_divisor: Literal["sampled", "offsets"] = "sampled"
    """Divisor of the box losses of the RPN and the box head. sampled: the number of sampled anchors (or what
    losses.rpn_divisor says) or RoIs, positive or not. offsets: four times the number of positive ones."""


@dataclass(frozen=True)
class ProposalRules:
    """How the RPN chooses proposals."""

    merge_levels: bool = False
    """Top-k and non-maximum suppression run over all levels together, not level by level."""
    post_nms_per: Literal["image", "batch"] = "image"
    """Training keeps the highest-scoring rpn.post_nms_train proposals of each image, or of the whole batch."""
    min_size: NotNegative = 0.0
    """Proposals with a shorter side, in pixels of the network input, are dropped."""

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.proposals")


@dataclass(frozen=True)
class BoxRules:
    """What a box stands for, and how far a prediction may move it."""

    end: Literal["edge", "last_pixel", "roi_last_pixel"] = "edge"
    """Where a box ends. edge: x2 and y2 are the right and lower edges of the last pixel. last_pixel: x2 and y2 are the
    index of the last pixel, one less, in proposals, RoIs and detections of the network; results have edges again. So
    a box whose x1 and x2 are equal is one pixel wide, and is kept.
    roi_last_pixel: RoI features, masks and keypoints span a box from its first to its last pixel index, and these are
    scaled to the original image; everything else uses edges."""
    growth_bound: Literal["above", "both", "none"] = "above"
    """Bound of the predicted log(w / w_a) and log(h / h_a). above: at most log(62.5). both: also at least -log(62.5).
    none: no bound."""

    @property
    def trim(self) -> float:
        """Pixels by which proposals, RoIs and detections end before their right and lower edges."""
        return float(self.end == "last_pixel")

    @property
    def roi_trim(self) -> float:
        """Pixels by which RoI features, masks and keypoints end before the right and lower edges of a box."""
        return float(self.end == "roi_last_pixel")


@dataclass(frozen=True)
class DetectionRules:
    """Which of the scored boxes become detections."""

    one_class_per_roi: bool = False
    """A RoI gives one detection, of its most probable class, or none if that is the background."""
    unused_classes: CountOrZero = 0
    """Number of classes after the background that take part in the softmax and are never detected. torchvision's COCO
    models have ten, because ten ids have no category."""
    min_size: NotNegative = 0.0
    """Boxes with a shorter side, in pixels of the network input, are dropped."""
    whole_pixels: bool = False
    """Boxes are rounded to whole pixels of the original image, and dropped if no area remains."""

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.detections")


@dataclass(frozen=True)
class MaskRules:
    """How mask targets are sampled from the ground truth, and how predicted masks are pasted into the image."""

    target_sampling_ratio: FewOrZero = 2
    """Samples per cell and axis, which are averaged. 0: the side of a cell in pixels, rounded up."""
    target_aligned: bool = True
    """The rule of features.aligned for the samples of targets."""
    target_threshold: Share | None = None
    """Makes targets binary: 1 if the average is at least this, otherwise 0. None: the averages are the targets."""
    target_pixels: Literal["original", "network", "network_corner"] = "original"
    """The pixels between which samples interpolate. original: pixels of the ground-truth bitmap. network: pixels of the
    network input, each with the value of the original pixel under its centre, as if nearest-neighbour interpolation
    had resized the bitmap. network_corner: the same with the original pixel under the top left corner (OpenCV)."""
    target_crop_and_resize: bool = False
    """The rule of features.crop_and_resize for the samples of targets. masks.target_sampling_ratio and
    masks.target_aligned then have no effect."""
    paste: Literal["pixel_centres", "expanded_box", "whole_box"] = "pixel_centres"
    """How a mask is pasted into the image. pixel_centres: each pixel has the probability at its centre. expanded_box:
    the mask is padded by one cell, the box is expanded by the same factor and truncated to whole pixels, and the mask
    is resized to the box. whole_box: the box is rounded, the mask is resized to it, and pixels outside are
    background."""

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.masks")


@dataclass(frozen=True)
class KeypointRules:
    """How keypoint maps are upsampled and scored."""

    border: Literal["repeat", "zero"] = "repeat"
    """Cells beyond the border in the bilinear upsampling of the maps by 2. repeat: they repeat the border. zero: they
    are zero, as in a transposed convolution."""
    score: Literal["probability", "logit"] = "probability"
    """The score of a keypoint is its probability in the softmax over the map, or its logit."""


@dataclass(frozen=True)
class CascadeRules:
    """How the stages of a cascade work together. Without a cascade they have no effect."""

    scores: Literal["probabilities", "logits"] = "probabilities"
    """The score of a detection is averaged over the stages as probabilities, or as logits before the softmax."""
    sampling: Literal["once", "each_stage"] = "once"
    """RoIs of the later stages in training. once: all RoIs of the first stage, refined by the stages before.
    each_stage: the refined RoIs and the ground truth are sampled again."""
    gradient: Literal["mean", "sum"] = "mean"
    """The features receive the mean or the sum of the stages' gradients."""
    loss_weights: tuple[NotNegative, ...] = ()
    """Weight of the losses of each stage. Empty: each weight is 1."""
    mask_head_per_stage: bool = False
    """Each stage has a mask head, and their probabilities are averaged. Otherwise there is one mask head."""

    def weights(self, stages: int) -> tuple[float, ...]:
        """The weight of the losses of each stage; 1 for a box head without a cascade."""
        return self.loss_weights if stages > 1 and self.loss_weights else (1.0,) * stages

    def __post_init__(self) -> None:
        require_ranges(self, "conventions.cascade")


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
    # Detectron draws polygons on the cells of a mask. These rules come closest to that with bitmaps.
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
    # Anchors may end at the edge of the image, but not half a pixel after it. 0.25 separates the two cases.
    matching=MatchingRules(allowed_border=(0.0, 0.25)),
    losses=LossRules(rpn_divisor="full"),
    masks=MaskRules(target_sampling_ratio=1, target_pixels="network"),  # one sample at the centre of each cell
)
