"""Single values from files: what counts as a number or an id, and how a value looks in a message."""

from __future__ import annotations

import math
from typing import Any

import pytest

from maskrcnn.structures.values import is_id, is_int, is_number, short, under


@pytest.mark.parametrize(
    ("value", "whole", "name", "number"),
    [
        (3, True, True, True),
        (-(2**70), True, True, True),
        (10**400, True, True, False),
        (0.5, False, False, True),
        (math.nan, False, False, False),
        (-math.inf, False, False, False),
        (True, False, False, False),
        ("3", False, True, False),
        (None, False, False, False),
        ([1], False, False, False),
    ],
)
def test_numbers_and_ids(value: Any, whole: bool, name: bool, number: bool) -> None:
    assert (is_int(value), is_id(value), is_number(value)) == (whole, name, number)


def test_messages_stay_short() -> None:
    assert short("a" * 78) == repr("a" * 78)
    assert len(short(list(range(1000)))) == 80
    assert short(list(range(1000))).endswith("...")


def test_values_under_keys() -> None:
    assert under({"a": {"b": 3}}, "a", "b") == 3
    assert under(3) == 3
    for value in ({"a": {}}, {"a": [3]}, {"a": None}, [], None, "ab"):
        assert under(value, "a", "b") is None
