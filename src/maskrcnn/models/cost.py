"""What a configuration costs: parameters, and arithmetic per image."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn.config import Config
from maskrcnn.models.box_head import BoxBranch
from maskrcnn.models.build import build_model
from maskrcnn.models.cascade import CascadeMaskBranch
from maskrcnn.models.point_rend import PointRendBranch
from maskrcnn.models.roi_heads import RoIHeads


class Cost(NamedTuple):
    """Parameters, trained or frozen (norm buffers excluded), and FLOPs of predicting one image: a multiply-add is 2."""

    parameters: int
    backbone: int  # and pyramid
    rpn: int
    box_head: int  # all proposals, all stages of a cascade
    mask_head: int  # the most detections an image
    keypoint_head: int  # the same

    @property
    def flops(self) -> int:
        return self.backbone + self.rpn + self.box_head + self.mask_head + self.keypoint_head


def cost(config: Config, image_hw: tuple[int, int] = (800, 1333)) -> Cost:
    """Counts on shapes alone: nothing is computed, no memory is used.

    Only convolutions and matrix products count. The image is padded to `config.image.divisor` first.
    """
    divisor = config.image.divisor
    height, width = (-(-side // divisor) * divisor for side in image_hw)
    deformable = {torch.ops.torchvision.deform_conv2d: _deformable}
    counters = [FlopCounterMode(display=False, custom_mapping=deformable) for _ in range(5)]
    with torch.device("meta"), torch.no_grad():
        network = build_model(config).eval()
        with counters[0]:
            features = network.neck(network.backbone(torch.empty(1, 3, height, width)))
        with counters[1]:
            for feature in features:
                network.rpn.head(feature)
        channels, heads = features[0].shape[1], network.roi_heads
        with counters[2]:
            _run_box(heads, config.model.rpn.post_nms_test, channels)
        with counters[3]:
            _run_mask(heads, config.model.detect.max_detections, channels)
        with counters[4]:
            if heads.keypoint is not None:
                side = heads.keypoint.config.resolution
                heads.keypoint.head(_roi_features(heads, config.model.detect.max_detections, channels, side))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, *(counter.get_total_flops() for counter in counters))


def _deformable(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    """As a plain convolution; finding the samples is not counted."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])


def _roi_features(heads: RoIHeads, count: int, channels: int, side: int) -> torch.Tensor:
    features: torch.Tensor = heads.pooler.shared_head(torch.empty(count, channels, side, side))
    return features


def _run_box(heads: RoIHeads, proposals: int, channels: int) -> None:
    box = heads.box
    for head in [box.head] if isinstance(box, BoxBranch) else box.heads:
        head(_roi_features(heads, proposals, channels, box.config.resolution))


def _run_mask(heads: RoIHeads, detections: int, channels: int) -> None:
    mask = heads.mask
    if mask is None:
        return
    features = _roi_features(heads, detections, channels, mask.config.resolution)
    if isinstance(mask, PointRendBranch):
        coarse = mask.coarse_head(features)
        side, steps = mask.first_grid()
        points = side**2 + steps * mask.points.subdivision_points
        mask.point_head(torch.empty(detections, channels, points), torch.empty(detections, coarse.shape[1], points))
        return
    for branch in mask.branches() if isinstance(mask, CascadeMaskBranch) else [mask]:
        head = branch.head
        if mask.config.loss == "softmax" or mask.config.class_agnostic:
            head(features)
        else:
            head.of_labels(features, torch.empty(detections, dtype=torch.int64))
