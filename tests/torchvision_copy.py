"""torchvision's Mask R-CNN of both versions for the tests of parity: nothing in its losses is drawn at random."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torchvision.models.detection import maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from maskrcnn.benchmark.pair import CLASSES, SPREAD, enliven
from maskrcnn.config import Config
from maskrcnn.weights.torchvision import Version, torchvision_config

EVERYTHING = 10**6  # a sample size that leaves nothing out, so that nothing is random
TRAIN_PROPOSALS = 50  # an image

SPREAD_V2 = {
    **{name: value for name, value in SPREAD.items() if "mask_head" not in name},  # its norms spread what they say
    "rpn.head.conv.1.0": 1.0,
    "roi_heads.box_head.5": 1.0,
}


def torchvisions_rules(version: Version, short_side: int, long_side: int, proposals: int, detections: int) -> Config:
    """torchvision's config with every sample in the losses."""
    config = torchvision_config(version, CLASSES - 1)
    model = config.model
    assert model.mask_head is not None
    model = replace(
        model,
        rpn=replace(
            model.rpn,
            samples=EVERYTHING,
            positive_fraction=1.0,
            pre_nms_train=500,
            post_nms_train=TRAIN_PROPOSALS,
            post_nms_test=proposals,
        ),
        box_head=replace(model.box_head, samples=EVERYTHING, positive_fraction=1.0),
        mask_head=replace(model.mask_head, samples=EVERYTHING),
        detect=replace(model.detect, max_detections=detections),
    )
    return replace(config, model=model, image=replace(config.image, short_side=short_side, long_side=long_side))


def torchvision_model(
    version: Version, short_side: int, long_side: int, proposals: int, detections: int, images: list[Tensor]
) -> nn.Module:
    """torchvision's network in evaluation mode, sampling everything when it trains, lively on `images`."""
    torch.manual_seed(0)
    build = maskrcnn_resnet50_fpn if version == 1 else maskrcnn_resnet50_fpn_v2
    model = build(
        weights=None,
        weights_backbone=None,
        num_classes=CLASSES,
        min_size=short_side,
        max_size=long_side,
        rpn_batch_size_per_image=EVERYTHING,
        rpn_positive_fraction=1.0,
        rpn_pre_nms_top_n_train=500,
        rpn_post_nms_top_n_train=TRAIN_PROPOSALS,
        rpn_post_nms_top_n_test=proposals,
        box_detections_per_img=detections,
        box_batch_size_per_image=EVERYTHING,
        box_positive_fraction=1.0,
    ).eval()
    enliven(model, images, SPREAD if version == 1 else SPREAD_V2)
    return model
