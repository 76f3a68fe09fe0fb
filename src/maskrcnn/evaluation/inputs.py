"""COCO annotations and results as read from JSON, checked entry by entry before anything is computed.

A broken annotation or image is left out and named, as in training. A broken result is refused: whoever wrote it
should know before trusting the figures.
Images and categories are renumbered from 0, whatever their ids are in the files.

Legend: K keypoints of a category.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.evaluation.oks import oks_sigmas
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.keypoints import keypoint_names, read_keypoints, read_labelled
from maskrcnn.structures.masks import RLE, known_areas

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Entry:
    """One object, annotated or found.

    Attributes:
        image, label: positions in `GroundTruth.sizes` and `GroundTruth.names`.
        box: x, y, width, height in pixels; None for a result of keypoints alone.
        mask: None when there is only a box.
        keypoints: (K, 3) float64 x, y in COCO's indices of pixels, and visibility or score; None without any.
        area: square pixels, decides whether an annotation is small, medium or large.
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


@dataclass(frozen=True)
class GroundTruth:
    """Annotations that can be used.

    Attributes:
        source: the file, for messages.
        images: image id -> position.
        sizes: height and width of each image.
        categories: category id -> label.
        names: of the labels, each different.
        keypoints: the names of each label's keypoints; empty for a label without any.
        sigmas: their spreads in OKS, as many for each label.
        entries: the annotations.
        skipped: other images and annotations, and why.
        records: image id -> its entry in the file.
    """

    source: str
    images: dict[Any, int]
    sizes: tuple[tuple[int, int], ...]
    categories: dict[Any, int]
    names: tuple[str, ...]
    keypoints: tuple[tuple[str, ...], ...]
    sigmas: tuple[tuple[float, ...], ...]
    entries: tuple[Entry, ...]
    skipped: tuple[str, ...]
    records: dict[Any, Mapping[str, Any]]

    def groups(self, key: str) -> dict[str, list[Any]]:
        """The ids of the images by their value of a field, sorted by it.

        Raises:
            DataError: an image has no such field.
        """
        found: dict[str, list[Any]] = {}
        for number in self.images:
            if key not in self.records[number]:
                known = ", ".join(self.records[number])
                raise DataError(f"{self.source}: image {number!r} has no field {key!r} to group by, found {known}")
            found.setdefault(str(self.records[number][key]), []).append(number)
        return dict(sorted(found.items()))

    def only(self, image_ids: Collection[Any]) -> GroundTruth:
        """The same with the annotations of these images alone; positions stay.

        Raises:
            DataError: an id that is not of an image.
        """
        unknown = [i for i in image_ids if i not in self.images]
        if unknown:
            raise DataError(f"{self.source}: expected ids of its images, found {unknown[0]!r} in image_ids")
        images = {i: self.images[i] for i in image_ids}
        kept = set(images.values())
        return replace(self, images=images, entries=tuple(e for e in self.entries if e.image in kept))


def read_ground_truth(source: Path | str | Mapping[str, Any], name: str | None = None) -> GroundTruth:
    """Reads COCO annotations from a file, or takes its content.

    Args:
        name: of the source, for messages; by default the file.

    Raises:
        DataError: it cannot be read, is not COCO, has a broken category, or two images or categories of one id.
    """
    content, found_name = _read(source, "ground truth", "a COCO JSON")
    name = name or found_name
    keys = ("images", "annotations", "categories")
    if not isinstance(content, Mapping) or not all(isinstance(content.get(key), list) for key in keys):
        found = f"keys {', '.join(map(str, list(content)[:6]))}" if isinstance(content, Mapping) else _kind(content)
        raise DataError(f"{name}: expected COCO JSON, an object with lists {', '.join(keys)}, found {found}")
    skipped: list[str] = []
    images: dict[Any, int] = {}
    records: dict[Any, Mapping[str, Any]] = {}
    sizes: list[tuple[int, int]] = []
    for i, image in enumerate(content["images"]):
        number, size = _get(image, "id"), (_get(image, "height"), _get(image, "width"))
        if not _is_id(number) or not all(_is_int(side) and side > 0 for side in size):
            skipped.append(
                f"{name}: images[{i}]: expected an id and a positive integer height and width, found {_short(image)}"
            )
            continue
        if number in images:
            raise DataError(f"{name}: images[{i}]: two images have id {number}: annotations cannot be told apart")
        images[number] = len(sizes)
        records[number] = image
        sizes.append(size)
    labels, names, keypoints, sigmas = _read_categories(content["categories"], name)
    truth = GroundTruth(name, images, tuple(sizes), labels, names, keypoints, sigmas, (), (), records)
    entries = []
    seen: set[Any] = set()
    areas = _areas(content["annotations"])
    for i, annotation in enumerate(content["annotations"]):
        number = _get(annotation, "id")
        where = f"{name}: annotations[{i}] (id {_short(number)})"
        try:
            if _is_id(number) and number in seen:
                raise DataError(f"{where}: expected an id of its own, found it twice")
            seen.add(number if _is_id(number) else None)
            entries.append(_read_entry(annotation, where, truth, areas[i]))
        except DataError as error:
            skipped.append(str(error))
    return replace(truth, entries=tuple(entries), skipped=tuple(skipped))


def _read_categories(
    entries: Sequence[Any], source: str
) -> tuple[dict[Any, int], tuple[str, ...], tuple[tuple[str, ...], ...], tuple[tuple[float, ...], ...]]:
    """`categories`, `names`, `keypoints` and `sigmas` of a GroundTruth."""
    labels: dict[Any, int] = {}
    names: list[str] = []
    keypoints: list[tuple[str, ...]] = []
    sigmas: list[tuple[float, ...]] = []
    for i, category in enumerate(entries):
        number, word = _get(category, "id"), _get(category, "name")
        if not _is_id(number) or number in labels or not isinstance(word, str):
            raise DataError(
                f"{source}: categories[{i}]: expected an id of its own and a name, found {_short(category)}"
            )
        labels[number] = i
        names.append(f"{word} (id {number})" if word in names else word)
        try:
            keypoints.append(keypoint_names(category))
            sigmas.append(oks_sigmas(category, keypoints[-1]))
        except DataError as error:
            raise DataError(f"{source}: {error}") from None
    return labels, tuple(names), tuple(keypoints), tuple(sigmas)


def read_results(source: Path | str | Sequence[Mapping[str, Any]], truth: GroundTruth) -> list[Entry]:
    """Reads COCO results from a file, or takes its content.

    Raises:
        DataError: it cannot be read, is not a list, or an entry cannot be used.
    """
    content, name = _read(source, "results", "a COCO results JSON")
    if not isinstance(content, Sequence) or isinstance(content, str):
        raise DataError(
            f"{name}: expected COCO results, a list of objects with image_id, category_id, score and bbox, "
            f"segmentation or keypoints, found {_kind(content)}"
        )
    areas = _areas(content)
    return [_read_entry(entry, f"{name}: entry {i}", truth, areas[i], scored=True) for i, entry in enumerate(content)]


def _areas(entries: Sequence[Any]) -> list[int]:
    """As `known_areas`, of the segmentations of annotations or results."""
    return known_areas([_get(entry, "segmentation") for entry in entries]).tolist()


def _read_entry(entry: Any, where: str, truth: GroundTruth, known_area: int, *, scored: bool = False) -> Entry:
    if not isinstance(entry, Mapping):
        raise DataError(f"{where}: expected an object, found {_short(entry)}")
    lacking = [key for key in ("image_id", "category_id", *(["score"] if scored else [])) if key not in entry]
    if lacking:
        raise DataError(f"{where}: has no {' and no '.join(lacking)}, found keys {', '.join(map(str, entry))}")
    image_id, category_id, score = entry["image_id"], entry["category_id"], entry.get("score", 1.0) if scored else 1.0
    if not _is_id(image_id) or image_id not in truth.images:
        raise DataError(f"{where}: image_id {_short(image_id)} is not the id of an image in {truth.source}")
    if not _is_id(category_id) or category_id not in truth.categories:
        known = ", ".join(f"{number} {name}" for number, name in zip(truth.categories, truth.names, strict=True))
        raise DataError(
            f"{where}: category_id {_short(category_id)} is not the id of a category in {truth.source}, which has "
            f"{known if len(known) <= 100 else known[:97] + '...'}"
        )
    if not _is_number(score):
        raise DataError(f"{where}: expected score as a finite number, found {_short(score)}")
    image, label = truth.images[image_id], truth.categories[category_id]
    keypoints = _read_keypoints(entry, where, truth, label, scored=scored)
    mask = _read_mask(entry.get("segmentation"), where, truth.sizes[image], known_area, polygons=not scored)
    box = _read_box(entry.get("bbox"), where, mask, needed=not scored or keypoints is None)
    if not scored and box is not None and min(box[2:]) == 0:
        raise DataError(f"{where}: bbox {_short(entry.get('bbox'))} has no area")
    if not scored and _is_number(entry.get("area")):
        area = entry["area"]  # COCO's own areas are those of the polygons, a little off the pixels
    elif mask is not None:
        area = known_area if known_area >= 0 else mask.area
    else:
        area = box[2] * box[3] if box is not None else 0
    crowd = bool(entry.get("iscrowd", 0))
    return Entry(image, label, box, mask, keypoints, float(area), crowd, float(score), where)


def _read_keypoints(
    entry: Mapping[str, Any], where: str, truth: GroundTruth, label: int, *, scored: bool
) -> np.ndarray | None:
    """None for a category without keypoints, and for a result without."""
    count = len(truth.keypoints[label])
    if scored and not entry.get("keypoints"):
        return None
    if scored and count == 0:
        raise DataError(
            f"{where}: has keypoints, but the category {truth.names[label]} of {truth.source} names none; compare with "
            "annotations that have keypoints, or leave them out of the results"
        )
    try:
        if scored:
            return read_keypoints(entry["keypoints"], count)
        return read_labelled(entry, count) if count else None
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def _read_mask(
    segmentation: Any, where: str, image_hw: tuple[int, int], known_area: int, *, polygons: bool
) -> RLE | None:
    if segmentation is None or (polygons and segmentation == []):
        return None
    try:
        if isinstance(segmentation, Mapping):
            mask = RLE.from_coco(segmentation, sound=known_area >= 0)
        elif polygons and isinstance(segmentation, list):
            mask = RLE(image_hw, polygons_to_rle([_points(part) for part in segmentation], image_hw))
        else:
            kinds = "run lengths or polygons" if polygons else "run lengths, an object with size and counts"
            raise DataError(f"expected segmentation as {kinds}, found {_short(segmentation)}")
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    if mask.size != image_hw:
        raise DataError(f"{where}: the mask is of height, width {mask.size}, its image of {image_hw}; correct either")
    if polygons and (mask.area if known_area < 0 else known_area) == 0:
        raise DataError(f"{where}: the mask covers no pixel of its image")
    return mask


def _points(part: Any) -> np.ndarray:
    numbers = isinstance(part, list | tuple) and all(isinstance(v, int | float) for v in part)
    if not numbers or len(part) % 2:
        raise DataError(f"expected polygons as lists of numbers x, y, x, y, ..., found {_short(part)}")
    return np.asarray(part, dtype=np.float64).reshape(-1, 2)


def _read_box(box: Any, where: str, mask: RLE | None, *, needed: bool) -> Box | None:
    if box is None or (isinstance(box, list | tuple) and not box):
        if mask is None and not needed:
            return None
        if mask is None:
            raise DataError(f"{where}: expected bbox or segmentation, found neither")
        x1, y1, x2, y2 = (float(edge) for edge in mask.box)
        return x1, y1, x2 - x1, y2 - y1
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(_is_number(v) for v in box) or min(box[2:]) < 0:
        raise DataError(f"{where}: expected bbox as x, y, width, height in pixels, found {_short(box)}")
    x, y, w, h = box
    return float(x), float(y), float(w), float(h)


def _read(source: Any, name: str, expected: str) -> tuple[Any, str]:
    """The content of a JSON file, or what was given, and what to call it in messages."""
    if not isinstance(source, Path | str):
        return source, name
    try:
        return json.loads(Path(source).read_bytes()), str(source)
    except FileNotFoundError:
        raise DataError(f"{source}: no such file, expected {expected}") from None
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror}), expected {expected}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{source}: not JSON ({error}), expected {expected}; the file may be truncated") from None


def _get(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, Mapping) else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(value: Any) -> bool:
    return _is_int(value) or isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, Mapping) else f"a value of type {type(value).__name__}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
