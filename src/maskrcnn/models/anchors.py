"""Anchor boxes of several sizes and aspect ratios around every cell of every level (Ren et al. 2015, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from maskrcnn.config.conventions import AnchorRules


def cell_anchors(
    sizes: Sequence[float], ratios: Sequence[float], stride: int, rounding: Literal["none", "corners", "base"] = "none"
) -> Tensor:
    """The anchors of one cell around the origin, (len(ratios) * len(sizes), 4) float32, by ratio and then by size.

    Args:
        sizes: sides of the square anchors, network-input pixels.
        ratios: height / width.
        stride: network-input pixels per cell.
        rounding: `corners` rounds the corners to whole pixels, half to even (torchvision's `AnchorGenerator`). `base`
            rounds the sides of an anchor as large as the stride and then enlarges it (Detectron's `generate_anchors`).
    """
    ratio = torch.tensor(ratios, dtype=torch.float32)
    size = torch.tensor(sizes, dtype=torch.float32)
    if rounding == "base":
        base = (stride**2 / ratio).sqrt().round()
        enlarged = size / stride
        width, height = base[:, None] * enlarged, (base * ratio).round()[:, None] * enlarged
    else:
        width, height = size / ratio.sqrt()[:, None], size * ratio.sqrt()[:, None]
    width, height = width.flatten(), height.flatten()
    anchors = torch.stack([-width, -height, width, height], dim=1) / 2
    return anchors.round() if rounding == "corners" else anchors


class Anchors:
    """The anchors of a pyramid, cached for each shape of the pyramid.

    Args:
        sizes: sides of the square anchors of each level, network-input pixels.
        ratios: height / width.
        strides: network-input pixels per cell of each level.
        rules: how anchors are rounded, and where the cells lie.
    """

    def __init__(
        self, sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int], rules: AnchorRules
    ) -> None:
        self.cells = [
            cell_anchors(level, ratios, stride, rules.rounding) for level, stride in zip(sizes, strides, strict=True)
        ]
        self.strides = tuple(strides)
        self.rules = rules
        self._cache: dict[object, list[Tensor]] = {}

    def __call__(
        self, grids: Sequence[tuple[int, int]], padded_hw: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """One (h * w * A, 4) float32 tensor per level, network-input pixels, ordered (y, x, anchor).

        Args:
            grids: height and width of each level in cells.
            padded_hw: size of the padded batch, network-input pixels.
        """
        key = (tuple(grids), padded_hw, device)
        if key in self._cache:
            return self._cache[key]
        levels = self.levels(grids, padded_hw, device)
        if type(levels[0]) is Tensor:  # a compiler's fake tensors would be useless to later calls
            if len(self._cache) >= 64:  # multi-scale training brings ever new shapes
                self._cache.clear()
            self._cache[key] = levels
        return levels

    def levels(
        self, grids: Sequence[tuple[int, int]], padded_hw: tuple[int, int], device: torch.device
    ) -> list[Tensor]:
        """The same anchors, computed anew."""
        return [
            self._level(cell.to(device), grid, stride, padded_hw)
            for cell, grid, stride in zip(self.cells, grids, self.strides, strict=True)
        ]

    def _level(self, cell: Tensor, grid: tuple[int, int], stride: int, padded_hw: tuple[int, int]) -> Tensor:
        step_y, step_x = (
            (stride, stride) if self.rules.stride == "constant" else (padded_hw[0] // grid[0], padded_hw[1] // grid[1])
        )
        y = (torch.arange(grid[0], device=cell.device, dtype=torch.float32) + self.rules.offset) * step_y
        x = (torch.arange(grid[1], device=cell.device, dtype=torch.float32) + self.rules.offset) * step_x
        y, x = torch.meshgrid(y, x, indexing="ij")
        shift = torch.stack([x, y, x, y], dim=-1)
        return (shift[:, :, None] + cell).reshape(-1, 4)
