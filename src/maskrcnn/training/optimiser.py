"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import math

import torch
from torch import nn

from maskrcnn.config import TrainConfig


def build_optimiser(network: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with momentum or AdamW for the trainable parameters; vectors (biases, norms) have no weight decay."""
    trainable = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(config.momentum, 0.999), fused=True)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)


def learning_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of a step, counted from 0: linear warm-up from a thousandth, then steps of 1/10 or a cosine."""
    if step < config.warmup_steps:
        return config.learning_rate * (0.001 + 0.999 * step / config.warmup_steps)
    if config.schedule == "cosine":
        progress = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return config.learning_rate * 0.1 ** sum(step >= drop * config.steps for drop in config.drops)
