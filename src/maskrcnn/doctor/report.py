"""The report of a diagnosis as one HTML file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from maskrcnn.doctor.diagnosis import Diagnosis
from maskrcnn.doctor.findings import KINDS, Finding, Severity
from maskrcnn.doctor.mistakes import Mistake
from maskrcnn.doctor.statistics import plots, statistics
from maskrcnn.errors import ImageError
from maskrcnn.files.images import read_picture
from maskrcnn.structures.dataset import Dataset
from maskrcnn.visualise import draw
from maskrcnn.visualise.cut_out import window_around
from maskrcnn.visualise.page import Section, gallery, heading, listing, page, paragraph, picture, table

_PICTURES = 4  # of a kind
_LISTED = 200  # findings of a kind; --json has all
_MISTAKES = 60  # with a picture
_SHORT_SIDE = 240  # pixels of a cut-out on the page: smaller ones are enlarged
_TITLES: dict[Severity, str] = {
    "hurts": "What would hurt training",
    "doubt": "Problems that training works around",
    "advice": "Advice",
}
_TONES: dict[Severity, str] = {"hurts": "bad", "doubt": "mid", "advice": "soft"}


def report(diagnosis: Diagnosis, more: Sequence[Section] = ()) -> str:
    """The page: counts, faults by kind with pictures, statistics with plots.

    Args:
        more: sections to put before the statistics.
    """
    dataset = diagnosis.dataset
    sections = []
    for severity, group in groupby(diagnosis.findings, lambda found: found.severity):
        parts: list[str] = []
        for kind, same in groupby(group, lambda found: found.kind):
            parts += _kind(diagnosis, kind, list(same))
        sections.append(Section(_TITLES[severity], parts))
    lead = [paragraph(str(dataset.path), "soft"), paragraph(dataset.summary()), _verdict(diagnosis)]
    lead.append(listing([*dataset.choices]) if dataset.choices else "")
    return page(f"Data set {dataset.path.name}", lead, [*sections, *more, _statistics(diagnosis)])


def _verdict(diagnosis: Diagnosis) -> str:
    if diagnosis.useless:
        return paragraph(diagnosis.useless, "bad")
    if diagnosis.hurts:
        return paragraph("Something in it would hurt training.", "bad")
    if diagnosis.problems:
        return paragraph("Nothing in it would hurt training; some problems are worked around.", "mid")
    return paragraph("No problems were found.", "good")


def _kind(diagnosis: Diagnosis, kind: str, findings: Sequence[Finding]) -> list[str]:
    """The part of the page on one kind of fault."""
    dataset = diagnosis.dataset
    title, advice = KINDS[kind]
    parts = [
        heading(f"{title[0].upper()}{title[1:]}: {len(findings)}"),
        paragraph(f"{advice}.", _TONES[findings[0].severity]),
    ]
    shown: list[str] = []
    for found in findings:
        if len(shown) == _PICTURES:
            break
        if (image := look_at(diagnosis, found)) is not None:
            shown.append(picture(image, found.sentence(dataset)))
    parts += [gallery(shown), listing([found.sentence(dataset) for found in findings[:_LISTED]])]
    if len(findings) > _LISTED:
        parts.append(paragraph(f"{len(findings) - _LISTED} more are listed by --json.", "soft"))
    return parts


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def look_at(diagnosis: Diagnosis, found: Finding) -> np.ndarray | None:
    """A picture of a finding, (H, W, 3) uint8 RGB: the part of the image with its annotations drawn, or two images side
    by side. None if it belongs to no image, or to one that cannot be read."""
    dataset = diagnosis.dataset
    if found.image is None:
        return None
    try:
        image = dataset.read(found.image)
        beside = None if found.other is None else read_picture(found.other)
    except ImageError:
        return None
    if beside is not None:
        return side_by_side(image, beside)
    if not found.rows:
        return draw(image, dataset.instances(found.image))
    record = dataset.records[found.image]
    start = int(np.searchsorted(diagnosis.measures.images, found.image))
    numbers = [row - record.first for row in found.rows]
    boxes = diagnosis.measures.boxes[[start + number for number in numbers]]
    return cut_out(dataset, found.image, image, numbers, boxes)


def cut_out(dataset: Dataset, index: int, image: np.ndarray, numbers: Sequence[int], boxes: np.ndarray) -> np.ndarray:
    """The part of an image around boxes (n, 4), with some of its annotations drawn; enlarged if it is small."""
    window = window_around(boxes, image.shape[:2])
    x1, y1, x2, y2 = window
    part = np.ascontiguousarray(image[y1:y2, x1:x2])
    shown = dataset.instances(index, numbers).shifted((-x1, -y1), part.shape[:2])
    return draw(part, shown, enlarge=math.ceil(_SHORT_SIDE / min(part.shape[:2])), colour_by="instance")


def side_by_side(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two (H, W, 3) pictures, of which the right one is resized to the height of the left one."""
    from PIL import Image

    height = left.shape[0]
    width = max(1, round(right.shape[1] * height / right.shape[0]))
    resized = np.asarray(Image.fromarray(right).resize((width, height)))
    gap = np.full((height, max(2, height // 60), 3), 255, dtype=np.uint8)
    return np.concatenate([left, gap, resized], axis=1)


def mistakes_section(dataset: Dataset, mistakes: Sequence[Mistake]) -> Section:
    """The likeliest labelling mistakes, with pictures of the labels on the left and of the model on the right.

    Args:
        dataset: the data set in which they were found.
    """
    shown = []
    for mistake in mistakes[:_MISTAKES]:
        image = dataset.read(mistake.image)
        numbers = [] if mistake.label is None else [mistake.label]
        labels = dataset.instances(mistake.image)
        boxes = [dataset.annotations(mistake.image).boxes[numbers]]
        boxes += [] if mistake.detection is None else [mistake.detection.boxes]
        x1, y1, x2, y2 = window_around(np.concatenate(boxes).astype(np.float64), image.shape[:2])
        part = np.ascontiguousarray(image[y1:y2, x1:x2])
        enlarge = math.ceil(_SHORT_SIDE / min(part.shape[:2]))
        left, right = (
            draw(part, one.shifted((-x1, -y1), part.shape[:2]), min_score=0, enlarge=enlarge, colour_by="class")
            for one in (labels, mistake.detection or labels.select([]))
        )
        caption = f"{mistake.likely:.2f}, {mistake.kind}: {mistake.sentence(dataset)}"
        shown.append(picture(side_by_side(left, right), caption))
    words = "What the model finds with confidence and the labels deny, the likeliest first: labels left, model right."
    rest = [f"{m.likely:.2f}, {m.kind}: {m.sentence(dataset)}" for m in mistakes[_MISTAKES:_LISTED]]
    return Section("Likeliest labelling mistakes", [paragraph(words), gallery(shown), listing(rest) if rest else ""])


def _statistics(diagnosis: Diagnosis) -> Section:
    figures = statistics(diagnosis)
    spread = [name for name, value in figures.items() if isinstance(value, dict) and "median" in value]
    words = {
        "objects_an_image": "objects in an image",
        "side": "side of an object, pixels",
        "width_by_height": "width / height",
    }
    columns = ("min", "p5", "median", "mean", "p95", "max")
    rows = [[words[name], *(figures[name][column] for column in columns)] for name in spread]
    counts = zip(diagnosis.dataset.categories, diagnosis.objects_by_class, strict=True)
    sizes = ", ".join(f"{size} ({count})" for size, count in figures["image_sizes"].items())
    return Section(
        "Statistics",
        [
            table(["", *columns], rows),
            paragraph(
                f"{figures['small']} small objects (below 32 pixels), {figures['medium']} medium ones and "
                f"{figures['large']} large ones (from 96). {figures['images_without_objects']} images have no object. "
                f"Images of {figures['different_image_sizes']} sizes, the commonest: {sizes}."
            ),
            gallery(plots(diagnosis), plots=True),
            table(["class", "id", "objects"], [[c.name, str(c.id), count] for c, count in counts]),
        ],
    )
