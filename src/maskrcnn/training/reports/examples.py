"""Pictures for the page of an evaluation: the worst mistakes, and images drawn at random. Few images are read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from maskrcnn.errors import ImageError
from maskrcnn.evaluation.analysis import USUAL_SCORE, Analysis
from maskrcnn.evaluation.results import Entry
from maskrcnn.files.media.windows import Pixels
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.visualise import contact_sheet
from maskrcnn.visualise.cut_out import window_around
from maskrcnn.visualise.page import Section, gallery, paragraph, picture

_LONGEST = 600  # pixels of the longer side of a picture
_MOST_SIDE = 7000  # pixels of the side of a part of an image; longer images are read part by part


class _Images:
    """The images of the examples with their objects. Those of the last image are kept, because mistakes share images.

    Attributes:
        pixels: image id -> RGB pixels, read part by part if the image is large; None if it cannot be read.
        found: image id -> all detections, in the order of `Examples.found`.
        truth: image id -> all annotated objects.
    """

    def __init__(self, dataset: Dataset, analysis: Analysis) -> None:
        self.dataset, self.analysis = dataset, analysis
        self.numbers = dataset.records.numbers()
        self.pixels = lru_cache(maxsize=1)(self._pixels)
        self.found = lru_cache(maxsize=1)(self._found)
        self.truth = lru_cache(maxsize=1)(lambda image_id: dataset.instances(self.numbers[image_id]))

    def _pixels(self, image_id: int | str) -> Pixels | None:
        number = self.numbers[image_id]
        large = max(self.dataset.records[number].size) > _MOST_SIDE
        try:
            return self.dataset.open(number, lambda text: None, ()) if large else self.dataset.read(number)
        except ImageError:
            return None

    def _found(self, image_id: int | str) -> Instances:
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
            shown = _pair(image, window_around(one.boxes, image.shape), images.truth(image_id), one)
            wrong.append(picture(shown, f"{one.names[0]} {one.scores[0]:.2f}, {images.name(image_id)}", _LONGEST))
    for image_id, number in analysis.examples.missed:
        if (image := images.pixels(image_id)) is not None:
            lost = dataset.instances(images.numbers[image_id], [number])
            shown = _pair(image, window_around(lost.boxes, image.shape), lost, images.certain(image_id))
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
            whole = (0, 0, image.shape[1], image.shape[0])
            sheet = _pair(image, whole, images.truth(image_id), images.certain(image_id))
            shown.append(picture(sheet, images.name(image_id), _LONGEST))
    words = "Annotations on the left, and on the right the detections above the best threshold of their class."
    return Section("Images at random", [paragraph(words), gallery(shown, plots=True)])


def _pair(image: Pixels, window: tuple[int, int, int, int], truth: Instances, found: Instances) -> np.ndarray:
    """A part x1 y1 x2 y2 of an image with the objects that lie in it: annotated ones beside detections. Of a very large
    part only the middle is shown."""
    (x1, x2), (y1, y2) = (_middle(*window[axis::2]) for axis in (0, 1))
    part = np.ascontiguousarray(image[y1:y2, x1:x2])
    return contact_sheet([(part, _within(truth, x1, y1, part), _within(found, x1, y1, part))], columns=1, min_score=0)


def _middle(start: int, stop: int) -> tuple[int, int]:
    """The span, or its middle if it is longer than `_MOST_SIDE`."""
    first = start + max(0, stop - start - _MOST_SIDE) // 2
    return first, min(stop, first + _MOST_SIDE)


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
