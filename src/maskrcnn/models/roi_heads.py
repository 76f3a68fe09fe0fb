"""Second stage: the box, mask and keypoint branches work on RoIs in parallel (paper section 3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from torch import Tensor, nn

from maskrcnn.config import Conventions, DetectConfig
from maskrcnn.models.branches.box import BoxBranch
from maskrcnn.models.losses import LossSum
from maskrcnn.models.pooler import RoIPooler, RoIReader
from maskrcnn.models.rois import RoIs, sample_rois
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class Branch(Protocol):
    """A branch that adds something to the detections of the box branch, such as masks or keypoints."""

    def losses(self, read: RoIReader, stages: Sequence[RoIs], targets: Targets) -> dict[str, LossSum]:
        """The losses by name.

        Args:
            read: gives RoI features.
            stages: the RoIs that each stage of the box branch was trained on.
        """

    def detect(self, read: RoIReader, found: Detections) -> Detections:
        """The same detections with the masks, keypoints or other results that this branch computes for each."""

    def run_heads(self, features_of: Callable[[int], Tensor]) -> None:
        """Runs the heads once as `detect` does, so that `models.cost` can count their arithmetic.

        Args:
            features_of: returns RoI features (R, C', O', O') for a resolution O of the pooler.
        """


class RoIHeads(nn.Module):
    """Runs the box branch on proposals, and the other branches on positive RoIs (training) or detections (prediction).

    Args:
        pooler: computes the RoI features of all branches.
        box: finds the detections.
        mask, keypoint: add masks and keypoints to the detections; None leaves them out.
        conventions: the rules by which boxes end and RoIs are matched.
    """

    def __init__(
        self, pooler: RoIPooler, box: BoxBranch, mask: Branch | None, keypoint: Branch | None, conventions: Conventions
    ) -> None:
        super().__init__()
        self.conventions = conventions
        self.pooler = pooler
        self.box = box
        self.mask = mask
        self.keypoint = keypoint

    def losses(
        self, features: Sequence[Tensor], proposals: Proposals, targets: Targets, sizes_hw: Tensor
    ) -> dict[str, LossSum]:
        """The losses of all branches by name.

        Args:
            sizes_hw: (B, 2) sizes of the images without padding, network-input pixels.
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

    def find_boxes(
        self, features: Sequence[Tensor], proposals: Proposals, windows: Tensor, settings: DetectConfig
    ) -> Detections:
        """The highest-scoring boxes of each image, without the results of the other branches.

        Args:
            windows: (B, 4) boxes of the images inside their padding, network-input pixels.
        """
        windows = box_ops.trim(windows.float(), self.conventions.boxes.trim)
        return self.box.detect(self.pooler.on(features), proposals, windows, settings)

    def complete(self, features: Sequence[Tensor], found: Detections) -> Detections:
        """The same boxes with the masks and keypoints that the other branches find in them."""
        read = self.pooler.on(features)
        for branch in (self.mask, self.keypoint):
            if branch is not None:
                found = branch.detect(read, found)
        return found
