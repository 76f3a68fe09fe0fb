"""Predicted objects as a data set, so that every format that can be written can hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from maskrcnn.config import Category
from maskrcnn.data.annotation import RawAnnotation
from maskrcnn.data.builder import DatasetBuilder
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.instances import Instances

_VISIBLE = 2.0  # of a keypoint; a model says nothing of hidden ones


class PredictedDataset:
    """Collects the objects of images. Memory grows with the objects, as run lengths, and not with the images.

    Args:
        categories: all classes of the model; the labels of objects are positions among them.
    """

    def __init__(self, categories: Sequence[Category]) -> None:
        self.categories = tuple(categories)
        self._builder = DatasetBuilder(Path("predictions"))
        for category in self.categories:
            self._builder.add_category(
                category.id, category.name, category.keypoints, category.skeleton, category.sigmas
            )

    def add(self, image_id: int | str, path: Path, found: Instances) -> None:
        """Adds an image with its objects. No two images have one id."""
        self._builder.add_image(image_id, path, *found.image_hw, {})
        for i, label in enumerate(found.labels.tolist()):
            x1, y1, x2, y2 = found.boxes[i].tolist()
            raw = RawAnnotation(
                image_id, self.categories[label].id, box=[x1, y1, x2 - x1, y2 - y1], score=float(found.scores[i])
            )
            if found.masks is not None:
                mask = found.masks[i]
                raw = raw._replace(rle=mask.to_coco(), pixels=mask.area)
            if found.keypoints is not None and self.categories[label].keypoints:
                points = found.keypoints[i].astype(np.float64)
                points[:, 2] = _VISIBLE
                raw = raw._replace(keypoints=points.ravel().tolist())
            self._builder.add_annotation(raw)

    def dataset(self) -> Dataset:
        """All images that were added.

        Raises:
            DataError: there is none.
        """
        return self._builder.build()
