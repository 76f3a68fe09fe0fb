"""What a configuration costs: parameters, and arithmetic per image."""

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
    """Parameters, trained or frozen (without buffers), and FLOPs of predicting one image, a multiply-add being two."""

    parameters: int
    backbone: int  # with the pyramid
    rpn: int
    box_head: int  # of all proposals, and all stages of a cascade
    mask_head: int  # of as many detections as an image may have
    keypoint_head: int  # of as many

    @property
    def flops(self) -> int:
        return self.backbone + self.rpn + self.box_head + self.mask_head + self.keypoint_head


def cost(config: Config, image_hw: tuple[int, int] = (800, 1333)) -> Cost:
    """Counts on shapes alone (torch's meta device): nothing is computed, and no memory is used.

    Only convolutions and matrix products count. The image is padded to `config.image.divisor` first.
    """
    divisor = config.image.divisor
    height, width = (-(-side // divisor) * divisor for side in image_hw)
    deformable = {torch.ops.torchvision.deform_conv2d: _deformable}
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


def _deformable(x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
    """FLOPs of a plain convolution; the interpolation of the samples is not counted."""
    return 2 * math.prod(out_shape) * math.prod(weight[1:])
