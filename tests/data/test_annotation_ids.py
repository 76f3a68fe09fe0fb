"""Ids of annotations without their own."""

from __future__ import annotations

from maskrcnn.data.annotation_ids import unique_ids


def test_own_ids_are_kept_and_others_are_positions_or_free_numbers() -> None:
    assert unique_ids(["b", 2], [1, 2], 2) == ["b", 2]
    assert unique_ids([None, 5, None, "x", 1, None], [1, 2, 3, 4, 5, 6], 6) == [7, 5, 3, "x", 1, 6]
    assert unique_ids([None, 1, 8], [1, 2, 3], 7) == [9, 1, 8]
