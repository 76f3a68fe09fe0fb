"""`maskrcnn data show`: what the annotations of a data set look like."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from maskrcnn.cli.flags import Flag
from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.errors import counted

if TYPE_CHECKING:
    import numpy as np

    from maskrcnn.config import Config
    from maskrcnn.structures.dataset import Dataset


@dataclass(frozen=True)
class Show:
    """Draw masks, boxes and keypoints of annotated images, as they are or as training changes them."""

    data: tyro.conf.Positional[Path]
    """Annotations of any format, or the folder that holds them."""
    out: Path
    """Folder for the pictures."""
    hints: HintFlags = NO_HINTS
    images: Path | None = None
    """Folder of the images; default: the images are searched for beside the annotations."""
    limit: int = 20
    """Images to draw, at most."""
    classes: tuple[str, ...] = ()
    """Draw only objects of these classes, and images that have some."""
    names: tuple[str, ...] = ()
    """Draw only images whose names match one of these patterns, such as `*.png` or `night/*`."""
    size: Literal["small", "medium", "large"] | None = None
    """Draw only objects of this size: an area below 32 x 32 pixels, from 96 x 96 on, or between."""
    fault: str | None = None
    """Draw only what has this kind of fault, such as box-beside-mask; `data check --json` lists the kinds."""
    sheet: Flag = False
    """Put all pictures on one sheet."""
    augment: Flag = False
    """Draw what the network sees in training: resized, cropped, turned and recoloured at random."""
    preset: str = "mask_rcnn_R_50_FPN"
    """With --augment: the preset whose sizes and augmentation are used."""
    seed: int = 0
    """With --augment: seed of the random choices."""

    def run(self) -> int:
        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console
        from maskrcnn.config.presets import preset
        from maskrcnn.config.ranges import check_seed
        from maskrcnn.errors import ConfigError, ImageError
        from maskrcnn.files.atomic import check_folder
        from maskrcnn.files.images import picture_name
        from maskrcnn.files.progress import track
        from maskrcnn.visualise import picture_sheet

        if self.limit < 1:
            raise ConfigError(f"--limit: expected 1 or more images to draw, found {self.limit}")
        check_seed(self.seed)
        check_folder(self.out, self.data, self.images)
        config = preset(self.preset) if self.augment else None
        numbered = open_dataset(self.data, self.hints, self.images)
        numbers = numbered.records.numbers()
        dataset = self._chosen(numbered)
        picture = _drawing(dataset, config, self.seed)
        pictures: list[tuple[np.ndarray, str]] = []
        chosen = range(min(self.limit, len(dataset)))
        drawn = 0
        for index in track(chosen, "draw"):
            record = dataset.records[index]
            try:
                image = picture(index)
            except ImageError as error:
                print(f"skipped: {error}", file=sys.stderr)
                continue
            if self.sheet:
                pictures.append((image, record.path.name))
            else:
                _save(image, self.out / picture_name(numbers[record.image_id], record.path))
            drawn += 1
        if not drawn:
            return fail(f"{dataset.path}: nothing drawn, none of its {len(chosen)} annotated images can be read")
        if self.sheet:
            _save(picture_sheet(pictures), self.out / "sheet.png")
        place = self.out / "sheet.png" if self.sheet else self.out
        console(stderr=False).print(f"{counted(drawn, 'picture')} in {place}")
        return 0

    def _chosen(self, dataset: Dataset) -> Dataset:
        """The images and objects that are asked for. An image without annotations is shown only for its own fault."""
        from maskrcnn.data.editing.subset import subset
        from maskrcnn.doctor import examine
        from maskrcnn.doctor.showing import of_size, with_fault
        from maskrcnn.files.progress import track

        if self.fault is not None:
            dataset = with_fault(examine(dataset, track=track), self.fault)
        if self.size is not None:
            dataset = of_size(dataset, self.size)
        filtered = bool(self.classes) or self.size is not None or self.fault is None
        return subset(dataset, classes=self.classes, names=self.names, no_empty=filtered)


def _drawing(dataset: Dataset, config: Config | None, seed: int) -> Callable[[int], np.ndarray]:
    """The function that draws image number `index`: as training changes it with a config, else as it is."""
    import numpy as np

    from maskrcnn.data.loading.transforms import training_sample
    from maskrcnn.doctor.showing import sample_instances, sample_picture
    from maskrcnn.visualise import draw

    names = [category.name for category in dataset.categories]

    def drawn(index: int) -> np.ndarray:
        if config is None:
            return draw(dataset.read(index), dataset.instances(index))
        sample = training_sample(dataset, index, config, np.random.default_rng((seed, index)))
        return draw(sample_picture(sample), sample_instances(sample, names))

    return drawn


def _save(image: np.ndarray, path: Path) -> None:
    from PIL import Image

    from maskrcnn.files.atomic import atomic_write

    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
