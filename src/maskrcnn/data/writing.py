"""What the writers of formats share: the objects that a format can hold, and the count of what it cannot."""

from __future__ import annotations

from collections import Counter

import numpy as np

from maskrcnn.structures.annotations import Annotations

Lost = Counter[str]  # how often; the keys follow the number in a sentence, such as "crowd regions are left out"


def masked_objects(annotations: Annotations, lost: Lost) -> list[int]:
    """The numbers of the annotations that are objects with a mask.

    The others are counted in `lost`, for formats that hold nothing but masks of objects. So are keypoints.
    """
    crowd, masked = annotations.crowd, annotations.has_mask
    lost["crowd regions are left out"] += int(crowd.sum())
    lost["objects without a mask are left out"] += int((~crowd & ~masked).sum())
    kept = np.flatnonzero(~crowd & masked)
    if annotations.keypoints is not None:
        labelled = (annotations.keypoints[kept, :, 2] > 0).any(axis=1)
        lost["objects lose their keypoints"] += int(labelled.sum())
    numbers: list[int] = kept.tolist()
    return numbers
