"""ResNet (He et al. 2016) as a backbone: features of res2..res5 at strides 4, 8, 16 and 32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.models.norm import ConvNorm, Norm

BLOCKS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (depths 10, 18 and 34)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, norm: Norm, eps: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, width, 3, stride=stride, norm=norm, eps=eps)
        self.conv2 = ConvNorm(width, width, 3, norm=norm, eps=eps)
        self.shortcut = _shortcut(in_channels, width, stride, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; the stride is in the 3x3 (torchvision's weights)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, norm: Norm, eps: float) -> None:
        super().__init__()
        self.conv1 = ConvNorm(in_channels, width, 1, norm=norm, eps=eps)
        self.conv2 = ConvNorm(width, width, 3, stride=stride, norm=norm, eps=eps)
        self.conv3 = ConvNorm(width, 4 * width, 1, norm=norm, eps=eps)
        self.shortcut = _shortcut(in_channels, 4 * width, stride, norm, eps)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        return F.relu_(y + self.shortcut(x))


def _shortcut(in_channels: int, out_channels: int, stride: int, norm: Norm, eps: float) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, 1, stride=stride, norm=norm, eps=eps)


class ResNet(nn.Module):
    """Stem and four stages.

    Args:
        depth: a key of `BLOCKS`.
        width: channels of the stem.
        norm, eps: of every convolution.
        frozen_stages: the stem (1) and stages up to this number are not trained, and their norms keep still.
    """

    strides = (4, 8, 16, 32)

    def __init__(self, depth: int, width: int, norm: Norm, eps: float, frozen_stages: int) -> None:
        super().__init__()
        block = BasicBlock if depth < 50 else Bottleneck
        self.frozen_stages = frozen_stages
        self.stem = ConvNorm(3, width, 7, stride=2, norm=norm, eps=eps)
        self.channels: list[int] = []
        channels = width
        for i, count in enumerate(BLOCKS[depth]):
            blocks = []
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(block(channels, width * 2**i, stride, norm, eps))
                channels = width * 2**i * block.expansion
            self.add_module(f"res{i + 2}", nn.Sequential(*blocks))
            self.channels.append(channels)
        for stage in self.stages()[:frozen_stages]:
            stage.requires_grad_(False)

    def stages(self) -> list[nn.Module]:
        """Stem, res2, res3, res4, res5."""
        return [self.stem, *(self.get_submodule(f"res{i}") for i in range(2, 6))]

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        for stage in self.stages()[: self.frozen_stages]:
            stage.eval()
        return self

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised pixels -> [C2, C3, C4, C5], each (B, C, H / stride, W / stride)."""
        x = F.max_pool2d(F.relu_(self.stem(pixels)), kernel_size=3, stride=2, padding=1)
        features = []
        for stage in self.stages()[1:]:
            x = stage(x)
            features.append(x)
        return features
