"""Converts tensors from the layout of Matterport to ours. All names here are ours.

Keras stores kernels in TensorFlow's order. The rows of a tensor, such as its classes, are Matterport's own.

The batch norms of the backbone stay; the bias of the convolution before each is subtracted from its mean. The batch
norms of the heads are folded into the layers before them, because Matterport's training keeps them frozen by default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.weights.frameworks.layout import CLASSES, DELTAS, HEAD, MASKS, background_last, from_tensorflow

EPS = 1e-3  # of Keras' batch norm
YXHW = [1, 0, 3, 2]  # (y, x, h, w) to (x, y, w, h) and back
LAYERS = re.compile(HEAD + r"layers\.\d+\.weight$")
FOLDED = re.compile(r"^(roi_heads\..*(?:layers|convs)\.\d+)\.")  # modules with a norm in Matterport's network
NORM = ("weight", "bias", "running_mean", "running_var")


def our_layout(name: str, value: Tensor) -> Tensor:
    """A tensor of a Keras file in our layout, before norms are folded."""
    if LAYERS.match(name):  # a convolution over the whole RoI, in our order (row, column, channel)
        return value.flatten(0, 2).T
    return our_rows(name, from_tensorflow(value))


def our_rows(name: str, value: Tensor) -> Tensor:
    """A tensor in PyTorch's order of dimensions, with its rows in our order."""
    if name.startswith("rpn.head.objectness."):  # a softmax over two logits is the sigmoid of their difference
        return value[1::2] - value[::2]
    if name.startswith("rpn.head.deltas."):
        return _offsets(value)
    if CLASSES.match(name):
        return background_last(value)
    if DELTAS.match(name):  # the first four rows belong to the background, which has no box
        return _offsets(value)[4:]
    if MASKS.match(name):
        return value[1:]
    return value


def _offsets(rows: Tensor) -> Tensor:
    """Rows of box offsets from the order (y, x, h, w) to (x, y, w, h)."""
    return rows.view(-1, 4, *rows.shape[1:])[:, YXHW].flatten(0, 1)


def fold_norms(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors of our network, and the names of the tensors that were folded into others.

    A layer of a head is left out if a tensor of its norm is missing, and a norm if a tensor of its layer is missing.

    Raises:
        WeightsError: a norm and its layer have different numbers of channels.
    """
    state, folded = dict(tensors), set[str]()
    for name in tensors:
        if name.endswith(".conv.bias"):
            bias, shifted = state.pop(name), f"{name.removesuffix('.conv.bias')}.norm.running_mean"
            if shifted in state:
                _check_channels(name, bias.shape, state[shifted])
                state[shifted] = state[shifted] - bias
                folded.add(name)
    for module in {found[1] for name in tensors if (found := FOLDED.match(name))}:
        norms = [f"{module}.norm.{part}" for part in NORM]
        names = [f"{module}.weight", f"{module}.bias", *norms]
        parts = [state.pop(name) for name in names if name in state]
        if len(parts) == len(names):
            weight, bias, gamma, beta, mean, var = parts
            for part in parts[1:]:
                _check_channels(names[0], weight.shape[:1], part)
            state[names[0]], state[names[1]] = fold_norm(weight, bias, (gamma, beta, mean, var), EPS)
            folded.update(norms)
    return state, folded


def _check_channels(layer: str, channels: tuple[int, ...], norm: Tensor) -> None:
    """Raises WeightsError unless a tensor of a norm has one number for each channel; torch would repeat the others."""
    if len(channels) != 1 or tuple(norm.shape) != tuple(channels):
        raise WeightsError(
            f"expected a norm with a number for each channel of its layer, found {layer} (named as in this package) "
            f"with channels {tuple(channels)} and a norm of shape {tuple(norm.shape)}"
        )


def fold_norm(
    weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor, Tensor, Tensor], eps: float
) -> tuple[Tensor, Tensor]:
    """The weight (C, ...) and bias (C,) of a layer that equals a layer followed by a frozen batch norm.

    Args:
        norm: scale, shift, mean and variance, each (C,).
    """
    gamma, beta, mean, var = norm
    scale = gamma / torch.sqrt(var + eps)
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), beta + (bias - mean) * scale
