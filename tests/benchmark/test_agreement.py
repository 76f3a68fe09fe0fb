from __future__ import annotations

import dataclasses

import numpy as np
import torch

from maskrcnn.benchmark.agreement import compare
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks

HW = (20, 30)
BOXES = np.array([[2, 3, 12, 13], [2, 3, 12, 13], [15, 4, 25, 18]], dtype=np.float32)


def dense(boxes: np.ndarray) -> np.ndarray:
    images = np.zeros((len(boxes), *HW), dtype=bool)
    for image, (x1, y1, x2, y2) in zip(images, boxes.astype(int), strict=True):
        image[y1:y2, x1:x2] = True
    return images


def ours() -> Instances:
    masks = Masks([RLE.from_dense(mask) for mask in dense(BOXES)], HW)
    return Instances(HW, BOXES, np.array([0.9, 0.8, 0.7], np.float32), np.array([4, 5, 5]), masks)


def theirs() -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.from_numpy(BOXES.copy()),
        "scores": torch.tensor([0.9, 0.8, 0.7]),
        "labels": torch.tensor([5, 6, 6]),
        "masks": torch.from_numpy(dense(BOXES))[:, None].float(),
    }


def test_equal_detections_agree_in_any_order() -> None:
    expected = {name: value.flip(0) for name, value in theirs().items()}
    found = compare([(ours(), expected), (ours(), theirs())])
    assert found.agree
    assert (found.images, found.ours, found.theirs, found.matched) == (2, 6, 6, 6)
    assert (found.box_px, found.mask_iou) == (0.0, 1.0)
    assert "detections agree" in found.line()
    assert found.to_dict()["agree"] is True


def test_every_kind_of_difference_is_noticed() -> None:
    changes = {
        "boxes": theirs()["boxes"] + torch.tensor([0.02, 0, 0, 0]),
        "scores": theirs()["scores"] + 2e-4,
        "labels": theirs()["labels"] - 1,  # as if the background were last
    }
    for name, value in changes.items():
        found = compare([(ours(), theirs() | {name: value})])
        assert not found.agree, name
        assert found.matched < 3, name
        assert "DIFFER" in found.line()


def test_other_masks_are_noticed() -> None:
    found = compare([(ours(), theirs() | {"masks": theirs()["masks"].roll(1, dims=-1)})])
    assert found.matched == 3
    assert not found.agree
    assert 0.8 < found.mask_iou < 0.9


def test_two_of_theirs_cannot_share_a_partner() -> None:
    expected = theirs()
    expected["labels"][0], expected["scores"][0] = 6, 0.8
    found = compare([(ours(), expected)])
    assert found.matched == 2
    assert not found.agree


def test_more_of_ours_or_nothing_at_all_is_no_agreement() -> None:
    fewer = {name: value[:2] for name, value in theirs().items()}
    assert not compare([(ours(), fewer)]).agree
    none = {name: value[:0] for name, value in theirs().items()}
    nothing = dataclasses.replace(
        ours(), boxes=BOXES[:0], scores=np.zeros(0, np.float32), labels=np.zeros(0, np.int64), masks=Masks([], HW)
    )
    assert not compare([(nothing, none)]).agree
