"""`maskrcnn data convert`: the same data set in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from maskrcnn.cli.data.writing import Target, write_dataset
from maskrcnn.cli.flags import Flag
from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS, WritableName


@dataclass(frozen=True)
class Rewrite:
    """Write a data set in another format, with its images; say what the format cannot hold."""

    data: tyro.conf.Positional[Path]
    """Annotations of any format, or the folder that holds them."""
    out: tyro.conf.Positional[Path]
    """New folder for annotations and images."""
    to: WritableName
    """Format to write."""
    hints: HintFlags = NO_HINTS
    images: Path | None = None
    """Folder of the images; default: the images are searched for beside the annotations."""
    link: Flag = False
    """Link to the images instead of copying them."""
    strict: Flag = False
    """Refuse broken images and annotations."""

    def run(self) -> int:
        from maskrcnn.data.convert import check_new_folder

        check_new_folder(self.out, self.data, self.images)
        dataset = open_dataset(self.data, self.hints, self.images, strict=self.strict)
        write_dataset(dataset, self.out, Target(self.to, self.link), strict=self.strict)
        return 0
