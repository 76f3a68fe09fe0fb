"""`maskrcnn data subset`: a part of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from maskrcnn.cli.data.writing import TARGET, TargetFlags, write_dataset
from maskrcnn.cli.flags import Flag
from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.errors import ConfigError


@dataclass(frozen=True)
class Subset:
    """Write a part of a data set: some classes, some images, or so many images."""

    data: tyro.conf.Positional[Path]
    """Annotations of any format, or the folder that holds them."""
    out: tyro.conf.Positional[Path]
    """New folder for annotations and images."""
    classes: tuple[str, ...] = ()
    """Keep only objects of these classes; default: all."""
    names: tuple[str, ...] = ()
    """Keep only images whose names match one of these patterns, such as `*.png` or `night/*`."""
    no_empty: Flag = False
    """Leave out images without objects, or without objects of --classes."""
    number: int | None = None
    """Keep so many images at most, chosen at random."""
    seed: int = 0
    """Seed of this choice."""
    target: TargetFlags = TARGET
    hints: HintFlags = NO_HINTS
    images: Path | None = None
    """Folder of the images; default: the images are searched for beside the annotations."""

    def run(self) -> int:
        from maskrcnn.data.convert import check_new_folder
        from maskrcnn.data.editing.subset import subset

        if not (self.classes or self.names or self.no_empty or self.number is not None):
            raise ConfigError("expected what to keep (--classes, --names, --no-empty or --number), found none of them")
        check_new_folder(self.out, self.data, self.images)
        dataset = open_dataset(self.data, self.hints, self.images)
        chosen = subset(
            dataset,
            classes=self.classes,
            names=self.names,
            no_empty=self.no_empty,
            number=self.number,
            seed=self.seed,
        )
        write_dataset(chosen, self.out, self.target)
        return 0
