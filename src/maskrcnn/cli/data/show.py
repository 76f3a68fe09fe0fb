"""`maskrcnn data show`: what the annotations of a data set look like."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS


@dataclass(frozen=True)
class Show:
    """Draw masks, boxes and keypoints of the first annotated images."""

    data: tyro.conf.Positional[Path]
    """Annotations of any format, or the folder that holds them."""
    out: Path
    """Folder for the pictures."""
    hints: HintFlags = NO_HINTS
    images: Path | None = None
    """Folder of the images; default: the images are searched for beside the annotations."""
    limit: int = 20
    """Images to draw, at most."""

    def run(self) -> int:
        from PIL import Image

        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, track
        from maskrcnn.errors import ConfigError, ImageError
        from maskrcnn.files.atomic import atomic_write, check_folder
        from maskrcnn.files.images import picture_name
        from maskrcnn.visualise import draw

        if self.limit < 1:
            raise ConfigError(f"--limit: expected 1 or more images to draw, found {self.limit}")
        check_folder(self.out)
        dataset = open_dataset(self.data, self.hints, self.images)
        chosen = dataset.records.counts.nonzero()[0][: self.limit].tolist()
        drawn = 0
        for index in track(chosen, "draw"):
            try:
                image = dataset.read(index)
            except ImageError as error:
                print(f"skipped: {error}", file=sys.stderr)
                continue
            with atomic_write(self.out / picture_name(index, dataset.records[index].path)) as temporary:
                Image.fromarray(draw(image, dataset.instances(index))).save(temporary, format="PNG")
            drawn += 1
        if not drawn:
            return fail(f"{dataset.path}: nothing drawn, none of its {len(chosen)} annotated images can be read")
        console(stderr=False).print(f"{drawn} pictures in {self.out}")
        return 0
