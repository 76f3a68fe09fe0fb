"""What is wrong with an exported network that its engine cannot open or compute, in one line."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import WeightsError

MOST = 200  # characters of an engine's words
Part = tuple[str, Sequence[Any]]  # the name of an input or output, and its sides; those that vary are no numbers


def damaged(path: Path, error: Exception) -> WeightsError:
    """The engine cannot open the file, and says why."""
    return WeightsError(
        f"{path}: expected a whole exported network, and it cannot be opened ({_reason(error)}); export it again, or "
        "upgrade the engine if the file is newer"
    )


def incomplete(path: Path) -> WeightsError | None:
    """What is missing of the two files of an OpenVINO network, or None if both have their whole length."""
    weights = path.with_suffix(".bin")
    if not path.is_file():
        return WeightsError(
            f"{path}: expected the graph that belongs to {weights.name}, found no such file; copy both files of the "
            "folder, or export it again"
        )
    graph = path.read_text(errors="replace")
    if "</net>" not in graph[-200:]:
        return WeightsError(f"{path}: expected a whole graph, found one that breaks off; copy or export it again")
    ends = [int(offset) + int(size) for offset, size in re.findall(r'offset="(\d+)" size="(\d+)"', graph)]
    there, needed = weights.stat().st_size if weights.is_file() else None, max(ends, default=0)
    if there is None or there < needed:
        found = "no such file" if there is None else f"{there:,}"
        return WeightsError(
            f"{weights}: expected the {needed:,} bytes of weights that belong to {path.name}, found {found}; copy both "
            "files of the folder, or export it again"
        )
    return None


def failed(path: Path, inputs: Mapping[str, np.ndarray], error: Exception) -> WeightsError:
    """The engine has opened the file and cannot compute it. We know of no such case, so it is to be reported."""
    sizes = ", ".join(f"{name} {value.shape}" for name, value in inputs.items())
    return WeightsError(
        f"{path}: the engine fails for {sizes} ({_reason(error)}); report this, and predict with the model file"
    )


def _reason(error: Exception) -> str:
    """The words of an engine, without its codes and the places in its own source."""
    words = " ".join(str(error).split())
    words = re.sub(
        r"\[ONNXRuntimeError\] : \d+ : \w+ : |Check '.*?' failed at \S+: |Exception from \S+ |\S+:\d+: ", "", words
    )
    end = words[-MOST:]  # it says the most
    return words if end == words else f"... {end.partition('. ' if '. ' in end else ' ')[2]}"


def foreign(path: Path, kind: str, ours: bool, inputs: Sequence[Part], outputs: Sequence[Part]) -> WeightsError:
    """Says what a network without our metadata is by what it takes and gives.

    Args:
        ours: its inputs have the names that `maskrcnn export` gives.
    """
    if ours:
        return WeightsError(
            f"{path}: expected {kind} of `maskrcnn export` with its metadata, found one with its inputs but without "
            "them, perhaps because another tool has written it anew; export the model again"
        )
    return WeightsError(
        f"{path}: expected {kind} that `maskrcnn export` wrote, found one that takes {_words(inputs)} and gives "
        f"{_words(outputs)}; export the model with maskrcnn"
    )


def _words(parts: Sequence[Part]) -> str:
    """Up to four tensors with their sides. Sides that vary have names of the engine's own, which say nothing."""
    shown = [
        f"{name} ({' x '.join(str(side) if isinstance(side, int) else 'any' for side in sides)})"
        for name, sides in parts[:4]
    ]
    return ", ".join(shown) + (f" and {len(parts) - 4} more" if len(parts) > 4 else "")
