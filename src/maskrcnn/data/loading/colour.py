"""Random changes of the values of an image, which leave its geometry as it is."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import AugmentConfig


def jitter_colour(image: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue of a (C, h, w) image at random; uint8 or float32 in 0..255.

    Without three channels there is no hue and no saturation, and each channel has a contrast of its own.
    """
    from torchvision.transforms.v2 import functional as tf

    colours = ("saturation", "hue") if len(image) == 3 else ()
    strengths = {name: getattr(augment, name) for name in ("brightness", "contrast", *colours)}
    if not any(strengths.values()):
        return image
    pixels = image / 255 if image.is_floating_point() else image  # torchvision takes floats in 0..1
    if not colours:
        pixels = pixels[:, None]  # to torchvision, a batch of grey images
    hue = strengths.pop("hue", 0.0)
    for name, strength in strengths.items():
        if strength:
            pixels = getattr(tf, f"adjust_{name}")(pixels, float(rng.uniform(1 - strength, 1 + strength)))
    if hue:
        pixels = tf.adjust_hue(pixels, float(rng.uniform(-hue, hue)))
    pixels = pixels.reshape(image.shape)
    return pixels * 255 if image.is_floating_point() else pixels


def blur_and_noise(image: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """Blurs a (C, h, w) image and adds noise, each with a random strength; uint8 or float32 in 0..255."""
    if not augment.blur and not augment.noise:
        return image
    from torchvision.transforms.v2 import functional as tf

    pixels = image.to(torch.float32)
    sigma = augment.blur * float(rng.random())
    if sigma > 0.05:  # a narrower kernel changes nothing
        side = 2 * math.ceil(3 * sigma) + 1
        fits = [min(side, 2 * length - 1) for length in image.shape[2:0:-1]]  # the border is reflected
        pixels = tf.gaussian_blur(pixels, fits, [sigma, sigma])
    if augment.noise:
        strength = augment.noise * 255 * float(rng.random())
        pixels = pixels + strength * torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
    return pixels if image.is_floating_point() else pixels.round_().clamp_(0, 255).to(image.dtype)
