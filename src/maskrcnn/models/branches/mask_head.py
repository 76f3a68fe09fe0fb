"""Mask heads: a small fully convolutional network on each RoI, or for the ablation an MLP.

Paper section 3, figure 4 right. Legend: R RoIs, K classes, C channels, O side of the RoI features, M side of the mask.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import MaskHeadConfig
from maskrcnn.models.branches.box_head import fully_connected
from maskrcnn.models.norm import head_conv


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 transposed convolution of stride 2, and a 1x1 convolution to one mask per class.

    M = 2 * O. With class-agnostic masks K is 1; with the softmax loss it includes the background.
    """

    def __init__(self, in_channels: int, masks: int, config: MaskHeadConfig) -> None:
        super().__init__()
        convs, channels = config.convs, config.channels
        upsampled = config.upsampled_channels or channels
        self.convs = nn.ModuleList(
            [head_conv(in_channels if i == 0 else channels, channels, 3, config.norm) for i in range(convs)]
        )
        self.upsample = nn.ConvTranspose2d(channels if convs else in_channels, upsampled, 2, stride=2)
        self.predictor = nn.Conv2d(upsampled, masks, 1)
        nn.init.kaiming_normal_(self.upsample.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.upsample.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> logits (R, K, M, M) float32."""
        weight, bias = self.predictor.weight.flatten(1), self.predictor.bias
        logits = self._masks(roi_features, lambda pixels: F.linear(pixels, weight, bias))
        return logits.permute(0, 3, 1, 2).float()

    def of_labels(self, roi_features: Tensor, labels: Tensor) -> Tensor:
        """The logits of one class per RoI, without computing those of the other classes.

        Args:
            roi_features: (R, C, O, O).
            labels: (R,) int64 in 0..K-1.

        Returns:
            (R, M, M) float32.
        """
        weight = self.predictor.weight[labels].flatten(1)[..., None]  # (R, C, 1)
        assert self.predictor.bias is not None
        bias = self.predictor.bias[labels][:, None, None]

        def predict(pixels: Tensor) -> Tensor:
            return torch.baddbmm(bias.to(pixels.dtype), pixels, weight.to(pixels.dtype))

        return self._masks(roi_features, predict)[..., 0].float()

    def _masks(self, roi_features: Tensor, predict: Callable[[Tensor], Tensor]) -> Tensor:
        """(R, C, O, O) -> logits (R, M, M, K).

        The stride of the transposed convolution equals its kernel size. So a matrix product computes one of the 2x2
        mask pixels that an input pixel becomes, and the 1x1 convolution after it takes pixels in any order. Each of the
        four products is predicted from before the next is computed. So prediction holds a quarter of the mask pixels.

        Args:
            predict: the 1x1 convolution, from (R, O * O, C) to (R, O * O, K).
        """
        x = roi_features
        for conv in self.convs:
            x = F.relu_(conv(x))
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        weights = self.upsample.weight.permute(2, 3, 1, 0).flatten(0, 1)  # (2 * 2, C, C of x)
        quarters = [predict(F.relu_(F.linear(pixels, weight, self.upsample.bias))) for weight in weights]
        count, side, kinds = x.shape[0], x.shape[-1], quarters[0].shape[-1]
        logits = torch.stack(quarters, 2).view(count, side, side, 2, 2, kinds)
        return logits.transpose(2, 3).reshape(count, 2 * side, 2 * side, kinds)


class MLPMaskHead(nn.Module):
    """Fully connected layers to one M x M mask per class, M = 2 * O (the alternative in the paper's table 2e)."""

    def __init__(self, in_channels: int, resolution: int, masks: int, config: MaskHeadConfig) -> None:
        super().__init__()
        self.masks, self.side = masks, 2 * resolution
        self.layers = fully_connected(in_channels * resolution**2, config.hidden, config.layers)
        self.predictor = nn.Linear(config.hidden, masks * self.side**2)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> logits (R, K, M, M) float32."""
        return self.predictor(self.hidden(roi_features)).view(-1, self.masks, self.side, self.side).float()

    def of_labels(self, roi_features: Tensor, labels: Tensor) -> Tensor:
        """The logits (R, M, M) float32 of one class per RoI, as in `MaskHead.of_labels`."""
        x = self.hidden(roi_features)
        weight = self.predictor.weight.view(self.masks, -1, x.shape[1])[labels].to(x.dtype)
        bias = self.predictor.bias.view(self.masks, -1)[labels].to(x.dtype)
        return torch.baddbmm(bias[..., None], weight, x[..., None]).view(-1, self.side, self.side).float()

    def hidden(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> (R, units), the output of the last hidden layer."""
        x = roi_features.permute(0, 2, 3, 1).flatten(1)
        for layer in self.layers:
            x = F.relu_(layer(x))
        return x
