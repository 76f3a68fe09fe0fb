"""Ids for annotations that have none of their own."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count


def unique_ids(given: Sequence[int | str | None], positions: Sequence[int], last: int) -> list[int | str]:
    """The id of each annotation. One without its own gets its position in the file, or the next free number.

    Args:
        given: their own ids, all different; None for an annotation without one.
        positions: among all annotations of the file.
        last: the largest of these.
    """
    own_ids = [own for own in given if own is not None]
    if len(own_ids) == len(given):
        return own_ids
    taken = set(own_ids)
    free = (number for number in count(last + 1) if number not in taken)
    return [
        own if own is not None else position if position not in taken else next(free)
        for own, position in zip(given, positions, strict=True)
    ]
