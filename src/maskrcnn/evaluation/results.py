"""The two sides of a comparison as one list each: the annotations of a data set, and COCO results.

A data set has left out what is broken. A broken result is refused: whoever wrote it should know before trusting the
figures. Images and categories are numbered from 0, whatever their ids are.

Legend: N annotations or results, K keypoints of a category.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.files.json_file import read_json
from maskrcnn.ops.rle import count_pixels
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import PIXEL_CENTRE, read_keypoints
from maskrcnn.structures.masks import RLE, known_areas
from maskrcnn.structures.values import is_id, is_number, short

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Entry:
    """One object, annotated or found.

    Attributes:
        image, label: positions among the images and the categories of the data set.
        box: x, y, width, height in pixels; None for a result of keypoints alone.
        mask: None when there is only a box.
        keypoints: (K, 3) float64 x, y in COCO's indices of pixels, and visibility or score; None without any.
        area: square pixels of an annotation; it decides whether the object is small, medium or large.
        crowd: a region to ignore.
        score: of a result; 1 for an annotation.
        where: the entry in words, for messages.
    """

    image: int
    label: int
    box: Box | None
    mask: RLE | None
    keypoints: np.ndarray | None
    area: float
    crowd: bool
    score: float
    where: str


def annotated(dataset: Dataset) -> list[Entry]:
    """The annotations of a data set, with their boxes as the file gives them."""
    counts = [len(category.keypoints) for category in dataset.categories]
    entries: list[Entry] = []
    for image, image_id in enumerate(dataset.records.image_ids):
        found, masks = dataset.annotations(image), dataset.masks(image)
        numbers, labels, crowd, areas = (a.tolist() for a in (found.ids, found.labels, found.crowd, found.areas))
        for i, (x, y, w, h) in enumerate(found.annotated_boxes.tolist()):
            points = None
            if found.keypoints is not None and counts[labels[i]]:
                points = found.keypoints[i, : counts[labels[i]]].copy()
                points[points[:, 2] > 0, :2] -= PIXEL_CENTRE
            area = w * h if masks[i] is None and math.isnan(areas[i]) else areas[i]
            where = f"{dataset.path}: annotation {numbers[i]} of image {image_id}"
            entries.append(Entry(image, labels[i], (x, y, w, h), masks[i], points, area, crowd[i], 1.0, where))
    # COCO's own areas are those of the polygons, a little off the pixels; pixels are counted only where they lack.
    lacking = {i: entry.mask.counts for i, entry in enumerate(entries) if math.isnan(entry.area) and entry.mask}
    for i, pixels in zip(lacking, count_pixels(list(lacking.values()))[1].tolist(), strict=True):
        entries[i] = replace(entries[i], area=float(pixels))
    return entries


def read_results(source: Path | str | Sequence[Mapping[str, Any]], dataset: Dataset) -> list[Entry]:
    """Reads COCO results from a file, or takes its content.

    Raises:
        DataError: it cannot be read, is not a list, or an entry cannot be used.
    """
    content: Any
    content, name = source, "results"
    if isinstance(source, Path | str):
        content, name = read_json(Path(source), "a COCO results JSON"), str(source)
    if not isinstance(content, Sequence) or isinstance(content, str):
        found = "an object" if isinstance(content, Mapping) else f"a value of type {type(content).__name__}"
        raise DataError(
            f"{name}: expected COCO results, a list of objects with image_id, category_id, score and bbox, "
            f"segmentation or keypoints, found {found}"
        )
    images = {image_id: i for i, image_id in enumerate(dataset.records.image_ids)}
    labels = {category.id: label for label, category in enumerate(dataset.categories)}
    sizes: list[list[int]] = dataset.records.sizes_hw.tolist()
    areas = known_areas([entry.get("segmentation") if isinstance(entry, Mapping) else None for entry in content])
    entries = []
    for i, (entry, area) in enumerate(zip(content, areas.tolist(), strict=True)):
        where = f"{name}: entry {i}"
        try:
            image, label = _place(entry, images, labels, dataset)
            keypoints = _keypoints(entry, label, dataset)
            mask = _mask(entry.get("segmentation"), (sizes[image][0], sizes[image][1]), area)
            box = _box(entry.get("bbox"), mask, needed=keypoints is None)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        entries.append(Entry(image, label, box, mask, keypoints, math.nan, False, float(entry["score"]), where))
    return entries


def _place(entry: Any, images: Mapping[Any, int], labels: Mapping[Any, int], dataset: Dataset) -> tuple[int, int]:
    """The numbers of image and label of a result that has all it needs."""
    if not isinstance(entry, Mapping):
        raise DataError(f"expected an object, found {short(entry)}")
    lacking = [key for key in ("image_id", "category_id", "score") if key not in entry]
    if lacking:
        raise DataError(f"has no {' and no '.join(lacking)}, found keys {', '.join(map(str, entry))}")
    image_id, category_id = entry["image_id"], entry["category_id"]
    if not is_id(image_id) or image_id not in images:
        raise DataError(f"image_id {short(image_id)} is not the id of an image in {dataset.path}")
    if not is_id(category_id) or category_id not in labels:
        known = ", ".join(f"{category.id} {category.name}" for category in dataset.categories)
        raise DataError(
            f"category_id {short(category_id)} is not the id of a category in {dataset.path}, which has "
            f"{known if len(known) <= 100 else known[:97] + '...'}"
        )
    if not is_number(entry["score"]):
        raise DataError(f"expected score as a finite number, found {short(entry['score'])}")
    return images[image_id], labels[category_id]


def _keypoints(entry: Mapping[str, Any], label: int, dataset: Dataset) -> np.ndarray | None:
    category = dataset.categories[label]
    if not entry.get("keypoints"):
        return None
    if not category.keypoints:
        raise DataError(
            f"has keypoints, but the category {category.name} of {dataset.path} names none; compare with annotations "
            "that have keypoints, or leave them out of the results"
        )
    return read_keypoints(entry["keypoints"], len(category.keypoints))


def _mask(segmentation: Any, size: tuple[int, int], area: int) -> RLE | None:
    if segmentation is None:
        return None
    if not isinstance(segmentation, Mapping):
        raise DataError(
            f"expected segmentation as run lengths, an object with size and counts, found {short(segmentation)}"
        )
    mask = RLE.from_coco(segmentation, sound=area >= 0)
    if mask.size != size:
        raise DataError(f"the mask is of height, width {mask.size}, its image of {size}; correct either")
    return mask


def _box(box: Any, mask: RLE | None, *, needed: bool) -> Box | None:
    """The box of a result, or that of its mask; None where there is neither and none is needed."""
    if box is None or box == []:
        if mask is None and needed:
            raise DataError("expected bbox or segmentation, found neither")
        if mask is None:
            return None
        x1, y1, x2, y2 = mask.box.tolist()
        return x1, y1, x2 - x1, y2 - y1
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        raise DataError(f"expected bbox as x, y, width, height in pixels, found {short(box)}")
    x, y, w, h = map(float, box)
    return x, y, w, h
