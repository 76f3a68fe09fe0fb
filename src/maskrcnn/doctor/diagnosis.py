"""`examine`: all faults of a data set."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.config import Config, DetectConfig
from maskrcnn.data.editing.copies import Pictures, Signature
from maskrcnn.data.learnable import require_examples
from maskrcnn.data.loading.processes import ordered_results
from maskrcnn.doctor.copies import copied_images, shared_photographs
from maskrcnn.doctor.findings import Finding, in_order
from maskrcnn.doctor.limits import crowds_to_learn, missed_objects
from maskrcnn.doctor.object_faults import OBJECT_FAULTS
from maskrcnn.doctor.objects import measured
from maskrcnn.doctor.pictures import look
from maskrcnn.doctor.set_faults import (
    Measures,
    class_faults,
    count_keypoints,
    crowded_images,
    other_classes,
    readers_remarks,
    repeated_files,
    specks,
)
from maskrcnn.errors import DataError
from maskrcnn.structures.annotations import NO_MASK
from maskrcnn.structures.dataset import Dataset
from maskrcnn.threads import usable_cores

_AT_ONCE = 32  # images whose annotations are measured together
_FEW = 4 * _AT_ONCE  # images for which no processes are started

Track = Callable[[Iterable[Any], str, int], Iterable[Any]]  # items, description, number of items


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a data set.

    Attributes:
        findings: by severity, then by kind.
        measures: of all its annotations.
        useless: why no model can learn from it; empty if one can.
    """

    dataset: Dataset
    findings: tuple[Finding, ...]
    measures: Measures
    useless: str

    @property
    def hurts(self) -> bool:
        """Whether a fault would hurt training."""
        return any(found.severity == "hurts" for found in self.findings)

    @property
    def objects_by_class(self) -> list[int]:
        """The number of objects of each class, without crowd regions."""
        labels = self.measures.labels[~self.measures.crowd]
        return [int(count) for count in np.bincount(labels, minlength=len(self.dataset.categories))]

    @property
    def keypoints(self) -> dict[str, dict[str, int]]:
        """As in `set_faults.count_keypoints`."""
        return count_keypoints(self.dataset)

    @property
    def problems(self) -> list[str]:
        """One sentence for each fault, without advice."""
        faults = [found for found in self.findings if found.severity != "advice"]
        return [f"{self.dataset.path}: {found.sentence(self.dataset)}" for found in faults]


class _Seen(NamedTuple):
    """Some images of a data set: their faults, the measures of their annotations, and their signatures."""

    findings: list[Finding]
    pixels: np.ndarray
    boxes: np.ndarray
    signatures: list[Signature]


@dataclass(frozen=True)
class _Look:
    """Looks at some images of a data set. Worker processes can receive it."""

    dataset: Dataset
    images: np.ndarray
    rows: np.ndarray
    only_pictures: bool = False

    def __call__(self, numbers: range) -> _Seen:
        looks = [look(self.dataset, number) for number in numbers]
        findings = [found for faults, _ in looks for found in faults]
        signatures = [signature for _, signature in looks]
        if self.only_pictures:
            return _Seen(findings, np.zeros(0), np.zeros((0, 4)), signatures)
        start, end = np.searchsorted(self.images, [numbers.start, numbers.stop])
        objects = measured(self.dataset, self.images[start:end], self.rows[start:end])
        findings += [found for faults in OBJECT_FAULTS for found in faults(objects)]
        masked = (objects.kinds != NO_MASK)[:, None] & np.isfinite(objects.extent)
        boxes = np.where(masked, objects.tight, objects.clipped(objects.given))
        return _Seen(findings, objects.pixels, boxes, signatures)


def examine(
    dataset: Dataset,
    val: Dataset | None = None,
    config: Config | None = None,
    track: Track = lambda items, text, total: items,
) -> Diagnosis:
    """Reads all annotations and images of a data set, with a process for each core, and finds its faults.

    Args:
        val: a data set that must share no image with it.
        config: the settings that it will be trained with, for what they would miss.
        track: wraps the images with a description and their number, for a progress bar.
    """
    rows = dataset.records.rows
    images = np.repeat(np.arange(len(dataset)), dataset.records.counts)
    seen = list(_looks(_Look(dataset, images, rows), len(dataset), "images", track))
    others = [] if val is None else list(_looks(_Look(val, images, rows, True), len(val), "other images", track))
    measures = Measures(
        images,
        rows,
        dataset.columns["labels"][rows].numpy(),
        dataset.columns["crowd"][rows].numpy(),
        np.concatenate([part.pixels for part in seen]),
        np.concatenate([part.boxes for part in seen]),
    )
    findings = [found for part in seen for found in part.findings]
    signatures = [signature for part in (*seen, *others) for signature in part.signatures]
    pictures, names = _pictures(dataset, val, signatures)
    findings += readers_remarks(dataset)
    findings += repeated_files(dataset)
    findings += class_faults(dataset, measures)
    findings += [] if val is None else other_classes(dataset, val)
    findings += specks(dataset, measures)
    detect = config.model.detect if config else DetectConfig()
    findings += crowded_images(dataset, measures, detect.max_detections)
    if config is not None:
        findings += missed_objects(dataset, measures, config)
        findings += crowds_to_learn(dataset, config)
    findings += copied_images(dataset, pictures, names)
    findings += shared_photographs(dataset, pictures, names)
    unread = sum(not signature.digest for signature in signatures[: len(dataset)])
    return Diagnosis(dataset, in_order(findings), measures, _useless(dataset, unread))


def _looks(look_at: _Look, total: int, text: str, track: Track) -> Iterator[_Seen]:
    """What is seen of all images, by several processes if there are many."""
    parts = [range(start, min(start + _AT_ONCE, total)) for start in range(0, total, _AT_ONCE)]
    workers = len(usable_cores())
    with closing(_results(look_at, parts, 0 if total <= _FEW else workers)) as results:
        found = track((seen for seen in results for _ in seen.signatures), text, total)
        last = None
        for seen in found:
            if seen is not last:
                yield seen
            last = seen


def _results(look_at: _Look, parts: Sequence[range], workers: int) -> Generator[_Seen]:
    yield from ordered_results(look_at, parts, workers) if workers else map(look_at, parts)


def _pictures(dataset: Dataset, val: Dataset | None, signatures: list[Signature]) -> tuple[Pictures, list[str]]:
    """The pictures of a data set and of its validation set, and the names of the splits that they belong to."""
    named = [(record.path, str(record.fields.get("split", ""))) for record in dataset.records]
    paths, splits = [path for path, _ in named], [split for _, split in named]
    if val is not None:
        paths += [record.path for record in val.records]
        splits += ["the other data set"] * len(val)
    names = list(dict.fromkeys(splits))
    return Pictures(paths, np.array([names.index(split) for split in splits]), signatures), names


def _useless(dataset: Dataset, unread: int) -> str:
    """Why no model can learn from a data set; empty if one can. `unread` images cannot be read."""
    if unread == len(dataset):
        return f"{dataset.path}: expected images, none of its {unread} can be read; see the problems above"
    try:
        require_examples(dataset, masks=False)
    except DataError as error:
        return str(error)
    return ""
