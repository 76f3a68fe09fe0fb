"""The block diagram: every part and number of a Mask R-CNN, in the order in which an image meets them."""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn.config import Config, Conventions, ModelConfig, TimmConfig
from maskrcnn.models.anchors import Anchors
from maskrcnn.models.box_head import BoxBranch, BoxHead
from maskrcnn.models.cascade import CascadeBranch, CascadeMaskBranch
from maskrcnn.models.fpn import FPN
from maskrcnn.models.keypoint_head import KeypointBranch, KeypointHead
from maskrcnn.models.mask_head import MaskBranch, MaskHead, MLPMaskHead
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.point_rend import CoarseMaskHead, PointHead, PointRendBranch
from maskrcnn.models.resnet import ResNet, res_stage, stage_channels
from maskrcnn.models.roi_heads import RoIHeads
from maskrcnn.models.rois import RoIPooler
from maskrcnn.models.rpn import RPN
from maskrcnn.models.single_level import SingleLevel
from maskrcnn.models.timm_backbone import TimmBackbone


def build_model(config: Config) -> MaskRCNN:
    """A network with random weights (torch's global generator), channels-last, in training mode.

    Raises:
        ConfigError, MissingPackageError: of a timm backbone that cannot be had.
    """
    model, image, conventions = config.model, config.image, config.conventions

    backbone = build_backbone(model, conventions)
    if model.neck == "fpn":
        neck: nn.Module = FPN(backbone.channels, model.fpn_channels, model.fpn_norm)
        channels, strides = model.fpn_channels, [*backbone.strides, 64]
        roi_strides = backbone.strides  # P6 serves the RPN only
    else:
        neck = SingleLevel()
        channels, strides = backbone.channels[-1], backbone.strides[-1:]
        roi_strides = strides
    anchors = Anchors(model.anchors.sizes, model.anchors.ratios, strides, conventions.anchors)
    rpn = RPN(channels, anchors, model.rpn, conventions, image.divisor)
    roi_heads = build_roi_heads(model, conventions, channels, roi_strides)

    network = MaskRCNN(backbone, neck, rpn, roi_heads, image.mean, image.std)
    return network.to(memory_format=torch.channels_last)


def build_backbone(model: ModelConfig, conventions: Conventions) -> ResNet | TimmBackbone:
    if isinstance(model.backbone, TimmConfig):
        return TimmBackbone(model.backbone)
    return ResNet(
        model.backbone,
        last_stage=4 if model.neck == "c4" else 5,
        dilated=model.neck == "dc5",
        pool_padding=conventions.features.pool_padding,
    )


def build_roi_heads(model: ModelConfig, conventions: Conventions, channels: int, strides: list[int]) -> RoIHeads:
    """
    Args:
        channels, strides: of the maps that RoIs read.
    """
    classes, box, mask, keypoint = model.num_classes, model.box_head, model.mask_head, model.keypoint_head

    shared_head: nn.Module = nn.Identity()
    shrink = 1
    if model.neck == "c4":
        assert not isinstance(model.backbone, TimmConfig)
        shared_head, shrink = res_stage(5, model.backbone), 2
        channels = stage_channels(model.backbone)[-1]
    pooler = RoIPooler(strides, model.rois, shared_head, conventions)

    unused = conventions.detections.unused_classes
    box_heads = [
        BoxHead(channels, -(-box.resolution // shrink), classes, box, unused) for _ in range(1 + len(box.cascade_ious))
    ]
    box_branch = (
        CascadeBranch(box_heads, box, conventions) if box.cascade_ious else BoxBranch(box_heads[0], box, conventions)
    )

    mask_branch: MaskBranch | CascadeMaskBranch | PointRendBranch | None = None
    if mask is not None:
        masks = 1 if mask.class_agnostic else classes + (mask.loss == "softmax")
        if mask.point_rend is not None:
            coarse, points = CoarseMaskHead(channels, masks, mask), PointHead(channels, masks, mask.point_rend)
            mask_branch = PointRendBranch(coarse, points, classes, strides[0], mask, conventions.masks)
        else:
            per_stage = conventions.cascade.mask_head_per_stage and bool(box.cascade_ious)
            mask_heads: list[MaskHead | MLPMaskHead] = [
                MLPMaskHead(channels, -(-mask.resolution // shrink), masks, mask)
                if mask.kind == "mlp"
                else MaskHead(channels, masks, mask)
                for _ in (box_heads if per_stage else box_heads[:1])
            ]
            branches = [MaskBranch(head, classes, mask, conventions.masks) for head in mask_heads]
            mask_branch = CascadeMaskBranch(branches, conventions.cascade) if per_stage else branches[0]

    keypoint_branch = None
    if keypoint is not None:
        side = 4 * -(-keypoint.resolution // shrink)
        keypoint_branch = KeypointBranch(
            KeypointHead(channels, keypoint, conventions.keypoints), side, keypoint, conventions.keypoints
        )
    return RoIHeads(pooler, box_branch, mask_branch, keypoint_branch, conventions)
