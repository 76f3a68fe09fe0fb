"""Feature pyramid network (Lin et al. 2017): P2..P5 from C2..C5, and P6 for the RPN."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import HeadNorm
from maskrcnn.models.norm import head_conv


class FPN(nn.Module):
    """1x1 lateral convolutions, nearest upsampling, sum, and a 3x3 convolution on every level.

    Args:
        in_channels: of C2..C5, at strides 4, 8, 16 and 32.
        channels: of every level of the pyramid.
        norm: of every convolution; none follows it with a ReLU.
    """

    strides = (4, 8, 16, 32, 64)

    def __init__(self, in_channels: Sequence[int], channels: int, norm: HeadNorm = "none") -> None:
        super().__init__()
        self.lateral = nn.ModuleList([head_conv(c, channels, 1, norm) for c in in_channels])
        self.output = nn.ModuleList([head_conv(channels, channels, 3, norm) for _ in in_channels])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[C2..C5] -> [P2, P3, P4, P5, P6], each (B, channels, h, w)."""
        top_down: Tensor | None = None
        pyramid: list[Tensor] = []
        for feature, lateral, output in zip(
            reversed(features), reversed(self.lateral), reversed(self.output), strict=True
        ):
            merged = lateral(feature)
            if top_down is not None:
                merged.add_(F.interpolate(top_down, size=merged.shape[-2:], mode="nearest"))
            top_down = merged
            pyramid.insert(0, output(merged))
        pyramid.append(F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return pyramid
