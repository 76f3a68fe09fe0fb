"""RoIPool and RoIWarp: values and gradients against the slow twins, torchvision and each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.errors import ConfigError
from maskrcnn.ops.reference import rois as rois_reference
from maskrcnn.ops.roi_align import Reduce, roi_align
from maskrcnn.ops.roi_pool import roi_pool, roi_warp
from roi_cases import STRIDES, assert_same_gradients, pyramid, rois, torchvisions, twins, zeros

OPERATORS = {
    "pool": roi_pool,
    "warp": roi_warp,
    "warp adaptive": partial(roi_warp, sampling_ratio=0),
    "warp max": partial(roi_warp, reduce="max"),
}
each_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
Operator = Callable[..., torch.Tensor]


@pytest.mark.parametrize("output_size", [1, 2, 7, 14])
def test_pool_is_torchvisions_forward_and_backward(output_size: int) -> None:
    boxes, index, level = rois(60)
    ours = [f.requires_grad_() for f in pyramid()]
    theirs = [f.requires_grad_() for f in pyramid()]
    found = roi_pool(ours, boxes, index, level, strides=STRIDES, output_size=output_size)
    expected = torchvisions(torchvision.ops.roi_pool, theirs, boxes, index, level, output_size)
    assert torch.equal(found, expected)
    assert (found == 0).all(dim=(1, 2, 3)).any()  # boxes far outside are among them
    assert_same_gradients(found, ours, expected, theirs)


def test_pool_rounds_as_torchvision_does() -> None:
    """Edges on half cells of either sign, and every length: 31 cells in 7 bins end a cell too far in float32."""
    halves = [(low / 2, low / 2 + length) for low in range(-5, 6) for length in range(-1, 80)]
    boxes = 4 * torch.tensor([[x1, 0.0, x2, 5.0] for x1, x2 in halves])
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn(1, 1, 8, 90, generator=generator)
    found = roi_pool([wide], boxes, zeros(len(boxes)), zeros(len(boxes)), strides=[4], output_size=7)
    with_index = torch.cat([torch.zeros(len(boxes), 1), boxes], dim=1)
    assert torch.equal(found, torchvision.ops.roi_pool(wide, with_index, 7, 0.25))


@given(st.integers(0, 10_000), st.sampled_from([1, 2, 7]))
def test_pool_is_its_twin(seed: int, output_size: int) -> None:
    boxes, index, level = rois(5, seed)
    found = roi_pool(pyramid(2), boxes, index, level, strides=STRIDES, output_size=output_size)
    expected = twins(rois_reference.roi_pool, pyramid(2), boxes, index, level, output_size=output_size)
    np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32))


@given(st.integers(0, 10_000), st.integers(0, 3), st.sampled_from([1, 2, 7]), st.sampled_from(["average", "max"]))
def test_warp_is_its_twin(seed: int, ratio: int, output_size: int, reduce: Reduce) -> None:
    boxes, index, level = rois(3, seed)
    # On the map: a whole RoI may have samples just one cell outside, which rounding counts or not.
    boxes = boxes.clamp(torch.zeros(4), torch.tensor([64.0, 48.0, 64.0, 48.0]) - 13)
    settings = {"output_size": output_size, "sampling_ratio": ratio, "reduce": reduce}
    found = roi_warp(pyramid(2), boxes, index, level, strides=STRIDES, **settings)
    expected = twins(rois_reference.roi_warp, pyramid(2), boxes, index, level, **settings)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)


@given(st.integers(0, 9), st.integers(0, 5), st.floats(-1.9, 1.9), st.floats(-1.9, 1.9))
def test_a_roi_of_as_many_cells_as_bins_is_a_crop(column: int, row: int, dx: float, dy: float) -> None:
    """Pooled or warped, and wherever within half a cell its edges lie: this is what RoIAlign repairs."""
    features = pyramid()
    cells = torch.tensor([[column, row, column + 6, row + 6]])  # first and last cell
    boxes = cells * 4 + torch.tensor([dx, dy, dy, dx])
    crop = features[0][:1, :, row : row + 7, column : column + 7]
    pooled = roi_pool(features, boxes, zeros(1), zeros(1), strides=STRIDES, output_size=7)
    assert torch.equal(pooled, crop)
    for ratio in (0, 1):
        warped = roi_warp(features, boxes, zeros(1), zeros(1), strides=STRIDES, output_size=7, sampling_ratio=ratio)
        torch.testing.assert_close(warped, crop, rtol=0, atol=1e-5)


@pytest.mark.parametrize("reduce", ["average", "max"])
def test_warp_is_align_of_the_rounded_roi(reduce: Reduce) -> None:
    boxes = torch.tensor([[3.0, 9.0, 41.0, 30.0], [-9.0, 5.0, 17.0, 60.0]])
    rounded = torch.tensor([[4.0, 8.0, 44.0, 36.0], [-8.0, 4.0, 20.0, 64.0]])
    for ratio in (0, 2):
        settings = {"strides": STRIDES, "output_size": 5, "sampling_ratio": ratio, "reduce": reduce}
        found = roi_warp(pyramid(), boxes, zeros(2), zeros(2), **settings)
        expected = roi_align(pyramid(), rounded, zeros(2), zeros(2), **settings)
        torch.testing.assert_close(found, expected)


@each_operator
def test_gradient_check_in_float64(operator: Operator) -> None:
    boxes, index, level = rois(20, seed=3)
    features = [f.requires_grad_() for f in pyramid(2, dtype=torch.float64)]

    def pool(*maps: torch.Tensor) -> torch.Tensor:
        return operator(maps, boxes, index, level, strides=STRIDES, output_size=3)

    assert torch.autograd.gradcheck(pool, features, fast_mode=True)


@each_operator
def test_bfloat16_is_near(operator: Operator) -> None:
    boxes, index, level = rois(40, seed=5)
    exact = operator(pyramid(), boxes, index, level, strides=STRIDES, output_size=7)
    maps = [f.to(torch.bfloat16).requires_grad_() for f in pyramid()]
    found = operator(maps, boxes, index, level, strides=STRIDES, output_size=7)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.03)
    found.sum().backward()
    assert all(f.grad.dtype == torch.bfloat16 and f.grad.isfinite().all() for f in maps)


@each_operator
def test_no_boxes_still_reach_the_features(operator: Operator) -> None:
    features = [f.requires_grad_() for f in pyramid()]
    found = operator(features, torch.zeros(0, 4), zeros(0), zeros(0), strides=STRIDES, output_size=7)
    assert found.shape == (0, 3, 7, 7)
    found.sum().backward()
    assert all(f.grad is not None and not f.grad.any() for f in features)


@each_operator
def test_boxes_that_are_not_numbers_read_nothing(operator: Operator) -> None:
    bad = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38]
    boxes = torch.tensor([[v, 0.0, w, 5.0] for v in bad for w in bad])
    features = [f.requires_grad_() for f in pyramid()]
    found = operator(features, boxes, zeros(25), zeros(25), strides=(1, 2, 4), output_size=2)
    assert found.shape == (25, 3, 2, 2)
    assert found.isfinite().all()
    assert not found[~boxes.isfinite().all(1)].any()
    found.sum().backward()
    assert all(f.grad.isfinite().all() for f in features)


@each_operator
def test_boxes_outside_read_nothing(operator: Operator) -> None:
    """Not even the first pixel of the table, where the lookup of an empty bin could end."""
    boxes = torch.tensor([[200.0, 10.0, 240.0, 30.0], [10.0, -90.0, 30.0, -50.0], [-300.0, -300.0, -200.0, -200.0]])
    features = [f.requires_grad_() for f in pyramid()]
    found = operator(features, boxes, zeros(3), zeros(3), strides=STRIDES, output_size=7)
    assert not found.any()
    found.sum().backward()
    assert not any(f.grad.any() for f in features)


@each_operator
def test_output_is_channels_last(operator: Operator) -> None:
    boxes, index, level = rois(10)
    found = operator(pyramid(), boxes, index, level, strides=STRIDES, output_size=7)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_settings_that_cannot_work() -> None:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    with pytest.raises(ConfigError, match="sampling_ratio"):
        roi_warp(pyramid(), boxes, zeros(1), zeros(1), strides=STRIDES, output_size=2, sampling_ratio=-1)
