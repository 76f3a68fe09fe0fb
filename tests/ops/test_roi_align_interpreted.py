"""RoIAlign's Triton kernel on a CPU, by Triton's interpreter, against the slow twin and the lookup."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.ops import roi_align as roi_align_module
from maskrcnn.ops.reference import rois as rois_reference
from maskrcnn.ops.roi_align import roi_align
from roi_cases import STRIDES, pyramid, rois, twins, zeros

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("kernels run for real here: see the tests marked gpu", allow_module_level=True)
pytest.importorskip("triton", reason="Triton comes with torch for Linux alone")
from maskrcnn.ops.roi_align_triton import _gradient, _pool, pool_averages


@pytest.fixture(scope="module", autouse=True)
def _on_this_cpu() -> Iterator[None]:
    """`roi_align` takes the kernel here too, but for float64, in which the lookup is the oracle of gradients."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(roi_align_module, "has_kernels", lambda tensor: True)
        yield


def assert_equal_to_the_twin(
    features: list[torch.Tensor], boxes: torch.Tensor, index: torch.Tensor, level: torch.Tensor, **how: Any
) -> None:
    how = {"aligned": True, **how}
    ours = [f.clone().requires_grad_() for f in features]
    exact = [f.double().requires_grad_() for f in features]
    found = roi_align(ours, boxes, index, level, strides=STRIDES, **how)
    expected = twins(rois_reference.roi_align, features, boxes, index, level, **how)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-4)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, ours, weights)
    pooled = roi_align(exact, boxes, index, level, strides=STRIDES, **how)
    for gradient, their in zip(gradients, torch.autograd.grad(pooled, exact, weights.double()), strict=True):
        torch.testing.assert_close(gradient.double(), their, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("ratio", "aligned"), [(0, False), (2, True)])
def test_values_and_gradients(ratio: int, aligned: bool) -> None:
    boxes, index, level = rois(2, seed=9)
    assert_equal_to_the_twin(pyramid(20), boxes, index, level, output_size=3, sampling_ratio=ratio, aligned=aligned)


@pytest.mark.slow
@settings(max_examples=30)
@given(
    st.integers(0, 10_000),
    st.booleans(),
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from([1, 20]),
    st.integers(1, 2),
)
def test_any_boxes(seed: int, aligned: bool, ratio: int, output_size: int, channels: int, images: int) -> None:
    boxes, index, level = rois(2, seed, images)
    how = {"output_size": output_size, "sampling_ratio": ratio, "aligned": aligned}
    assert_equal_to_the_twin(pyramid(channels, images), boxes, index, level, **how)


@pytest.mark.slow
def test_more_channels_than_a_block_and_one_image() -> None:
    boxes, index, level = rois(2, seed=3, images=1)
    assert_equal_to_the_twin(pyramid(130, 1), boxes, index, level, output_size=2, sampling_ratio=2)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0, 2])
def test_edges_of_the_map(ratio: int) -> None:
    """Samples on the border, a cell outside and just beyond, where one more step counts as zero."""
    edges = [(-8.0, 0.0), (-8.01, 8.0), (-2.0, 2.0), (60.0, 64.0), (64.0, 72.0), (64.0, 72.02), (66.0, 66.0)]
    boxes = torch.tensor([[low, 0.5 * low, high, 0.5 * high + 1] for low, high in edges])
    how = {"output_size": 1, "sampling_ratio": ratio}
    assert_equal_to_the_twin(pyramid(4), boxes, zeros(len(edges)), zeros(len(edges)), **how)


@pytest.mark.slow
def test_a_box_turned_round_and_boxes_without_area() -> None:
    boxes = torch.tensor([[40.0, 30.0, 9.0, 12.0], [8.0, 8.0, 8.0, 8.0], [-2.0, 9.0, -2.0, 30.0]])
    for ratio in (0, 2):
        assert_equal_to_the_twin(pyramid(4), boxes, zeros(3), zeros(3), output_size=2, sampling_ratio=ratio)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0, 2])
def test_boxes_far_larger_than_the_map(ratio: int) -> None:
    """The kernel walks over the map and not over the samples, of which a side has a thousand."""
    boxes = torch.tensor([[-3000.0, 10.0, 1000.0, 14.0], [4.0, -2000.0, 12.0, 300.0], [70.0, 0.0, 9000.0, 8.0]])
    assert_equal_to_the_twin(pyramid(4), boxes, zeros(3), zeros(3), output_size=1, sampling_ratio=ratio)


@pytest.mark.slow
def test_adaptive_samples_where_they_stand_closest() -> None:
    """A bin a bit longer than n - 1 cells has n samples: each cell must look at all that are near."""
    cells = torch.arange(1, 11) + 0.01
    start = torch.linspace(2, 5, 10)
    boxes = torch.stack([start, start, start + 4 * cells, start + 4 * cells], dim=1)
    assert_equal_to_the_twin(pyramid(2), boxes, zeros(10), zeros(10), output_size=1, sampling_ratio=0)


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0, 2])
def test_boxes_that_are_not_numbers_read_nothing(ratio: int) -> None:
    bad = [(float("nan"), 5.0), (0.0, float("inf")), (-float("inf"), 5.0), (3e38, 3e38), (-3e38, 3e38)]
    boxes = torch.tensor([[0.0, 2.0, 9.0, 5.0], *([low, 0.0, high, 5.0] for low, high in bad)])
    features = [f.requires_grad_() for f in pyramid(4)]
    found = roi_align(features, boxes, zeros(6), zeros(6), strides=STRIDES, output_size=2, sampling_ratio=ratio)
    assert found[0].all()
    assert not found[1:5].any()
    assert found[5].isfinite().all()  # all of the map
    alone, *_ = torch.autograd.grad(found[0].sum(), features, retain_graph=True)
    together, *_ = torch.autograd.grad(found[:5].sum(), features)
    torch.testing.assert_close(together, alone)


def test_maxima_do_not_take_the_kernel() -> None:
    boxes, index, level = rois(3)
    how: dict[str, Any] = {"output_size": 2, "sampling_ratio": 2, "aligned": True, "reduce": "max"}
    found = roi_align(pyramid(4), boxes, index, level, strides=STRIDES, **how)
    expected = twins(rois_reference.roi_align, pyramid(4), boxes, index, level, **how)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)


def test_no_boxes_still_reach_the_features() -> None:
    features = [f.requires_grad_() for f in pyramid(4)]
    found = roi_align(features, torch.zeros(0, 4), zeros(0), zeros(0), strides=STRIDES, output_size=7)
    assert found.shape == (0, 4, 7, 7)
    found.sum().backward()
    assert all(f.grad is not None and f.grad.shape == f.shape and not f.grad.any() for f in features)


@pytest.mark.slow
def test_one_map_and_five() -> None:
    """Each level reads its own map, whatever its size."""
    generator = torch.Generator().manual_seed(0)
    low, length = torch.full((5, 2), 0.6), torch.full((5, 2), 1.7)
    for count in (1, 5):
        maps = [torch.randn(1, 4, 4 + k, 9 - k, generator=generator, requires_grad=True) for k in range(count)]
        how = {"output_size": 2, "sampling_ratio": 2}
        found = pool_averages(maps, low[:count], length[:count], zeros(count), torch.arange(count), **how)
        gradients = torch.autograd.grad(found.square().sum(), maps)
        for k in range(count):
            alone = pool_averages([maps[k]], low[:1], length[:1], zeros(1), zeros(1), **how)
            torch.testing.assert_close(found[k : k + 1], alone)
            torch.testing.assert_close(gradients[k], torch.autograd.grad(alone.square().sum(), maps[k])[0])


@pytest.mark.slow
def test_the_gradient_is_the_adjoint() -> None:
    """Both directions walk over the same cells with the same weights, also where bins and RoIs share them."""
    boxes, index, level = rois(4, seed=12)
    features = [f.requires_grad_() for f in pyramid(8)]
    found = roi_align(features, boxes, index, level, strides=STRIDES, output_size=3, sampling_ratio=2)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(found, features, weights)
    inner = sum((f.detach().double() * g.double()).sum() for f, g in zip(features, gradients, strict=True))
    torch.testing.assert_close(inner, (found.detach().double() * weights.double()).sum(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rounds_once(dtype: torch.dtype) -> None:
    """Sums are float32: what is left is the rounding of the result."""
    boxes, index, level = rois(3, seed=5)
    maps = [f.to(dtype).requires_grad_() for f in pyramid(8)]
    wide = [f.detach().float().requires_grad_() for f in maps]
    found, expected = (
        roi_align(f, boxes, index, level, strides=STRIDES, output_size=2, sampling_ratio=2) for f in (maps, wide)
    )
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-2, atol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = torch.autograd.grad(found, maps, weights)
    for gradient, exact in zip(gradients, torch.autograd.grad(expected, wide, weights.float()), strict=True):
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, exact.to(dtype), rtol=1e-2, atol=1e-6)


@pytest.mark.slow
def test_any_layout_in_channels_last_out() -> None:
    boxes, index, level = rois(2)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        features = [f.to(memory_format=layout).requires_grad_() for f in pyramid(8)]
        found = roi_align(features, boxes, index, level, strides=STRIDES, output_size=2)
        assert found.is_contiguous(memory_format=torch.channels_last)
        # Weights whose memory is not in the order of the result.
        results.append((found, *torch.autograd.grad(found, features, torch.arange(found.numel()).view_as(found) * 1.0)))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # opcheck asks its own copies
def test_operators_keep_the_rules_of_torch() -> None:
    boxes, index, level = rois(2)
    maps = [f.permute(0, 2, 3, 1).clone().requires_grad_() for f in pyramid(4)]
    low, length = boxes[:, :2] / 8, (boxes[:, 2:] - boxes[:, :2]) / 8
    torch.library.opcheck(_pool, (maps, low, length, index, level, 2, 2))
    heights, widths = [m.shape[1] for m in maps], [m.shape[2] for m in maps]
    gradient = torch.randn(2, 2, 2, 4)
    torch.library.opcheck(_gradient, (gradient, low, length, index, level, 2, heights, widths, 2))


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_break(dynamic: bool) -> None:
    boxes, index, level = rois(3)

    def loss(features: list[torch.Tensor], boxes: torch.Tensor) -> torch.Tensor:
        return roi_align(features, boxes, index, level, strides=STRIDES, output_size=2, sampling_ratio=0).square().sum()

    features = [f.requires_grad_() for f in pyramid(4)]
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    found, expected = compiled(features, boxes), loss(features, boxes)
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found, features), torch.autograd.grad(expected, features), strict=True):
        torch.testing.assert_close(a, b)
