"""Images are held out by classes, always the same ones, and never from small sets."""

from __future__ import annotations

import numpy as np
import pytest

from drawn_data import drawn
from maskrcnn.training.recipes.hold_out import FEWEST, hold_out


def test_a_share_of_every_class_is_held_out_and_the_same_again() -> None:
    dataset = drawn(100, 2, 20, classes=4)
    train, val = hold_out(dataset, 0.15, seed=3)
    again, other = hold_out(dataset, 0.15, seed=3)[1], hold_out(dataset, 0.15, seed=4)[1]
    assert val is not None
    assert again is not None
    assert other is not None
    assert len(val) == pytest.approx(15, abs=2)
    assert sorted([*train.records.ids, *val.records.ids]) == dataset.records.ids
    assert again.records.ids == val.records.ids != other.records.ids
    assert set(np.unique(val.columns["labels"][val.records.rows])) == {0, 1, 2, 3}


def test_equal_pictures_stay_together() -> None:
    pairs = [(number, number + 20) for number in range(20)]
    _, val = hold_out(drawn(40, 1, 20), 0.15, seed=0, together=pairs)
    assert val is not None
    assert {number % 20 for number in val.records.ids if isinstance(number, int)} == set(val.records.ids) - {
        number for number in val.records.ids if isinstance(number, int) and number >= 20
    }


def test_small_sets_keep_all_images() -> None:
    dataset = drawn(FEWEST - 1, 1, 20)
    assert hold_out(dataset, 0.15, seed=0) == (dataset, None)
    assert hold_out(drawn(30, 1, 20), 0.0, seed=0)[1] is None
