"""Features at points against torch's own sampler and against RoIAlign."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.ops.points import sample_feature, sample_map
from maskrcnn.ops.roi_align import roi_align


@given(seed=st.integers(0, 10_000), stride=st.sampled_from([1, 4, 16]))
def test_samples_are_those_of_grid_sample(seed: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    feature = torch.randn(2, 3, 5, 7, generator=generator, dtype=torch.float64)
    size = torch.tensor([7, 5]) * stride
    points = (torch.rand(4, 6, 2, generator=generator, dtype=torch.float64) * 1.6 - 0.3) * size  # some beyond the map
    image_index = torch.tensor([0, 1, 1, 0])
    expected = F.grid_sample(
        feature[image_index], 2 * (points / size)[:, :, None] - 1, mode="bilinear", align_corners=False
    )[..., 0]
    torch.testing.assert_close(sample_feature(feature, points, image_index, stride), expected)
    torch.testing.assert_close(sample_map(feature[image_index], points / size), expected)


def test_a_grid_of_points_is_roi_align_with_one_sample() -> None:
    feature = torch.randn(2, 4, 20, 30)
    boxes = torch.tensor([[8.0, 4.0, 90.0, 60.0], [20.0, 10.0, 41.0, 33.0]])
    image_index = torch.tensor([1, 0])
    side = 7
    step = (torch.arange(side) + 0.5) / side
    grid = torch.stack(torch.meshgrid(step, step, indexing="xy"), dim=-1).flatten(0, 1)
    points = boxes[:, None, :2] + grid * (boxes[:, 2:] - boxes[:, :2])[:, None]
    found = sample_feature(feature, points, image_index, 4).view(2, 4, side, side)
    level = torch.zeros(2, dtype=torch.int64)
    expected = roi_align([feature], boxes, image_index, level, strides=[4], output_size=side, sampling_ratio=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_no_points_still_have_a_gradient() -> None:
    feature = torch.randn(1, 4, 5, 5, requires_grad=True)
    sampled = sample_feature(feature, torch.zeros(0, 9, 2), torch.zeros(0, dtype=torch.int64), 4)
    assert sampled.shape == (0, 4, 9)
    sampled.sum().backward()
    assert feature.grad is not None


def test_gradient_reaches_the_four_cells_around_a_point() -> None:
    feature = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    points = torch.tensor([[[5.0, 9.0], [1.0, 15.5]]], dtype=torch.float64)
    index = torch.zeros(1, dtype=torch.int64)
    assert torch.autograd.gradcheck(lambda f: sample_feature(f, points, index, 4), feature)
