"""`maskrcnn data check`: whether a data set is usable, and what would hurt training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from maskrcnn.cli.flags import Flag
from maskrcnn.cli.reading import HintFlags, hints_of_both
from maskrcnn.data.hints import NO_HINTS
from maskrcnn.errors import ConfigError, DataError, counted

if TYPE_CHECKING:
    from maskrcnn.doctor import Diagnosis, Mistake
    from maskrcnn.structures.dataset import Dataset

_SHOWN = 3  # findings of a kind that are printed; --json has all
_MISTAKES = 20  # mistakes that are printed
_WORDS = {"hurts": "hurts training", "doubt": "problem", "advice": "advice"}


@dataclass(frozen=True)
class Check:
    """Read every annotation and image; print counts, faults and what to do.

    Exit code 0: nothing would hurt training. 1: something would, such as wrong boxes or an image in both splits.
    2: nothing can be learned from the data set.
    """

    data: tyro.conf.Positional[Path]
    """Annotations of any format, or the folder that holds them."""
    hints: HintFlags = NO_HINTS
    images: Path | None = None
    """Folder of the images; default: the images are searched for beside the annotations."""
    val: Path | None = None
    """Another data set, for validation, which must share no image with this one."""
    val_images: Path | None = None
    """Folder of the images of --val."""
    preset: str | None = None
    """Also say what this preset would miss: objects that are too small, too many, or reached by no anchor."""
    model: str | None = None
    """Also list the likeliest labelling mistakes: what this model finds with confidence and the labels deny."""
    report: Path | None = None
    """Write a report with pictures and plots to this HTML file."""
    fix: Path | None = None
    """Write a repaired copy of the data set to this new folder, and say what was done."""
    strict: Flag = False
    """Exit with 1 for any problem, also for one that training works around."""
    json: Flag = False
    """Print one JSON object on stdout."""

    def run(self) -> int:
        from maskrcnn.cli import fail
        from maskrcnn.cli.output import console, print_json, save_page
        from maskrcnn.config.presets import preset
        from maskrcnn.data.convert import check_new_folder
        from maskrcnn.data.formats import read_dataset
        from maskrcnn.data.image_places import is_inside
        from maskrcnn.doctor import examine, mistakes_section, report
        from maskrcnn.files.atomic import check_file
        from maskrcnn.files.progress import track

        if self.val is None and self.val_images is not None:
            raise ConfigError("expected --val with --val-images, found none")
        if self.fix is not None:
            check_new_folder(self.fix, self.data, self.images, self.val, self.val_images)
            if self.report is not None and is_inside(self.report, self.fix):
                raise ConfigError(f"{self.report}: expected a file outside of --fix {self.fix}, which is written later")
        config = None if self.preset is None else preset(self.preset)
        if self.report is not None:
            check_file(self.report, self.data, self.images, self.val, self.val_images, self.model)
        of_data, of_val = hints_of_both(self.data, self.val, self.hints)
        dataset = read_dataset(self.data, self.images, hints=of_data)
        val = None if self.val is None else read_dataset(self.val, self.val_images, hints=of_val)
        diagnosis = examine(dataset, val, config, track=track)
        labelled, mistakes = dataset, None
        if self.model is not None and not diagnosis.useless:
            labelled, mistakes = _mistakes(dataset, self.model)
        if self.report is not None:
            more = [] if mistakes is None else [mistakes_section(labelled, mistakes)]
            save_page(self.report, report(diagnosis, more))
        if self.json:
            listed = {} if mistakes is None else {"mistakes": [mistake.to_dict(labelled) for mistake in mistakes]}
            print_json({**_content(diagnosis), **listed})
        say = console(stderr=self.json).print
        for line in [*_lines(diagnosis), *_mistake_lines(labelled, mistakes)]:
            say(line)
        if diagnosis.useless:
            return fail(diagnosis.useless)
        if self.fix is not None:
            for line in _fix(diagnosis, self.fix):
                say(line)
        problems = len(diagnosis.problems)
        if diagnosis.hurts:
            say(f"problems: {problems}; those that hurt training come first")
        elif problems:
            say(f"usable; problems that training works around and --strict refuses: {problems}")
        else:
            say("no problems found")
        return int(diagnosis.hurts or (self.strict and problems > 0))


def _mistakes(dataset: Dataset, source: str) -> tuple[Dataset, list[Mistake]]:
    """The data set with the categories of a model, and the likely mistakes in it."""
    from maskrcnn.doctor import likely_mistakes
    from maskrcnn.files.progress import track
    from maskrcnn.predict import load
    from maskrcnn.structures.classes import match_categories

    model = load(source)
    labelled = match_categories(model.config.categories, dataset)
    return labelled, likely_mistakes(labelled, model, track)


def _fix(diagnosis: Diagnosis, out: Path) -> list[str]:
    """Writes the repaired copy in the format of the data set if it can be written, else as COCO JSON; what was done."""
    from maskrcnn.data.convert import WRITERS, convert
    from maskrcnn.doctor import repaired

    dataset, done = repaired(diagnosis)
    if not len(dataset):
        raise DataError(f"{dataset.path}: the repairs leave out all of its images; nothing was written")
    own = [key for key, writer in WRITERS.items() if writer.name == dataset.format]
    lost = convert(dataset, out, own[0] if own else "coco")
    return [
        *(f"fixed: {what}" for what in done or ["nothing; the copy holds what was read"]),
        *(f"lost: {what}" for what in lost),
        f"{counted(len(dataset), 'image')} in {out}",
    ]


def _mistake_lines(dataset: Dataset, mistakes: Sequence[Mistake] | None) -> list[str]:
    """The likeliest mistakes as lines of the report; none if no model was given."""
    if mistakes is None:
        return []
    lines = [f"  likely labelling mistakes ({len(mistakes)}), the likeliest first; --json and --report show more"]
    return lines + [
        f"    {mistake.likely:.2f}, {mistake.kind}: {mistake.sentence(dataset)}" for mistake in mistakes[:_MISTAKES]
    ]


def _content(diagnosis: Diagnosis) -> dict[str, Any]:
    """The object of --json."""
    from maskrcnn.doctor import statistics

    dataset = diagnosis.dataset
    counts = diagnosis.objects_by_class
    return {
        "format": dataset.format,
        "notes": list(dataset.choices),
        "images": len(dataset),
        "objects": sum(counts),
        "categories": [
            {"id": category.id, "name": category.name, "objects": count}
            for category, count in zip(dataset.categories, counts, strict=True)
        ],
        "keypoints": diagnosis.keypoints,
        "problems": diagnosis.problems,
        "statistics": statistics(diagnosis),
        "findings": [found.to_dict(dataset) for found in diagnosis.findings],
        "usable": not diagnosis.useless,
        "hurts": diagnosis.hurts,
    }


def _lines(diagnosis: Diagnosis) -> list[str]:
    """The lines of the report: the format, the choices of the reader, the objects of each class, the faults."""
    from maskrcnn.doctor import KINDS

    dataset, counts = diagnosis.dataset, diagnosis.objects_by_class
    lines = [f"{dataset.path}: {dataset.format}, {counted(len(dataset), 'image')}, {counted(sum(counts), 'object')}"]
    lines += [f"  note: {choice}" for choice in dataset.choices]
    lines += [
        f"  {category.name} (id {category.id}): {counted(count, 'object')}"
        for category, count in zip(dataset.categories, counts, strict=True)
    ]
    lines += [
        f"  keypoints of {name}: {found['labelled']} labelled, on {counted(found['objects'], 'object')}"
        for name, found in diagnosis.keypoints.items()
    ]
    for (severity, kind), group in groupby(diagnosis.findings, lambda found: (found.severity, found.kind)):
        findings = list(group)
        lines.append(f"  {_WORDS[severity]}: {KINDS[kind].title} ({len(findings)}); {KINDS[kind].advice}")
        lines += [f"    {found.sentence(dataset)}" for found in findings[:_SHOWN]]
        if len(findings) > _SHOWN:
            lines.append(f"    and {len(findings) - _SHOWN} more, which --json lists")
    return lines
