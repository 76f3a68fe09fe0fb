"""Second stage: RoIs are sampled and read by the box, mask and keypoint branches in parallel (paper section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from maskrcnn.config import Conventions, DetectConfig
from maskrcnn.models.box_head import BoxBranch
from maskrcnn.models.cascade import CascadeBranch, CascadeMaskBranch
from maskrcnn.models.keypoint_head import KeypointBranch
from maskrcnn.models.mask_head import MaskBranch
from maskrcnn.models.point_rend import PointRendBranch
from maskrcnn.models.rois import RoIPooler, sample_rois
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class RoIHeads(nn.Module):
    """The box branch on proposals; the others on positives (training) or detections (prediction).

    Args:
        pooler: features of a RoI, for all branches.
        box: decides what is found.
        mask, keypoint: add to what is found; None leaves them out.
        conventions: where boxes end, and how RoIs are matched.
    """

    def __init__(
        self,
        pooler: RoIPooler,
        box: BoxBranch | CascadeBranch,
        mask: MaskBranch | CascadeMaskBranch | PointRendBranch | None,
        keypoint: KeypointBranch | None,
        conventions: Conventions,
    ) -> None:
        super().__init__()
        self.conventions = conventions
        self.pooler = pooler
        self.box = box
        self.mask = mask
        self.keypoint = keypoint

    def losses(
        self,
        features: Sequence[Tensor],
        proposals: Proposals,
        targets: Targets,
        sizes_hw: Tensor,
    ) -> dict[str, Tensor]:
        trim = self.conventions.boxes.trim
        targets = replace(targets, boxes=box_ops.trim(targets.boxes, trim))
        windows = box_ops.trim(box_ops.whole_images(sizes_hw).float(), trim)
        rois = sample_rois(proposals, targets, self.box.config, self.conventions.matching, self.box.num_classes)
        losses, stages = self.box.losses(features, self.pooler, rois, targets, windows)
        if isinstance(self.mask, CascadeMaskBranch):
            losses |= self.mask.losses(features, self.pooler, stages, targets)
        elif self.mask is not None:
            losses |= self.mask.losses(features, self.pooler, rois, targets)
        if self.keypoint is not None:
            losses |= self.keypoint.losses(features, self.pooler, rois, targets)
        return losses

    def detect(
        self, features: Sequence[Tensor], proposals: Proposals, windows: Tensor, settings: DetectConfig
    ) -> Detections:
        """
        Args:
            windows: (B, 4) where the images lie, network-input pixels.
        """
        windows = box_ops.trim(windows.float(), self.conventions.boxes.trim)
        found = self.box.detect(features, self.pooler, proposals, windows, settings)
        for branch in (self.mask, self.keypoint):
            if branch is not None:
                found = branch.detect(features, self.pooler, found)
        return found
