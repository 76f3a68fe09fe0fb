"""No pyramid: RPN and RoIs read the last map of the backbone (C4, C5 and DC5 of the paper's table 2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class SingleLevel(nn.Module):
    """Keeps the last of the backbone's maps."""

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """[C2, C3, ...] -> [the last]."""
        return [features[-1]]
