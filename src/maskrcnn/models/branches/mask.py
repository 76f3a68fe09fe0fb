"""Mask branch: masks of the RoIs' true classes in training, of the detections' classes in prediction (paper section 3).

Legend: B images, S sampled RoIs an image, R RoIs of all images, K classes, C channels, O side of the RoI features,
M side of the mask.
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
from maskrcnn.models.losses import add_losses, mean_of, mean_over
from maskrcnn.models.pooler import RoIReader
from maskrcnn.models.rois import RoIs, Slots, filled_slots, positive_slots
from maskrcnn.ops.mask_targets import MaskCrops, mask_targets
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class MaskBranch(nn.Module):
    """The mask heads on positive RoIs (training) or on the detections (prediction), their targets and losses.

    Args:
        heads: one, which learns from the RoIs of the box branch's first stage, or one a stage, each of which learns
            from the RoIs of its own (MMDetection). The probabilities of all heads are averaged.
        weights: of the heads' losses.
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

    def losses(self, read: RoIReader, stages: Sequence[RoIs], targets: Targets) -> dict[str, Tensor]:
        """`loss_mask`: per pixel, on the mask of the true class alone, over positive RoIs (paper section 3)."""
        total: dict[str, Tensor] = {}
        own_stages = stages[: len(self.heads)]
        for head, weight, rois in zip(self.heads, self.weights, own_stages, strict=True):
            slots = mask_slots(rois, targets, self.config)
            boxes = slots.take(rois.boxes)
            labels = slots.take(rois.labels).clamp(max=self.num_classes - 1)
            logits = self._logits(head, read(boxes, slots.image_index, self.config.resolution), labels)
            goal = mask_goal(read.span(boxes), mask_crops(rois, slots, targets), self.rules, logits.shape[-1])
            if self.config.loss == "softmax":
                background = self.num_classes  # the last class is "not this object"
                classes = torch.where(goal >= 0.5, labels[:, None, None], background)
                per_pixel = F.cross_entropy(logits, classes, reduction="none")
            else:
                per_pixel = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
            add_losses(total, {"loss_mask": mean_over(per_pixel.mean(dim=(1, 2)), slots.used)}, weight)
        return total

    def detect(self, read: RoIReader, found: Detections) -> Detections:
        """The same detections with the mask of each one's class, the mean of the probabilities of all heads."""
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
        """(R, M, M) of each RoI's class, or with the softmax, in which classes compete, (R, K + 1, M, M) of all."""
        if self.config.loss == "softmax":
            logits: Tensor = head(pooled)
            return logits
        return head(pooled)[:, 0] if self.config.class_agnostic else head.of_labels(pooled, labels)

    def _probabilities(self, head: MaskHead | MLPMaskHead, pooled: Tensor, labels: Tensor) -> Tensor:
        """(R, M, M) of each RoI's class. With the softmax 0.5 is where the class begins to win over all others."""
        logits = self._logits(head, pooled, labels)
        if self.config.loss == "softmax":
            own = logits.gather(1, labels[:, None, None, None].expand(-1, 1, *logits.shape[2:]))
            others = logits.scatter(1, labels[:, None, None, None].expand_as(own), -torch.inf)
            logits = (own - others.amax(1, keepdim=True))[:, 0]
        return torch.sigmoid(logits)


def mask_slots(rois: RoIs, targets: Targets, config: MaskHeadConfig) -> Slots:
    """The positive RoIs whose object has a mask, at most `config.samples` an image."""
    bank = targets.masks
    assert bank is not None, "targets carry no masks"
    has_mask = (bank.sizes_hw > 0).all(-1).gather(1, rois.slot)
    return positive_slots(rois.positive & has_mask, config.samples)


def mask_crops(rois: RoIs, slots: Slots, targets: Targets) -> MaskCrops:
    """The ground-truth masks of the RoIs in the given slots."""
    assert targets.masks is not None, "targets carry no masks"
    return targets.masks.select(slots.image_index, slots.take(rois.slot))


def mask_goal(boxes: Tensor, masks: MaskCrops, rules: MaskRules, side: int) -> Tensor:
    """What the masks over the boxes (R, 4), network-input pixels, should be: (R, side, side) float32 in 0..1."""
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
