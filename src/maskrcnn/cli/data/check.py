"""`maskrcnn data check`: whether a data set is usable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from maskrcnn.cli.flags import Flag
from maskrcnn.cli.reading import HintFlags
from maskrcnn.data.hints import NO_HINTS

if TYPE_CHECKING:
    from maskrcnn.config import Category
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
        from maskrcnn.errors import ImageError

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
        useless = _useless(dataset, unread)
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
        for line in _summary(dataset, counts, keypoints, problems):
            say(line)
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


def _useless(dataset: Dataset, unread: int) -> str:
    """Why no model can learn from a data set; empty if one can. `unread` images cannot be read."""
    from maskrcnn.data.learnable import require_examples
    from maskrcnn.errors import DataError

    if unread == len(dataset):
        return f"{dataset.path}: expected images, none of its {unread} can be read; see the problems above"
    try:
        require_examples(dataset, masks=False)
    except DataError as error:
        return str(error)
    return ""


def _summary(
    dataset: Dataset, counts: dict[Category, int], keypoints: dict[str, dict[str, int]], problems: list[str]
) -> list[str]:
    """The lines of the report: the format, the choices of the reader, the objects of each category, the problems."""
    lines = [f"{dataset.path}: {dataset.format}, {len(dataset.records)} images, {sum(counts.values())} objects"]
    lines += [f"  note: {choice}" for choice in dataset.choices]
    lines += [f"  {category.name} (id {category.id}): {count} objects" for category, count in counts.items()]
    lines += [
        f"  keypoints of {name}: {found['labelled']} labelled, on {found['objects']} objects"
        for name, found in keypoints.items()
    ]
    return lines + [f"  problem: {problem}" for problem in problems]


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
