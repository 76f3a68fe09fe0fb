"""Matterport's layout of tensors, which is that of Keras, in ours. All names here are ours.

Batch norms of the backbone stay, with the bias of the convolution before them moved into their mean. Those of the
heads, whose statistics rest there by default, are folded into the layers before them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from maskrcnn.weights.frameworks.layout import CLASSES, DELTAS, HEAD, MASKS, background_last, from_tensorflow

EPS = 1e-3  # of Keras' batch norm
YXHW = [1, 0, 3, 2]  # (y, x, h, w) to (x, y, w, h) and back
LAYERS = re.compile(HEAD + r"layers\.\d+\.weight$")
FOLDED = re.compile(r"^(roi_heads\..*(?:layers|convs)\.\d+)\.")  # modules that a norm follows there
NORM = ("weight", "bias", "running_mean", "running_var")


def our_layout(name: str, value: Tensor) -> Tensor:
    """One of their tensors as ours, before norms are folded."""
    if LAYERS.match(name):  # a convolution over the whole RoI; (row, column, channel) is our order
        return value.flatten(0, 2).T
    value = from_tensorflow(value)
    if name.startswith("rpn.head.objectness."):  # the softmax of background and object is the sigmoid of the difference
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
    """Rows in fours of y x h w as x y w h."""
    return rows.view(-1, 4, *rows.shape[1:])[:, YXHW].flatten(0, 1)


def fold_norms(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors that our network has, and the names of those that went into others.

    A head's layer whose norm is not whole is left out, and so is a norm whose layer is not there.
    """
    state, gone = dict(tensors), set[str]()
    for name in tensors:
        if name.endswith(".conv.bias"):
            bias, shifted = state.pop(name), f"{name.removesuffix('.conv.bias')}.norm.running_mean"
            if shifted in state:
                state[shifted] = state[shifted] - bias
                gone.add(name)
    for module in {found[1] for name in tensors if (found := FOLDED.match(name))}:
        norms = [f"{module}.norm.{part}" for part in NORM]
        names = [f"{module}.weight", f"{module}.bias", *norms]
        parts = [state.pop(name) for name in names if name in state]
        if len(parts) == len(names):
            weight, bias, gamma, beta, mean, var = parts
            state[names[0]], state[names[1]] = fold_norm(weight, bias, (gamma, beta, mean, var), EPS)
            gone.update(norms)
    return state, gone


def fold_norm(
    weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor, Tensor, Tensor], eps: float
) -> tuple[Tensor, Tensor]:
    """Weight (C, ...) and bias (C,) of a layer that does the work of the batch norm after it, whose statistics rest.

    Args:
        norm: scale, shift, mean and variance, (C,) each.
    """
    gamma, beta, mean, var = norm
    scale = gamma / torch.sqrt(var + eps)
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), beta + (bias - mean) * scale
