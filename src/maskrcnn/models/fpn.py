"""Feature pyramid network (Lin et al. 2017): P2..P5 from C2..C5, and P6 for the RPN."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import HeadNorm
from maskrcnn.models.norm import head_conv


class FPN(nn.Module):
    """1x1 lateral convolutions, nearest upsampling, sum, and a 3x3 convolution on every level.

    Args:
        in_channels: channels of C2..C5, whose strides are 4, 8, 16 and 32.
        channels: channels of every level of the pyramid.
        norm: normalisation after every convolution. There is no ReLU.
    """

    strides = (4, 8, 16, 32, 64)

    def __init__(self, in_channels: Sequence[int], channels: int, norm: HeadNorm = "none") -> None:
        super().__init__()
        self.lateral = nn.ModuleList([head_conv(c, channels, 1, norm) for c in in_channels])
        self.output = nn.ModuleList([head_conv(channels, channels, 3, norm) for _ in in_channels])
        self.merge: Callable[[Tensor, Tensor], None] = add_upsampled
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)

    def forward(self, features: Iterator[Tensor]) -> list[Tensor]:
        """C5, C4, C3, C2, coarsest first, each (B, C, h, w) -> [P2, P3, P4, P5, P6], each (B, channels, h, w)."""
        top_down: Tensor | None = None
        pyramid: list[Tensor] = []
        for lateral, output in zip(reversed(self.lateral), reversed(self.output), strict=True):
            merged = lateral(next(features))  # no variable holds the map, so that its memory is freed
            if top_down is not None:
                self.merge(merged, top_down)
            top_down = merged
            pyramid.insert(0, output(merged))
        # Every second cell, as a mean over one cell: OpenVINO computes a maximum wrong in int8, and the gradient of a
        # slice would be put together from pieces.
        pyramid.append(F.avg_pool2d(pyramid[-1], kernel_size=1, stride=2))
        return pyramid


def add_upsampled(fine: Tensor, coarse: Tensor) -> None:
    """Adds the coarse map (B, C, h, w), upsampled by nearest neighbour, to the fine map (B, C, H, W) in place."""
    height, width = coarse.shape[-2:]
    if fine.shape[-2:] == (2 * height, 2 * width):
        # Broadcasting avoids the upsampled map, which at P2 would be as large as any map of the network. The views
        # follow the order of memory, so that a compiler makes no copies. It would compile the gradient of
        # `interpolate` to slow atomic additions.
        cells = fine.permute(0, 2, 3, 1).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        cells.add_(coarse.permute(0, 2, 3, 1)[:, :, None, :, None])
    else:
        fine.add_(F.interpolate(coarse, size=fine.shape[-2:], mode="nearest"))
