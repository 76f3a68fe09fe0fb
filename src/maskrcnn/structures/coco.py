"""Annotations as entries of a COCO JSON, for the writer of COCO JSON and for the evaluation."""

from __future__ import annotations

import math
from typing import Any

from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import PIXEL_CENTRE


def coco_annotations(dataset: Dataset, index: int) -> list[dict[str, Any]]:
    """The annotations of image number `index`: id, image_id, category_id, bbox, area, iscrowd and segmentation.

    Boxes, polygons and run lengths keep the values of the file. `segmentation` is an empty list for an object without
    a mask. Entries of a category with keypoints also have `keypoints` and `num_keypoints`, and predicted objects have
    `score`. The COCO API needs an area: if the file gives none, it is the area of the mask, or of the box if there is
    no mask.
    """
    annotations, image_id = dataset.annotations(index), dataset.records[index].image_id
    ids, labels = annotations.ids.tolist(), annotations.labels.tolist()
    crowd, areas = annotations.crowd.tolist(), annotations.areas.tolist()
    entries = []
    for i, box in enumerate(annotations.annotated_boxes.tolist()):
        category = dataset.categories[labels[i]]
        mask: Any = [part.ravel().tolist() for part in annotations.polygons(i)]
        if not mask and annotations.has_mask[i]:
            mask = annotations.rle(i).to_coco()
        if math.isnan(areas[i]):
            areas[i] = annotations.rle(i).area if mask else box[2] * box[3]
        entry = {
            "id": ids[i],
            "image_id": image_id,
            "category_id": category.id,
            "bbox": box,
            "area": areas[i],
            "iscrowd": int(crowd[i]),
            "segmentation": mask,
        }
        if annotations.scores is not None:
            entry["score"] = float(annotations.scores[i])
        if annotations.keypoints is not None and category.keypoints:
            points = annotations.keypoints[i, : len(category.keypoints)].copy()
            labelled = points[:, 2] > 0
            points[labelled, :2] -= PIXEL_CENTRE
            entry |= {"keypoints": points.ravel().tolist(), "num_keypoints": int(labelled.sum())}
        entries.append(entry)
    return entries
