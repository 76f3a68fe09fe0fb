"""Anchors against torchvision's generator and Detectron2's numbers."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

from maskrcnn.config.conventions import OURS, TORCHVISION, AnchorRules
from maskrcnn.models.anchors import Anchors, cell_anchors

SIZES = ((32.0,), (64.0,), (128.0,), (256.0,), (512.0,))
RATIOS = (0.5, 1.0, 2.0)
STRIDES = (4, 8, 16, 32, 64)
CPU = torch.device("cpu")


def grids_of(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of P2..P6 for a padded image; P6 keeps every other cell of P5, the first one included."""
    grids = [(height // s, width // s) for s in STRIDES[:-1]]
    return [*grids, ((grids[-1][0] + 1) // 2, (grids[-1][1] + 1) // 2)]


@pytest.mark.parametrize("padded", [(800, 1088), (832, 1344), (224, 352), (64, 64)])
@pytest.mark.parametrize("sizes", [SIZES, ((32.0, 40.3), (64.0, 80.6), (128.0, 161.3), (256.0, 322.5), (512.0, 645.1))])
def test_rounded_on_the_grids_stride_is_torchvisions(padded: tuple[int, int], sizes: tuple[tuple[float, ...]]) -> None:
    theirs = AnchorGenerator(sizes, (RATIOS,) * 5)
    maps = [torch.zeros(1, 1, *grid) for grid in grids_of(*padded)]
    expected = theirs(ImageList(torch.zeros(1, 3, *padded), [padded]), maps)[0]
    ours = Anchors(sizes, RATIOS, STRIDES, TORCHVISION.anchors)
    assert torch.equal(torch.cat(ours(grids_of(*padded), padded, CPU)), expected)


def test_not_rounded_on_a_constant_stride_is_detectron2s() -> None:
    first = cell_anchors((32.0,), RATIOS, 4)
    expected = [[-22.63, -11.31, 22.63, 11.31], [-16.0, -16.0, 16.0, 16.0], [-11.31, -22.63, 11.31, 22.63]]
    assert torch.allclose(first, torch.tensor(expected), atol=5e-3)
    padded = (800, 1088)
    levels = Anchors(SIZES, RATIOS, STRIDES, OURS.anchors)(grids_of(*padded), padded, CPU)
    for level, grid, stride, (size,) in zip(levels, grids_of(*padded), STRIDES, SIZES, strict=True):
        boxes = level.view(*grid, 3, 4)
        centres = (boxes[..., :2] + boxes[..., 2:]) / 2
        rows, columns = torch.arange(grid[0]) * float(stride), torch.arange(grid[1]) * float(stride)
        assert torch.allclose(centres[..., 1], rows[:, None, None].expand(*grid, 3), atol=1e-3)
        assert torch.allclose(centres[..., 0], columns[None, :, None].expand(*grid, 3), atol=1e-3)
        sides = boxes[..., 2:] - boxes[..., :2]
        assert torch.allclose(sides.prod(-1).sqrt(), torch.tensor(size), rtol=1e-4)
        assert torch.allclose((sides[..., 1] / sides[..., 0])[0, 0], torch.tensor(RATIOS), rtol=1e-4)


def test_rounded_corners_of_the_specification() -> None:
    assert cell_anchors((32.0,), RATIOS, 4, "corners").tolist() == [
        [-23.0, -11.0, 23.0, 11.0],
        [-16.0, -16.0, 16.0, 16.0],
        [-11.0, -23.0, 11.0, 23.0],
    ]


def test_stride_of_the_top_level_follows_the_grid_only_where_asked() -> None:
    padded = (800, 800)  # 13 cells on P6: 800 // 13 = 61
    for rules, step in ((AnchorRules(stride="grid"), 61.0), (AnchorRules(), 64.0)):
        top = Anchors(SIZES, RATIOS, STRIDES, rules)(grids_of(*padded), padded, CPU)[-1]
        assert top[3, 0] - top[0, 0] == step  # the next cell to the right, same anchor


def test_the_cache_tells_shapes_apart_and_does_not_grow_for_ever() -> None:
    anchors = Anchors(SIZES, RATIOS, STRIDES, TORCHVISION.anchors)
    first = anchors(grids_of(64, 64), (64, 64), CPU)
    assert anchors(grids_of(64, 64), (64, 64), CPU)[0] is first[0]
    assert len(anchors(grids_of(64, 96), (64, 96), CPU)[0]) == 16 * 24 * 3
    for width in range(1, 200):
        anchors(grids_of(32, 32 * width), (32, 32 * width), CPU)
    assert len(anchors._cache) <= 64


def test_offset_moves_the_centres_by_a_share_of_the_stride() -> None:
    padded = (64, 64)
    plain, moved = (
        Anchors(SIZES, RATIOS, STRIDES, AnchorRules(offset=offset))(grids_of(*padded), padded, CPU)
        for offset in (0.0, 0.5)
    )
    for before, after, stride in zip(plain, moved, STRIDES, strict=True):
        torch.testing.assert_close(after, before + stride / 2)
