"""Masks as runs, compared without an image-sized array."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.export.check import BATCHES, _batches, drawn_spans, pixels_outside, spans_of
from maskrcnn.structures.masks import RLE, Masks
from small_network import network_config
from variants import ONE_LEVEL


@pytest.mark.parametrize("divisor", [1, 32, 64, 96, 128])
def test_checked_batches_have_sizes_that_the_divisor_allows(divisor: int) -> None:
    config = network_config(neck="c5", anchors=ONE_LEVEL)
    cases = list(_batches(replace(config, image=replace(config.image, divisor=divisor))))
    assert len(cases) == len(BATCHES)
    for case in cases:
        assert all(side % divisor == side % 32 == 0 for side in case.given["pixels"].shape[2:])
        assert case.given["sizes_hw"][0].tolist() == list(case.given["pixels"].shape[2:])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 7), st.integers(0, 4))
def test_pixels_outside_are_those_of_the_bitmaps(seed: int, height: int, width: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.random((count, height, width)) < rng.random() for _ in range(2))
    slots = np.sort(rng.permutation(9)[:count])
    one, other = (
        spans_of(Masks([RLE.from_dense(mask.astype(np.uint8)) for mask in masks], (height, width)), slots)
        for masks in (first, second)
    )
    assert pixels_outside(one, other) == (first & ~second).sum()
    assert pixels_outside(other, one) == (second & ~first).sum()


def test_runs_of_a_graph_count_on_from_slot_to_slot() -> None:
    runs = np.array([[0, 1, 2, 5], [1, 0, 0, 3], [1, 2, 4, 6]])
    np.testing.assert_array_equal(drawn_spans(runs, 1, (2, 3)), [[0, 3], [16, 18]])
