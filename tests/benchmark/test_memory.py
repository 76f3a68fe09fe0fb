from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch

from maskrcnn.benchmark.memory import Memory, SideName, compare_memory, memory_to_dict, peak_memory
from maskrcnn.errors import MaskRCNNError

MB = 1_000_000
CPU = torch.device("cpu")


@pytest.mark.slow
def test_the_peak_of_another_process() -> None:
    """80 MB during the call, whatever this process holds."""
    found = peak_memory(partial(partial, np.ones, 10 * MB), CPU)
    assert found is not None
    assert 78 * MB < found.extra < 100 * MB


def _ones_of(side: SideName) -> Callable[[], object]:
    return partial(np.ones, MB if side == "ours" else 20 * MB)


@pytest.mark.slow
def test_both_sides_and_their_figures() -> None:
    found = compare_memory(_ones_of, CPU)
    ours, theirs = found["ours"], found["torchvision"]
    assert ours is not None
    assert theirs is not None
    assert theirs.extra - ours.extra > 140 * MB


@pytest.mark.slow
def test_a_killed_process_is_one_error() -> None:
    with pytest.raises(MaskRCNNError, match=r"was killed.*--no-memory"):
        peak_memory(partial(os._exit, 1), CPU)


def test_figures() -> None:
    assert Memory(3, 10).extra == 7
    assert memory_to_dict({"ours": Memory(3, 10), "torchvision": None}) == {
        "ours": {"before": 3, "peak": 10},
        "torchvision": None,
    }


@pytest.mark.gpu
def test_the_peak_of_the_allocator() -> None:
    device = torch.device("cuda")
    kept = torch.zeros(MB, device=device)
    found = peak_memory(lambda: partial(torch.ones, 10 * MB, device=device), device)
    assert found is not None
    assert found.before >= kept.nbytes
    assert 40 * MB <= found.extra < 45 * MB
