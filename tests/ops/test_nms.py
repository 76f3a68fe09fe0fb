"""Suppression of lists of boxes, against the slow twin and torchvision's kernels."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.ops.nms import nms
from maskrcnn.ops.reference import boxes as boxes_reference
from suppression_cases import clustered, thresholds, valued


@given(valued(), thresholds, st.booleans())
def test_equal_to_the_twin(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor], threshold: float, with_labels: bool
) -> None:
    keep = nms(*case[:2], threshold, case[2] if with_labels else None)
    boxes, valid, labels = (part[0].tolist() for part in case)
    real = [i for i in range(len(boxes)) if valid[i]]
    kept = boxes_reference.nms([boxes[i] for i in real], threshold, [labels[i] for i in real] if with_labels else None)
    assert keep[0].nonzero()[:, 0].tolist() == [real[i] for i in kept]


def test_every_list_is_torchvisions_nms() -> None:
    boxes = clustered(0, 3, 200)
    valid = torch.rand(3, 200, generator=torch.Generator().manual_seed(1)) > 0.2
    keep = nms(boxes, valid, 0.5)
    assert 0 < keep.sum() < valid.sum()
    for row_boxes, row_valid, row_keep in zip(boxes, valid, keep, strict=True):
        index = row_valid.nonzero()[:, 0]
        scores = torch.linspace(1, 0, len(index))
        expected = index[torchvision.ops.nms(row_boxes[index], scores, 0.5)]
        assert row_keep.nonzero()[:, 0].tolist() == expected.tolist()


def test_labels_are_torchvisions_batched_nms() -> None:
    boxes = clustered(2, 2, 300)
    labels = torch.randint(0, 80, (2, 300), generator=torch.Generator().manual_seed(3))
    labels[:, ::2] = labels[:, ::2] % 3
    keep = nms(boxes, torch.ones(2, 300, dtype=torch.bool), 0.5, labels)
    scores = torch.linspace(1, 0, 300)
    for i in range(2):
        expected = torchvision.ops.batched_nms(boxes[i], scores, labels[i], 0.5)
        assert keep[i].nonzero()[:, 0].tolist() == expected.tolist()


def test_classes_far_apart_keep_their_precision() -> None:
    # Moved apart in float32, boxes of class 1000 in an image of 4000 pixels would lose their fractions.
    origin, box = [0.0, 0.0, 1.0, 1.0], [4000.0, 4000.0, 4001.0, 4001.0]
    lower = [4000.0, 4000.48, 4001.0, 4001.48]  # IoU 0.351
    for label in (0, 1000):
        boxes, labels = torch.tensor([[origin, box, lower]]), torch.full((1, 3), label)
        assert nms(boxes, torch.ones(1, 3, dtype=torch.bool), 0.36, labels).tolist() == [[True, True, True]]
        assert nms(boxes, torch.ones(1, 3, dtype=torch.bool), 0.34, labels).tolist() == [[True, True, False]]


@pytest.mark.parametrize("gap", range(0, 44, 2))
def test_labels_never_meet_wherever_their_boxes_lie(gap: int) -> None:
    ends = torch.tensor([[[0.0, 0.0, 20.0, 20.0], [gap, gap, gap + 20.0, gap + 20.0]]])
    for labels in ([[1, 0]], [[0, 1]], [[2, 0]]):
        assert nms(ends, torch.ones(1, 2, dtype=torch.bool), 0.1, torch.tensor(labels)).all()


def test_nothing_valid_and_nothing_at_all() -> None:
    boxes = clustered(4, 2, 5)
    assert not nms(boxes, torch.zeros(2, 5, dtype=torch.bool), 0.5).any()
    labels = torch.zeros(2, 5, dtype=torch.int64)
    assert not nms(boxes, torch.zeros(2, 5, dtype=torch.bool), 0.5, labels).any()
    assert nms(boxes[:, :0], torch.zeros(2, 0, dtype=torch.bool), 0.5).shape == (2, 0)


def test_equal_overlap_survives() -> None:
    boxes = torch.tensor([[[0.0, 0.0, 2.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])  # IoU exactly 0.5
    assert nms(boxes, torch.ones(1, 2, dtype=torch.bool), 0.5).tolist() == [[True, True]]
    assert nms(boxes, torch.ones(1, 2, dtype=torch.bool), 0.49).tolist() == [[True, False]]
