"""Mask branch: a mask for the class of each RoI, the true class in training, the detected one in prediction.

Paper section 3. Legend: R RoIs of all images, K classes, M side of the mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import MaskHeadConfig
from maskrcnn.config.conventions import MaskRules
from maskrcnn.models.branches.mask_head import MaskHead, MLPMaskHead
from maskrcnn.models.losses import LossSum, add_losses, mean_of, sum_over
from maskrcnn.models.pooler import RoIReader
from maskrcnn.models.rois import RoIs, Slots, filled_slots, positive_slots
from maskrcnn.ops.mask_targets import MaskCrops, mask_targets
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class MaskBranch(nn.Module):
    """Runs the mask heads on positive RoIs (training) or on detections (prediction).

    Args:
        heads: one head, trained on the RoIs of the box branch's first stage, or one head per stage, each trained on the
            RoIs of its own stage (MMDetection). The probabilities of all heads are averaged.
        weights: weights of the heads' losses.
    """

    heads: Sequence[MaskHead | MLPMaskHead]

    def __init__(
        self,
        heads: Sequence[MaskHead | MLPMaskHead],
        weights: Sequence[float],
        num_classes: int,
        config: MaskHeadConfig,
        rules: MaskRules,
    ) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)  # type: ignore[assignment]
        self.weights = tuple(weights)
        self.num_classes = num_classes
        self.config = config
        self.rules = rules

    def losses(self, read: RoIReader, stages: Sequence[RoIs], targets: Targets) -> dict[str, LossSum]:
        """`loss_mask`: per-pixel cross-entropy on the mask of the true class alone, the mean over positive RoIs."""
        total: dict[str, LossSum] = {}
        own_stages = stages[: len(self.heads)]
        for head, weight, rois in zip(self.heads, self.weights, own_stages, strict=True):
            slots = mask_slots(rois, targets, self.config)
            boxes = slots.take(rois.boxes)
            labels = slots.take(rois.labels).clamp(max=self.num_classes - 1)
            logits = self._logits(head, read(boxes, slots.image_index, self.config.resolution), labels)
            target = mask_goal(read.span(boxes), mask_crops(rois, slots, targets), self.rules, logits.shape[-1])
            if self.config.loss == "softmax":
                background = self.num_classes
                classes = torch.where(target >= 0.5, labels[:, None, None], background)
                per_pixel = F.cross_entropy(logits, classes, reduction="none")
            else:
                per_pixel = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
            add_losses(total, {"loss_mask": sum_over(per_pixel.mean(dim=(1, 2)), slots.used)}, weight)
        return total

    def detect(self, read: RoIReader, found: Detections) -> Detections:
        """The same detections with (B, D, M, M) mask probabilities for the class of each, averaged over the heads."""
        slots = filled_slots(found)
        labels = slots.take(found.labels)
        pooled = read(slots.take(found.boxes), slots.image_index, self.config.resolution)
        probs = mean_of([self._probabilities(head, pooled, labels) for head in self.heads])
        return replace(found, mask_probs=slots.put_back(probs))

    def run_heads(self, features_of: Callable[[int], Tensor]) -> None:
        """Runs every head once, as `roi_heads.Branch.run_heads` does."""
        pooled = features_of(self.config.resolution)
        labels = torch.zeros(len(pooled), dtype=torch.int64, device=pooled.device)
        for head in self.heads:
            self._logits(head, pooled, labels)

    def _logits(self, head: MaskHead | MLPMaskHead, pooled: Tensor, labels: Tensor) -> Tensor:
        """The logits (R, M, M) of each RoI's class, or (R, K + 1, M, M) of all classes with the softmax loss."""
        if self.config.loss == "softmax":
            logits: Tensor = head(pooled)
            return logits
        return head(pooled)[:, 0] if self.config.class_agnostic else head.of_labels(pooled, labels)

    def _probabilities(self, head: MaskHead | MLPMaskHead, pooled: Tensor, labels: Tensor) -> Tensor:
        """The mask (R, M, M) of each RoI's class, in 0..1. With the softmax loss it exceeds 0.5 where the class has the
        highest logit."""
        logits = self._logits(head, pooled, labels)
        if self.config.loss == "softmax":
            own = logits.gather(1, labels[:, None, None, None].expand(-1, 1, *logits.shape[2:]))
            others = logits.scatter(1, labels[:, None, None, None].expand_as(own), -torch.inf)
            logits = (own - others.amax(1, keepdim=True))[:, 0]
        return torch.sigmoid(logits)


def mask_slots(rois: RoIs, targets: Targets, config: MaskHeadConfig) -> Slots:
    """The positive RoIs whose object has a mask, at most `config.samples` of each image."""
    assert targets.masks is not None, "targets have no masks"
    has_mask = (targets.masks.sizes_hw > 0).all(-1).gather(1, rois.slot)
    return positive_slots(rois.positive & has_mask, config.samples, targets.seeds)


def mask_crops(rois: RoIs, slots: Slots, targets: Targets) -> MaskCrops:
    """The ground-truth masks of the RoIs in the given slots."""
    assert targets.masks is not None, "targets have no masks"
    return targets.masks.select(slots.image_index, slots.take(rois.slot))


def mask_goal(boxes: Tensor, masks: MaskCrops, rules: MaskRules, side: int) -> Tensor:
    """The mask targets (R, side, side) float32 in 0..1 of the boxes (R, 4), network-input pixels."""
    return mask_targets(
        boxes,
        masks,
        size=side,
        sampling_ratio=rules.target_sampling_ratio,
        aligned=rules.target_aligned,
        threshold=rules.target_threshold,
        pixels=rules.target_pixels,
        crop_and_resize=rules.target_crop_and_resize,
    )
