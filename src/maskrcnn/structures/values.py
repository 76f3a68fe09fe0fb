"""Checks of single values from files that other programs wrote, where anything may stand in the place of a number."""

from __future__ import annotations

import sys
from typing import Any, TypeGuard

_LARGEST = sys.float_info.max


def is_int(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_id(value: Any) -> TypeGuard[int | str]:
    """Whether a value can name an image, an annotation or a category."""
    return is_int(value) or isinstance(value, str)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a finite number that a float can hold; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_LARGEST <= value <= _LARGEST


def short(value: object) -> str:
    """A value for an error message, cut to 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
