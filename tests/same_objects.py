"""Whether an exported network finds PyTorch's objects."""

from __future__ import annotations

import numpy as np

from maskrcnn.export.check import FoundObjects, pairs_of
from maskrcnn.structures.instances import Instances


def assert_same_objects(found: Instances, expected: Instances) -> None:
    """All objects of PyTorch: edges within 0.01 px, scores within 2e-4, masks of an IoU of 0.999.

    Of two overlapping boxes with equal scores either may be kept, which random weights and plain images have.
    """
    sides = (FoundObjects(each.boxes, each.scores, each.labels) for each in (found, expected))
    pairs = pairs_of(*sides, 0.0)
    assert len(found) == len(expected)
    assert len(pairs) >= 0.95 * len(expected)
    if found.masks is not None and expected.masks is not None:
        masks = [(found.masks[a].dense(), expected.masks[b].dense()) for a, b in pairs]
        both, either = (sum(int(op(a, b).sum()) for a, b in masks) for op in (np.logical_and, np.logical_or))
        assert both >= 0.999 * either
    assert (found.masks is None) == (expected.masks is None)
    if found.keypoints is not None and expected.keypoints is not None and pairs:
        gaps = np.array([np.abs(found.keypoints[a] - expected.keypoints[b]) for a, b in pairs])
        assert gaps[..., 2].max() <= 2e-4 * (1 + np.abs(expected.keypoints[..., 2]).max())
        assert np.percentile(gaps[..., :2], 95) <= 0.01, "of two equal peaks either may be the highest"
    assert (found.keypoints is None) == (expected.keypoints is None)
