"""Checks of single values from files of other programs, which may be of any type."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, TypeGuard

FARTHEST = 1e9  # pixels from the corner of an image: no coordinate lies beyond it, and no area overflows

_LARGEST = sys.float_info.max


def is_int(value: Any) -> TypeGuard[int]:
    """Whether a value is an integer; True and False are not."""
    return isinstance(value, int) and not isinstance(value, bool)


def whole_number(value: Any) -> int | None:
    """The integer that a value stands for, else None. JSON does not tell 1 from 1.0; True and False are no numbers."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if is_int(value) else None


def as_id(value: Any) -> int | str | None:
    """The id of an image, an annotation or a category that a value stands for; None if it stands for none."""
    return value if isinstance(value, str) else whole_number(value)


def is_id(value: Any) -> TypeGuard[int | str]:
    """Whether a value can name an image, an annotation or a category."""
    return as_id(value) is not None


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a finite number in the range of a float; True and False are not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def short(value: object) -> str:
    """The `repr` of a value for an error message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def under(value: Any, *keys: str) -> Any:
    """The value under keys of objects inside each other; None if one of them is missing or no object."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
