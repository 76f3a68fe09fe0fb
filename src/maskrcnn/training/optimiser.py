"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math
import re
from collections import defaultdict

import torch
from torch import nn

from maskrcnn.config import TrainConfig

# `backbone.res2.0.conv1...` belongs to `res2.0`, timm's `backbone.net.stages_0.blocks.1...` to `stages_0.blocks.1`.
_LAYER = re.compile(r"backbone\.(?:net\.)?(.*?\.(?:blocks\.)?\d+(?=\.)|[^.]+)")


def build_optimiser(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW for the trainable parameters.

    Each group has the weight decay and the `rate` of its parameters, a factor on the learning rate. Vectors, which are
    biases and the weights of norms, have no weight decay.
    """
    groups: dict[tuple[float, float], list[tuple[str, nn.Parameter]]] = defaultdict(list)
    rates = _rates(network, config)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups[rates.get(layer_of(name), 1.0), decay].append((name, parameter))
    parts = [{"params": named, "weight_decay": decay, "rate": rate} for (rate, decay), named in groups.items()]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parts, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(parts, lr=config.learning_rate, momentum=config.momentum, fused=True)


def _rates(network: nn.Module, config: TrainConfig) -> dict[str, float]:
    """The factor on the learning rate of each layer of the backbone.

    The last layer has `layer_decay`, the one before its square, and so on, as in ViTDet (Li et al. 2022) and ConvNeXt.
    """
    layers = list(dict.fromkeys(layer for name, _ in network.named_parameters() if (layer := layer_of(name))))
    count = len(layers)
    return {layer: config.backbone_rate * config.layer_decay ** (count - i) for i, layer in enumerate(layers)}


def layer_of(parameter: str) -> str:
    """The layer of the backbone that a parameter belongs to: its stem or one block; empty outside of the backbone."""
    found = _LAYER.match(parameter)
    return found[1] if found else ""


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0: linear warm-up from a thousandth, then steps of 1/10 or a cosine."""
    if step < config.warmup_steps:
        return config.learning_rate * (0.001 + 0.999 * step / config.warmup_steps)
    if config.schedule == "cosine":
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * 0.1 ** sum(step >= drop * config.steps for drop in config.drops)
