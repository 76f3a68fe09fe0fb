"""Deformable convolution (Dai et al. 2017; modulated: Zhu et al. 2019).

It is a 3x3 convolution. A second convolution computes offsets by which its samples are moved.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from maskrcnn.config import Norm
from maskrcnn.models.norm import FrozenBatchNorm, norm_layer


class DeformConvNorm(nn.Module):
    """A 3x3 deformable convolution without bias, then its norm. The offsets start at zero."""

    def __init__(
        self, channels: int, stride: int, dilation: int, groups: int, *, modulated: bool, norm: Norm, eps: float
    ) -> None:
        super().__init__()
        self.modulated = modulated
        self.conv = nn.Conv2d(channels, channels, 3, stride, dilation, dilation, groups, bias=False)
        self.offset = nn.Conv2d(channels, 27 if modulated else 18, 3, stride, dilation, dilation)
        self.norm = norm_layer(norm, channels, eps)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H / stride, W / stride)."""
        prediction = self.offset(x)
        offsets = prediction[:, :18]
        # Zhu et al. multiply the nine samples by weights in 0..1. All start at 0.5, which halves the output at first.
        modulation = torch.sigmoid(prediction[:, 18:]) if self.modulated else None
        if isinstance(self.norm, FrozenBatchNorm):
            return self._deform(x, offsets, modulation, *self.norm.fold(self.conv.weight))
        return self.norm(self._deform(x, offsets, modulation, self.conv.weight, None))

    def _deform(
        self, x: Tensor, offsets: Tensor, modulation: Tensor | None, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        conv = self.conv
        y: Tensor = deform_conv2d(x, offsets, weight, bias, conv.stride, conv.padding, conv.dilation, modulation)
        return y
