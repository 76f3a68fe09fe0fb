"""COCO results, checked entry by entry before anything is computed.

A broken result is refused: whoever wrote it should know before trusting the figures.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.files.json_file import read_json
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import read_keypoints
from maskrcnn.structures.masks import RLE, known_areas
from maskrcnn.structures.values import is_id, is_number, short

Entry = dict[str, Any]  # an annotation or a result in COCO's notation


def read_results(source: Path | str | Sequence[Mapping[str, Any]], dataset: Dataset) -> list[Entry]:
    """Reads COCO results from a file, or takes its content.

    Returns:
        for each result image_id, category_id, score, bbox (that of the mask where there is none), segmentation and
        keypoints. What a result does not have is None.

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
    sizes = dict(zip(dataset.records.numbers(), dataset.records.sizes_hw.tolist(), strict=True))
    categories = {category.id: category for category in dataset.categories}
    areas = known_areas([entry.get("segmentation") if isinstance(entry, Mapping) else None for entry in content])
    entries = []
    for i, (entry, area) in enumerate(zip(content, areas.tolist(), strict=True)):
        try:
            _check_keys(entry, sizes, categories, dataset.path)
            keypoints = _keypoints(entry, categories[entry["category_id"]], dataset.path)
            mask = _mask(entry.get("segmentation"), sizes[entry["image_id"]], area)
            entries.append(
                {
                    "image_id": entry["image_id"],
                    "category_id": entry["category_id"],
                    "score": float(entry["score"]),
                    "bbox": _box(entry.get("bbox"), mask, needed=keypoints is None),
                    "segmentation": None if mask is None else mask.to_coco(),
                    "keypoints": keypoints,
                }
            )
        except DataError as error:
            raise DataError(f"{name}: entry {i}: {error}") from None
    return entries


def _check_keys(entry: Any, images: Collection[Any], categories: Mapping[Any, Category], path: Path) -> None:
    if not isinstance(entry, Mapping):
        raise DataError(f"expected an object, found {short(entry)}")
    lacking = [key for key in ("image_id", "category_id", "score") if key not in entry]
    if lacking:
        raise DataError(f"has no {' and no '.join(lacking)}, found keys {', '.join(map(str, entry))}")
    image_id, category_id = entry["image_id"], entry["category_id"]
    if not is_id(image_id) or image_id not in images:
        raise DataError(f"image_id {short(image_id)} is not the id of an image in {path}")
    if not is_id(category_id) or category_id not in categories:
        known = ", ".join(f"{category.id} {category.name}" for category in categories.values())
        raise DataError(
            f"category_id {short(category_id)} is not the id of a category in {path}, which has "
            f"{known if len(known) <= 100 else known[:97] + '...'}"
        )
    if not is_number(entry["score"]):
        raise DataError(f"expected score as a finite number, found {short(entry['score'])}")


def _keypoints(entry: Mapping[str, Any], category: Category, path: Path) -> list[float] | None:
    """x, y and score of each keypoint in a row, x and y as indices of pixels; None without any."""
    if not entry.get("keypoints"):
        return None
    if not category.keypoints:
        raise DataError(
            f"has keypoints, but the category {category.name} of {path} names none; compare with annotations "
            "that have keypoints, or leave them out of the results"
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
        raise DataError(f"the mask is of height, width {mask.size}, its image of {tuple(size)}; correct either")
    return mask


def _box(box: Any, mask: RLE | None, *, needed: bool) -> list[float] | None:
    """x, y, width, height of the box, else of the tight box of the mask; None for keypoints alone."""
    if box is None or box == []:
        if mask is None and needed:
            raise DataError("expected bbox or segmentation, found neither")
        if mask is None:
            return None
        x1, y1, x2, y2 = mask.box.tolist()
        return [x1, y1, x2 - x1, y2 - y1]
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_number, box)) or min(box[2:]) < 0:
        raise DataError(f"expected bbox as x, y, width, height in pixels, found {short(box)}")
    return list(map(float, box))
