"""RoIAlign: values, gradients and the level rule, against the slow twin and torchvision."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops.poolers import LevelMapper

from maskrcnn.ops import reference
from maskrcnn.ops.roi_align import level_of, roi_align

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


def torchvisions(
    features: list[torch.Tensor],
    boxes: torch.Tensor,
    image_index: torch.Tensor,
    level: torch.Tensor,
    output_size: int,
    ratio: int,
    aligned: bool,
) -> torch.Tensor:
    result = features[0].new_zeros((len(boxes), features[0].shape[1], output_size, output_size))
    for k, (feature, stride) in enumerate(zip(features, STRIDES, strict=True)):
        chosen = (level == k).nonzero()[:, 0]
        with_index = torch.cat([image_index[chosen, None].to(boxes.dtype), boxes[chosen]], dim=1).to(feature.dtype)
        pooled = torchvision.ops.roi_align(feature, with_index, output_size, 1 / stride, ratio, aligned)
        result = result.index_copy(0, chosen, pooled)
    return result


@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
def test_forward_and_backward_are_torchvisions(aligned: bool, ratio: int) -> None:
    boxes, index, level = rois(60)
    ours = [f.requires_grad_() for f in pyramid()]
    theirs = [f.requires_grad_() for f in pyramid()]
    found = roi_align(ours, boxes, index, level, strides=STRIDES, output_size=7, sampling_ratio=ratio, aligned=aligned)
    expected = torchvisions(theirs, boxes, index, level, 7, ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found == 0).all(dim=(1, 2, 3)).any()  # boxes far outside are among them
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=2e-4)


@given(st.integers(0, 10_000), st.booleans(), st.integers(1, 3), st.sampled_from([1, 2, 7]))
def test_equal_to_the_twin(seed: int, aligned: bool, ratio: int, output_size: int) -> None:
    boxes, index, level = rois(3, seed)
    features = pyramid(2)
    found = roi_align(
        features, boxes, index, level, strides=STRIDES, output_size=output_size, sampling_ratio=ratio, aligned=aligned
    )
    expected = reference.roi_align(
        [f.double().numpy() for f in features],
        boxes.tolist(),
        index.tolist(),
        level.tolist(),
        strides=STRIDES,
        output_size=output_size,
        sampling_ratio=ratio,
        aligned=aligned,
    )
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


def test_edges_of_the_map() -> None:
    """On the border, just inside and just beyond the last cell that still counts."""
    edges = [(-4.0, 0.0), (-4.01, 8.0), (-2.0, 2.0), (60.0, 64.0), (62.0, 68.0), (64.0, 72.0), (70.0, 80.0)]
    boxes = torch.tensor([[low, 0.5 * low, high, 0.5 * high + 1] for low, high in edges])
    index, level = torch.zeros(len(edges), dtype=torch.int64), torch.zeros(len(edges), dtype=torch.int64)
    for aligned in (True, False):
        found = roi_align(
            pyramid(), boxes, index, level, strides=STRIDES, output_size=3, sampling_ratio=2, aligned=aligned
        )
        expected = torchvisions(pyramid(), boxes, index, level, 3, 2, aligned)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("aligned", [True, False])
def test_gradient_check_in_float64(aligned: bool) -> None:
    boxes, index, level = rois(6, seed=3)
    features = [f.requires_grad_() for f in pyramid(2, dtype=torch.float64)]

    def pool(*maps: torch.Tensor) -> torch.Tensor:
        return roi_align(maps, boxes, index, level, strides=STRIDES, output_size=2, sampling_ratio=2, aligned=aligned)

    assert torch.autograd.gradcheck(pool, features)


def test_constant_features_stay_constant() -> None:
    features = [torch.full_like(f, 3.0) for f in pyramid()]
    boxes = torch.tensor([[5.0, 5.0, 40.0, 30.0], [0.0, 0.0, 64.0, 48.0]])
    zero = torch.zeros(2, dtype=torch.int64)
    found = roi_align(features, boxes, zero, zero, strides=STRIDES, output_size=7)
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


def test_bfloat16_is_near() -> None:
    boxes, index, level = rois(40, seed=5)
    exact = roi_align(pyramid(), boxes, index, level, strides=STRIDES, output_size=7)
    maps = [f.to(torch.bfloat16).requires_grad_() for f in pyramid()]
    found = roi_align(maps, boxes, index, level, strides=STRIDES, output_size=7)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.06)
    found.sum().backward()
    for feature in maps:
        assert feature.grad is not None
        assert feature.grad.dtype == torch.bfloat16
        assert torch.isfinite(feature.grad).all()


def test_output_is_channels_last_whatever_the_input() -> None:
    boxes, index, level = rois(10)
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = [f.contiguous(memory_format=layout) for f in pyramid()]
        found = roi_align(maps, boxes, index, level, strides=STRIDES, output_size=7)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(
            found, torchvisions(pyramid(), boxes, index, level, 7, 2, True), rtol=1e-4, atol=1e-4
        )


def test_no_boxes_still_reach_the_features() -> None:
    features = [f.requires_grad_() for f in pyramid()]
    none = torch.zeros(0, dtype=torch.int64)
    found = roi_align(features, torch.zeros(0, 4), none, none, strides=STRIDES, output_size=7)
    assert found.shape == (0, 3, 7, 7)
    found.sum().backward()
    for feature in features:
        assert feature.grad is not None
        assert not feature.grad.any()


def test_boxes_that_are_not_numbers_read_nothing() -> None:
    """A network that diverges: an index outside the table would crash the process."""
    bad = [float("nan"), float("inf"), -float("inf"), 3e38]
    boxes = torch.tensor([[v, 0.0, w, 5.0] for v in bad for w in bad])
    zero = torch.zeros(len(boxes), dtype=torch.int64)
    found = roi_align(pyramid(), boxes, zero, zero, strides=STRIDES, output_size=2)
    assert found.shape == (16, 3, 2, 2)
    assert level_of(boxes, 3, 4, 224.0).min() >= 0
    assert level_of(boxes, 3, 4, 224.0).max() <= 2


@given(st.floats(0, 3000, width=32), st.floats(0, 3000, width=32))
def test_level_is_torchvisions(width: float, height: float) -> None:
    boxes = torch.tensor([[10.0, 20.0, 10 + width, 20 + height]])
    assert level_of(boxes, 4, 4, 224.0).tolist() == LevelMapper(2, 5)([boxes]).tolist()


def test_level_just_under_a_power_of_two_is_torchvisions() -> None:
    for side in (112.0, 224.0, 448.0):
        below = torch.tensor(side) - torch.arange(40) * 1e-5
        boxes = torch.stack([torch.zeros(40), torch.zeros(40), below, below], dim=1)
        levels = level_of(boxes, 4, 4, 224.0).tolist()
        assert levels == LevelMapper(2, 5)([boxes]).tolist()
        assert len(set(levels)) == 2


def test_level_is_equation_1_of_fpn() -> None:
    sides = [1.0, 55.9, 56.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 895.0, 5000.0]
    boxes = torch.tensor([[0.0, 0.0, side, side] for side in sides])
    assert level_of(boxes, 4, 4, 224.0).tolist() == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert level_of(torch.zeros(1, 4), 4, 4, 224.0).tolist() == [0]


def test_bins_of_a_box_meet() -> None:
    """Halving a box halves its bins: pooled at 2x2 with twice the samples, four halves give the whole."""
    features = pyramid()
    zero = torch.zeros(1, dtype=torch.int64)
    whole = torch.tensor([[8.0, 8.0, 40.0, 40.0]])
    coarse = roi_align(features, whole, zero, zero, strides=STRIDES, output_size=2, sampling_ratio=4)
    fine = roi_align(features, whole, zero, zero, strides=STRIDES, output_size=4, sampling_ratio=2)
    torch.testing.assert_close(coarse, torch.nn.functional.avg_pool2d(fine, 2), rtol=1e-4, atol=1e-5)
    levels = [level_of(torch.tensor([[0.0, 0.0, s, s]]), 4, 4, 224.0).item() for s in range(1, 1000, 7)]
    assert all(a <= b for a, b in pairwise(levels))
