"""One category of a file, and the checks of its id and its names. `builder.py` lists the rules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from maskrcnn.config import Category
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.structures.values import as_id, short


def category_of(
    file: Path,
    number: Any,
    name: Any,
    keypoints: Sequence[str],
    skeleton: Sequence[tuple[int, int]],
    sigmas: Sequence[float],
) -> Category:
    """The category that values of a file describe; arguments and errors as for `DatasetBuilder.add_category`."""
    key = as_id(number)
    if key is None:
        raise DataError(
            f"{file}: expected categories with an id and a name, found id {short(number)}, name {short(name)}"
        )
    if not isinstance(name, str):
        found = f"found {short(name)}; write it in quotation marks"
        raise DataError(f"{file}: category {short(number)}: expected a name as text, {found}")
    try:
        return Category(key, _storable(name), tuple(map(_storable, keypoints)), tuple(skeleton), tuple(sigmas))
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def _storable(name: str) -> str:
    """The name with `?` in place of halves of characters (lone surrogates), which no file can hold."""
    return name.encode("utf-8", "replace").decode()
