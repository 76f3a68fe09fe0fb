"""The likeliest mistakes of the labels, by a trained model: what it finds with confidence and the labels deny.

Each is scored from 0 to 1, so that the kinds can be listed together, best first (compare Tkachenko et al. 2023,
"ObjectLab"). Detections and labels are compared by the IoU of their masks, or of their boxes if one has none.

The score of a class is spread over several detections if a model is not sure. Therefore the detections at one place are
taken together.

Legend: D places and G labels of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import hotcoco.mask
import numpy as np

from maskrcnn.doctor.surely_labelled import surely_labelled
from maskrcnn.errors import ImageError
from maskrcnn.predict.pipeline import Detector, stream
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances

MistakeKind = Literal["no label", "not found", "other class", "badly placed"]

_MATCHED = 0.5  # IoU from which a place and a label are one object
_TOUCHED = 0.1  # IoU from which a label may be meant for a place
_PLACED = 0.7  # IoU from which a label lies in its place
_LEAST = 0.3  # likelihood of a mistake that is named
_OTHER_CLASS = 0.4  # how far a place of another class than the label still says that the label is badly placed
_UNSEEN = 0.5  # how far a label that the model does not find says that it lies in the wrong place
_SAME_SHAPE = (0.5, 0.85)  # IoU of two boxes with one centre from which they may have, and surely have, one shape
_USUAL = 20  # labels of an image with which a model begins to be trusted there


@dataclass(frozen=True)
class Mistake:
    """One likely mistake.

    Attributes:
        likely: 0 to 1.
        image: number of the image in the data set.
        label: number of the annotation in its image; None if the label is missing.
        detection: what the model found there, one object; None if it found nothing.
    """

    kind: MistakeKind
    likely: float
    image: int
    label: int | None
    detection: Instances | None

    def sentence(self, dataset: Dataset) -> str:
        """What is probably wrong, and where."""
        record = dataset.records[self.image]
        found = ""
        if self.detection is not None:
            x1, y1, x2, y2 = self.detection.boxes[0].tolist()
            found = (
                f"{self.detection.class_names[0]} ({self.detection.scores[0]:.2f}) at {x1:.0f}, {y1:.0f}, "
                f"{x2 - x1:.0f}, {y2 - y1:.0f}"
            )
        where = f"image {record.image_id} ({record.path.name})"
        if self.label is None:
            return f"{where}: no label for a {found}"
        annotations = dataset.annotations(self.image)
        name = dataset.categories[annotations.labels[self.label]].name
        words = f"annotation {annotations.ids[self.label]} of {where}: {name}"
        return f"{words}, where the model finds a {found}" if found else f"{words}, which the model does not find"

    def to_dict(self, dataset: Dataset) -> dict[str, Any]:
        """The mistake for JSON, with the ids and file names of the data set. `bbox` is x, y, width, height of the
        detection, or of the label if nothing was detected."""
        record, annotations = dataset.records[self.image], dataset.annotations(self.image)
        box = annotations.boxes[self.label] if self.detection is None else self.detection.boxes[0]
        x1, y1, x2, y2 = box.tolist()
        return {
            "kind": self.kind,
            "likely": self.likely,
            "image_id": record.image_id,
            "file": str(record.path),
            "annotation_id": None if self.label is None else annotations.ids[self.label],
            "class": None if self.label is None else dataset.categories[annotations.labels[self.label]].name,
            "found": None if self.detection is None else self.detection.class_names[0],
            "score": None if self.detection is None else float(self.detection.scores[0]),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }


def likely_mistakes(
    dataset: Dataset,
    model: Detector[Any, Any],
    track: Callable[[Iterable[Any], str, int], Iterable[Any]] = lambda items, text, total: items,
) -> list[Mistake]:
    """The likely mistakes of all images that can be read, the likeliest first.

    Args:
        dataset: its categories are those of the model, in the same order.
        track: as for `examine`.
    """

    def compare(index: int, image: np.ndarray, found: Instances) -> list[Mistake]:
        return _doubted(list(_of_image(dataset, index, image, found)), int((~dataset.annotations(index).crowd).sum()))

    mistakes: list[Mistake] = []
    with closing(stream(model, range(len(dataset)), dataset.read, compare)) as compared:
        for _, found in track(compared, "model", len(dataset)):
            mistakes += [] if isinstance(found, ImageError) else found
    labels = int((~dataset.columns["crowd"][dataset.records.rows]).sum())
    missed = sum(mistake.kind == "not found" for mistake in mistakes)
    # Of a model that often finds nothing, finding nothing says little.
    trust = (1 - missed / max(labels, 1)) ** 2 / 2
    scaled = [replace(m, likely=m.likely * trust) if m.kind == "not found" else m for m in mistakes]
    return sorted(scaled, key=lambda mistake: -mistake.likely)


def _doubted(mistakes: list[Mistake], labels: int) -> list[Mistake]:
    """The mistakes of an image with this number of labels, each less likely the more others there are: where a model
    and the labels often disagree, the model may be wrong."""
    doubts = sum(mistake.likely for mistake in mistakes)
    agreed = labels + _USUAL
    return [replace(m, likely=m.likely * agreed / (agreed + doubts - m.likely)) for m in mistakes]


class _Claim(NamedTuple):
    """What a place says against the labels: place number d, and the label that it speaks of, if any."""

    kind: MistakeKind
    likely: float
    place: int
    label: int | None


def _of_image(dataset: Dataset, index: int, image: np.ndarray, found: Instances) -> Iterator[Mistake]:
    """The likely mistakes of an image, one for each place and each label."""
    annotations = dataset.annotations(index)
    truth = dataset.instances(index, range(len(annotations)))
    best, scores = _places(found, len(dataset.categories))
    iou, cover = _overlaps(found.select(best), truth)
    free = cover[:, annotations.crowd].max(axis=1, initial=0) <= _MATCHED
    objects = np.flatnonzero(~annotations.crowd)
    best, scores, iou, cover = best[free], scores[free], iou[free][:, objects], cover[free][:, objects]
    places, labels = found.boxes[best], truth.boxes[objects]
    there = 1 - (1 - scores).prod(axis=1)  # (D,) whether there is an object of any class
    placed = _placed(iou)  # (D, G) whether a label lies at a place
    seen = (there[:, None] * placed).max(axis=0, initial=0)  # (G,) whether there is an object where a label lies
    inside = _box_cover(places, labels) * (seen > _LEAST)
    moved = _moved(there, placed, seen, _same_shape(places, labels)) * ((iou >= _TOUCHED) & (iou < _PLACED))
    surely = surely_labelled(image, places, labels)
    claims = [
        *_claims("other class", _renamed(scores, annotations.labels[objects], iou)),
        *_claims("badly placed", moved * _of_class(scores, annotations.labels[objects])),
        *_claims("no label", _alone(there, iou, cover, inside) * surely[:, None]),
    ]
    named: set[int] = set()
    explained: set[int] = set()
    for claim in sorted(claims, key=lambda claim: -claim.likely):
        if claim.likely >= _LEAST and claim.place not in named and claim.label not in explained:
            named.add(claim.place)  # one mistake gives several claims
            explained |= set() if claim.label is None else {claim.label}
            label = None if claim.label is None else int(objects[claim.label])
            yield Mistake(claim.kind, claim.likely, index, label, found.select([int(best[claim.place])]))
    for label in np.flatnonzero(seen < _LEAST).tolist():
        if label not in explained:
            yield Mistake("not found", float(1 - seen[label]), index, int(objects[label]), None)


def _renamed(scores: np.ndarray, labels: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """(D, G) how likely the object of a label has another class: a place at the label has a high score of that class
    and a low one of the label's."""
    others = np.where(np.arange(scores.shape[1]) == labels[:, None], 0, scores[:, None]).max(axis=2, initial=0)
    own = scores[:, labels]
    likely: np.ndarray = np.where((iou >= _MATCHED) & (others > own), others * (1 - own), 0)
    return likely


def _moved(there: np.ndarray, placed: np.ndarray, seen: np.ndarray, same_shape: np.ndarray) -> np.ndarray:
    """(D, G) how likely a label is meant for a place beside it: there is an object, and none where the label lies.

    A label of the same shape has only been moved. Then an object without a label and a label without an object are two
    signs of one mistake, which together say more than the object alone.

    Args:
        there: (D,) likelihood of an object at the place.
        placed: (D, G) from 0 to 1, how well a label lies at the place.
        seen: (G,) likelihood of an object where the label lies.
        same_shape: (D, G) from 0 to 1.
    """
    beside = there[:, None] * (1 - placed) * (1 - _best_of_others(placed))
    unlabelled = (there >= _LEAST) & (placed.max(axis=1, initial=0) < _placed(_MATCHED))
    both = 1 - (1 - there[:, None]) * (1 - _UNSEEN * (1 - seen) * same_shape)
    likely: np.ndarray = np.maximum(beside, both * same_shape * unlabelled[:, None]) * (1 - seen)
    return likely


def _best_of_others(placed: np.ndarray) -> np.ndarray:
    """(D, G) how well the best label lies at a place, apart from each label itself."""
    others = np.zeros_like(placed)
    if placed.shape[1] > 1:
        first, second = placed.argmax(axis=1)[:, None], np.partition(placed, -2, axis=1)[:, -2:]
        others = np.where(np.arange(placed.shape[1]) == first, second[:, :1], second[:, 1:])
    return others


def _placed(iou: Any) -> Any:
    """From 0 to 1 how well a label with this IoU lies at a place."""
    return np.clip((iou - _TOUCHED) / (_PLACED - _TOUCHED), 0, 1)


def _of_class(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(D, G) how far the class of each place lets it be the object of each label."""
    alike = scores[:, labels] / scores.max(axis=1, initial=1e-9)[:, None]
    likely: np.ndarray = _OTHER_CLASS + (1 - _OTHER_CLASS) * alike
    return likely


def _same_shape(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(D, G) from 0 to 1, whether boxes (D, 4) and (G, 4) have one width and one height."""
    a, b = (np.maximum(box[:, 2:] - box[:, :2], 1e-9).astype(np.float64) for box in (boxes, others))
    iou = np.minimum(a[:, None], b).prod(axis=-1) / np.maximum(a[:, None], b).prod(axis=-1)
    low, high = _SAME_SHAPE
    same: np.ndarray = np.clip((iou - low) / (high - low), 0, 1)
    return same


def _alone(there: np.ndarray, iou: np.ndarray, cover: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """(D, 1) how likely a place lacks its label. What lies on or inside another object is often a part of it."""
    lone = iou.max(axis=1, initial=0) < _MATCHED
    likely = there * (1 - cover.max(axis=1, initial=0)) * (1 - inside.max(axis=1, initial=0) / 2)
    return np.where(lone, likely, 0)[:, None]


def _claims(kind: MistakeKind, likely: np.ndarray) -> list[_Claim]:
    """The entries of (D, G), or of (D, 1) if they speak of no label, that are at least `_LEAST`."""
    places, labels = np.nonzero(likely >= _LEAST)
    return [
        _Claim(kind, float(likely[place, label]), place, None if kind == "no label" else label)
        for place, label in zip(places.tolist(), labels.tolist(), strict=True)
    ]


def _places(found: Instances, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The best detection at each place, (D,) int64, and the highest score of each class there, (D, classes) float64.

    Detections of different classes whose boxes have an IoU of at least `_MATCHED` are at one place.
    """
    best: list[int] = []
    scores: list[np.ndarray] = []
    for number, (box, label) in enumerate(zip(found.boxes, found.labels.tolist(), strict=True)):
        iou = _box_ious(box, found.boxes[best])
        place = int(iou.argmax()) if iou.max(initial=0) >= _MATCHED else len(best)
        if place == len(best):
            best.append(number)
            scores.append(np.zeros(classes))
        scores[place][label] = max(scores[place][label], float(found.scores[number]))
    return np.array(best, dtype=np.int64), np.array(scores).reshape(-1, classes)


def _overlaps(found: Instances, truth: Instances) -> tuple[np.ndarray, np.ndarray]:
    """The IoU of each detection with each label, and the share of each detection that the label covers, (D, G) each."""
    if not len(found) or not len(truth):
        return np.zeros((len(found), len(truth))), np.zeros((len(found), len(truth)))
    if found.masks is not None and truth.masks is not None:
        sides = [[{"size": list(m.size), "counts": m.counts} for m in one.masks or ()] for one in (found, truth)]
        pairs = [hotcoco.mask.iou(sides[0], sides[1], [crowd] * len(truth)) for crowd in (0, 1)]
        return np.asarray(pairs[0]), np.asarray(pairs[1])
    a, b = found.boxes[:, None].astype(np.float64), truth.boxes[None].astype(np.float64)
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (a, b)]
    return shared / np.maximum(areas[0] + areas[1] - shared, 1e-9), shared / np.maximum(areas[0], 1e-9)


def _box_cover(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The share of each box (n, 4) that each of the others (m, 4) covers, (n, m) float64."""
    a, b = boxes[:, None].astype(np.float64), others[None].astype(np.float64)
    shared = (np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])).clip(0).prod(axis=-1)
    share: np.ndarray = shared / np.maximum((a[..., 2:] - a[..., :2]).prod(axis=-1), 1e-9)
    return share


def _box_ious(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) the IoU of a box (4,) with others (n, 4)."""
    shared = (np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])).clip(0).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - shared
    iou: np.ndarray = shared / np.maximum(union, 1e-9)
    return iou
