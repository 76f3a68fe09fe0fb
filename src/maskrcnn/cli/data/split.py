"""`maskrcnn data split`: train, val and test of one data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from maskrcnn.cli.data.writing import TARGET, TargetFlags, write_dataset
from maskrcnn.cli.flags import Flag
from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.errors import ConfigError

if TYPE_CHECKING:
    from maskrcnn.structures.dataset import Dataset


@dataclass(frozen=True)
class Split:
    """Divide a data set into train, val and test, with a fair share of every class in each.

    Versions of one photograph that Roboflow has made stay in one part.
    """

    data: tyro.conf.Positional[Path]
    """Annotations of any format, or the folder that holds them."""
    out: tyro.conf.Positional[Path]
    """New folder, with a folder for each part."""
    val: float = 0.2
    """Share of the images for val; 0 for none."""
    test: float = 0.0
    """Share of the images for test; 0 for none. The rest is for train."""
    group_by: str | None = None
    """Keep images together whose values of this field are equal, or that lie in one folder (`folder`)."""
    group_copies: Flag = False
    """Keep pictures together that are equal, or nearly equal after resizing or compression. This reads every image."""
    seed: int = 0
    """Seed of the random choice."""
    target: TargetFlags = TARGET
    hints: HintFlags = NO_HINTS
    images: Path | None = None
    """Folder of the images; default: the images are searched for beside the annotations."""

    def run(self) -> int:
        from maskrcnn.cli.output import console
        from maskrcnn.data.convert import check_new_folder
        from maskrcnn.data.editing.split import split

        self._check_shares()
        check_new_folder(self.out, self.data, self.images)
        dataset = open_dataset(self.data, self.hints, self.images)
        wanted = {part: share for part, share in (("val", self.val), ("test", self.test)) if share}
        shares = {"train": 1 - self.val - self.test, **wanted}
        copies = _copies(dataset) if self.group_copies else []
        divided = split(dataset, shares, group_by=self.group_by, together=copies, seed=self.seed)
        write_dataset(divided, self.out, self.target)
        parts = [record.fields["split"] for record in divided.records]
        for part in shares:
            own = divided.subset([number for number, name in enumerate(parts) if name == part])
            console(stderr=False).print(f"{part}: {own.contents()}")
        return 0

    def _check_shares(self) -> None:
        for flag, share in (("--val", self.val), ("--test", self.test)):
            if not 0 <= share < 1:
                raise ConfigError(f"{flag}: expected a share of the images, from 0 to below 1, found {share:g}")
        if self.val + self.test == 0 or self.val + self.test >= 1:
            raise ConfigError(
                "--val, --test: expected shares whose sum is above 0 and leaves images for train, that is below 1, "
                f"found {self.val:g} and {self.test:g}"
            )


def _copies(dataset: Dataset) -> list[tuple[int, int]]:
    """Pairs of images, by number, whose pictures are equal or nearly so; says how many there are."""
    from maskrcnn.cli.output import console
    from maskrcnn.data.editing.copies import copies

    pairs = copies(dataset)
    console(stderr=True).print(f"{len(pairs)} pictures are equal to another, or nearly so")
    return pairs
