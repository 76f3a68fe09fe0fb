"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017): features of res2..res5 at strides 4, 8, 16 and 32."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maskrcnn.config import ResNetConfig
from maskrcnn.models.deform_conv import DeformConvNorm
from maskrcnn.models.norm import ConvNorm, fixed_statistics

BLOCKS = {
    10: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (depths 10, 18 and 34).

    Args:
        in_channels, out_channels: channels of the block's input and output.
        stage: 2 for res2 up to 5 for res5.
        dilation: dilation of the 3x3 convolutions.
    """

    expansion = 1

    def __init__(
        self, in_channels: int, out_channels: int, stage: int, stride: int, dilation: int, config: ResNetConfig
    ) -> None:
        super().__init__()
        norm, eps = config.norm, config.norm_eps
        self.conv1 = ConvNorm(in_channels, out_channels, 3, stride=stride, dilation=dilation, norm=norm, eps=eps)
        self.conv2 = ConvNorm(out_channels, out_channels, 3, dilation=dilation, norm=norm, eps=eps)
        self.shortcut = _shortcut(in_channels, out_channels, stride, config)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu_(self.conv1(x)))
        return F.relu_(y.add_(self.shortcut(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut (depths 50, 101 and 152). The arguments are those of `BasicBlock`.

    The 3x3 convolution has the stride, as in torchvision's weights, or with `config.stride_in_1x1` the first 1x1
    convolution, as in the original weights.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, out_channels: int, stage: int, stride: int, dilation: int, config: ResNetConfig
    ) -> None:
        super().__init__()
        norm, eps = config.norm, config.norm_eps
        inner = (config.bottleneck_width or config.width) * 2 ** (stage - 2)
        first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
        self.conv1 = ConvNorm(in_channels, inner, 1, stride=first, norm=norm, eps=eps)
        self.conv2: nn.Module
        if stage in config.deformable_stages:
            modulated = config.deformable_modulated
            self.conv2 = DeformConvNorm(inner, second, dilation, config.groups, modulated=modulated, norm=norm, eps=eps)
        else:
            self.conv2 = ConvNorm(
                inner, inner, 3, stride=second, dilation=dilation, groups=config.groups, norm=norm, eps=eps
            )
        self.conv3 = ConvNorm(inner, out_channels, 1, norm=norm, eps=eps)
        self.shortcut = _shortcut(in_channels, out_channels, stride, config)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(F.relu_(self.conv2(F.relu_(self.conv1(x)))))
        return F.relu_(y.add_(self.shortcut(x)))


def _shortcut(in_channels: int, out_channels: int, stride: int, config: ResNetConfig) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNorm(in_channels, out_channels, 1, stride=stride, norm=config.norm, eps=config.norm_eps)


def stem_channels(config: ResNetConfig) -> int:
    """Channels of the stem's output."""
    return config.width if config.stem_width is None else config.stem_width


def stage_channels(config: ResNetConfig) -> list[int]:
    """Channels of res2..res5."""
    expansion = 1 if config.depth < 50 else Bottleneck.expansion
    return [config.width * 2**i * expansion for i in range(4)]


def res_stage(stage: int, config: ResNetConfig, *, dilated: bool = False) -> nn.Sequential:
    """The blocks of one stage, 2 for res2 up to 5 for res5.

    Args:
        dilated: whether the stage keeps the resolution of the stage before. Its 3x3 convolutions then have dilation 2,
            which keeps their receptive field (DC5).
    """
    block = BasicBlock if config.depth < 50 else Bottleneck
    channels = stage_channels(config)[stage - 2]
    in_channels = stem_channels(config) if stage == 2 else stage_channels(config)[stage - 3]
    stride = 1 if stage == 2 or dilated else 2
    dilation = 2 if dilated else 1
    first = block(in_channels, channels, stage, stride, dilation, config)
    others = [block(channels, channels, stage, 1, dilation, config) for _ in range(BLOCKS[config.depth][stage - 2] - 1)]
    return nn.Sequential(first, *others)


class ResNet(nn.Module):
    """The stem and the stages res2..res5.

    The first `config.frozen_stages` of them, where the stem counts as the first, are not trained, and their norms keep
    their statistics. The first convolution of images that are not RGB is always trained: adapted weights begin with the
    same values for all channels.

    Args:
        in_channels: channels of the images.
        last_stage: 5, or 4 with C4, where res5 belongs to the heads.
        dilated: whether res5 keeps the resolution of res4 (DC5).
        pool_padding: padding of the stem's max pooling: `around` the map, or `after` it, at bottom and right only.
        recompute: whether training computes blocks again in the backward pass, instead of keeping what is inside.
    """

    def __init__(
        self,
        config: ResNetConfig,
        *,
        in_channels: int = 3,
        last_stage: int = 5,
        dilated: bool = False,
        pool_padding: Literal["around", "after"] = "around",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.frozen_stages = config.frozen_stages
        self.pool_padding = pool_padding
        self.stem = ConvNorm(in_channels, stem_channels(config), 7, stride=2, norm=config.norm, eps=config.norm_eps)
        self.channels = stage_channels(config)[: last_stage - 1]
        self.strides = [4, 8, 16, 16 if dilated else 32][: last_stage - 1]
        for stage in range(2, last_stage + 1):
            self.add_module(f"res{stage}", res_stage(stage, config, dilated=dilated and stage == 5))
        for part in self.stages()[: self.frozen_stages]:
            part.requires_grad_(False)
        if in_channels != 3:
            self.stem.conv.requires_grad_(True)

    def stages(self) -> list[nn.Module]:
        """Stem, res2, res3, ..."""
        return [self.stem, *(self.get_submodule(f"res{i + 2}") for i in range(len(self.channels)))]

    def train(self, mode: bool = True) -> ResNet:
        super().train(mode)
        for stage in self.stages()[: self.frozen_stages]:
            stage.eval()
        return self

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) normalised pixels -> [C2, C3, ...], each (B, C, H / stride, W / stride)."""
        x = F.relu_(self.stem(pixels))
        if self.pool_padding == "after":
            x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), kernel_size=3, stride=2)
        else:
            x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        features = []
        for stage in self.stages()[1:]:
            x = _recomputed(stage, x) if self.recompute and torch.is_grad_enabled() else stage(x)
            features.append(x)
        return features


def _recomputed(blocks: nn.Module, x: Tensor) -> Tensor:
    """The output of the blocks. Only the inputs of trained blocks are kept for the backward pass."""
    for block in blocks.children():
        if not any(parameter.requires_grad for parameter in block.parameters()):
            x = block(x)
            continue
        # Statistics of norms were updated in the forward pass already.
        contexts = partial(_first_and_second, block)
        x = checkpoint(block, x, use_reentrant=False, preserve_rng_state=False, context_fn=contexts)
    return x


def _first_and_second(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), fixed_statistics(block)
