"""Matterport's `crop_and_resize` against its slow twin, and what the rule says by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn.ops.reference import rois as rois_reference
from maskrcnn.ops.roi_align import level_of
from maskrcnn.ops.roi_crop import roi_crop

STRIDES = (4, 8)


def maps(seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, 3, 64 // s, 96 // s, generator=generator) for s in STRIDES]


@pytest.mark.parametrize("trim", [0.0, 1.0])
@pytest.mark.parametrize("size", [2, 7])
def test_equals_its_twin(trim: float, size: int) -> None:
    """Boxes inside, up to the border, outside, and without an area."""
    features = maps()
    boxes = torch.tensor(
        [
            [3.2, 5.1, 40.7, 33.3],
            [0.0, 0.0, 96 - trim, 64 - trim],
            [70.0, 40.0, 130.0, 90.0],
            [-20.0, -9.0, 15.0, 20.0],
            [10.0, 10.0, 10.0, 10.0],
        ]
    )
    image_index, level = torch.tensor([0, 1, 1, 0, 1]), torch.tensor([0, 1, 0, 1, 0])
    found = roi_crop(features, boxes, image_index, level, strides=STRIDES, output_size=size, trim=trim)
    expected = rois_reference.roi_crop(
        [f.double().numpy() for f in features],
        boxes.tolist(),
        image_index.tolist(),
        level.tolist(),
        strides=STRIDES,
        output_size=size,
        trim=trim,
    )
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-4)
    assert not found[2, :, -1].any()


def test_the_whole_image_reads_corner_cells() -> None:
    features = maps()
    boxes = torch.tensor([[0.0, 0.0, 95.0, 63.0]])
    zero = torch.zeros(1, dtype=torch.int64)
    found = roi_crop(features, boxes, zero, zero, strides=STRIDES, output_size=2, trim=1.0)
    torch.testing.assert_close(found[0], features[0][0][:, ::15, ::23], atol=1e-4, rtol=0)


def test_no_boxes_still_have_a_gradient() -> None:
    features = [f.requires_grad_() for f in maps()]
    none = torch.zeros(0, dtype=torch.int64)
    roi_crop(features, torch.zeros(0, 4), none, none, strides=STRIDES, output_size=7).sum().backward()
    assert all(f.grad is not None for f in features)


def test_levels_by_rounding() -> None:
    side = 224.0 * 2 ** torch.tensor([-0.4, -0.6, 0.4, 0.6, -9.0, 9.0])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), side, side], dim=1)
    assert level_of(boxes, 4, 4, 224.0, rounding="round").tolist() == [2, 1, 2, 3, 0, 3]
    assert level_of(boxes, 4, 4, 224.0).tolist() == [1, 1, 2, 2, 0, 3]
