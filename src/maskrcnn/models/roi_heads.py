"""Second stage: RoIs are sampled and read by the box, mask and keypoint branches in parallel (paper section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor, nn

from maskrcnn.config import Conventions, DetectConfig
from maskrcnn.models.branches.box import BoxBranch
from maskrcnn.models.pooler import RoIPooler, RoIReader
from maskrcnn.models.rois import RoIs, sample_rois
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class Branch(Protocol):
    """What adds to the boxes that the box branch finds: masks, keypoints, or whatever is written next."""

    def losses(self, read: RoIReader, stages: Sequence[RoIs], targets: Targets) -> dict[str, Tensor]:
        """The losses by name, from the RoIs that each stage of the box branch was trained on."""

    def detect(self, read: RoIReader, found: Detections) -> Detections:
        """The same detections with what this branch computes for each of them."""

    def run_heads(self, features_of: Callable[[int], Tensor]) -> None:
        """Runs the heads once as `detect` does, for `models.cost` to count their arithmetic.

        Args:
            features_of: gives RoI features (R, C', O', O') by O.
        """


class RoIHeads(nn.Module):
    """The box branch on proposals; the other branches on positive RoIs (training) or on detections (prediction).

    Args:
        pooler: RoI features, for all branches.
        box: finds the detections.
        mask, keypoint: add to the detections; None leaves them out.
        conventions: where boxes end, and how RoIs are matched.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        box: BoxBranch,
        mask: Branch | None,
        keypoint: Branch | None,
        conventions: Conventions,
    ) -> None:
        super().__init__()
        self.conventions = conventions
        self.pooler = pooler
        self.box = box
        self.mask = mask
        self.keypoint = keypoint

    def losses(
        self, features: Sequence[Tensor], proposals: Proposals, targets: Targets, sizes_hw: Tensor
    ) -> dict[str, Tensor]:
        """The losses of all branches by name.

        Args:
            sizes_hw: (B, 2) true sizes of the images.
        """
        trim = self.conventions.boxes.trim
        targets = replace(targets, boxes=box_ops.trim(targets.boxes, trim))
        windows = box_ops.trim(box_ops.whole_images(sizes_hw).float(), trim)
        read = self.pooler.on(features)
        rois = sample_rois(proposals, targets, self.box.config, self.conventions.matching, self.box.num_classes)
        losses, stages = self.box.losses(read, rois, targets, windows)
        for branch in (self.mask, self.keypoint):
            if branch is not None:
                losses |= branch.losses(read, stages, targets)
        return losses

    def detect(
        self, features: Sequence[Tensor], proposals: Proposals, windows: Tensor, settings: DetectConfig
    ) -> Detections:
        """The best detections of each image with all that the branches say of them.

        Args:
            windows: (B, 4) where the images lie, network-input pixels.
        """
        windows = box_ops.trim(windows.float(), self.conventions.boxes.trim)
        read = self.pooler.on(features)
        found = self.box.detect(read, proposals, windows, settings)
        for branch in (self.mask, self.keypoint):
            if branch is not None:
                found = branch.detect(read, found)
        return found
