"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017): features of res2..res5 at strides 4, 8, 16 and 32."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import ResNetConfig
from maskrcnn.models.norm import ConvNorm

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut (depths 10, 18 and 34).

    Args:
        in_channels, out_channels: of the block.
        stage: 0 for res2 up to 3 for res5.
    """

    expansion = 1

    def __init__(self, in_channels: int, out_channels: int, stage: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        norm, eps = config.norm, config.norm_eps
        self.conv1 = ConvNorm(in_channels, out_channels, 3, stride=stride, norm=norm, eps=eps)
        self.conv2 = ConvNorm(out_channels, out_channels, 3, norm=norm, eps=eps)
        self.shortcut = _shortcut(in_channels, out_channels, stride, config)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(y + self.shortcut(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions around a shortcut; arguments as of `BasicBlock`.

    The stride is in the 3x3, as in torchvision's weights, or in the first 1x1, as in the original ones.
    """

    expansion = 4

    def __init__(self, in_channels: int, out_channels: int, stage: int, stride: int, config: ResNetConfig) -> None:
        super().__init__()
        norm, eps = config.norm, config.norm_eps
        inner = (config.bottleneck_width or config.width) * 2**stage
        first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(in_channels, inner, 1, stride=first, norm=norm, eps=eps)
        self.conv2 = ConvNorm(inner, inner, 3, stride=second, groups=config.groups, norm=norm, eps=eps)
        self.conv3 = ConvNorm(inner, out_channels, 1, norm=norm, eps=eps)
        self.shortcut = _shortcut(in_channels, out_channels, stride, config)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        return F.relu_(y + self.shortcut(x))


def _shortcut(in_channels: int, out_channels: int, stride: int, config: ResNetConfig) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, 1, stride=stride, norm=config.norm, eps=config.norm_eps)


class ResNet(nn.Module):
    """Stem and four stages. The stem (1) and stages up to `config.frozen_stages` are not trained, and their
    norms keep still."""

    strides = (4, 8, 16, 32)

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        block = BasicBlock if config.depth < 50 else Bottleneck
        self.frozen_stages = config.frozen_stages
        self.stem = ConvNorm(3, config.width, 7, stride=2, norm=config.norm, eps=config.norm_eps)
        self.channels = [config.width * 2**i * block.expansion for i in range(4)]
        before = config.width
        for i, (count, channels) in enumerate(zip(BLOCKS[config.depth], self.channels, strict=True)):
            first = block(before, channels, i, 1 if i == 0 else 2, config)
            others = [block(channels, channels, i, 1, config) for _ in range(count - 1)]
            self.add_module(f"res{i + 2}", nn.Sequential(first, *others))
            before = channels
        for stage in self.stages()[: self.frozen_stages]:
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
