"""`maskrcnn data check` and `maskrcnn data show`: is this data set usable, and what does it look like?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

if TYPE_CHECKING:
    from maskrcnn.data.coco import Record

Flag = tyro.conf.FlagCreatePairsOff[bool]


@dataclass(frozen=True)
class Check:
    """Read a data set and every image of it; print counts, problems and what to do."""

    json_file: tyro.conf.Positional[Path]
    """COCO JSON, or a folder that holds one."""
    images: Path | None = None
    """Folder of the images; default: looked for beside the JSON."""
    strict: Flag = False
    """Exit with 2 at any problem, not only when the data set is unusable."""
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from collections import Counter

        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, print_json, track
        from maskrcnn.data.coco import load_coco

        dataset = load_coco(self.json_file, self.images)
        problems = list(dataset.problems)
        problems += [text for record in track(dataset.records, "images") if (text := image_problem(record))]
        objects: Counter[str] = Counter()
        for record in dataset.records:
            objects.update(dataset.categories[label].name for label in record.annotations.labels if label >= 0)
        usable = bool(dataset.records) and bool(objects)
        if self.json:
            print_json(
                {
                    "images": len(dataset.records),
                    "objects": objects.total(),
                    "categories": {category.name: objects[category.name] for category in dataset.categories},
                    "problems": problems,
                    "usable": usable,
                }
            )
        say = console(stderr=self.json).print
        say(f"{dataset.path}: {len(dataset.records)} images, {objects.total()} objects")
        for category in dataset.categories:
            say(f"  {category.name} (id {category.id}): {objects[category.name]} objects")
        for problem in problems:
            say(f"  problem: {problem}", markup=False)
        never = [category.name for category in dataset.categories if not objects[category.name]]
        if never:
            say(f"  suggestion: no object of {', '.join(never)}: remove the category or add objects", markup=False)
        if not usable:
            return fail(
                f"{dataset.path}: expected annotated images, found no usable object; correct the problems above"
            )
        if problems and self.strict:
            return fail(f"{dataset.path}: {len(problems)} problems and --strict; correct what is listed above")
        if problems:
            say(f"usable; {len(problems)} problems are skipped in training, and refused with --strict")
        else:
            say("no problems found")
        return 0


def image_problem(record: Record) -> str | None:
    """Why the image of a record cannot be used, or None."""
    from maskrcnn.errors import ImageError
    from maskrcnn.structures.image_file import read_image

    try:
        height, width = read_image(record.path).shape[:2]
    except ImageError as error:
        return str(error)
    if (height, width) == (record.height, record.width):
        return None
    return (
        f"{record.path}: expected {record.width} x {record.height} pixels as the JSON says of image "
        f"{record.image_id}, found {width} x {height}; correct the JSON"
    )


@dataclass(frozen=True)
class Show:
    """Draw the first annotated images of a data set into a folder."""

    json_file: tyro.conf.Positional[Path]
    """COCO JSON, or a folder that holds one."""
    out: Path
    """Folder for the pictures."""
    images: Path | None = None
    """Folder of the images; default: looked for beside the JSON."""
    limit: int = 20
    """How many images to draw."""

    def run(self) -> int:
        from PIL import Image

        from maskrcnn.cli.output import console, track
        from maskrcnn.data.coco import load_coco, truth
        from maskrcnn.structures.atomic import atomic_write
        from maskrcnn.structures.image_file import read_image
        from maskrcnn.visualise import draw

        dataset = load_coco(self.json_file, self.images)
        shown = [record for record in dataset.records if len(record.annotations.labels)][: self.limit]
        for record in track(shown, "draw"):
            with atomic_write(self.out / f"{record.path.stem}.png") as temporary:
                Image.fromarray(draw(read_image(record.path), truth(dataset, record))).save(temporary, format="PNG")
        console(stderr=False).print(f"{len(shown)} pictures in {self.out}")
        return 0


Command = (
    Annotated[Check, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[Show, tyro.conf.subcommand("show", prefix_name=False)]
)


def parse(argv: Sequence[str]) -> Check | Show:
    return tyro.cli(Command, prog="maskrcnn data", args=argv)
