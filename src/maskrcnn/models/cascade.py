"""Cascade R-CNN (Cai & Vasconcelos 2018): box heads one after another, each on the boxes of the one before and
trained at a higher overlap. Numbers and rules as in Detectron2's `cascade_rcnn.py`.

Legend: B images, P proposals an image, S sampled RoIs an image, C channels, O side of the RoI feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, DetectConfig
from maskrcnn.models.box_head import BoxHead, box_losses, select
from maskrcnn.models.rois import RoIPooler, RoIs, flatten_boxes, rematch
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class CascadeBranch(nn.Module):
    """Takes the place of `BoxBranch`.

    Args:
        heads: one a stage, class-agnostic in their boxes.
        config: of the first stage, with the thresholds and weights of the later ones.
    """

    def __init__(self, heads: Sequence[BoxHead], config: BoxHeadConfig) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.num_classes = heads[0].num_classes
        self.config = config
        self.stages = [config] + [
            replace(config, positive_iou=iou, box_weights=weights)
            for iou, weights in zip(config.cascade_ious, config.cascade_weights, strict=True)
        ]

    def losses(
        self, features: Sequence[Tensor], pooler: RoIPooler, rois: RoIs, targets: Targets, windows: Tensor
    ) -> dict[str, Tensor]:
        """`loss_class` and `loss_box` are sums over the stages: each is trained on the RoIs that it receives."""
        total: dict[str, Tensor] = {}
        for number, (head, stage) in enumerate(zip(self.heads, self.stages, strict=True), start=1):
            logits, deltas = self._run(head, features, pooler, rois.boxes)
            for name, loss in box_losses(logits, deltas, rois, targets, stage).items():
                total[name] = total.get(name, 0) + loss
            if number < len(self.stages):
                moved = self._move(deltas, rois.boxes, stage, windows)
                rois = rematch(moved, rois, targets, self.stages[number], self.num_classes)
        return total

    def detect(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        proposals: Proposals,
        windows: Tensor,
        settings: DetectConfig,
    ) -> Detections:
        """Scores are the mean over the stages, boxes those of the last."""
        *others, last = zip(self.heads, self.stages, strict=True)
        probs = []
        for head, stage in others:
            logits, deltas = self._run(head, features, pooler, proposals.boxes)
            probs.append(logits.softmax(-1))
            proposals = Proposals(self._move(deltas, proposals.boxes, stage, windows), proposals.valid)
        head, stage = last
        logits, deltas = self._run(head, features, pooler, proposals.boxes)
        mean = torch.stack([*probs, logits.softmax(-1)]).mean(0)[:, : self.num_classes + 1]
        return select(mean, deltas, proposals, stage, windows, settings)

    def _run(
        self, head: nn.Module, features: Sequence[Tensor], pooler: RoIPooler, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits and offsets of (B, S, 4) boxes. Each stage sends 1 / stages of its gradient into the features, so that
        they see one head's worth in all."""
        flat, image_index = flatten_boxes(boxes)
        pooled = pooler(features, flat, image_index, self.config.resolution)
        if pooled.requires_grad:
            share = 1 / len(self.stages)
            pooled = pooled * share + pooled.detach() * (1 - share)
        logits, deltas = head(pooled)
        return logits, deltas

    @torch.no_grad()
    def _move(self, deltas: Tensor, boxes: Tensor, stage: BoxHeadConfig, windows: Tensor) -> Tensor:
        """Where a stage leads (B, S, 4) boxes, clipped to the (B, 4) windows of the images."""
        moved = box_ops.decode(deltas[:, 0].view_as(boxes), boxes, stage.box_weights, stage.growth_bound)
        return box_ops.clip(moved, windows)
