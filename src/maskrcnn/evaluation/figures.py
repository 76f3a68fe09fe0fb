"""The COCO figures of masks, boxes or keypoints. hotcoco matches and accumulates, including crowd regions.

Legend of its arrays: T IoU thresholds 0.50:0.95, R recall points, K classes, A area ranges in square pixels of the
image (all, small < 32^2, medium < 96^2, large; keypoints have no small range), M limits of detections per image.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from hotcoco import COCO, COCOeval

from maskrcnn.allocator import trim
from maskrcnn.errors import ConfigError
from maskrcnn.evaluation.portions import LEAST_IOU, best_of_each, by_image, is_crowded, portions
from maskrcnn.evaluation.results import Entry

Figures = dict[str, float | None]
_Kind = Literal["segm", "bbox", "keypoints"]

STANDARD_LIMIT = 100  # detections per image in the COCO benchmark
_KEYPOINT_LIMIT = 20  # detections per image in the COCO keypoint benchmark
_PROCESSES: set[int] = set()  # that have used hotcoco: this one, and the one from which it was forked


class Scene(NamedTuple):
    """Heights and widths of the images, names of the classes, and the maximum detections per image."""

    sizes: list[list[int]]
    names: list[str]
    limit: int


def area_figures(
    scene: Scene, truth: Sequence[Entry], found: Sequence[Entry], kind: Literal["segm", "bbox"]
) -> tuple[Figures, list[float | None]]:
    """The figures of masks or boxes over all classes, and the AP of each class."""
    limits = sorted({min(limit, scene.limit) for limit in (1, 10, STANDARD_LIMIT, scene.limit)})
    precision, recall = _sums_of_limits(scene, truth, found, kind, limits)
    areas = {"s": 1, "m": 2, "l": 3}
    figures = {
        "AP": _mean(precision[:, :, :, 0, -1]),
        "AP50": _mean(precision[0, :, :, 0, -1]),
        "AP75": _mean(precision[5, :, :, 0, -1]),
        **{f"AP{name}": _mean(precision[:, :, :, area, -1]) for name, area in areas.items()},
        **{
            f"AR{limit}": _mean(recall[:, :, 0, limits.index(min(limit, scene.limit))])
            for limit in sorted({1, 10, STANDARD_LIMIT, max(STANDARD_LIMIT, scene.limit)})
        },
        **{f"AR{name}": _mean(recall[:, :, area, -1]) for name, area in areas.items()},
    }
    return figures, [_mean(precision[:, :, k, 0, -1]) for k in range(len(scene.names))]


def _sums_of_limits(
    scene: Scene, truth: Sequence[Entry], found: Sequence[Entry], kind: Literal["segm", "bbox"], limits: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """`sums_of` for several limits of detections per image. Images with very many objects are judged in portions."""
    if not any_crowded(truth, found):
        evaluator = evaluator_of(scene, truth, found, kind)
        evaluator.params.max_dets = limits
        return sums_of(evaluator)
    sums = []
    for limit in limits:
        best = best_of_each(found, limit)
        evaluator = evaluator_of(*in_portions(scene, truth, best, kind), kind)
        evaluator.params.max_dets = [len(best) + 1]  # all: the limit is that of a whole image
        sums.append(sums_of(evaluator))
        del evaluator
        trim()  # the tables of a slide of 130,000 objects take 200 MB, and the next ones would come on top
    precision, recall = (np.concatenate(of_limits, axis=-1) for of_limits in zip(*sums, strict=True))
    return precision, recall


def any_crowded(truth: Sequence[Entry], found: Sequence[Entry]) -> bool:
    """Whether an image has too many pairs for one table."""
    there, seen = by_image(truth), by_image(found)
    return any(is_crowded(there[image], seen[image]) for image in there)


def in_portions(
    scene: Scene,
    truth: Sequence[Entry],
    found: Sequence[Entry],
    kind: Literal["segm", "bbox"],
    least_iou: float = LEAST_IOU,
) -> tuple[Scene, list[Entry], list[Entry]]:
    """The same with an image for each portion (`evaluation/portions.py`)."""
    there, seen = by_image(truth), by_image(found)
    sizes: list[list[int]] = []
    objects: list[Entry] = []
    detections: list[Entry] = []
    for image, size in enumerate(scene.sizes):
        for some, found_there in portions(there[image], seen[image], size, kind, least_iou):
            objects += [{**entry, "image_id": len(sizes)} for entry in some]
            detections += [{**entry, "image_id": len(sizes)} for entry in found_there]
            sizes.append(size)
    return scene._replace(sizes=sizes), objects, detections


def keypoint_figures(
    scene: Scene, truth: Sequence[Entry], found: Sequence[Entry], sigmas: Mapping[int, Sequence[float]]
) -> tuple[Figures, list[float | None]]:
    """The keypoint figures over the labels in `sigmas`, their OKS standard deviations, and the AP of each class."""
    precisions, recalls = [], []
    for label, class_sigmas in sigmas.items():  # one by one, because the number of keypoints may differ
        own, results = ([entry for entry in side if entry["category_id"] == label] for side in (truth, found))
        evaluator = evaluator_of(scene, own, results, "keypoints")
        evaluator.params.max_dets = [min(_KEYPOINT_LIMIT, scene.limit)]
        evaluator.params.kpt_oks_sigmas = list(class_sigmas)
        evaluator.params.cat_ids = [label]
        precision, recall = sums_of(evaluator)
        precisions.append(precision[:, :, :, :, 0])
        recalls.append(recall[:, :, :, 0])
    precision, recall = np.concatenate(precisions, axis=2), np.concatenate(recalls, axis=1)  # (T, R, K, A), (T, K, A)
    figures: Figures = {}
    for name, values in (("AP", precision), ("AR", recall)):
        figures[name] = _mean(values[..., 0])
        figures[f"{name}50"], figures[f"{name}75"] = _mean(values[0, ..., 0]), _mean(values[5, ..., 0])
        figures[f"{name}m"], figures[f"{name}l"] = _mean(values[..., 1]), _mean(values[..., 2])
    by_label = {label: _mean(of_one[..., 0]) for label, of_one in zip(sigmas, precisions, strict=True)}
    return figures, [by_label.get(label) for label in range(len(scene.names))]


def evaluator_of(scene: Scene, truth: Sequence[Entry], found: Sequence[Entry], kind: _Kind) -> COCOeval:
    """An evaluator of hotcoco before its matching. The id of a detection is its place in `found`, counted from 1."""
    dataset = COCO(
        {
            "images": [{"id": i, "height": height, "width": width} for i, (height, width) in enumerate(scene.sizes)],
            "categories": [{"id": i, "name": str(i)} for i in range(len(scene.names))],  # their names may be any text
            "annotations": truth if kind == "segm" else [_without_mask(entry) for entry in truth],
        }
    )
    # Only what is compared: if a mask or keypoints came with a box, hotcoco would use the area of the box.
    keys = ("image_id", "category_id", "score", "segmentation" if kind == "segm" else kind)
    return COCOeval(dataset, dataset.load_res([{key: entry[key] for key in keys} for entry in found]), kind)


def _without_mask(entry: Entry) -> Entry:
    return {key: value for key, value in entry.items() if key != "segmentation"}


def sums_of(evaluator: COCOeval) -> tuple[np.ndarray, np.ndarray]:
    """Runs the evaluation; precision (T, R, K, A, M) and recall (T, K, A, M).

    Raises:
        ConfigError: this process was forked from one that has used hotcoco, whose threads it would wait for forever.
    """
    _PROCESSES.add(os.getpid())
    if len(_PROCESSES) > 1:
        raise ConfigError(
            "expected COCO figures in one process, found a process that was forked after its parent had computed some; "
            'start it with multiprocessing.get_context("spawn")'
        )
    evaluator.evaluate()
    evaluator.accumulate()
    sums = evaluator.eval
    assert sums is not None
    return sums["precision"], sums["recall"]


def _mean(values: np.ndarray) -> float | None:
    """The mean of the defined entries (hotcoco gives -1 where there is no object), or None if there are none."""
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
