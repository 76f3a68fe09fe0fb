"""Lists of boxes of which some suppress others."""

from __future__ import annotations

import torch
from hypothesis import strategies as st


def clustered(seed: int, lists: int, count: int) -> torch.Tensor:
    """(lists, count, 4) boxes in a few heaps, so that many overlap."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randint(0, 5, (lists, count, 2), generator=generator) * 60.0
    centre = centre + torch.randn(lists, count, 2, generator=generator) * 6
    half = 15 + 10 * torch.rand(lists, count, 2, generator=generator)
    return torch.cat([centre - half, centre + half], dim=-1)


# Exact in float32 and float64: elsewhere kernels differ in whether an overlap of just 0.3 is more than 0.3.
thresholds = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])


@st.composite
def valued(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One list of (1, N, 4) boxes, (1, N) valid and (1, N) labels.

    Whole numbers: overlaps are exact in float32 where they are compared with the threshold.
    """
    edge, side = st.integers(0, 12), st.integers(1, 8)
    box = st.builds(lambda x, y, w, h: [float(x), float(y), float(x + w), float(y + h)], edge, edge, side, side)
    items = draw(st.lists(st.tuples(box, st.booleans(), st.integers(0, 2)), min_size=1, max_size=12))
    boxes, valid, labels = (list(part) for part in zip(*items, strict=True))
    return torch.tensor([boxes]), torch.tensor([valid]), torch.tensor([labels])
