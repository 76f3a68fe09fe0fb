"""Blur and noise change values and nothing else, each as strongly as it may."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn.config import AugmentConfig
from maskrcnn.data.loading.colour import blur_and_noise

EDGE = torch.zeros(3, 40, 50, dtype=torch.uint8)
EDGE[:, :, 25:] = 200


def changed(image: torch.Tensor, seed: int = 0, **settings: float) -> torch.Tensor:
    return blur_and_noise(image, AugmentConfig(**settings), np.random.default_rng(seed))  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_blur_keeps_flat_parts_and_the_sum(channels: int, dtype: torch.dtype) -> None:
    image = EDGE[:1].expand(channels, -1, -1).to(dtype)
    blurred = changed(image, blur=3.0)
    assert (blurred.shape, blurred.dtype) == (image.shape, dtype)
    assert torch.equal(blurred[:, :, :10], image[:, :, :10])
    assert 20 < blurred[0, 20, 25].float() < 180
    assert blurred.float().mean() == pytest.approx(image.float().mean().item(), abs=1)


def test_noise_has_a_random_strength_up_to_its_setting() -> None:
    grey = torch.full((3, 60, 60), 128, dtype=torch.uint8)
    spreads = [(changed(grey, seed, noise=0.1).float() - 128).std().item() for seed in range(20)]
    assert max(spreads) < 26.5
    assert max(spreads) > 18
    assert min(spreads) < 8


def test_without_them_no_random_number_is_drawn() -> None:
    rng = np.random.default_rng(3)
    assert blur_and_noise(EDGE, AugmentConfig(), rng) is EDGE
    assert rng.random() == np.random.default_rng(3).random()


def test_a_blur_wider_than_the_image_is_cut_to_it() -> None:
    assert changed(EDGE[:, :3, :4], blur=90.0).shape == (3, 3, 4)
