"""The block diagram: every part and number of a Mask R-CNN, in the order in which an image meets them."""

from __future__ import annotations

import torch

from maskrcnn.config import Config
from maskrcnn.models.anchors import Anchors
from maskrcnn.models.box_head import BoxHead
from maskrcnn.models.fpn import FPN
from maskrcnn.models.mask_head import MaskHead
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.models.resnet import ResNet
from maskrcnn.models.roi_heads import RoIHeads, RoIPooler
from maskrcnn.models.rpn import RPN


def build_model(config: Config) -> MaskRCNN:
    """A network with random weights (torch's global generator), channels-last, in training mode."""
    model, image = config.model, config.image
    classes, channels = model.num_classes, model.fpn_channels

    backbone = ResNet(model.backbone)
    neck = FPN(backbone.channels, channels, model.fpn_norm)
    anchors = Anchors(
        model.anchors.sizes,
        model.anchors.ratios,
        rounded=model.anchors.rounded,
        stride_rule=model.anchors.stride,
    )
    rpn = RPN(channels, neck.strides, anchors, model.rpn)

    roi_levels = neck.strides[:-1]  # P6 serves the RPN only
    box = model.box_head
    box_pooler = RoIPooler(roi_levels, box.resolution, model.roi_align)
    box_head = BoxHead(channels, classes, box)
    mask_pooler, mask_head, mask = None, None, model.mask_head
    if mask is not None:
        mask_pooler = RoIPooler(roi_levels, mask.resolution, model.roi_align)
        mask_head = MaskHead(channels, mask.convs, mask.channels, classes, mask.class_agnostic, mask.norm)
    roi_heads = RoIHeads(box_pooler, box_head, box, mask_pooler, mask_head, mask)

    network = MaskRCNN(backbone, neck, rpn, roi_heads, image.mean, image.std)
    return network.to(memory_format=torch.channels_last)
