"""`maskrcnn data`: whether a data set is usable, what it looks like, and the same in another format."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from maskrcnn.cli.flags import Flag, parse_flags
from maskrcnn.cli.reading import HintFlags, open_dataset
from maskrcnn.data.hints import NO_HINTS, WritableName

if TYPE_CHECKING:
    from maskrcnn.structures.dataset import Dataset


@dataclass(frozen=True)
class Check:
    """Read every annotation and image; print counts, problems and what to do."""

    data: tyro.conf.Positional[Path]
    """Annotations of any format, or the folder that holds them."""
    hints: HintFlags = NO_HINTS
    images: Path | None = None
    """Folder of the images; default: the images are searched for beside the annotations."""
    strict: Flag = False
    """Exit with 2 if there is any problem, even if the data set is usable."""
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        import numpy as np

        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, print_json, track
        from maskrcnn.config import DetectConfig
        from maskrcnn.data.doubts import crowded_images, wrong_masks
        from maskrcnn.data.formats import read_dataset
        from maskrcnn.data.learnable import require_examples
        from maskrcnn.errors import DataError, ImageError

        dataset = read_dataset(self.data, self.images, hints=self.hints)
        problems = [*dataset.problems, *dataset.notes]
        objects = np.zeros(len(dataset.categories), dtype=np.int64)
        unread = 0
        for index in track(range(len(dataset)), "images"):
            try:
                dataset.read(index, problems.append)
            except ImageError as error:
                problems.append(str(error))
                unread += 1
            annotations = dataset.annotations(index)
            objects += np.bincount(annotations.labels[~annotations.crowd], minlength=len(objects))
        doubts = [*wrong_masks(dataset), *crowded_images(dataset, DetectConfig().max_detections)]
        problems += [f"{dataset.path}: {doubt}" for doubt in doubts]
        counts = dict(zip(dataset.categories, objects.tolist(), strict=True))
        keypoints = _keypoints(dataset)
        useless = f"{dataset.path}: expected images, none of its {unread} can be read; see the problems above"
        if unread < len(dataset):
            try:
                require_examples(dataset, masks=False)
                useless = ""
            except DataError as error:
                useless = str(error)
        if self.json:
            print_json(
                {
                    "format": dataset.format,
                    "notes": list(dataset.choices),
                    "images": len(dataset.records),
                    "objects": int(objects.sum()),
                    "categories": [{"id": c.id, "name": c.name, "objects": count} for c, count in counts.items()],
                    "keypoints": keypoints,
                    "problems": problems,
                    "usable": not useless,
                }
            )
        say = console(stderr=self.json).print
        say(f"{dataset.path}: {dataset.format}, {len(dataset.records)} images, {objects.sum()} objects")
        for choice in dataset.choices:
            say(f"  note: {choice}")
        for category, count in counts.items():
            say(f"  {category.name} (id {category.id}): {count} objects")
        for name, found in keypoints.items():
            say(f"  keypoints of {name}: {found['labelled']} labelled, on {found['objects']} objects")
        for problem in problems:
            say(f"  problem: {problem}")
        unused = [category.name for category, count in counts.items() if not count]
        if unused:
            say(f"  suggestion: no object of {', '.join(unused)}: remove the category or add objects")
        if useless:
            return fail(useless)
        if problems and self.strict:
            return fail(f"{dataset.path}: problems, which --strict refuses: {len(problems)}; see above")
        if problems:
            say(f"usable; problems that training works around and --strict refuses: {len(problems)}")
        else:
            say("no problems found")
        return 0


def _keypoints(dataset: Dataset) -> dict[str, dict[str, int]]:
    """The number of labelled keypoints, and of objects that have some, for each category with keypoints."""
    found = {category.name: {"labelled": 0, "objects": 0} for category in dataset.categories if category.keypoints}
    for index in range(len(dataset)):
        annotations = dataset.annotations(index)
        if annotations.keypoints is None:
            break
        counts = (annotations.keypoints[..., 2] > 0).sum(axis=1) * ~annotations.crowd
        for label, count in zip(annotations.labels, counts.tolist(), strict=True):
            if count:
                figures = found[dataset.categories[label].name]
                figures["labelled"] += count
                figures["objects"] += 1
    return found


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
        from maskrcnn.cli.output import console
        from maskrcnn.data.convert import convert

        dataset = open_dataset(self.data, self.hints, self.images, strict=self.strict)
        say = console(stderr=True).print
        for problem in dataset.problems:
            say(f"left out: {problem}")
        for loss in convert(dataset, self.out, self.to, link=self.link):
            say(f"lost: {loss}")
        console(stderr=False).print(f"{len(dataset)} images in {self.out}")
        return 0


Command = (
    Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
    | Annotated[Rewrite, tyro.conf.subcommand("convert", prefix_name=False)]
)


def parse(argv: Sequence[str]) -> Check | Show | Rewrite:
    command: Check | Show | Rewrite = parse_flags(Command, "maskrcnn data", argv)
    return command
