"""Whether there is anything to learn in a data set. Commands ask before any work is done."""

from __future__ import annotations

from dataclasses import replace

from maskrcnn.errors import DataError
from maskrcnn.structures.annotations import NO_MASK
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
        DataError: no annotation of the images is an object, or none of the objects has a mask that is asked for.
    """
    rows = dataset.records.rows
    objects = ~as_numpy(dataset.columns["crowd"])[rows]
    masked = as_numpy(dataset.columns["kinds"])[rows] != NO_MASK
    if (objects & masked if masks else objects).any():
        return
    if not len(rows):
        why = f"no annotation of its {len(dataset)} images can be used"
        if dataset.problems:
            why += f"; problems: {len(dataset.problems)}, first: {dataset.problems[0]}"
    elif not objects.any():
        why = f"each of its {len(rows)} annotations is a crowd region (iscrowd 1); set iscrowd to 0 for single objects"
    else:
        why = (
            f"none of its {objects.sum()} objects has a mask; add segmentations, or train boxes only, for example with "
            "--preset faster_rcnn_R_50_FPN"
        )
    raise DataError(f"{dataset.path}: expected objects to learn from, found none: {why}")
