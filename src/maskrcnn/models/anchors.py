"""Anchor boxes (Ren et al. 2015, section 3.1.1): sizes and aspect ratios around every cell of every level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


def cell_anchors(
    sizes: Sequence[float], ratios: Sequence[float], *, rounded: bool, whole_at: int | None = None
) -> Tensor:
    """(len(ratios) * len(sizes), 4) boxes around the origin, ratio outer and size inner; ratio is height / width.

    Args:
        rounded: corners rounded to whole pixels.
        whole_at: sides are rounded to whole pixels, half to even, for an anchor of this size and then enlarged
            (`generate_anchors` of Detectron, whose size is the level's stride).
    """
    ratio = torch.tensor(ratios, dtype=torch.float32)
    size = torch.tensor(sizes, dtype=torch.float32)
    if whole_at is None:
        width, height = size / ratio.sqrt()[:, None], size * ratio.sqrt()[:, None]
    else:
        whole = (whole_at**2 / ratio).sqrt().round()
        enlarged = size / whole_at
        width, height = whole[:, None] * enlarged, (whole * ratio).round()[:, None] * enlarged
    width, height = width.flatten(), height.flatten()
    anchors = torch.stack([-width, -height, width, height], dim=1) / 2
    return anchors.round() if rounded else anchors


class Anchors:
    """Anchors of a pyramid, computed once for each shape of it.

    Args:
        sizes: sides of the square anchors of each level, network-input pixels.
        ratios: height / width.
        rounded: corners rounded to whole pixels (torchvision).
        stride_rule: `constant` uses the level's stride; `grid` the padded size // the grid size (torchvision),
            which differs where a level's size was rounded.
        offset: centre of the first cell's anchors, in strides.
        whole_at: of each level, as of `cell_anchors`; None: sides are not rounded.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        *,
        rounded: bool,
        stride_rule: Literal["constant", "grid"],
        offset: float = 0.0,
        whole_at: Sequence[int] | None = None,
    ) -> None:
        wholes: Sequence[int | None] = whole_at or [None] * len(sizes)
        self.cells = [
            cell_anchors(level, ratios, rounded=rounded, whole_at=whole)
            for level, whole in zip(sizes, wholes, strict=True)
        ]
        self.stride_rule = stride_rule
        self.offset = offset
        self._cache: dict[object, list[Tensor]] = {}

    def __call__(
        self, grids: Sequence[tuple[int, int]], strides: Sequence[int], padded_hw: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """One (h * w * A, 4) float32 tensor a level, network-input pixels, ordered (y, x, anchor).

        Args:
            grids: height and width of each level in cells.
            strides: of each level.
            padded_hw: size of the batch in pixels.
        """
        key = (tuple(grids), padded_hw, device)
        if key in self._cache:
            return self._cache[key]
        levels = [
            self._level(cell.to(device), grid, stride, padded_hw)
            for cell, grid, stride in zip(self.cells, grids, strides, strict=True)
        ]
        if type(levels[0]) is Tensor:  # not the stand-ins of a tracer, which no later call could use
            if len(self._cache) >= 64:  # many shapes pass by in multi-scale training
                self._cache.clear()
            self._cache[key] = levels
        return levels

    def _level(self, cell: Tensor, grid: tuple[int, int], stride: int, padded_hw: tuple[int, int]) -> Tensor:
        step_y, step_x = (
            (stride, stride) if self.stride_rule == "constant" else (padded_hw[0] // grid[0], padded_hw[1] // grid[1])
        )
        y = (torch.arange(grid[0], device=cell.device, dtype=torch.float32) + self.offset) * step_y
        x = (torch.arange(grid[1], device=cell.device, dtype=torch.float32) + self.offset) * step_x
        y, x = torch.meshgrid(y, x, indexing="ij")
        shift = torch.stack([x, y, x, y], dim=-1)
        return (shift[:, :, None] + cell).reshape(-1, 4)
