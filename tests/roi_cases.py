"""Random pyramids and RoIs, and the calls of torchvision and of the twins, for the tests of the RoI operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

STRIDES = (4, 8, 16)
IMAGE = (48, 64)  # height, width


def pyramid(
    channels: int = 3, images: int = 2, seed: int = 0, dtype: torch.dtype = torch.float32
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(images, channels, IMAGE[0] // s, IMAGE[1] // s, generator=generator, dtype=torch.float64).to(dtype)
        for s in STRIDES
    ]


def rois(count: int, seed: int = 0, images: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Boxes of every size, many partly and some wholly outside, their image and their level."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.uniform(np.log(0.5), np.log(120), (count, 2)))
    centre = rng.uniform(-0.3, 1.3, (count, 2)) * IMAGE[::-1]
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    index, level = rng.integers(0, images, count), rng.integers(0, len(STRIDES), count)
    return torch.from_numpy(boxes), torch.from_numpy(index), torch.from_numpy(level)


def zeros(count: int) -> torch.Tensor:
    """The first image, or the first level, for `count` RoIs."""
    return torch.zeros(count, dtype=torch.int64)


def torchvisions(
    operator: Callable[..., torch.Tensor],
    features: list[torch.Tensor],
    boxes: torch.Tensor,
    image_index: torch.Tensor,
    level: torch.Tensor,
    output_size: int,
    *more: Any,
) -> torch.Tensor:
    """`torchvision.ops.roi_align` or `roi_pool`, level by level, of up to as many levels as `STRIDES`."""
    result = features[0].new_zeros((len(boxes), features[0].shape[1], output_size, output_size))
    for k, (feature, stride) in enumerate(zip(features, STRIDES, strict=False)):
        chosen = (level == k).nonzero()[:, 0]
        with_index = torch.cat([image_index[chosen, None].to(boxes.dtype), boxes[chosen]], dim=1).to(feature.dtype)
        result = result.index_copy(0, chosen, operator(feature, with_index, output_size, 1 / stride, *more))
    return result


def twins(
    twin: Callable[..., np.ndarray],
    features: list[torch.Tensor],
    boxes: torch.Tensor,
    image_index: torch.Tensor,
    level: torch.Tensor,
    **settings: Any,
) -> np.ndarray:
    """An operator of `ops.reference`, in float64."""
    maps = [feature.double().numpy() for feature in features]
    return twin(maps, boxes.tolist(), image_index.tolist(), level.tolist(), strides=STRIDES, **settings)


def assert_same_gradients(
    found: torch.Tensor, ours: list[torch.Tensor], expected: torch.Tensor, theirs: list[torch.Tensor]
) -> None:
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=2e-4)
