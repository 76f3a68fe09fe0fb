"""The annotations of a data set in COCO's notation, which the writer of COCO JSON and the evaluation share."""

from __future__ import annotations

import math
from typing import Any

from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.keypoints import PIXEL_CENTRE


def coco_annotations(dataset: Dataset, index: int) -> list[dict[str, Any]]:
    """The annotations of an image: id, image_id, category_id, bbox, area, iscrowd, segmentation and keypoints.

    Boxes, polygons and run lengths are as they were read. `segmentation` is empty for an object without a mask, and
    keypoints are those of categories that name some. An area that was not given is that of the mask, or of the box
    without a mask, because the COCO API asks for one.
    """
    found, image_id = dataset.annotations(index), dataset.records[index].image_id
    numbers, labels, crowd, areas = (a.tolist() for a in (found.ids, found.labels, found.crowd, found.areas))
    entries = []
    for i, box in enumerate(found.annotated_boxes.tolist()):
        category = dataset.categories[labels[i]]
        mask: Any = [part.ravel().tolist() for part in found.polygons(i)]
        if not mask and found.has_mask[i]:
            mask = found.rle(i).to_coco()
        if math.isnan(areas[i]):
            areas[i] = found.rle(i).area if mask else box[2] * box[3]
        entry = {
            "id": numbers[i],
            "image_id": image_id,
            "category_id": category.id,
            "bbox": box,
            "area": areas[i],
            "iscrowd": int(crowd[i]),
            "segmentation": mask,
        }
        if found.keypoints is not None and category.keypoints:
            points = found.keypoints[i, : len(category.keypoints)].copy()
            labelled = points[:, 2] > 0
            points[labelled, :2] -= PIXEL_CENTRE
            entry |= {"keypoints": points.ravel().tolist(), "num_keypoints": int(labelled.sum())}
        entries.append(entry)
    return entries
