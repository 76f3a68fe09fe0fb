"""A data set as flat arrays, independent of its format on disk. `data/builder.py` builds and checks it.

It keeps the ids of the annotation file. Labels are 0-based positions among the categories, and images are numbered
from 0.

Legend: N annotations of one image, T annotations of the data set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import Category
from maskrcnn.errors import ImageError, counted
from maskrcnn.files.images import read_image, read_picture
from maskrcnn.files.media.windows import Pixels, open_pixels
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import Masks
from maskrcnn.structures.records import PackedBytes, Record, Records, as_numpy


@dataclass(frozen=True)
class Dataset:
    """Images and their annotations.

    Attributes:
        path: the annotation file or folder, for messages.
        records: the images.
        categories: sorted by id; a label is a position among them.
        problems: one sentence for each part of the file that was left out.
        columns: the array fields of `Annotations` by name, with T rows instead of N. The annotations of one image are
            consecutive rows.
        segmentations: T byte strings, as in `Annotations`.
        notes: one sentence for each kind of fault in annotations that were kept without their bad part, and for each
            kind of thing that is probably not meant.
        choices: one sentence for each choice of the reader that a person should know.
        format: name of the format on disk; empty for a data set that was not read from files.
    """

    path: Path
    records: Records
    categories: tuple[Category, ...]
    problems: tuple[str, ...]
    columns: Mapping[str, Tensor | np.ndarray]
    segmentations: PackedBytes
    notes: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    format: str = ""

    def __len__(self) -> int:
        return len(self.records)

    def summary(self) -> str:
        """One line: format, images, objects and classes."""
        return f"{self.format}: {self.contents()}"

    def contents(self) -> str:
        """One line: images, objects and classes."""
        crowd = as_numpy(self.columns["crowd"])[self.records.rows]
        crowds = f" and {counted(crowd.sum(), 'crowd region')}" if crowd.any() else ""
        names = [category.name for category in self.categories]
        listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        objects = counted((~crowd).sum(), "object")
        return f"{counted(len(self), 'image')}, {objects}{crowds}, {counted(len(names), 'class')} ({listed})"

    def subset(self, indices: Sequence[int]) -> Dataset:
        """The data set with only the images `indices`."""
        return replace(self, records=Records(self.records[i] for i in indices))

    def with_annotations(self, kept: np.ndarray) -> Dataset:
        """The data set with all images, and only some annotations.

        Args:
            kept: (T,) bool.
        """
        rows, counts = self.records.rows, self.records.counts
        images = np.repeat(np.arange(len(self)), counts)[kept[rows]]
        rows, counts = rows[kept[rows]], np.bincount(images, minlength=len(self))
        records = Records(
            replace(record, first=first, count=count)
            for record, first, count in zip(
                self.records, (counts.cumsum() - counts).tolist(), counts.tolist(), strict=True
            )
        )
        columns = {name: column[rows] for name, column in self.columns.items()}
        segmentations = PackedBytes([self.segmentations[row].tobytes() for row in rows.tolist()])
        return replace(self, records=records, columns=columns, segmentations=segmentations)

    def with_categories(self, categories: tuple[Category, ...], places: Sequence[int]) -> Dataset:
        """The data set with other categories.

        Args:
            places: for each of its own categories, the position of the one that replaces it.
        """
        labels = torch.tensor(places, dtype=torch.int64)[self.columns["labels"]]
        return replace(self, categories=categories, columns={**self.columns, "labels": labels})

    def annotations(self, index: int) -> Annotations:
        """The annotations of image number `index`."""
        record = self.records[index]
        first, end = record.first, record.first + record.count
        columns = {name: as_numpy(column[first:end]) for name, column in self.columns.items()}
        return Annotations(record.size, segmentations=self.segmentations.between(first, end), **columns)

    def instances(self, index: int, numbers: Sequence[int] | None = None) -> Instances:
        """The objects of image number `index` with score 1, for drawing.

        Args:
            numbers: those of the annotations of the image to take; default: all but crowd regions.
        """
        annotations = self.annotations(index)
        objects = np.flatnonzero(~annotations.crowd) if numbers is None else np.array(numbers, dtype=np.int64)
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

    def read(
        self,
        index: int,
        remark: Callable[[str], None] = lambda text: None,
        channels: Sequence[str] | None = None,
    ) -> np.ndarray:
        """The pixels of image number `index`, (H, W, 3) uint8 RGB, or (H, W, C) of any dtype for a model of channels.

        Args:
            remark: as for `read_image`.
            channels: as for `read_image`. None gives a picture for people of any number of channels.

        Raises:
            ImageError: the file cannot be read, or its size differs from the record.
        """
        record = self._readable(index)
        image = read_picture(record.path, remark) if channels is None else read_image(record.path, remark, channels)
        self.require_size(record, image.shape)
        return image

    def open(self, index: int, remark: Callable[[str], None], channels: Sequence[str]) -> Pixels:
        """The pixels of image number `index` to be read part by part; otherwise as `read`."""
        record = self._readable(index)
        image = open_pixels(record.path, remark, channels)
        self.require_size(record, image.shape)
        return image

    def _readable(self, index: int) -> Record:
        record = self.records[index]
        if record.fault:
            raise ImageError(f"{record.path}: expected an image, found {record.fault}")
        return record

    def require_size(self, record: Record, shape: tuple[int, ...]) -> None:
        """Raises ImageError unless an image whose shape begins with height and width has the size of its record."""
        if shape[:2] != record.size:
            swapped = shape[:2] == record.size[::-1]
            cause = " (turned: the tool that wrote it has probably ignored the EXIF orientation)" if swapped else ""
            raise ImageError(
                f"{record.path}: expected {record.width} x {record.height} pixels, the size of image {record.image_id} "
                f"in {self.path.name}, found {shape[1]} x {shape[0]}{cause}; correct one of the two"
            )
