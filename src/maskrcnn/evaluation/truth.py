"""Which annotations of a data set the COCO figures count as objects to find."""

from __future__ import annotations

import numpy as np

from maskrcnn.errors import DataError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy

_LARGEST_AREA = 1e10  # square pixels: the COCO API's largest range ends at (10^5)^2


def outside_of_all_ranges(areas: np.ndarray) -> np.ndarray:
    """Whether no area range of the COCO API holds an object of this area, so that no figure counts it. NaN is a missing
    area, which the area of the mask or the box replaces."""
    return (areas < 0) | (areas > _LARGEST_AREA)


def require_objects(dataset: Dataset) -> None:
    """Checks that there is something to judge by, before any work is done.

    Raises:
        DataError: the images of the data set hold no object that COCO figures count.
    """
    rows = dataset.records.rows
    crowd = as_numpy(dataset.columns["crowd"])[rows]
    ignored = outside_of_all_ranges(as_numpy(dataset.columns["areas"])[rows])
    if (~crowd & ~ignored).any():
        return
    if not len(rows):
        why = f"its {len(dataset)} images have no annotations"
        if dataset.problems:
            first = dataset.problems[0].removeprefix(f"{dataset.path}: ")
            why = (
                f"no annotation of its {len(dataset)} images can be used; {len(dataset.problems)} entries were left "
                f"out, first: {first}"
            )
    elif crowd.all():
        why = f"each of its {len(rows)} annotations is a crowd region"
    else:
        why = (
            f"each of its {(~crowd).sum()} objects has an area below 0 or above 10^10 square pixels, which the COCO "
            "API does not count; correct the areas, or remove them, and the areas of the masks count"
        )
    raise DataError(f"{dataset.path}: expected objects to judge by, found none: {why}")
