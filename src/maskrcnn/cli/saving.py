"""Flags of `predict` that save the objects as a data set, which a person corrects or a competition takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn.cli.flags import Flag
from maskrcnn.data.hints import WritableName
from maskrcnn.errors import ConfigError

if TYPE_CHECKING:
    from maskrcnn.config import Config
    from maskrcnn.data.predicted import PredictedDataset
    from maskrcnn.structures.instances import Instances


@dataclass(frozen=True)
class Saving:
    """How to save the objects as a data set."""

    save: WritableName | None = None
    """Save the objects and their images as a data set in this format, in a new folder of --out with its name."""
    no_overlaps: Flag = False
    """Leave out of each saved mask the pixels of better ones, as competitions want it."""
    link: Flag = False
    """Link to the images of the saved data set instead of copying them."""

    def start(self, out: Path) -> Path | None:
        """The folder of the data set, checked before the work; None if none is saved.

        Raises:
            ConfigError: there are other flags of this group without `--save`, or no folder can be written there.
            DataError: the folder is not empty.
        """
        if self.save is None:
            idle = [name for name in ("no_overlaps", "link") if getattr(self, name)]
            if idle:
                raise ConfigError(f"expected --save with --{idle[0].replace('_', '-')}, found none")
            return None
        from maskrcnn.data.convert import check_new_folder

        check_new_folder(out / self.save)
        return out / self.save

    def collector(self, config: Config) -> Collector | None:
        """What takes the objects of a model; None if nothing is saved.

        Raises:
            ConfigError: the model finds no masks, and the format holds nothing else.
        """
        if self.save is None:
            return None
        from maskrcnn.config import Category
        from maskrcnn.data.convert import WRITERS
        from maskrcnn.data.predicted import PredictedDataset

        if config.model.mask_head is None and "boxes" not in WRITERS[self.save].holds:
            able = ", ".join(key for key, writer in WRITERS.items() if "boxes" in writer.holds)
            raise ConfigError(f"--save {self.save}: the model finds no masks; expected a format with boxes: {able}")
        unnamed = (Category(number, str(number)) for number in range(1, config.model.num_classes + 1))
        return Collector(PredictedDataset(config.categories or tuple(unnamed)), self.no_overlaps)

    def write(self, kept: Collector, out: Path) -> Sequence[str]:
        """Writes what was collected to a folder, and returns what is lost, a sentence each."""
        from maskrcnn.data.convert import convert

        covered = [f"{kept.covered} objects are covered entirely by better ones"] if kept.covered else []
        return [*covered, *convert(kept.found.dataset(), out, str(self.save), link=self.link)]


class Collector:
    """Takes the objects of each image.

    Attributes:
        images, objects: the numbers of those that it has taken.
        covered: the number of objects that were left out, because better ones cover them entirely.
    """

    def __init__(self, found: PredictedDataset, no_overlaps: bool) -> None:
        self.found, self.no_overlaps = found, no_overlaps
        self.images = self.objects = self.covered = 0

    def __call__(self, image_id: int | str, path: Path, instances: Instances) -> None:
        kept = instances.without_overlaps() if self.no_overlaps else instances
        self.images += 1
        self.objects += len(kept)
        self.covered += len(instances) - len(kept)
        self.found.add(image_id, path, kept)
