"""Reads COCO results and checks every entry. A broken entry is an error, because figures without it would mislead."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.evaluation.places import place_results
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import read_keypoints
from maskrcnn.structures.masks import RLE, known_areas
from maskrcnn.structures.values import is_id, is_number, short

Entry = dict[str, Any]  # an annotation or a result in COCO's notation


def read_results(source: Path | str | Sequence[Mapping[str, Any]], dataset: Dataset) -> tuple[list[Entry], str | None]:
    """Reads COCO results from a file, or checks its content.

    Returns:
        For each result: image_id (that of the data set), category_id, score, bbox (default: the tight box of the mask),
        segmentation and keypoints. Missing values are None.
        A note on how the results found their images, if their ids are not those of the data set.

    Raises:
        DataError: the file cannot be read or is not a list, an entry is broken, only some of the results have masks or
            keypoints, or it cannot be told to which image a result belongs.
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
    try:
        images, note = place_results(content, dataset)
        entries = _entries(content, images, dataset)
        _require_same_kinds(entries, {category.id for category in dataset.categories if category.keypoints})
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    return entries, note


def _entries(content: Sequence[Any], images: Sequence[int | str], dataset: Dataset) -> list[Entry]:
    """The checked results. `images` has the id of the image of each."""
    sizes = dict(zip(dataset.records.numbers(), dataset.records.sizes_hw.tolist(), strict=True))
    categories = {category.id: category for category in dataset.categories}
    areas = known_areas([entry.get("segmentation") for entry in content])
    entries = []
    for i, (entry, image_id, area) in enumerate(zip(content, images, areas.tolist(), strict=True)):
        try:
            _check_keys(entry, categories, dataset.path)
            keypoints = _keypoints(entry, categories[entry["category_id"]], dataset.path)
            mask = _mask(entry.get("segmentation"), sizes[image_id], area)
            entries.append(
                {
                    "image_id": image_id,
                    "category_id": entry["category_id"],
                    "score": float(entry["score"]),
                    "bbox": _box(entry.get("bbox"), mask, needed=keypoints is None),
                    # A sound mask is not copied: a slide may have 200,000 of them.
                    "segmentation": entry.get("segmentation") if mask is None or area >= 0 else mask.to_coco(),
                    "keypoints": keypoints,
                }
            )
        except DataError as error:
            raise DataError(f"entry {i}: {error}") from None
    return entries


def _require_same_kinds(entries: Sequence[Entry], with_keypoints: Collection[int | str]) -> None:
    """Raises DataError if only some of the results have masks, boxes or keypoints: their figures would be left out for
    the sake of a few results. `with_keypoints` are the ids of the categories that name keypoints."""
    for kind, key in (("a segmentation", "segmentation"), ("a bbox", "bbox"), ("keypoints", "keypoints")):
        able = [i for i, e in enumerate(entries) if key != "keypoints" or e["category_id"] in with_keypoints]
        lacking = [i for i in able if entries[i][key] is None]
        if 0 < len(lacking) < len(able):
            raise DataError(
                f"entry {lacking[0]}: expected {kind}, as {len(able) - len(lacking)} other results have, found none in "
                f"{len(lacking)} of {len(able)}; correct these results, or remove {key} from all"
            )


def _check_keys(entry: Mapping[str, Any], categories: Mapping[Any, Category], path: Path) -> None:
    lacking = [key for key in ("category_id", "score") if key not in entry]
    if lacking:
        raise DataError(f"expected the keys {' and '.join(lacking)} too, found {', '.join(map(str, entry))}")
    category_id = entry["category_id"]
    if not is_id(category_id) or category_id not in categories:
        known = ", ".join(f"{category.id} {category.name}" for category in categories.values())
        raise DataError(
            f"category_id {short(category_id)} is not the id of a category in {path}, which has "
            f"{known if len(known) <= 100 else known[:97] + '...'}"
        )
    if not is_number(entry["score"]):
        raise DataError(f"expected score as a finite number, found {short(entry['score'])}")


def _keypoints(entry: Mapping[str, Any], category: Category, path: Path) -> list[float] | None:
    """x, y and score of all keypoints in one list, x and y as pixel indices; None if there are none."""
    if not entry.get("keypoints"):
        return None
    if not category.keypoints:
        raise DataError(
            f"expected no keypoints, because the category {category.name} of {path} names none; compare with "
            "annotations that have keypoints, or remove them from the results"
        )
    points: list[float] = read_keypoints(entry["keypoints"], len(category.keypoints)).ravel().tolist()
    return points


def _mask(segmentation: Any, size: list[int], area: int) -> RLE | None:
    if segmentation is None:
        return None
    if not isinstance(segmentation, Mapping):
        raise DataError(
            f"expected segmentation as run lengths, an object with size and counts, found {short(segmentation)}"
        )
    mask = RLE.from_coco(segmentation, sound=area >= 0)
    if list(mask.size) != size:
        raise DataError(f"expected a mask of the image's height, width {tuple(size)}, found {mask.size}")
    return mask


def _box(box: Any, mask: RLE | None, *, needed: bool) -> list[float] | None:
    """x, y, width, height of the given box, else of the tight box of the mask; None if there is neither.

    Raises:
        DataError: the box is malformed, or there is no box and no mask although a box is `needed`.
    """
    if box is None or box == []:
        if mask is None:
            if needed:
                raise DataError("expected bbox, segmentation or keypoints, found none of them")
            return None
        x1, y1, x2, y2 = mask.box.tolist()
        return [x1, y1, x2 - x1, y2 - y1]
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        raise DataError(f"expected bbox as x, y, width, height in pixels, found {short(box)}")
    return list(map(float, box))
