"""Backbones of the timm library with feature maps at strides 4 to 32 (extra `timm`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from maskrcnn.config import TimmConfig
from maskrcnn.errors import ConfigError, MissingPackageError

STRIDES = [4, 8, 16, 32]


class TimmBackbone(nn.Module):
    """The features of a timm model at strides 4, 8, 16 and 32, for images of `in_channels` channels.

    Raises:
        MissingPackageError: timm is not installed.
        ConfigError: timm has no such model, or the model has no features at these strides.
    """

    def __init__(self, config: TimmConfig, in_channels: int = 3) -> None:
        super().__init__()
        try:
            import timm
        except ModuleNotFoundError:
            raise MissingPackageError(
                f"backbone.name {config.name!r} is a model of timm, which is missing: pip install 'maskrcnn[timm]'"
            ) from None
        if not timm.is_model(config.name):
            near = ", ".join(timm.list_models(f"*{config.name.split('_')[0]}*")[:3])
            raise ConfigError(
                f"backbone.name {config.name!r} is no model of timm {timm.__version__}; "
                + (f"near: {near}" if near else "timm.list_models() names them")
            )
        self.name, self.in_channels = config.name, in_channels
        self.net: Any
        try:
            self.net = timm.create_model(config.name, features_only=True, in_chans=in_channels)
        except (RuntimeError, AttributeError, KeyError) as error:
            raise ConfigError(f"backbone.name {config.name!r} gives no feature maps: {error}") from None
        strides = self.net.feature_info.reduction()
        if not set(STRIDES) <= set(strides):
            raise ConfigError(
                f"backbone.name {config.name!r} has features at strides {strides}; the pyramid needs {STRIDES}"
            )
        self.used = [strides.index(stride) for stride in STRIDES]
        self.strides = STRIDES
        self.channels = [self.net.feature_info.channels()[i] for i in self.used]
        self.frozen = config.frozen
        if self.frozen:
            self.requires_grad_(False)

    def train(self, mode: bool = True) -> TimmBackbone:
        return super().train(mode and not self.frozen)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """(B, in_channels, H, W) normalised pixels -> [C2, C3, C4, C5], each (B, C, H / stride, W / stride)."""
        features = self.net(pixels)
        return [features[i].contiguous(memory_format=torch.channels_last) for i in self.used]
