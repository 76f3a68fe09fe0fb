"""What identifies a data set, so that a resumed run notices another one."""

from __future__ import annotations

import hashlib

import numpy as np

from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy

Fingerprint = dict[str, int | str]
_CONTENT = ("annotated_boxes", "labels", "crowd", "kinds", "keypoints")  # columns that training learns from


def fingerprint(dataset: Dataset) -> Fingerprint:
    """The numbers of images and annotations, and hashes of the images' ids and sizes and of the annotations.

    The files of the images are not read, and their folder may change.
    """
    images, annotations = hashlib.blake2b(digest_size=16), hashlib.blake2b(digest_size=16)
    images.update(repr(list(dataset.records.numbers())).encode("utf-8", "surrogatepass"))
    images.update(np.ascontiguousarray(dataset.records.sizes_hw).tobytes())
    rows = dataset.records.rows
    for name in _CONTENT:
        column = dataset.columns.get(name)
        if column is not None:
            annotations.update(np.ascontiguousarray(as_numpy(column)[rows]).tobytes())
    for record in dataset.records:
        for segmentation in dataset.segmentations.between(record.first, record.first + record.count):
            annotations.update(segmentation.tobytes())
    return {
        "images": len(dataset),
        "annotations": len(rows),
        "image_ids": images.hexdigest(),
        "content": annotations.hexdigest(),
    }
