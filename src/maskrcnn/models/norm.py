"""Convolution followed by normalisation, and batch norm with fixed statistics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskrcnn.config import NORM_GROUPS, HeadNorm, Norm
from maskrcnn.ops.winograd import convolve


class FrozenBatchNorm(nn.Module):
    """Batch norm whose statistics never change: y = x * scale + shift, per channel.

    Args:
        trained: whether weight and bias are parameters; otherwise they are buffers.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, eps: float, *, trained: bool = False) -> None:
        super().__init__()
        self.eps = eps
        weight, bias = torch.ones(channels), torch.zeros(channels)
        if trained:
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", bias)
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels) - eps)

    def fold(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Folds the norm into the convolution before it, which has no bias.

        Args:
            weight: (C, in, k, k), the weight of the convolution.

        Returns:
            Weight (C, in, k, k) and bias (C,) of the one convolution that replaces both.
        """
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return weight * scale[:, None, None, None], self.bias - self.running_mean * scale


@contextmanager
def fixed_statistics(network: nn.Module) -> Iterator[None]:
    """The context in which batch norm of a network in training mode leaves its running statistics as they are."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    statistics = [(norm, name, buffer) for norm in norms for name, buffer in norm.named_buffers(recurse=False)]
    for norm, name, buffer in statistics:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in statistics:
            setattr(norm, name, buffer)


class GroupNorm(nn.GroupNorm):
    """`nn.GroupNorm`, which keeps its digits where a map hardly varies.

    On a CPU the kernel of torch for channels-last maps computes the variance as the mean of the squares minus the
    square of the mean. In dark images both are nearly equal, and scores were off by up to 0.008. Nothing is lost if the
    mean of each group is zero, and the norm does not depend on that mean.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return super().forward(self.centred(x))

    def centred(self, x: Tensor) -> Tensor:
        """The same map, with a mean of zero in each group on a CPU."""
        if x.device.type != "cpu":
            return x
        means = x.detach().mean((2, 3)).unflatten(1, (self.num_groups, -1))  # by channel: fast on channels-last maps
        return x - means.mean(2, keepdim=True).expand_as(means).flatten(1)[..., None, None]


class Conv(nn.Conv2d):
    """`nn.Conv2d`, computed by Winograd's algorithm where that is faster (`ops.winograd`)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        return self.with_weight(x, self.weight, self.bias)

    def with_weight(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The same convolution with another weight and bias of the same shapes."""
        assert isinstance(self.padding, tuple)
        return convolve(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class ConvNorm(nn.Module):
    """A convolution without bias, then its norm.

    A frozen norm is folded into the weight, which saves two passes over the activations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        norm: Norm,
        eps: float,
    ) -> None:
        super().__init__()
        self.conv = Conv(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
        )
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")
        self.norm = norm_layer(norm, out_channels, eps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        if isinstance(self.norm, FrozenBatchNorm):
            return self.conv.with_weight(x, *self.norm.fold(self.conv.weight))
        return self.norm(self.conv(x))


def norm_layer(norm: Norm, channels: int, eps: float) -> FrozenBatchNorm | nn.Module:
    """The norm layer of that name. In a single process synchronised batch norm equals plain batch norm."""
    match norm:
        case "frozen_batch_norm":
            return FrozenBatchNorm(channels, eps)
        case "fixed_batch_norm":
            return FrozenBatchNorm(channels, eps, trained=True)
        case "batch_norm":
            return nn.BatchNorm2d(channels, eps)
        case "sync_batch_norm":
            return nn.SyncBatchNorm(channels, eps)
        case "group_norm":
            return GroupNorm(NORM_GROUPS, channels, eps)


def head_conv(in_channels: int, out_channels: int, kernel_size: int, norm: HeadNorm) -> nn.Module:
    """A convolution of the neck or of a head, with a bias if `norm` is none, otherwise with that norm."""
    if norm == "none":
        conv = Conv(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        return conv
    return ConvNorm(in_channels, out_channels, kernel_size, norm=norm, eps=1e-5)
