"""torchvision's Mask R-CNN of both versions for the tests of parity: nothing in its losses is drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import keypointrcnn_resnet50_fpn, maskrcnn_resnet50_fpn, maskrcnn_resnet50_fpn_v2

from maskrcnn.benchmark.pair import SPREAD, TORCHVISION_CLASSES, enliven, settings_of_theirs, without_sampling
from maskrcnn.config import Config
from maskrcnn.predict import Predictor
from maskrcnn.structures.instances import Instances
from maskrcnn.weights.frameworks.torchvision.settings import Version, torchvision_config

SPREAD_V2 = {
    **{name: value for name, value in SPREAD.items() if ".mask_head." not in name},  # norms spread what these say
    "rpn.head.conv.1.0": 1.0,
    "roi_heads.box_head.5": 1.0,
}


SPREAD_KEYPOINT = {
    **{name: value for name, value in SPREAD.items() if ".mask_" not in name},
    **{f"roi_heads.keypoint_head.{2 * i}": 1.0 for i in range(8)},
    "roi_heads.keypoint_predictor.kps_score_lowres": 3.0,
}


def in_one_batch(predictor: Predictor, images: list[np.ndarray]) -> list[Instances]:
    """What is found on images of any orientation that share one padded batch, as torchvision's transform makes it."""
    return predictor.finish(predictor.detect([predictor.prepare(image) for image in images]))


def torchvisions_rules(version: Version, short_side: int, long_side: int, proposals: int, detections: int) -> Config:
    """torchvision's config with every sample in the losses."""
    return _sized(torchvision_config(version, TORCHVISION_CLASSES - 1), short_side, long_side, proposals, detections)


def torchvisions_keypoint_rules(short_side: int, long_side: int, proposals: int, detections: int) -> Config:
    """The same of Keypoint R-CNN, for persons with 17 keypoints."""
    return _sized(torchvision_config(1, 1, 17), short_side, long_side, proposals, detections)


def _sized(config: Config, short_side: int, long_side: int, proposals: int, detections: int) -> Config:
    config = without_sampling(config)
    model = replace(
        config.model,
        rpn=replace(config.model.rpn, post_nms_test=proposals),
        detect=replace(config.model.detect, max_detections=detections),
    )
    return replace(config, model=model, image=replace(config.image, short_side=short_side, long_side=long_side))


def torchvision_model(version: Version, config: Config, images: list[Tensor]) -> nn.Module:
    """torchvision's network in evaluation mode, following `config`, lively on `images`."""
    torch.manual_seed(0)
    build = maskrcnn_resnet50_fpn if version == 1 else maskrcnn_resnet50_fpn_v2
    model = build(weights=None, weights_backbone=None, **settings_of_theirs(config)).eval()
    enliven(model, images, SPREAD if version == 1 else SPREAD_V2)
    return model


def torchvision_keypoint_model(config: Config, images: list[Tensor]) -> nn.Module:
    """The same of Keypoint R-CNN."""
    torch.manual_seed(0)
    model = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, **settings_of_theirs(config)).eval()
    enliven(model, images, SPREAD_KEYPOINT)
    return model
