"""Annotations as entries of a COCO JSON, for the writer of COCO JSON and for the evaluation."""

from __future__ import annotations

from typing import Any

import hotcoco.mask
import numpy as np

from maskrcnn.config import Category
from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.structures.annotations import NO_MASK, POLYGONS, unpack_polygons
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.records import as_numpy


def coco_annotations(dataset: Dataset) -> list[dict[str, Any]]:
    """The annotations, image by image: id, image_id, category_id, bbox, area, iscrowd and segmentation.

    Boxes, polygons and run lengths keep the values of the file. `segmentation` is an empty list for an object without
    a mask. Entries of a category with keypoints also have `keypoints` and `num_keypoints`, and predicted objects have
    `score`. The COCO API needs an area: if the file gives none, it is the area of the mask, or of the box if there is
    no mask.
    """
    rows = dataset.records.rows
    images = np.repeat(np.arange(len(dataset)), dataset.records.counts)
    sizes = dataset.records.sizes_hw[images].tolist()
    columns = {name: as_numpy(column)[rows] for name, column in dataset.columns.items()}
    kinds, boxes = columns["kinds"].tolist(), columns["annotated_boxes"]
    contents = dataset.segmentations.chosen(rows)
    masks = [_mask(kind, content, size) for kind, content, size in zip(kinds, contents, sizes, strict=True)]
    lacking = np.isnan(columns["areas"])
    columns["areas"] = np.where(lacking, boxes[:, 2] * boxes[:, 3], columns["areas"])
    unknown = np.flatnonzero(lacking & (columns["kinds"] != NO_MASK))
    drawn = [{"size": sizes[i], "counts": _counts(masks[i], sizes[i])} for i in unknown.tolist()]
    columns["areas"][unknown] = hotcoco.mask.area(drawn) if drawn else 0
    categories = [category.id for category in dataset.categories]
    ids = dataset.records.ids
    entries: list[dict[str, Any]] = [
        {
            "id": own,
            "image_id": ids[image],
            "category_id": categories[label],
            "bbox": box,
            "area": area,
            "iscrowd": crowd,
            "segmentation": mask,
        }
        for own, image, label, box, area, crowd, mask in zip(
            columns["ids"].tolist(),
            images.tolist(),
            columns["labels"].tolist(),
            boxes.tolist(),
            columns["areas"].tolist(),
            columns["crowd"].astype(np.int64).tolist(),
            masks,
            strict=True,
        )
    ]
    if "scores" in columns:
        for entry, score in zip(entries, columns["scores"].tolist(), strict=True):
            entry["score"] = score
    if "keypoints" in columns:
        for entry, label, points in zip(entries, columns["labels"].tolist(), columns["keypoints"], strict=True):
            entry |= _keypoints(points, dataset.categories[label])
    return entries


def _mask(kind: int, content: np.ndarray, size: list[int]) -> Any:
    """The `segmentation` of an annotation."""
    if kind == NO_MASK:
        return []
    if kind != POLYGONS:
        return {"size": size, "counts": content.tobytes().decode("ascii")}
    values = content.view(np.float64).tolist()
    if values[0] == 1:  # as most masks
        return [values[2:]]
    return [points.ravel().tolist() for points in unpack_polygons(content)]


def _counts(mask: Any, size: list[int]) -> bytes:
    """The compressed run lengths of a `segmentation`."""
    if not isinstance(mask, list):
        return str(mask["counts"]).encode("ascii")
    return polygons_to_rle([np.array(part).reshape(-1, 2) for part in mask], (size[0], size[1]))


def _keypoints(points: np.ndarray, category: Category) -> dict[str, Any]:
    """`keypoints` and `num_keypoints` of (K, 3) keypoints, if the category names keypoints."""
    if not category.keypoints:
        return {}
    own = points[: len(category.keypoints)].copy()
    labelled = own[:, 2] > 0
    own[labelled, :2] -= PIXEL_CENTRE
    return {"keypoints": own.ravel().tolist(), "num_keypoints": int(labelled.sum())}
