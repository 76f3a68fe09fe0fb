"""The first convolution of a network for images of other channels than those that it was trained on."""

from __future__ import annotations

import torch
from torch import Tensor

from maskrcnn.config import ImageConfig


def adapted_stem(weight: Tensor, trained: ImageConfig, image: ImageConfig) -> Tensor:
    """The weight for the channels of `image`.

    Every new channel gets the mean over the old ones, as in the cross-modality initialisation of Temporal Segment
    Networks (Wang et al. 2016, section 3.2), times their number divided by the new one, as in timm's
    `adapt_input_conv`. So one channel gets the sum, and the response to an image of equal channels stays the same.
    Measured channels have a standard deviation of 1 where natural images have that of ImageNet. The weight is scaled
    for this if it was trained on RGB of another one.

    Args:
        weight: (out, in, h, w).
        trained, image: the settings of both networks.

    Returns:
        (out, channels of `image`, h, w).
    """
    if image.channels and not trained.channels and weight.shape[1] == len(trained.std):
        weight = weight * (torch.tensor(ImageConfig().std) / torch.tensor(trained.std))[:, None, None]
    before, after = weight.shape[1], len(image.statistics[0])
    return weight if before == after else weight.mean(1, keepdim=True).expand(-1, after, -1, -1) * (before / after)


def stem_sentence(weight: Tensor, image: ImageConfig) -> str:
    """What is said about a stem that is adapted; empty if it is not."""
    before, after = weight.shape[1], len(image.statistics[0])
    return "" if before == after else f", first convolution adapted from {before} to {after} channels"
