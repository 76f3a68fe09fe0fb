"""Deformable convolution (Dai et al. 2017; modulated: Zhu et al. 2019): a 3x3 convolution whose
samples are moved by offsets that another convolution computes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from maskrcnn.config import Norm
from maskrcnn.models.norm import FrozenBatchNorm, norm_layer


class DeformConvNorm(nn.Module):
    """A 3x3 deformable convolution without bias, then its norm. All its offsets are zero at first."""

    def __init__(
        self,
        channels: int,
        stride: int,
        dilation: int,
        groups: int,
        *,
        modulated: bool,
        norm: Norm,
        eps: float,
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
        moved = self.offset(x)
        # The nine weights of Zhu et al. lie in 0..1 and start at 0.5, which halves the output of an untrained network.
        weights = torch.sigmoid(moved[:, 18:]) if self.modulated else None
        if isinstance(self.norm, FrozenBatchNorm):
            return self._deform(x, moved[:, :18], weights, *self.norm.fold(self.conv.weight))
        return self.norm(self._deform(x, moved[:, :18], weights, self.conv.weight, None))

    def _deform(
        self, x: Tensor, offsets: Tensor, weights: Tensor | None, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        conv = self.conv
        y: Tensor = deform_conv2d(x, offsets, weight, bias, conv.stride, conv.padding, conv.dilation, weights)
        return y
