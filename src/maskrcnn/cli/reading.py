"""Opens the data set of a command, and says in a line what it found."""

from __future__ import annotations

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


def say_found(dataset: Dataset) -> None:
    """Prints on stderr what `open_dataset` prints."""
    from maskrcnn.cli.output import console

    say = console(stderr=True).print
    say(f"{dataset.path}: {dataset.summary()}")
    for choice in dataset.choices:
        say(f"note: {choice}")
