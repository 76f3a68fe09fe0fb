"""What a configuration costs: parameters, and arithmetic per image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from maskrcnn.config import Config
from maskrcnn.models.build import build_model


class Cost(NamedTuple):
    """Parameters, trained or frozen (norm buffers excluded), and FLOPs of predicting one image: a multiply-add is 2."""

    parameters: int
    backbone: int  # and pyramid
    rpn: int
    box_head: int  # all proposals
    mask_head: int  # the most detections an image

    @property
    def flops(self) -> int:
        return self.backbone + self.rpn + self.box_head + self.mask_head


def cost(config: Config, image_hw: tuple[int, int] = (800, 1333)) -> Cost:
    """Counts on shapes alone: nothing is computed, no memory is used.

    Only convolutions and matrix products count. The image is padded to `config.image.divisor` first.
    """
    divisor = config.image.divisor
    height, width = (-(-side // divisor) * divisor for side in image_hw)
    with torch.device("meta"), torch.no_grad():
        network = build_model(config).eval()
        heads = network.roi_heads
        with FlopCounterMode(display=False) as backbone:
            features = network.neck(network.backbone(torch.empty(1, 3, height, width)))
        with FlopCounterMode(display=False) as rpn:
            for feature in features:
                network.rpn.head(feature)
        channels, side = features[0].shape[1], heads.box_pooler.output_size
        with FlopCounterMode(display=False) as box:
            heads.box_head(torch.empty(config.model.rpn.post_nms_test, channels, side, side))
        with FlopCounterMode(display=False) as mask:
            if heads.mask_head is not None and heads.mask_pooler is not None:
                side, count = heads.mask_pooler.output_size, config.model.detect.max_detections
                labels = torch.empty(count, dtype=torch.int64)
                heads.mask_head(torch.empty(count, channels, side, side), labels)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Cost(parameters, *(counter.get_total_flops() for counter in (backbone, rpn, box, mask)))
