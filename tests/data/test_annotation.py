"""Checks of single annotations and categories; test_builder.py has those of whole data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from maskrcnn.data.annotation import category_of, unique_ids
from maskrcnn.errors import DataError

FILE = Path("some.file")


def test_an_id_and_a_name_make_a_category() -> None:
    category = category_of(FILE, 3.0, "h\ud800", ["tip"], [], [])
    assert (category.id, category.name, category.keypoints) == (3, "h?", ("tip",))


@pytest.mark.parametrize(
    ("number", "name", "said"),
    [
        (None, "a", "some.file: expected categories with an id and a name, found id None, name 'a'"),
        (1, 3, "some.file: category 1: expected a name as text, found 3; write it in quotation marks"),
        ("x", ["a"], "some.file: category 'x': expected a name as text, found ['a']; write it in quotation marks"),
        (1, True, "some.file: category 1: expected a name as text, found True; write it in quotation marks"),
    ],
)
def test_another_type_is_refused(number: Any, name: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        category_of(FILE, number, name, [], [], [])
    assert str(caught.value) == said


def test_own_ids_are_kept_and_others_are_positions_or_free_numbers() -> None:
    assert unique_ids(["b", 2], [1, 2], 2) == ["b", 2]
    assert unique_ids([None, 5, None, "x", 1, None], [1, 2, 3, 4, 5, 6], 6) == [7, 5, 3, "x", 1, 6]
    assert unique_ids([None, 1, 8], [1, 2, 3], 7) == [9, 1, 8]
