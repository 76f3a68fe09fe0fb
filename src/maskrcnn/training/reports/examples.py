"""Pictures for the page of an evaluation: the worst mistakes, and images drawn at random. Few images are read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from maskrcnn.errors import ImageError
from maskrcnn.evaluation.analysis import USUAL_SCORE, Analysis
from maskrcnn.evaluation.results import Entry
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.visualise import contact_sheet
from maskrcnn.visualise.cut_out import window_around
from maskrcnn.visualise.page import Section, gallery, paragraph, picture

_LONGEST = 600  # pixels of the longer side of a picture


class _Images:
    """The images of the examples with their objects. The last image is kept, because mistakes share images."""

    def __init__(self, dataset: Dataset, analysis: Analysis) -> None:
        self.dataset, self.analysis = dataset, analysis
        self.numbers = dataset.records.numbers()
        self._last: tuple[int, np.ndarray | None] = (-1, None)

    def pixels(self, image_id: int | str) -> np.ndarray | None:
        """(H, W, 3) uint8 RGB, or None if the image cannot be read."""
        number = self.numbers[image_id]
        if self._last[0] != number:
            try:
                self._last = (number, self.dataset.read(number))
            except ImageError:
                self._last = (number, None)
        return self._last[1]

    def found(self, image_id: int | str) -> Instances:
        """All detections, in the order of `Examples.found`."""
        entries = self.analysis.examples.found[image_id]
        return _instances(entries, self.dataset.records[self.numbers[image_id]].size, self.analysis)

    def certain(self, image_id: int | str) -> Instances:
        """The detections that reach the best threshold of their class."""
        found = self.found(image_id)
        least = np.array([USUAL_SCORE if t is None else t.score for t in self.analysis.thresholds])
        return found.select(found.scores >= least[found.labels].astype(np.float32))

    def name(self, image_id: int | str) -> str:
        return self.dataset.records[self.numbers[image_id]].path.name


def mistakes(dataset: Dataset, analysis: Analysis) -> list[Section]:
    """The false positives with the highest scores, and the worst misses, in parts of their images."""
    images, wrong, missed = _Images(dataset, analysis), [], []
    for image_id, place in analysis.examples.wrong:
        if (image := images.pixels(image_id)) is not None:
            one = images.found(image_id).select([place])
            truth = dataset.instances(images.numbers[image_id])
            shown = _pair(image, one.boxes, truth, one)
            wrong.append(picture(shown, f"{one.names[0]} {one.scores[0]:.2f}, {images.name(image_id)}", _LONGEST))
    for image_id, number in analysis.examples.missed:
        if (image := images.pixels(image_id)) is not None:
            lost = dataset.instances(images.numbers[image_id], [number])
            shown = _pair(image, lost.boxes, lost, images.certain(image_id))
            missed.append(picture(shown, f"{lost.names[0]}, {images.name(image_id)}", _LONGEST))
    none = paragraph("There are none.", "good")
    of_wrong = paragraph("The detections with the highest scores that are no object. All objects are on the left.")
    of_missed = paragraph("Objects that are not found above the best threshold, and what is found there.")
    return [
        Section("Worst false positives", [of_wrong, gallery(wrong, plots=True) or none]),
        Section("Worst misses", [of_missed, gallery(missed, plots=True) or none]),
    ]


def random_sample(dataset: Dataset, analysis: Analysis) -> Section:
    """Images drawn at random, with their annotations beside the detections."""
    images, shown = _Images(dataset, analysis), []
    for image_id in analysis.examples.sample:
        if (image := images.pixels(image_id)) is not None:
            truth = dataset.instances(images.numbers[image_id])
            sheet = contact_sheet([(image, truth, images.certain(image_id))], columns=1, min_score=0)
            shown.append(picture(sheet, images.name(image_id), _LONGEST))
    words = "Annotations on the left, and on the right the detections above the best threshold of their class."
    return Section("Images at random", [paragraph(words), gallery(shown, plots=True)])


def _pair(image: np.ndarray, boxes: np.ndarray, truth: Instances, found: Instances) -> np.ndarray:
    """The part of an image around boxes, with the objects that lie in it: annotated ones beside detections."""
    x1, y1, x2, y2 = window_around(boxes, image.shape)
    part = np.ascontiguousarray(image[y1:y2, x1:x2])
    return contact_sheet([(part, _within(truth, x1, y1, part), _within(found, x1, y1, part))], columns=1, min_score=0)


def _within(instances: Instances, x1: int, y1: int, part: np.ndarray) -> Instances:
    """The objects that touch a part of their image, in pixels of the part."""
    height, width = part.shape[:2]
    corner = np.array([x1, y1])
    low, high = instances.boxes[:, :2] - corner, instances.boxes[:, 2:] - corner
    touching = ((np.minimum(high, (width, height)) - np.maximum(low, 0)) > 0).all(axis=1)
    return instances.select(touching).shifted((-x1, -y1), (height, width))


def _instances(entries: Sequence[Entry], image_hw: tuple[int, int], analysis: Analysis) -> Instances:
    """Checked COCO results with labels as `category_id` as objects of their image."""
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    labels = np.array([entry["category_id"] for entry in entries], dtype=np.int64)
    masks = None
    if analysis.kind == "masks":
        masks = Masks([RLE.from_coco(entry["segmentation"], sound=True) for entry in entries], image_hw)
    return Instances(
        image_hw,
        boxes,
        np.array([entry["score"] for entry in entries], dtype=np.float32),
        labels,
        masks,
        names=tuple(analysis.names[label] for label in labels),
    )
