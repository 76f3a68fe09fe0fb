"""Whether there is anything to learn in a data set. Commands ask before any work is done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maskrcnn.data.doubts import first_of
from maskrcnn.errors import DataError
from maskrcnn.structures.annotations import NO_MASK, Annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy


def with_files(dataset: Dataset, *, strict: bool = False) -> Dataset:
    """The data set without the images whose files were not found. One of its problems counts them.

    Raises:
        DataError: no file was found, or one was not found and `strict` is set.
    """
    faults = dataset.records.faults
    if not faults:
        return dataset
    first = dataset.records[next(iter(faults))]
    problem = (
        f"{dataset.path}: the files of {len(faults)} of {len(dataset)} images are missing, first: {first.path}: "
        f"{first.fault}"
    )
    if strict or len(faults) == len(dataset):
        raise DataError(problem)
    kept = dataset.subset([number for number in range(len(dataset)) if number not in faults])
    return replace(kept, problems=(*dataset.problems, problem))


def require_examples(dataset: Dataset, *, masks: bool) -> None:
    """Checks that there is an object to learn from.

    Args:
        masks: whether the model learns masks.

    Raises:
        DataError: no annotation of the images is an object, none of the objects has a mask that is asked for, or none
            is larger than a pixel of its image.
    """
    rows = dataset.records.rows
    objects = ~as_numpy(dataset.columns["crowd"])[rows]
    masked = as_numpy(dataset.columns["kinds"])[rows] != NO_MASK
    wanted = objects & masked if masks else objects
    if any(_is_visible(dataset.annotations(index), masks) for index in range(len(dataset))):
        return
    if wanted.any():
        why = (
            f"none of its {wanted.sum()} objects is larger than a pixel of its image; coordinates are pixels of this "
            "image from its top left corner, not fractions of it"
        )
    elif not len(rows):
        why = f"its {len(dataset)} images have no annotations"
        if dataset.problems:
            number = f"problems: {len(dataset.problems)}"
            first = first_of(dataset.problems, dataset.path)
            why = f"no annotation of its {len(dataset)} images can be used; {number}{first}"
    elif not objects.any():
        why = f"each of its {len(rows)} annotations is a crowd region (iscrowd 1); set iscrowd to 0 for single objects"
    else:
        why = (
            f"none of its {objects.sum()} objects has a mask; add segmentations, or train boxes only, for example with "
            "--preset faster_rcnn_R_50_FPN"
        )
    raise DataError(f"{dataset.path}: expected objects to learn from, found none: {why}")


def _is_visible(annotations: Annotations, masks: bool) -> bool:
    """Whether an object of an image is larger than a pixel and, with `masks`, has a mask that covers a pixel."""
    wanted = ~annotations.crowd & (annotations.has_mask | (not masks))
    larger = (annotations.boxes[:, 2:] - annotations.boxes[:, :2] > 1).any(axis=1)
    return any(not masks or annotations.rle(i).area > 0 for i in np.flatnonzero(wanted & larger).tolist())
