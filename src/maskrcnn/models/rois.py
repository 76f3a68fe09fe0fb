"""Regions of interest: which of them take part in the loss, and their features.

Legend: B images, P proposals an image, S sampled RoIs an image, R RoIs of all images, C channels, O side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, Conventions, RoIConfig
from maskrcnn.config.conventions import MatchingRules
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops.boxes import trim
from maskrcnn.ops.device import fixed_shapes
from maskrcnn.ops.matching import match, sample
from maskrcnn.ops.roi_align import level_of, roi_align
from maskrcnn.ops.roi_crop import roi_crop
from maskrcnn.ops.roi_pool import roi_pool, roi_warp
from maskrcnn.structures.targets import Targets


class RoIs(NamedTuple):
    """RoIs of the loss: boxes (B, S, 4), labels (B, S) with K for background, the ground-truth slot each
    stands for (B, S), which are positive and valid (B, S), and which are the ground truth itself (B, S)."""

    boxes: Tensor
    labels: Tensor
    slot: Tensor
    positive: Tensor
    valid: Tensor
    truth: Tensor


@torch.no_grad()
def sample_rois(
    proposals: Proposals,
    targets: Targets,
    config: BoxHeadConfig,
    rules: MatchingRules,
    background: int,
) -> RoIs:
    """Proposals and the ground truth itself, matched and sampled, one positive to three negatives (paper section
    3.1)."""
    boxes, real = proposals
    if rules.ground_truth_rois:
        boxes = torch.cat([boxes, targets.boxes], dim=1)
        real = torch.cat([real, targets.valid], dim=1)
    label, matched = _match(boxes, targets, config, rules)
    drawn = sample(label.masked_fill(~real, -1), config.samples, config.positive_fraction)
    slot = matched.gather(1, drawn.chosen)
    labels = torch.where(drawn.positive, targets.labels.gather(1, slot), background)
    drawn_boxes = boxes.gather(1, drawn.chosen[..., None].expand(-1, -1, 4))
    truth = drawn.chosen >= proposals.boxes.shape[1]
    return RoIs(drawn_boxes, labels, slot, drawn.positive, drawn.valid, truth)


@torch.no_grad()
def rematch(
    boxes: Tensor, rois: RoIs, targets: Targets, config: BoxHeadConfig, rules: MatchingRules, background: int
) -> RoIs:
    """The same RoIs after a stage moved them to `boxes` (B, S, 4): matched anew, none sampled (Cascade R-CNN).

    Boxes without an area, which a stage may produce at the border, drop out.
    """
    label, slot = _match(boxes, targets, config, rules)
    valid = rois.valid & (label >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    positive = valid & (label == 1)
    labels = torch.where(positive, targets.labels.gather(1, slot), background)
    return RoIs(boxes, labels, slot, positive, valid, rois.truth)


def _match(boxes: Tensor, targets: Targets, config: BoxHeadConfig, rules: MatchingRules) -> tuple[Tensor, Tensor]:
    """Both (B, S): positive at the threshold, negative below it; and the object each stands for."""
    return match(
        boxes,
        targets.boxes,
        targets.valid,
        targets.crowd,
        positive_iou=config.positive_iou,
        negative_iou=config.positive_iou,
        low_quality_iou=rules.box_low_quality_iou,
        low_quality_target=rules.low_quality_target,
    )


def flatten_boxes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P, 4) -> (B * P, 4) and the image each belongs to, (B * P,) int64."""
    images, count = boxes.shape[:2]
    image_index = torch.arange(images, device=boxes.device).repeat_interleave(count, output_size=images * count)
    return boxes.flatten(0, 1), image_index


def positive_slots(positive: Tensor, samples: int) -> tuple[Tensor, Tensor]:
    """Which of the B * S RoIs the mask or keypoint branch reads, and which of those count: (R,) int64 and (R,) bool.

    Slots are pooled over the batch. Where shapes must be static (a device, compilation) there are always
    `samples` an image; on a CPU only the filled ones are computed.
    """
    count = min(positive.shape[0] * samples, positive.numel())
    keys = torch.rand(positive.numel(), device=positive.device)
    keys, index = keys.where(positive.flatten(), -1.0).topk(count)
    used = keys >= 0
    if fixed_shapes(positive):
        return index, used
    return index[used], used[used]


def filled_slots(valid: Tensor) -> Tensor:
    """Which of the B * D detections (B, D) the mask or keypoint branch reads: (R,) int64, the filled ones or, where
    shapes must be static, all."""
    if fixed_shapes(valid):
        return torch.arange(valid.numel(), device=valid.device)
    return valid.flatten().nonzero()[:, 0]


class RoIPooler(nn.Module):
    """RoIAlign, or another RoI layer, on the level that suits each box's size.

    What all branches share follows: res5 with C4, else nothing.

    Args:
        strides: of the levels that RoIs read.
        shared_head: (R, C, O, O) -> (R, C', O', O').
    """

    def __init__(
        self, strides: Sequence[int], config: RoIConfig, shared_head: nn.Module, conventions: Conventions
    ) -> None:
        super().__init__()
        self.rules = conventions.features
        self.box_rules = conventions.boxes
        self.strides = tuple(strides)
        self.config = config
        self.shared_head = shared_head

    def forward(self, features: Sequence[Tensor], boxes: Tensor, image_index: Tensor, output_size: int) -> Tensor:
        """Feature maps, (R, 4) boxes in network-input pixels and (R,) int64 -> (R, C, output_size, output_size)."""
        config, rules, trimmed = self.config, self.rules, self.box_rules.trim
        used = features[: len(self.strides)]
        canonical_size = config.canonical_size
        if trimmed:  # a box of the whole input counts with the input's size, although it ends a pixel earlier
            height, width = (side * self.strides[0] for side in used[0].shape[-2:])
            canonical_size *= math.sqrt((1 - trimmed / height) * (1 - trimmed / width))
        level = level_of(
            boxes,
            len(used),
            config.canonical_level,
            canonical_size,
            rounding=rules.level_rounding,
            level_epsilon=rules.level_epsilon,
            size_epsilon=rules.size_epsilon,
        )
        args = (used, self.read_part(boxes), image_index, level)
        if rules.crop_and_resize:
            return self.shared_head(roi_crop(*args, strides=self.strides, output_size=output_size, trim=trimmed))
        sampling: dict[str, Any] = {"sampling_ratio": config.sampling_ratio, "reduce": config.reduce}
        match config.op:
            case "align":
                pooled = roi_align(
                    *args, strides=self.strides, output_size=output_size, aligned=rules.aligned, **sampling
                )
            case "warp":
                pooled = roi_warp(*args, strides=self.strides, output_size=output_size, **sampling)
            case "pool":
                pooled = roi_pool(*args, strides=self.strides, output_size=output_size)
        return self.shared_head(pooled)

    def read_part(self, boxes: Tensor) -> Tensor:
        """What the feature of a box spans, and so its mask and keypoint maps: (..., 4) -> (..., 4)."""
        return trim(boxes, self.box_rules.roi_trim)
