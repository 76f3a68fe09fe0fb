"""RoIAlign: values, gradients and the level rule, against the slow twin and torchvision."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops.poolers import LevelMapper

from maskrcnn.errors import ConfigError
from maskrcnn.ops import roi_align as roi_align_module
from maskrcnn.ops.reference import rois as rois_reference
from maskrcnn.ops.roi_align import Reduce, level_of, roi_align
from roi_cases import STRIDES, assert_same_gradients, pyramid, rois, torchvisions, twins, zeros

MODES = [{"sampling_ratio": 0}, {"reduce": "max"}, {"sampling_ratio": 0, "reduce": "max"}]


@pytest.mark.parametrize("ratio", [0, 1, 2, 3])
@pytest.mark.parametrize("aligned", [True, False])
def test_forward_and_backward_are_torchvisions(aligned: bool, ratio: int) -> None:
    boxes, index, level = rois(60)
    ours = [f.requires_grad_() for f in pyramid()]
    theirs = [f.requires_grad_() for f in pyramid()]
    found = roi_align(ours, boxes, index, level, strides=STRIDES, output_size=7, sampling_ratio=ratio, aligned=aligned)
    expected = torchvisions(torchvision.ops.roi_align, theirs, boxes, index, level, 7, ratio, aligned)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found == 0).all(dim=(1, 2, 3)).any()  # boxes far outside are among them
    assert_same_gradients(found, ours, expected, theirs)


@given(
    st.integers(0, 10_000),
    st.booleans(),
    st.integers(0, 3),
    st.sampled_from([1, 2, 7]),
    st.sampled_from(["average", "max"]),
)
def test_equal_to_the_twin(seed: int, aligned: bool, ratio: int, output_size: int, reduce: Reduce) -> None:
    boxes, index, level = rois(3, seed)
    settings = {"output_size": output_size, "sampling_ratio": ratio, "aligned": aligned, "reduce": reduce}
    found = roi_align(pyramid(2), boxes, index, level, strides=STRIDES, **settings)
    expected = twins(rois_reference.roi_align, pyramid(2), boxes, index, level, **settings)
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
        expected = torchvisions(torchvision.ops.roi_align, pyramid(), boxes, index, level, 3, 2, aligned)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ratio", [0, 2])
def test_positions_are_rounded_as_torchvisions_on_a_large_map(ratio: int) -> None:
    """In another order of rounding, positions of hundreds of cells would move values by 1e-4."""
    generator = torch.Generator().manual_seed(0)
    features = [torch.randn(1, 8, 200, 336, generator=generator)]
    low = torch.rand(1000, 2, generator=generator) * torch.tensor([1100.0, 600.0])
    boxes = torch.cat([low, low + torch.rand(1000, 2, generator=generator) * 240], dim=1)
    found = roi_align(
        features,
        boxes,
        zeros(1000),
        zeros(1000),
        strides=STRIDES[:1],
        output_size=7,
        sampling_ratio=ratio,
        aligned=False,
    )
    expected = torchvisions(torchvision.ops.roi_align, features, boxes, zeros(1000), zeros(1000), 7, ratio, False)
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("aligned", [True, False])
def test_gradient_check_in_float64(aligned: bool) -> None:
    boxes, index, level = rois(6, seed=3)
    features = [f.requires_grad_() for f in pyramid(1, dtype=torch.float64)]

    def pool(*maps: torch.Tensor) -> torch.Tensor:
        return roi_align(maps, boxes, index, level, strides=STRIDES, output_size=2, sampling_ratio=2, aligned=aligned)

    assert torch.autograd.gradcheck(pool, features)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_gradient_check_of_other_modes(mode: dict[str, Any]) -> None:
    boxes, index, level = rois(20, seed=3)
    features = [f.requires_grad_() for f in pyramid(2, dtype=torch.float64)]

    def pool(*maps: torch.Tensor) -> torch.Tensor:
        return roi_align(maps, boxes, index, level, strides=STRIDES, output_size=3, **mode)

    assert torch.autograd.gradcheck(pool, features, fast_mode=True)


@pytest.mark.parametrize("mode", [{}, *MODES], ids=str)
def test_constant_features_stay_constant(mode: dict[str, Any]) -> None:
    features = [torch.full_like(f, 3.0) for f in pyramid()]
    boxes = torch.tensor([[5.0, 5.0, 40.0, 30.0], [0.0, 0.0, 64.0, 48.0]])
    found = roi_align(features, boxes, zeros(2), zeros(2), strides=STRIDES, output_size=7, **mode)
    torch.testing.assert_close(found, torch.full_like(found, 3.0))


@given(
    st.tuples(st.floats(4, 30), st.floats(4, 20), st.floats(0, 30), st.floats(0, 24)),
    st.integers(0, 3),
    st.sampled_from([1, 2, 5]),
)
def test_samples_of_a_slope(box: tuple[float, float, float, float], ratio: int, output_size: int) -> None:
    """On a slope the average of a bin is the value at its centre, the maximum that of its last sample."""
    left, top, width, height = box
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(16.0), indexing="ij")
    features = [(y + 0.1 * x)[None, None]]
    boxes = torch.tensor([[left, top, left + width, top + height]])
    side = torch.tensor([width, height]) / 4 / output_size  # of a bin, cells
    count = torch.tensor([ratio, ratio]) if ratio else side.ceil().clamp(min=1)
    first = torch.tensor([left, top]) / 4 - 0.5
    bins = torch.arange(output_size)[:, None]
    for reduce, within in (("average", 0.5), ("max", 1 - 0.5 / count)):
        at = first + (bins + within) * side
        found = roi_align(
            features,
            boxes,
            zeros(1),
            zeros(1),
            strides=[4],
            output_size=output_size,
            sampling_ratio=ratio,
            reduce=reduce,
        )
        torch.testing.assert_close(found[0, 0], at[:, 1:] + 0.1 * at[:, 0], rtol=0, atol=1e-4)


def test_of_equal_maxima_the_first_has_the_gradient() -> None:
    features = [torch.zeros(1, 1, 12, 16, requires_grad=True)]
    boxes = torch.tensor([[0.0, 0.0, 32.0, 16.0]])  # 8 x 4 cells, sampled at 1.5 and 5.5, 0.5 and 2.5
    roi_align(features, boxes, zeros(1), zeros(1), strides=[4], output_size=1, reduce="max").sum().backward()
    assert features[0].grad is not None
    assert features[0].grad.nonzero()[:, 2:].tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]
    assert (features[0].grad[0, 0, :2, 1:3] == 0.25).all()


@pytest.mark.parametrize("ratio", [0, 2])
def test_maxima_in_chunks_are_the_same(ratio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    boxes, index, level = rois(30)
    maxima, calls, results = roi_align_module._maxima, [], []
    monkeypatch.setattr(roi_align_module, "_maxima", lambda *parts: calls.append(parts) or maxima(*parts))
    for chunk, fewest in ((1 << 26, 1), (2000, 3), (1, 30)):
        monkeypatch.setattr(roi_align_module, "_CHUNK_VALUES", chunk)
        calls.clear()
        features = [f.requires_grad_() for f in pyramid()]
        found = roi_align(
            features, boxes, index, level, strides=STRIDES, output_size=7, sampling_ratio=ratio, reduce="max"
        )
        assert fewest <= len(calls) < fewest + 20
        gradient = torch.autograd.grad(found.square().sum(), features)
        results.append((found, *gradient))
    torch.testing.assert_close(results[1], results[0])
    torch.testing.assert_close(results[2], results[0])


@pytest.mark.parametrize("reduce", ["average", "max"])
@pytest.mark.parametrize("aligned", [True, False])
def test_a_roi_far_larger_than_the_map(aligned: bool, reduce: Reduce) -> None:
    """Adaptive sampling looks only at the samples on the map, and at some of the zeros beside it."""
    boxes = torch.tensor([[-3000.0, 10.0, 1000.0, 14.0], [4.0, -2000.0, 12.0, 300.0], [70.0, 0.0, 9000.0, 8.0]])
    settings = {"output_size": 2, "sampling_ratio": 0, "aligned": aligned, "reduce": reduce}
    found = roi_align(pyramid(2), boxes, zeros(3), zeros(3), strides=STRIDES, **settings)
    expected = twins(rois_reference.roi_align, pyramid(2), boxes, zeros(3), zeros(3), **settings)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-4)
    assert found[:2].any()


@pytest.mark.parametrize("mode", [{}, *MODES], ids=str)
def test_bfloat16_is_near(mode: dict[str, Any]) -> None:
    boxes, index, level = rois(40, seed=5)
    exact_maps = [f.requires_grad_() for f in pyramid()]
    exact = roi_align(exact_maps, boxes, index, level, strides=STRIDES, output_size=7, **mode)
    maps = [f.to(torch.bfloat16).requires_grad_() for f in pyramid()]
    found = roi_align(maps, boxes, index, level, strides=STRIDES, output_size=7, **mode)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, rtol=0, atol=0.03)
    found.sum().backward()
    exact.sum().backward()
    for feature, exact_feature in zip(maps, exact_maps, strict=True):
        assert feature.grad is not None
        assert exact_feature.grad is not None
        assert feature.grad.dtype == torch.bfloat16
        if mode.get("reduce") != "max":  # rounding lets another sample win
            near = (feature.grad.float() - exact_feature.grad).abs() <= 0.08 * exact_feature.grad.abs().max()
            assert near.all()
        # What the bins hand down arrives, whichever sample wins.
        torch.testing.assert_close(feature.grad.float().sum(), exact_feature.grad.sum(), rtol=0.02, atol=0)


def test_output_is_channels_last_whatever_the_input() -> None:
    boxes, index, level = rois(10)
    for layout in (torch.contiguous_format, torch.channels_last):
        maps = [f.contiguous(memory_format=layout) for f in pyramid()]
        found = roi_align(maps, boxes, index, level, strides=STRIDES, output_size=7)
        assert found.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(
            found,
            torchvisions(torchvision.ops.roi_align, pyramid(), boxes, index, level, 7, 2, True),
            rtol=1e-4,
            atol=1e-4,
        )


@pytest.mark.parametrize("mode", [{}, *MODES], ids=str)
def test_no_boxes_still_reach_the_features(mode: dict[str, Any]) -> None:
    features = [f.requires_grad_() for f in pyramid()]
    found = roi_align(features, torch.zeros(0, 4), zeros(0), zeros(0), strides=STRIDES, output_size=7, **mode)
    assert found.shape == (0, 3, 7, 7)
    found.sum().backward()
    for feature in features:
        assert feature.grad is not None
        assert not feature.grad.any()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", [{}, *MODES], ids=str)
def test_boxes_that_are_not_numbers_read_nothing(mode: dict[str, Any], aligned: bool) -> None:
    """A network that diverges: an index outside the table would crash the process."""
    bad = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38]
    boxes = torch.tensor([[v, 0.0, w, 5.0] for v in bad for w in bad])
    features = [f.requires_grad_() for f in pyramid()]
    found = roi_align(features, boxes, zeros(25), zeros(25), strides=(1, 2, 4), output_size=2, aligned=aligned, **mode)
    assert found.shape == (25, 3, 2, 2)
    finite = boxes.isfinite().all(1)
    assert not found[~finite].any()
    assert found.isfinite().all()
    found.sum().backward()
    assert all(f.grad.isfinite().all() for f in features)
    assert level_of(boxes, 3, 4, 224.0).min() >= 0
    assert level_of(boxes, 3, 4, 224.0).max() <= 2


@pytest.mark.parametrize("box", [[8.0, 8.0, 8.0, 8.0], [20.0, 20.0, 10.0, 12.0], [-2.0, 8.0, -2.0, 8.0]])
def test_adaptive_sampling_of_a_box_without_area_takes_one_sample(box: list[float]) -> None:
    one = roi_align(
        pyramid(), torch.tensor([box]), zeros(1), zeros(1), strides=STRIDES, output_size=2, sampling_ratio=1
    )
    for reduce in ("average", "max"):
        found = roi_align(
            pyramid(),
            torch.tensor([box]),
            zeros(1),
            zeros(1),
            strides=STRIDES,
            output_size=2,
            sampling_ratio=0,
            reduce=reduce,
        )
        torch.testing.assert_close(found, one)


def test_settings_that_cannot_work() -> None:
    boxes = torch.tensor([[0.0, 0.0, 8.0, 8.0]])
    with pytest.raises(ConfigError, match=r"sampling_ratio 0 \(adaptive\) or more, found -1"):
        roi_align(pyramid(), boxes, zeros(1), zeros(1), strides=STRIDES, output_size=2, sampling_ratio=-1)
    with pytest.raises(ConfigError, match="one of average, max, found 'mean'"):
        roi_align(pyramid(), boxes, zeros(1), zeros(1), strides=STRIDES, output_size=2, reduce="mean")  # type: ignore[arg-type]


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


@pytest.mark.parametrize(
    ("rule", "base", "inside"),
    [
        # Detectron2: floor(4 + log2(sqrt(area) / 224 + 1e-8)); MMDetection: 2 + floor(log2(sqrt(area) / 56 + 1e-6))
        ({"canonical_level": 4, "canonical_size": 224.0}, 224.0, 1e-8),
        ({"canonical_level": 2, "canonical_size": 56.0}, 56.0, 1e-6),
    ],
)
def test_level_with_a_small_term_inside_the_logarithm(rule: dict[str, float], base: float, inside: float) -> None:
    sides = torch.cat([torch.linspace(1, 1000, 2000), torch.tensor([56.0, 112.0, 224.0, 448.0, 0.0])])
    boxes = torch.stack([torch.zeros_like(sides), torch.zeros_like(sides), sides, sides], dim=1)
    exact = torch.log2(sides.double() / base + inside).floor() + rule["canonical_level"]
    found = level_of(boxes, 4, level_epsilon=0.0, size_epsilon=inside, **rule)  # type: ignore[arg-type]
    assert torch.equal(found, (exact.clamp(2, 5) - 2).long())
    near = torch.tensor([[0.0, 0.0, 223.9999, 223.9999]])  # torchvision's term carries it over, Detectron2's does not
    assert level_of(near, 4, 4, 224.0).item() == 2
    assert level_of(near, 4, 4, 224.0, level_epsilon=0.0, size_epsilon=1e-8).item() == 1
