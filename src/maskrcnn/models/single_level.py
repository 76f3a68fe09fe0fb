"""No pyramid: RPN and RoIs read the coarsest map of the backbone (C4, C5 and DC5 of the paper's table 2)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


class SingleLevel(nn.Module):
    """Keeps the coarsest of the backbone's maps."""

    def forward(self, features: Iterator[Tensor]) -> list[Tensor]:
        """The backbone's maps, coarsest first -> [the coarsest]."""
        return [next(features)]
