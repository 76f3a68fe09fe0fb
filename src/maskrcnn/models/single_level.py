"""The neck without a pyramid: RPN and RoIs use the coarsest map of the backbone (C4, C5 and DC5; paper table 2)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


class SingleLevel(nn.Module):
    """Keeps the coarsest of the backbone's maps."""

    def forward(self, features: Iterator[Tensor]) -> list[Tensor]:
        """An iterator over the backbone's maps (B, C, h, w), coarsest first -> [the coarsest]."""
        return [next(features)]
