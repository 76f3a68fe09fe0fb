"""Opens the data set of a command, and says in a line what it found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from maskrcnn.cli.flags import Flags
from maskrcnn.data.hints import Hints

if TYPE_CHECKING:
    from maskrcnn.structures.dataset import Dataset

HintFlags = Annotated[Hints, Flags, tyro.conf.FlagCreatePairsOff]


def open_dataset(path: Path, hints: Hints, images: Path | None = None, *, strict: bool = False) -> Dataset:
    """Reads a data set; prints its format, images, objects and classes on stderr, and what a person should know."""
    from maskrcnn.data.formats import read_dataset

    dataset = read_dataset(path, images, strict=strict, hints=hints)
    say_found(dataset)
    return dataset


def hints_of_both(data: Path, val: Path | None, hints: Hints) -> tuple[Hints, Hints]:
    """How to read --data and --val. If both are one data set that names its parts, each gets its own part."""
    from maskrcnn.data.formats import find_format

    if val is None or val.resolve() != data.resolve():
        return hints, replace(hints, split=None)
    if not find_format(data, hints).has_parts:
        return hints, hints
    return replace(hints, split=hints.split or "train"), replace(hints, split="val")


def say_found(dataset: Dataset) -> None:
    """Prints on stderr what `open_dataset` prints."""
    from maskrcnn.cli.output import console

    say = console(stderr=True).print
    say(f"{dataset.path}: {dataset.summary()}")
    for choice in dataset.choices:
        say(f"note: {choice}")
