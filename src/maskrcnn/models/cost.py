"""The cost of a configuration: parameters, and arithmetic per image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn.config import Config
from maskrcnn.models.build import build_model


class Cost(NamedTuple):
    """Number of parameters, trained or frozen, and the FLOPs of predicting one image. A multiply-add is two FLOPs."""

    parameters: int
    backbone: int  # with the neck
    rpn: int
    box_head: int  # for all proposals, summed over the stages of a cascade
    mask_head: int  # for the maximum number of detections
    keypoint_head: int  # for the maximum number of detections

    @property
    def flops(self) -> int:
        return self.backbone + self.rpn + self.box_head + self.mask_head + self.keypoint_head


def cost(config: Config, image_hw: tuple[int, int] = (800, 1333)) -> Cost:
    """Counts convolutions and matrix products on torch's meta device, which computes shapes alone and uses no memory.

    Args:
        image_hw: size of the network input, which is padded to `config.image.divisor` first.
    """
    divisor = config.image.divisor
    height, width = (-(-side // divisor) * divisor for side in image_hw)
    deformable = {torch.ops.torchvision.deform_conv2d: _deformable_flops}
    counters = [FlopCounterMode(display=False, custom_mapping=deformable) for _ in range(5)]
    with torch.device("meta"), torch.no_grad():
        network = build_model(config).eval()
        with counters[0]:
            features = network.neck(reversed(network.backbone(torch.empty(1, 3, height, width))))
        with counters[1]:
            for feature in features:
                network.rpn.head(feature)
        heads, model = network.roi_heads, config.model

        def roi_features(count: int) -> Callable[[int], Tensor]:
            return lambda side: heads.pooler.shared_head(torch.empty(count, features[0].shape[1], side, side))

        with counters[2]:
            heads.box.run_heads(roi_features(model.rpn.post_nms_test))
        for branch, counter in ((heads.mask, counters[3]), (heads.keypoint, counters[4])):
            if branch is not None:
                with counter:
                    branch.run_heads(roi_features(model.detect.max_detections))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, *(counter.get_total_flops() for counter in counters))


def _deformable_flops(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    """The FLOPs of a plain convolution. The interpolation of the samples is not counted."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])
