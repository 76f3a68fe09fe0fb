"""Checks that two detectors find the same objects, because speeds are comparable only for equal results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from maskrcnn.structures.instances import Instances

BOX_PX = 0.01  # pixels of the original image, each edge
SCORE = 1e-4
MASK_IOU = 0.99  # of all masks together; single pixels may be at the threshold of the probability


@dataclass(frozen=True)
class Agreement:
    """How well the detections of both sides agree on the same images.

    Attributes:
        images, ours, theirs: the number of images, of our detections and of torchvision's.
        matched: pairs of one label within `BOX_PX` and `SCORE`, each detection in at most one pair.
        box_px, score: the largest differences within a pair.
        mask_iou: IoU of all masks of the pairs together.
    """

    images: int
    ours: int
    theirs: int
    matched: int
    box_px: float
    score: float
    mask_iou: float

    @property
    def agree(self) -> bool:
        return self.matched == self.ours == self.theirs > 0 and self.mask_iou >= MASK_IOU

    def to_dict(self) -> dict[str, Any]:
        return {"agree": self.agree, **asdict(self)}

    def line(self) -> str:
        verdict = "detections agree" if self.agree else "DETECTIONS DIFFER"
        return (
            f"{verdict}: {self.matched} of torchvision's {self.theirs} on {self.images} images are among our "
            f"{self.ours} within {BOX_PX} px and a score of {SCORE:g} (largest differences {self.box_px:.4f} px and "
            f"{self.score:.1e}), IoU of the masks {self.mask_iou:.5f}"
        )


def compare(pairs: Iterable[tuple[Instances, Mapping[str, Tensor]]]) -> Agreement:
    """Matches the detections of both sides.

    Args:
        pairs: for each image, our instances and torchvision's dictionary. In the latter, label 0 is the background, and
            masks are (N, 1, H, W) probabilities.
    """
    images, ours, theirs, matched, box_px, score, both, either = 0, 0, 0, 0, 0.0, 0.0, 0, 0
    for found, expected in pairs:
        boxes, scores = expected["boxes"].cpu().numpy(), expected["scores"].cpu().numpy()
        labels = expected["labels"].cpu().numpy() - 1
        images, ours, theirs = images + 1, ours + len(found), theirs + len(boxes)
        free = np.ones(len(found), dtype=bool)
        for i in range(len(boxes)):  # not by rank, because equal scores may be in another order
            edges = np.abs(found.boxes - boxes[i]).max(axis=1, initial=0)
            score_gaps = np.abs(found.scores - scores[i])
            close = np.flatnonzero(free & (found.labels == labels[i]) & (edges <= BOX_PX) & (score_gaps <= SCORE))
            if len(close) == 0:
                continue
            partner = close[edges[close].argmin()]
            free[partner] = False
            matched, box_px, score = matched + 1, max(box_px, edges[partner]), max(score, score_gaps[partner])
            assert found.masks is not None
            a, b = found.masks[int(partner)].dense(), expected["masks"][i, 0].cpu().numpy() > 0.5
            both, either = both + int((a & b).sum()), either + int((a | b).sum())
    return Agreement(images, ours, theirs, matched, float(box_px), float(score), both / either if either else 1.0)
