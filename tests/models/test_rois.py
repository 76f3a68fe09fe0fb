"""The slots that mask and keypoint branches compute, and the way back into padded detections."""

from __future__ import annotations

import pytest
import torch

from maskrcnn.models import rois
from maskrcnn.models.rois import Slots, filled_slots, flatten_boxes, positive_slots
from maskrcnn.structures.detections import Detections

VALID = torch.tensor([[True, True, False], [True, False, False]])
FOUND = Detections(torch.rand(2, 3, 4), torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.int64), VALID)


def test_slots_take_from_a_batch_and_put_back_into_it() -> None:
    slots = Slots(torch.tensor([5, 0, 2]), torch.tensor([True, True, False]), (2, 3))
    values = torch.arange(24.0).view(2, 3, 4) + 1
    assert slots.image_index.tolist() == [1, 0, 0]
    assert torch.equal(slots.take(values), torch.stack([values[1, 2], values[0, 0], values[0, 2]]))
    back = slots.put_back(slots.take(values))
    assert torch.equal(back[1, 2], values[1, 2])
    assert torch.equal(back[0, 0], values[0, 0])
    assert back.sum() == values[1, 2].sum() + values[0, 0].sum()  # the unused one and all others are zero


@pytest.mark.parametrize("static", [False, True])
def test_the_filled_slots_are_the_detections(static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rois, "static_shapes", lambda tensor: static)
    slots = filled_slots(FOUND)
    assert slots.chosen[slots.used].tolist() == [0, 1, 3]
    assert len(slots.chosen) == (6 if static else 3)
    filled = slots.put_back(torch.full((len(slots.chosen), 2), torch.inf))
    assert torch.equal(filled[..., 0] > 0, VALID)
    assert (filled[~VALID] == 0).all()  # whatever an empty slot computed


def test_few_numbers_of_slots_occur() -> None:
    numbers = set()
    for count in range(201):
        valid = torch.zeros(2, 100, dtype=torch.bool)
        valid.view(-1)[torch.randperm(200, generator=torch.Generator().manual_seed(count))[:count]] = True
        slots = filled_slots(Detections(torch.rand(2, 100, 4), valid.float(), valid.long(), valid))
        assert slots.used.sum() == count
        assert count <= len(slots.chosen) <= count + count // 16  # at most a sixteenth is computed in vain
        assert len(slots.chosen.unique()) == len(slots.chosen)  # no slot is written twice
        numbers.add(len(slots.chosen))
    assert len(numbers) < 80


@pytest.mark.parametrize("static", [False, True])
def test_positive_slots_have_one_size_where_shapes_are_static(static: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rois, "static_shapes", lambda tensor: static)
    slots = positive_slots(VALID, 2)
    assert sorted(slots.chosen[slots.used].tolist()) == [0, 1, 3]
    assert len(slots.chosen) == (4 if static else 3)
    assert slots.shape == (2, 3)


def test_flattened_boxes_know_their_image() -> None:
    boxes, image_index = flatten_boxes(FOUND.boxes)
    assert torch.equal(boxes[3], FOUND.boxes[1, 0])
    assert image_index.tolist() == [0, 0, 0, 1, 1, 1]
