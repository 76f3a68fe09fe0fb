"""Keypoint maps against torchvision's two functions, which work box by box, and their own laws."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypoints_to_heatmap

from maskrcnn.ops.keypoints import decode_keypoints, keypoint_targets


def boxes_and_points(seed: int, count: int = 6, kinds: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes of 0.3 to 200 pixels, and points inside, outside and exactly on their borders."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + 0.3 + torch.rand(count, 2, generator=generator) ** 2 * 200], dim=1)
    share = torch.rand(count, kinds, 2, generator=generator) * 1.4 - 0.2
    xy = boxes[:, None, :2] + share * (boxes[:, 2:] - boxes[:, :2])[:, None]
    xy[:, 0] = boxes[:, 2:]
    xy[:, 1, 0] = boxes[:, 0]
    visibility = torch.randint(0, 3, (count, kinds, 1), generator=generator)
    return boxes, torch.cat([xy, visibility], dim=-1)


@given(seed=st.integers(0, 10_000), side=st.sampled_from([1, 14, 56]))
def test_targets_are_torchvisions(seed: int, side: int) -> None:
    boxes, points = boxes_and_points(seed)
    cells, valid = keypoint_targets(points, boxes, side)
    theirs, theirs_valid = keypoints_to_heatmap(points, boxes, side)
    assert torch.equal(valid, theirs_valid.bool())
    assert torch.equal(cells[valid], theirs[valid])


@given(seed=st.integers(0, 10_000))
def test_decoding_is_torchvisions(seed: int) -> None:
    boxes, _ = boxes_and_points(seed)
    maps = torch.randn(6, 3, 14, 14, generator=torch.Generator().manual_seed(seed)) * 3
    points, logit, _ = decode_keypoints(maps, boxes)
    theirs, theirs_scores = heatmaps_to_keypoints(maps, boxes)
    torch.testing.assert_close(logit, theirs_scores, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(points, theirs[..., :2], atol=2e-3, rtol=0)


def test_many_boxes_in_parts_are_each_alone() -> None:
    boxes, _ = boxes_and_points(3, count=5)
    boxes[:, 2:] = boxes[:, :2] + 1200  # too large for one part
    maps = torch.randn(5, 4, 8, 8)
    together = decode_keypoints(maps, boxes)
    alone = [decode_keypoints(maps[i : i + 1], boxes[i : i + 1]) for i in range(5)]
    for found, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(found, torch.cat(parts))
    assert decode_keypoints(maps[:0], boxes[:0])[0].shape == (0, 4, 2)


@given(seed=st.integers(0, 10_000))
def test_a_point_survives_to_within_a_cell(seed: int) -> None:
    boxes, points = boxes_and_points(seed)
    points[..., 2] = 1
    side = 56
    cells, valid = keypoint_targets(points, boxes, side)
    row, column = torch.arange(side)[:, None], torch.arange(side)
    y, x = (cells // side)[..., None, None], (cells % side)[..., None, None]
    maps = -((row - y) ** 2 + (column - x) ** 2) / 200  # a hill: a single cell could fall between two pixels
    found, logit, probability = decode_keypoints(maps, boxes)
    sides = boxes[:, 2:] - boxes[:, :2]
    limit = (sides / side).clamp(min=1)[:, None] + 1e-3  # a cell, or a pixel where cells are smaller
    near = ((found - points[..., :2]).abs() <= limit).all(-1)
    assert near[valid].all()
    torch.testing.assert_close(probability, (maps.flatten(2) - logit[..., None]).exp().sum(-1).reciprocal())
