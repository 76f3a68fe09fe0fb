"""Settings of the whole network and of its detections."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from maskrcnn.config.backbone import ResNetConfig, TimmConfig
from maskrcnn.config.heads import BoxHeadConfig, KeypointHeadConfig, MaskHeadConfig, RoIConfig
from maskrcnn.config.proposals import AnchorConfig, RPNConfig
from maskrcnn.config.ranges import Channels, Count, InnerShare, Share, require_ranges
from maskrcnn.config.rules import HeadNorm, require, require_groups
from maskrcnn.errors import ConfigError


@dataclass(frozen=True)
class DetectConfig:
    """Which boxes become detections (paper section 3.1, inference)."""

    score_threshold: Share = 0.05  # detections with a lower score are dropped
    # non-maximum suppression drops a box that overlaps a higher-scoring one of its class by more than this IoU
    nms_iou: Share = 0.5
    max_detections: Count = 100  # detections of each image, at most
    mask_threshold: InnerShare = 0.5  # a pixel belongs to the mask above this probability

    def __post_init__(self) -> None:
        require_ranges(self, "model.detect")


@dataclass(frozen=True)
class ModelConfig:
    """The network. Without a mask head it is Faster R-CNN; a keypoint head makes it Keypoint R-CNN."""

    num_classes: Count = 80  # classes without the background; training takes the number from the data
    backbone: ResNetConfig | TimmConfig = field(default_factory=ResNetConfig)
    # fpn: feature pyramid; or one map: c4: res4, with res5 in the heads; c5: res5; dc5: dilated res5
    neck: Literal["fpn", "c4", "c5", "dc5"] = "fpn"
    fpn_channels: Channels = 256  # channels of the pyramid
    fpn_norm: HeadNorm = "none"  # norm of the pyramid
    anchors: AnchorConfig = field(default_factory=AnchorConfig)
    rpn: RPNConfig = field(default_factory=RPNConfig)
    rois: RoIConfig = field(default_factory=RoIConfig)
    box_head: BoxHeadConfig = field(default_factory=BoxHeadConfig)
    mask_head: MaskHeadConfig | None = field(default_factory=MaskHeadConfig)
    keypoint_head: KeypointHeadConfig | None = None
    detect: DetectConfig = field(default_factory=DetectConfig)

    def __post_init__(self) -> None:
        require_ranges(self, "model")
        require_groups("model.fpn_channels", self.fpn_channels, "model.fpn_norm", self.fpn_norm)
        levels = 5 if self.neck == "fpn" else 1
        expected = {
            1: "one level, with all sizes on it (32,64,128,256,512)",
            5: "the levels P2..P6, each with sizes",
        }
        require(
            len(self.anchors.sizes) == levels,
            f"model.neck {self.neck} has {expected[levels]}, and model.anchors.sizes has "
            f"{len(self.anchors.sizes)} levels: change one of them",
        )
        require(
            self.neck != "c4" or self.mask_head is None or self.mask_head.point_rend is None,
            "mask_head.point_rend reads features at points, and model.neck c4 keeps res5 for whole RoIs: "
            "choose model.neck fpn or leave mask_head.point_rend None",
        )
        require(
            self.neck == "fpn" or isinstance(self.backbone, ResNetConfig),
            f"model.neck {self.neck} consists of the stages of a ResNet: choose model.neck fpn for a timm backbone",
        )

    @property
    def resnet(self) -> ResNetConfig:
        """The settings of the backbone, for code that needs a ResNet.

        Raises:
            ConfigError: the backbone is a model of timm.
        """
        if isinstance(self.backbone, ResNetConfig):
            return self.backbone
        raise ConfigError(f"expected a ResNet as model.backbone, found {self.backbone.name} of timm")
