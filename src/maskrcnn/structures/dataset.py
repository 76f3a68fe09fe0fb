"""A data set as flat arrays, whatever format it was read from. `data/builder.py` builds it and checks every part of it.

The ids of the annotation file stand here; everywhere else labels are 0-based and images are numbered from 0.

Legend: N annotations of one image, T annotations of the data set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from maskrcnn.config import Category
from maskrcnn.errors import ImageError
from maskrcnn.files.images import read_image
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import Masks
from maskrcnn.structures.records import PackedBytes, Records, as_numpy


@dataclass(frozen=True)
class Dataset:
    """Images and their annotations.

    Attributes:
        path: the annotation file or folder, for messages.
        records: the images.
        categories: sorted by id; a label is a position among them.
        problems: what was left out, one sentence each.
        columns: the fields of `Annotations` that are arrays, by their names, with T rows in place of N; the annotations
            of one image lie side by side.
        segmentations: T of them, as in `Annotations`.
    """

    path: Path
    records: Records
    categories: tuple[Category, ...]
    problems: tuple[str, ...]
    columns: Mapping[str, Tensor | np.ndarray]
    segmentations: PackedBytes

    def __len__(self) -> int:
        return len(self.records)

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The same data set with only some of its images."""
        return replace(self, records=Records(self.records[i] for i in indices))

    def annotations(self, index: int) -> Annotations:
        """The annotations of image number `index`."""
        record = self.records[index]
        first, end = record.first, record.first + record.count
        columns = {name: as_numpy(column[first:end]) for name, column in self.columns.items()}
        return Annotations(record.size, segmentations=self.segmentations.between(first, end), **columns)

    def instances(self, index: int) -> Instances:
        """The objects of an image without its crowd regions, with score 1: for drawing."""
        annotations = self.annotations(index)
        objects = np.flatnonzero(~annotations.crowd)
        labels, keypoints = annotations.labels[objects], annotations.keypoints
        return Instances(
            image_hw=annotations.image_hw,
            boxes=annotations.boxes[objects],
            scores=np.ones(len(objects), dtype=np.float32),
            labels=labels,
            masks=Masks([annotations.rle(i) for i in objects.tolist()], annotations.image_hw),
            names=tuple(self.categories[label].name for label in labels),
            keypoints=None if keypoints is None else keypoints[objects].astype(np.float32),
            categories=self.categories,
        )

    def read(self, index: int) -> np.ndarray:
        """The (H, W, 3) uint8 image number `index`.

        Raises:
            ImageError: the file cannot be read, or its size is not the record's.
        """
        record = self.records[index]
        image = read_image(record.path)
        if image.shape[:2] != record.size:
            raise ImageError(
                f"{record.path}: expected {record.width} x {record.height} pixels as {self.path.name} says of image "
                f"{record.image_id}, found {image.shape[1]} x {image.shape[0]}; correct the annotations or the image"
            )
        return image
