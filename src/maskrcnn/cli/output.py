"""What a command writes: tables and messages for people, one JSON object on stdout for programs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn.errors import printable

if TYPE_CHECKING:
    from rich.console import Console


def console(*, stderr: bool) -> Console:
    """A rich console that prints brackets and colons as they are, and control codes as escapes.

    Paths and names may contain any of them. The console never breaks a path or a table row in two when the output is a
    file or a pipe. Of several processes that `torchrun` has started, only the first one prints.
    """
    from rich.console import Console

    class PlainConsole(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*(printable(item, "\n") if isinstance(item, str) else item for item in objects), **options)

    found = PlainConsole(stderr=stderr, highlight=False, markup=False, emoji=False, quiet=not first_process())
    if not found.is_terminal:
        found.width, found.soft_wrap = 200, True
    return found


def save_page(path: Path, content: str) -> None:
    """Writes an HTML page, and says where it is."""
    from maskrcnn.files.atomic import atomic_write

    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")
    console(stderr=True).print(f"page: {path}")


def first_process() -> bool:
    """Whether this process is the first of those that `torchrun` has started, or the only one."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def say_assumptions(provenance: Mapping[str, Any], source: str) -> None:
    """Prints what the import of `source` assumed, initialised and left out on stderr, one line for each.

    Prints nothing for a model file, whose import has reported this earlier.
    """
    if provenance.get("imported_from") != source:
        return
    for title, name in (("assumed", "assumed"), ("initialised anew", "new"), ("left out", "unused")):
        for item in provenance[name]:
            console(stderr=True).print(f"{title}: {item}")


def print_json(value: Mapping[str, Any]) -> None:
    """Prints one JSON object on one line of stdout. Undefined figures (NaN) become null."""
    if first_process():
        print(json.dumps(_without_nan(value), default=str, allow_nan=False))


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and value != value:
        return None
    return value
