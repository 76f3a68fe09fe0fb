"""The learning rate for a batch: in proportion to it for SGD (Goyal et al. 2017), to its square root for AdamW."""

from __future__ import annotations

import math

from maskrcnn.config import Config, ResNetConfig

_SHALLOW = 34  # layers


def learning_rate_for(config: Config, processes: int, sgd: tuple[float, int] = (0.02, 16)) -> tuple[float, str]:
    """The rate, and how it was found.

    AdamW: 2e-4 for 16 images with ResNet-50 (MMDetection's "ResNet strikes back"), and 3e-4 for 2 images with ResNet-18
    (measured, benchmarks/nuclei.md).

    Args:
        config: of whose optimiser, backbone and batch.
        processes: that train together.
        sgd: rate and images of a step for SGD. The default is Detectron's.
    """
    images = config.train.images_per_step * processes
    if config.train.optimizer == "sgd":
        rate, batch = sgd
        return _rounded(rate * images / batch), f"{rate:g} x {images} / {batch} images, in proportion to the batch"
    backbone = config.model.backbone
    shallow = isinstance(backbone, ResNetConfig) and backbone.depth <= _SHALLOW
    rate, batch = (3e-4, 2) if shallow else (2e-4, 16)
    return _rounded(rate * math.sqrt(images / batch)), f"{rate:g} x root of {images} / {batch} images"


def _rounded(rate: float) -> float:
    return float(f"{rate:.3g}")
