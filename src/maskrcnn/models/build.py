"""The block diagram: every part and number of a Mask R-CNN, in the order in which an image meets them."""

from __future__ import annotations

import torch
from torch import nn

from maskrcnn.config import Config, ModelConfig, TimmConfig
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
    model, image = config.model, config.image

    backbone = build_backbone(model)
    if model.neck == "fpn":
        neck: nn.Module = FPN(backbone.channels, model.fpn_channels, model.fpn_norm)
        channels, strides = model.fpn_channels, [*backbone.strides, 64]
        roi_strides = backbone.strides  # P6 serves the RPN only
    else:
        neck = SingleLevel()
        channels, strides = backbone.channels[-1], backbone.strides[-1:]
        roi_strides = strides
    anchors = Anchors(
        model.anchors.sizes,
        model.anchors.ratios,
        rounded=model.anchors.rounded,
        stride_rule=model.anchors.stride,
        offset=model.anchors.offset,
        whole_at=strides if model.anchors.whole_cells else None,
    )
    rpn = RPN(channels, strides, anchors, model.rpn, shorter=float(model.last_pixel))
    roi_heads = build_roi_heads(model, channels, roi_strides)

    network = MaskRCNN(backbone, neck, rpn, roi_heads, image.mean, image.std)
    return network.to(memory_format=torch.channels_last)


def build_backbone(model: ModelConfig) -> ResNet | TimmBackbone:
    if isinstance(model.backbone, TimmConfig):
        return TimmBackbone(model.backbone)
    return ResNet(model.backbone, last_stage=4 if model.neck == "c4" else 5, dilated=model.neck == "dc5")


def build_roi_heads(model: ModelConfig, channels: int, strides: list[int]) -> RoIHeads:
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
    shorter = float(model.last_pixel)
    pooler = RoIPooler(strides, model.rois, shared_head, shorter=shorter, unread=float(model.pixel_boxes))

    box_heads = [
        BoxHead(channels, -(-box.resolution // shrink), classes, box) for _ in range(1 + len(box.cascade_ious))
    ]
    box_branch = CascadeBranch(box_heads, box) if box.cascade_ious else BoxBranch(box_heads[0], box)

    mask_branch: MaskBranch | CascadeMaskBranch | PointRendBranch | None = None
    if mask is not None:
        masks = 1 if mask.class_agnostic else classes + (mask.loss == "softmax")
        if mask.point_rend is not None:
            coarse, points = CoarseMaskHead(channels, masks, mask), PointHead(channels, masks, mask.point_rend)
            mask_branch = PointRendBranch(coarse, points, classes, strides[0], mask)
        else:
            mask_heads: list[MaskHead | MLPMaskHead] = [
                MLPMaskHead(channels, -(-mask.resolution // shrink), masks, mask)
                if mask.kind == "mlp"
                else MaskHead(channels, masks, mask)
                for _ in (box_heads if mask.cascade else box_heads[:1])
            ]
            branches = [MaskBranch(head, classes, mask) for head in mask_heads]
            mask_branch = CascadeMaskBranch(branches, box) if mask.cascade else branches[0]

    keypoint_branch = None
    if keypoint is not None:
        side = 4 * -(-keypoint.resolution // shrink)
        keypoint_branch = KeypointBranch(KeypointHead(channels, keypoint), side, keypoint)
    return RoIHeads(pooler, box_branch, mask_branch, keypoint_branch, shorter)
