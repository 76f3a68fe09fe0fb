"""Writes the data set that a command has made, and says what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from maskrcnn.cli.flags import Flag, Flags
from maskrcnn.data.hints import WritableName
from maskrcnn.errors import counted

if TYPE_CHECKING:
    from maskrcnn.structures.dataset import Dataset


@dataclass(frozen=True)
class Target:
    """How a data set is written."""

    to: WritableName = "coco"
    """Format to write."""
    link: Flag = False
    """Link to the images instead of copying them."""


TargetFlags = Annotated[Target, Flags]
TARGET = Target()

_SHOWN = 10  # problems that are printed


def write_dataset(dataset: Dataset, out: Path, target: Target, *, strict: bool = False) -> None:
    """Writes a data set to a new folder. Prints on stderr what was left out of it and what is lost, and then the number
    of images on stdout."""
    from maskrcnn.cli.output import console
    from maskrcnn.data.convert import convert

    say = console(stderr=True).print
    for problem in dataset.problems[:_SHOWN]:
        say(f"left out: {problem}")
    if len(dataset.problems) > _SHOWN:
        say(f"left out: {len(dataset.problems) - _SHOWN} more, which `maskrcnn data check --json` lists")
    for loss in convert(dataset, out, target.to, link=target.link, strict=strict):
        say(f"lost: {loss}")
    console(stderr=False).print(f"{counted(len(dataset), 'image')} in {out}")
