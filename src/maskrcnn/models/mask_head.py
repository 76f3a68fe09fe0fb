"""Mask branch: a small fully convolutional network on each RoI (paper section 3, figure 4 right).

Legend: R RoIs, K classes, C channels, O side of the RoI feature, M = 2 * O side of the mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import HeadNorm
from maskrcnn.models.norm import head_conv


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 transposed convolution of stride 2, and one 1x1 mask a class."""

    def __init__(
        self,
        in_channels: int,
        convs: int,
        channels: int,
        num_classes: int,
        class_agnostic: bool,
        norm: HeadNorm = "none",
    ) -> None:
        super().__init__()
        self.class_agnostic = class_agnostic
        self.convs = nn.ModuleList(
            [head_conv(in_channels if i == 0 else channels, channels, 3, norm) for i in range(convs)]
        )
        self.upsample = nn.ConvTranspose2d(channels if convs else in_channels, channels, 2, stride=2)
        self.predictor = nn.Conv2d(channels, 1 if class_agnostic else num_classes, 1)
        nn.init.kaiming_normal_(self.upsample.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.upsample.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, roi_features: Tensor, labels: Tensor) -> Tensor:
        """Mask logits of one class a RoI: masks do not compete across classes, so no other is computed.

        Args:
            roi_features: (R, C, O, O).
            labels: (R,) int64 in 0..K-1, the true class in training and the detected one after it.

        Returns:
            (R, M, M) float32.
        """
        x = roi_features
        for conv in self.convs:
            x = F.relu_(conv(x))
        x = F.relu_(self.upsample(x))
        if self.class_agnostic:
            return self.predictor(x)[:, 0].float()
        weight = self.predictor.weight[labels].flatten(1)  # (R, C)
        assert self.predictor.bias is not None
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # (R, M * M, C)
        logits = torch.baddbmm(
            self.predictor.bias[labels][:, None, None].to(x.dtype), pixels, weight[..., None].to(x.dtype)
        )
        return logits.view(len(x), x.shape[2], x.shape[3]).float()
