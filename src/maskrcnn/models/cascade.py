"""Cascade R-CNN (Cai & Vasconcelos 2018): box heads one after another, each on the boxes of the one before and
trained at a higher overlap. Rules as in Detectron2's `cascade_rcnn.py`, or with other `CascadeRules` as in
MMDetection's `cascade_roi_head.py`, which has a mask head for each stage too.

Legend: B images, P proposals an image, S sampled RoIs an image, C channels, O side of the RoI feature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, Conventions, DetectConfig
from maskrcnn.config.conventions import CascadeRules
from maskrcnn.models.box_head import BoxHead, box_losses, select
from maskrcnn.models.mask_head import MaskBranch
from maskrcnn.models.rois import RoIPooler, RoIs, flatten_boxes, rematch, sample_rois
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class CascadeBranch(nn.Module):
    """Takes the place of `BoxBranch`.

    Args:
        heads: one a stage. Where boxes depend on the class, a stage moves a box as its likeliest class says.
        config: of the first stage, with the thresholds and weights of the later ones.
    """

    def __init__(self, heads: Sequence[BoxHead], config: BoxHeadConfig, conventions: Conventions) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.num_classes = heads[0].num_classes
        self.config = config
        self.conventions = conventions
        self.stages = [config] + [
            replace(config, positive_iou=iou, box_weights=weights)
            for iou, weights in zip(config.cascade_ious, config.cascade_weights, strict=True)
        ]

    def losses(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        rois: RoIs,
        targets: Targets,
        windows: Tensor,
    ) -> tuple[dict[str, Tensor], list[RoIs]]:
        """`loss_class` and `loss_box` are sums over the stages: each is trained on the RoIs that it receives, which are
        given back too."""
        total: dict[str, Tensor] = {}
        received = [rois]
        for number, (head, stage) in enumerate(zip(self.heads, self.stages, strict=True), start=1):
            rois = received[-1]
            logits, deltas = self._run(head, features, pooler, rois.boxes)
            for name, loss in box_losses(logits, deltas, rois, targets, stage, self.conventions).items():
                total[name] = total.get(name, 0) + stage_weight(self.conventions.cascade, number - 1) * loss
            if number < len(self.stages):
                labels = torch.where(rois.positive.flatten(), rois.labels.flatten(), self._likeliest(logits))
                moved = self._move(deltas, labels, rois.boxes, stage, windows)
                received.append(self._next(moved, rois, targets, self.stages[number]))
        return total, received

    def _next(self, moved: Tensor, rois: RoIs, targets: Targets, stage: BoxHeadConfig) -> RoIs:
        """The RoIs of a stage from where the one before led those that it received."""
        matching = self.conventions.matching
        if self.conventions.cascade.sampling == "once":
            return rematch(moved, rois, targets, stage, matching, self.num_classes)
        return sample_rois(Proposals(moved, rois.valid & ~rois.truth), targets, stage, matching, self.num_classes)

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
        all_logits = []
        for head, stage in others:
            logits, deltas = self._run(head, features, pooler, proposals.boxes)
            all_logits.append(logits)
            moved = self._move(deltas, self._likeliest(logits), proposals.boxes, stage, windows)
            proposals = Proposals(moved, proposals.valid)
        head, stage = last
        logits, deltas = self._run(head, features, pooler, proposals.boxes)
        stacked = torch.stack([*all_logits, logits])
        by_logits = self.conventions.cascade.scores == "logits"
        mean = stacked.mean(0).softmax(-1) if by_logits else stacked.softmax(-1).mean(0)
        probs = mean[:, : self.num_classes + 1]
        return select(probs, deltas, proposals, stage, self.conventions, windows, settings)

    def _likeliest(self, logits: Tensor) -> Tensor:
        """(R,) int64, the class of each RoI, never the background."""
        return logits[:, : self.num_classes].argmax(1)

    def _run(
        self, head: nn.Module, features: Sequence[Tensor], pooler: RoIPooler, boxes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits and offsets of (B, S, 4) boxes. With `CascadeRules.gradient` mean each stage sends 1 / stages of its
        gradient into the features, so that they see one head's worth in all."""
        flat, image_index = flatten_boxes(boxes)
        pooled = pooler(features, flat, image_index, self.config.resolution)
        if pooled.requires_grad and self.conventions.cascade.gradient == "mean":
            share = 1 / len(self.stages)
            pooled = pooled * share + pooled.detach() * (1 - share)
        logits, deltas = head(pooled)
        return logits, deltas

    @torch.no_grad()
    def _move(self, deltas: Tensor, labels: Tensor, boxes: Tensor, stage: BoxHeadConfig, windows: Tensor) -> Tensor:
        """Where a stage leads (B, S, 4) boxes of the classes `labels` (B * S,), clipped to the (B, 4) windows of the
        images."""
        row = labels.clamp(max=deltas.shape[1] - 1)  # agnostic offsets have one row
        own = deltas.gather(1, row[:, None, None].expand(-1, 1, 4)).view_as(boxes)
        bound = self.conventions.boxes.growth_bound
        return box_ops.clip(box_ops.decode(own, boxes, stage.box_weights, bound), windows)


class CascadeMaskBranch(nn.Module):
    """A mask branch for each stage of boxes, in the place of one `MaskBranch` (MMDetection)."""

    def __init__(self, stages: Sequence[MaskBranch], rules: CascadeRules) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.config = stages[0].config
        self.rules = rules

    def branches(self) -> list[MaskBranch]:
        return [branch for branch in self.stages if isinstance(branch, MaskBranch)]

    def losses(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        stages: Sequence[RoIs],
        targets: Targets,
    ) -> dict[str, Tensor]:
        """`loss_mask`, the sum over the stages, each on the RoIs that its box head was trained on."""
        total: dict[str, Tensor] = {}
        for number, (branch, rois) in enumerate(zip(self.branches(), stages, strict=True)):
            for name, loss in branch.losses(features, pooler, rois, targets).items():
                total[name] = total.get(name, 0) + stage_weight(self.rules, number) * loss
        return total

    def detect(self, features: Sequence[Tensor], pooler: RoIPooler, found: Detections) -> Detections:
        """The same detections with masks, the mean of the probabilities of all stages."""
        probs = []
        for branch in self.branches():
            masks = branch.detect(features, pooler, found).mask_probs
            assert masks is not None
            probs.append(masks)
        return replace(found, mask_probs=torch.stack(probs).mean(0))


def stage_weight(rules: CascadeRules, number: int) -> float:
    """The weight of the losses of the stage with that number, from 0."""
    return rules.loss_weights[number] if rules.loss_weights else 1.0
