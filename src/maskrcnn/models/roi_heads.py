"""Second stage: RoIs are sampled, pooled, and read by the box and mask branches in parallel (paper section 3).

Legend: B images, P proposals an image, S sampled RoIs an image, K classes, D detections an image, M mask side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, DetectConfig, MaskHeadConfig, RoIAlignConfig
from maskrcnn.models.box_head import BoxHead
from maskrcnn.models.losses import box_loss, mean_over
from maskrcnn.models.mask_head import MaskHead
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.ops.mask_targets import mask_targets
from maskrcnn.ops.matching import match, sample
from maskrcnn.ops.nms import nms
from maskrcnn.ops.roi_align import level_of, roi_align
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class RoIs(NamedTuple):
    """RoIs of the loss: boxes (B, S, 4), labels (B, S) with K for background, the ground-truth slot each
    stands for (B, S), and which are positive and valid (B, S)."""

    boxes: Tensor
    labels: Tensor
    slot: Tensor
    positive: Tensor
    valid: Tensor


class RoIPooler(nn.Module):
    """RoIAlign on the level that suits each box's size.

    Args:
        strides: of the levels P2..P5.
    """

    def __init__(self, strides: Sequence[int], output_size: int, config: RoIAlignConfig) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.output_size = output_size
        self.config = config

    def forward(self, features: Sequence[Tensor], boxes: Tensor, image_index: Tensor) -> Tensor:
        """[P2..] maps, (R, 4) boxes in network-input pixels and (R,) int64 -> (R, C, output_size, output_size)."""
        used = features[: len(self.strides)]
        level = level_of(boxes, len(used), self.config.canonical_level, self.config.canonical_size)
        return roi_align(
            used,
            boxes,
            image_index,
            level,
            strides=self.strides,
            output_size=self.output_size,
            sampling_ratio=self.config.sampling_ratio,
            aligned=self.config.aligned,
        )


class RoIHeads(nn.Module):
    """The box branch on proposals, the mask branch on positives (training) or detections (prediction)."""

    def __init__(
        self,
        box_pooler: RoIPooler,
        box_head: BoxHead,
        box_config: BoxHeadConfig,
        mask_pooler: RoIPooler | None,
        mask_head: MaskHead | None,
        mask_config: MaskHeadConfig | None,
    ) -> None:
        super().__init__()
        self.box_pooler, self.box_head, self.box_config = box_pooler, box_head, box_config
        self.mask_pooler, self.mask_head, self.mask_config = mask_pooler, mask_head, mask_config

    def losses(
        self,
        features: Sequence[Tensor],
        proposals: Proposals,
        targets: Targets,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        rois = self.sample_rois(proposals, targets, generator)
        losses = self.box_losses(features, rois, targets)
        if self.mask_head is not None:
            losses["loss_mask"] = self.mask_loss(features, rois, targets, generator)
        return losses

    @torch.no_grad()
    def sample_rois(self, proposals: Proposals, targets: Targets, generator: torch.Generator | None = None) -> RoIs:
        """Proposals and the ground truth itself, matched and drawn at one positive to three negatives."""
        config = self.box_config
        boxes = torch.cat([proposals.boxes, targets.boxes], dim=1)
        label, matched = match(
            boxes,
            targets.boxes,
            targets.valid,
            targets.crowd,
            positive_iou=config.positive_iou,
            negative_iou=config.positive_iou,
            best_is_positive=False,
        )
        real = torch.cat([proposals.valid, targets.valid], dim=1)
        drawn = sample(label.masked_fill(~real, -1), config.samples, config.positive_fraction, generator)
        slot = matched.gather(1, drawn.chosen)
        labels = torch.where(drawn.positive, targets.labels.gather(1, slot), self.box_head.num_classes)
        drawn_boxes = boxes.gather(1, drawn.chosen[..., None].expand(-1, -1, 4))
        return RoIs(drawn_boxes, labels, slot, drawn.positive, drawn.valid)

    def box_losses(self, features: Sequence[Tensor], rois: RoIs, targets: Targets) -> dict[str, Tensor]:
        """Cross-entropy over K+1 classes and the box loss of the true class's offsets, both per sampled RoI."""
        config = self.box_config
        boxes, image_index = _flatten(rois.boxes)
        logits, deltas = self.box_head(self.box_pooler(features, boxes, image_index))
        labels, positive, valid = rois.labels.flatten(), rois.positive.flatten(), rois.valid.flatten()
        object_boxes = targets.boxes.gather(1, rois.slot[..., None].expand(-1, -1, 4)).flatten(0, 1)
        # Slots without an object aim from a unit box at itself: finite, and never counted.
        unit = boxes.new_tensor([0.0, 0.0, 1.0, 1.0])
        goal, start = (box.where(positive[:, None], unit) for box in (object_boxes, boxes))
        own = self.box_head.deltas_of(deltas, labels.clamp(max=self.box_head.num_classes - 1))
        class_loss = F.cross_entropy(logits, labels, reduction="none")
        regression = box_loss(own, start, goal, config) * positive
        return {"loss_class": mean_over(class_loss, valid), "loss_box": mean_over(regression, valid)}

    def mask_loss(
        self, features: Sequence[Tensor], rois: RoIs, targets: Targets, generator: torch.Generator | None = None
    ) -> Tensor:
        """Per-pixel binary cross-entropy on the mask of the true class, over positive RoIs (paper section 3)."""
        config, bank = self.mask_config, targets.masks
        assert self.mask_head is not None and self.mask_pooler is not None and config is not None
        assert bank is not None, "targets carry no masks"
        has_mask = (bank.sizes_hw > 0).all(-1).gather(1, rois.slot)
        index, used = _mask_slots(rois.positive & has_mask, config.samples, generator)
        boxes, image_index = _flatten(rois.boxes)
        boxes, image_index = boxes[index], image_index[index]
        slot = image_index * targets.boxes.shape[1] + rois.slot.flatten()[index]
        labels = rois.labels.flatten()[index].clamp(max=self.box_head.num_classes - 1)
        logits = self.mask_head(self.mask_pooler(features, boxes, image_index), labels)
        crops = (
            bank.pixels,
            bank.offsets.flatten()[slot],
            bank.sizes_hw.flatten(0, 1)[slot],
            bank.origins_xy.flatten(0, 1)[slot],
        )
        goal = mask_targets(
            boxes,
            bank.to_original[image_index],
            crops,
            bank.image_hw[image_index],
            size=logits.shape[-1],
            sampling_ratio=config.target_sampling_ratio,
            aligned=config.target_aligned,
            threshold=config.target_threshold,
        )
        per_roi = F.binary_cross_entropy_with_logits(logits, goal, reduction="none").mean(dim=(1, 2))
        return mean_over(per_roi, used)

    def detect(
        self, features: Sequence[Tensor], proposals: Proposals, sizes_hw: Tensor, settings: DetectConfig
    ) -> Detections:
        """Box branch on all proposals, suppression per class, best D; mask branch on those only."""
        boxes, image_index = _flatten(proposals.boxes)
        logits, deltas = self.box_head(self.box_pooler(features, boxes, image_index))
        found = self.select(logits, deltas, proposals, sizes_hw, settings)
        if self.mask_head is None or self.mask_pooler is None:
            return found
        boxes, image_index = _flatten(found.boxes)
        slots = found.valid.flatten().nonzero()[:, 0]
        pooled = self.mask_pooler(features, boxes[slots], image_index[slots])
        probs = torch.sigmoid(self.mask_head(pooled, found.labels.flatten()[slots]))
        side = probs.shape[-1]
        masks = probs.new_zeros((len(boxes), side, side)).index_copy_(0, slots, probs)
        return Detections(
            found.boxes, found.scores, found.labels, found.valid, masks.view(*found.labels.shape, side, side)
        )

    def select(
        self, logits: Tensor, deltas: Tensor, proposals: Proposals, sizes_hw: Tensor, settings: DetectConfig
    ) -> Detections:
        """Scores and boxes of every proposal and class -> the best D detections an image.

        Args:
            logits: (B * P, K + 1); deltas: (B * P, K or 1, 4).
        """
        classes = self.box_head.num_classes
        images, count = proposals.valid.shape
        scores = logits.softmax(-1)[:, :-1].reshape(images, count * classes)
        scores = scores * proposals.valid.repeat_interleave(classes, dim=1)
        passing = scores > settings.score_threshold
        # Only candidates above the threshold are decoded: as many slots as the fullest image needs.
        most = max(int(passing.sum(1).max()), 1)
        scores, index = scores.where(passing, 0.0).topk(most, dim=1)
        proposal, labels = index // classes, index % classes
        anchors = proposals.boxes.gather(1, proposal[..., None].expand(-1, -1, 4))
        row = torch.zeros_like(labels) if self.box_head.class_agnostic else labels
        flat = (proposal + torch.arange(images, device=index.device)[:, None] * count) * deltas.shape[1] + row
        boxes = box_ops.decode(deltas.flatten(0, 1)[flat], anchors, self.box_config.box_weights)
        boxes = box_ops.clip(boxes, sizes_hw)
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = (scores > 0) & (sides >= settings.min_size).all(-1) & (sides > 0).all(-1)
        keep = nms(boxes, valid, settings.nms_iou, labels)
        best, index = scores.where(keep, 0.0).topk(min(settings.max_detections, most), dim=1)
        return Detections(boxes.gather(1, index[..., None].expand(-1, -1, 4)), best, labels.gather(1, index), best > 0)


def _flatten(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P, 4) -> (B * P, 4) and the image each belongs to, (B * P,) int64."""
    images, count = boxes.shape[:2]
    image_index = torch.arange(images, device=boxes.device).repeat_interleave(count, output_size=images * count)
    return boxes.flatten(0, 1), image_index


def _mask_slots(positive: Tensor, samples: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """Which of the B * S RoIs the mask branch reads, and which of those count: (R,) int64 and (R,) bool.

    Slots are pooled over the batch. Where shapes must be static (a device, compilation) there are always
    `samples` an image; on a CPU only the filled ones are computed.
    """
    count = min(positive.shape[0] * samples, positive.numel())
    keys = torch.rand(positive.numel(), device=positive.device, generator=generator)
    keys, index = keys.where(positive.flatten(), -1.0).topk(count)
    used = keys >= 0
    if positive.is_cuda or torch.compiler.is_compiling():
        return index, used
    return index[used], used[used]
