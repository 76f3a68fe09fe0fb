"""Boxes: areas, overlaps and the regression offsets, against their slow twins and torchvision."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou, generalized_box_iou

from maskrcnn.ops import boxes as ops
from maskrcnn.ops.reference import boxes as boxes_reference

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)

corners = st.floats(-100, 1000, width=32)
sides = st.floats(1, 800, width=32)
boxes = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corners, corners, sides, sides)


def random_boxes(seed: int, count: int, side: float = 100) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator) * side], dim=1)


@given(st.lists(boxes, min_size=1, max_size=4), st.lists(boxes, min_size=1, max_size=4))
def test_iou_is_symmetric_between_zero_and_one_and_equal_to_the_twin(
    a: list[list[float]], b: list[list[float]]
) -> None:
    first, second = torch.tensor(a), torch.tensor(b)
    found = ops.pairwise_iou(first, second)
    assert found.shape == (len(a), len(b))
    assert torch.allclose(found, ops.pairwise_iou(second, first).T, atol=1e-6)
    assert bool(((found >= 0) & (found <= 1 + 1e-6)).all())
    expected = [[boxes_reference.iou(p, q) for q in second.tolist()] for p in first.tolist()]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert torch.allclose(ops.pairwise_iou(first, first).diagonal(), torch.ones(len(a)), atol=1e-4)


def test_iou_is_torchvisions_and_takes_leading_dimensions() -> None:
    a, b = random_boxes(0, 30).view(2, 15, 4), random_boxes(1, 40).view(2, 20, 4)
    found = ops.pairwise_iou(a, b)
    for i in range(2):
        assert torch.allclose(found[i], box_iou(a[i], b[i]), atol=1e-6)


@given(boxes, boxes)
def test_generalised_iou_is_the_twins(a: list[float], b: list[float]) -> None:
    first, second = torch.tensor(a), torch.tensor(b)
    found = ops.generalised_iou(first, second).item()
    assert -1 - 1e-5 <= found <= ops.pairwise_iou(first[None], second[None]).item() + 1e-5
    np.testing.assert_allclose(found, boxes_reference.generalised_iou(first.tolist(), second.tolist()), atol=1e-4)
    assert abs(ops.generalised_iou(first, first).item() - 1) < 1e-5


def test_generalised_iou_is_torchvisions() -> None:
    a, b = random_boxes(0, 30), random_boxes(1, 30)
    torch.testing.assert_close(ops.generalised_iou(a, b), generalized_box_iou(a, b).diagonal())


def test_iou_of_empty_boxes_is_zero() -> None:
    empty = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert ops.pairwise_iou(empty, empty).item() == 0
    assert ops.pairwise_iou(empty, torch.tensor([[0.0, 0.0, 10.0, 10.0]])).item() == 0
    assert boxes_reference.iou([5, 5, 5, 5], [5, 5, 5, 5]) == 0
    assert ops.pairwise_iou(torch.zeros(0, 4), random_boxes(0, 3)).shape == (0, 3)


def test_touching_boxes_share_nothing() -> None:
    a = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    assert ops.intersection(a, torch.tensor([[10.0, 0.0, 20.0, 10.0]])).item() == 0
    assert ops.area(a).item() == 100  # no pixel is added to a side


@given(boxes, boxes, st.sampled_from([RPN_WEIGHTS, BOX_WEIGHTS]))
def test_decode_inverts_encode(
    box: list[float], anchor: list[float], weights: tuple[float, float, float, float]
) -> None:
    goal, start = torch.tensor(box), torch.tensor(anchor)
    goal[2:] = torch.minimum(goal[2:], goal[:2] + 50 * (start[2:] - start[:2]))  # within what decode may ask for
    offsets = ops.encode(goal, start, weights)
    tolerance = 1e-5 * float(torch.cat([goal, start]).abs().max()) + 1e-4
    assert torch.allclose(ops.decode(offsets, start, weights), goal, atol=tolerance * 10)
    twin = boxes_reference.encode(goal.tolist(), start.tolist(), weights)
    assert torch.allclose(offsets, torch.tensor(twin), rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(
        boxes_reference.decode(twin, start.tolist(), weights), goal.tolist(), atol=1e-8 + tolerance
    )


def test_offsets_are_the_papers() -> None:
    anchor, box = torch.tensor([0.0, 0.0, 10.0, 20.0]), torch.tensor([5.0, 0.0, 25.0, 20.0])
    # The centre moves one anchor width to the right; the width doubles.
    expected = torch.tensor([1.0, 0.0, float(np.log(2)), 0.0])
    assert torch.allclose(ops.encode(box, anchor, RPN_WEIGHTS), expected)
    assert torch.allclose(ops.encode(box, anchor, BOX_WEIGHTS), expected * torch.tensor(BOX_WEIGHTS))


def test_coding_is_torchvisions() -> None:
    goals, anchors = random_boxes(2, 100), random_boxes(3, 100)
    deltas = torch.randn(100, 4, generator=torch.Generator().manual_seed(4)) * 4  # some beyond the cap
    for weights in (RPN_WEIGHTS, BOX_WEIGHTS):
        coder = BoxCoder(weights)
        assert torch.allclose(ops.encode(goals, anchors, weights), coder.encode_single(goals, anchors), atol=1e-5)
        expected = coder.decode_single(deltas, anchors)
        assert torch.allclose(ops.decode(deltas, anchors, weights), expected, rtol=1e-5, atol=1e-3)


def test_enlargement_is_capped_at_1000_from_16() -> None:
    anchor = torch.tensor([0.0, 0.0, 16.0, 16.0])
    grown = ops.decode(torch.tensor([0.0, 0.0, 50.0, 3.0e38]), anchor, RPN_WEIGHTS)
    assert torch.allclose(grown[2:] - grown[:2], torch.tensor([1000.0, 1000.0]))
    assert np.allclose(boxes_reference.decode([0, 0, 50, 60], [0, 0, 16, 16], RPN_WEIGHTS), [-492, -492, 508, 508])
    shrunk = ops.decode(torch.tensor([0.0, 0.0, -50.0, -50.0]), anchor, RPN_WEIGHTS)
    assert torch.allclose(shrunk, torch.full((4,), 8.0))  # smaller has no limit


def test_both_bounds_stop_shrinking_at_16_from_1000() -> None:
    """MMDetection's `delta2bbox`."""
    anchor = torch.tensor([0.0, 0.0, 1000.0, 1000.0])
    found = ops.decode(torch.tensor([0.0, 0.0, -50.0, 50.0]), anchor, RPN_WEIGHTS, "both")
    assert torch.allclose(found, torch.tensor([492.0, -30750.0, 508.0, 31750.0]))
    twin = boxes_reference.decode([0, 0, -50, 50], [0, 0, 1000, 1000], RPN_WEIGHTS, "both")
    assert np.allclose(twin, found)


@given(st.lists(boxes, min_size=1, max_size=5), st.integers(1, 500), st.integers(1, 500))
def test_clip_keeps_boxes_inside_their_image(found: list[list[float]], height: int, width: int) -> None:
    clipped = ops.clip(torch.tensor([found, found]), torch.tensor([[0, 0, width, height], [0, 0, 2000, 1000]]))
    x, y = clipped[0, :, 0::2], clipped[0, :, 1::2]
    assert bool(((x >= 0) & (x <= width)).all())
    assert bool(((y >= 0) & (y <= height)).all())
    assert torch.equal(ops.clip(clipped[:1], torch.tensor([[0, 0, width, height]])), clipped[:1])
    expected = [[max(x1, 0), max(y1, 0), min(max(x2, 0), 2000), min(max(y2, 0), 1000)] for x1, y1, x2, y2 in found]
    assert torch.allclose(clipped[1], torch.tensor(expected, dtype=torch.float32))


def test_growth_without_a_bound() -> None:
    anchor, delta = [0.0, 0.0, 16.0, 16.0], [0.0, 0.0, 5.0, -50.0]
    found = ops.decode(torch.tensor(delta), torch.tensor(anchor), RPN_WEIGHTS, "none")
    np.testing.assert_allclose(found, boxes_reference.decode(delta, anchor, RPN_WEIGHTS, "none"), rtol=1e-5, atol=1e-5)
    assert found[2] - found[0] > 16 * 62.5


def test_trimmed_boxes_end_earlier() -> None:
    boxes = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert ops.trim(boxes, 1).tolist() == [[1, 2, 2, 3]]
    assert ops.trim(ops.trim(boxes, 1), -1).equal(boxes)
    assert ops.whole_images(torch.tensor([[30, 40]])).tolist() == [[0, 0, 40, 30]]
