"""Box branch: one box head, or a cascade of heads that refine the boxes one after another.

Mask R-CNN has one head. Cascade R-CNN (Cai & Vasconcelos 2018) trains each further head at a higher IoU, by the rules
of Detectron2's `cascade_rcnn.py` or, with other `CascadeRules`, of MMDetection's `cascade_roi_head.py`.

Legend: B images, P proposals per image, S sampled RoIs per image, D detections per image, R RoIs of all images,
K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, Conventions, DetectConfig
from maskrcnn.config.conventions import DetectionRules
from maskrcnn.models.branches.box_head import BoxHead
from maskrcnn.models.losses import LossSum, add_losses, box_loss, mean_of, sum_box_loss, sum_over
from maskrcnn.models.pooler import RoIReader
from maskrcnn.models.rois import RoIs, flatten_boxes, rematch, sample_rois
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.ops.device import static_shapes
from maskrcnn.ops.nms import nms
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets

# With static shapes, non-maximum suppression gets this number of highest-scoring boxes per image, far more than any
# setting keeps.
CANDIDATES = 4096


class BoxBranch(nn.Module):
    """The box heads, their losses, and the selection of detections.

    Args:
        heads: one per stage.
        weights: weights of the heads' losses.
        config: settings of the first stage, with the IoU thresholds and box weights of the later stages.
        class_weights: weights of the K classes in `loss_class`; none: all 1, as that of the background.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        heads: Sequence[BoxHead],
        weights: Sequence[float],
        config: BoxHeadConfig,
        conventions: Conventions,
        class_weights: Sequence[float] = (),
    ) -> None:
        super().__init__()
        logits = heads[0].class_logits.out_features
        of_logits = torch.tensor([*class_weights, *[1.0] * (logits - len(class_weights))]) if class_weights else None
        self.register_buffer("class_weights", of_logits, persistent=False)
        self.heads = nn.ModuleList(heads)
        self.weights = tuple(weights)
        self.conventions = conventions
        self.num_classes = heads[0].num_classes
        self.config = config
        self.stages = [config] + [
            replace(config, positive_iou=iou, box_weights=weights)
            for iou, weights in zip(config.cascade_ious, config.cascade_weights, strict=True)
        ]

    def losses(
        self, read: RoIReader, rois: RoIs, targets: Targets, windows: Tensor
    ) -> tuple[dict[str, LossSum], list[RoIs]]:
        """`loss_class` and `loss_box`, summed over the stages, and the RoIs that each stage is trained on.

        Args:
            rois: the RoIs of the first stage.
            windows: (B, 4) boxes of the images, network-input pixels, to which refined boxes are clipped.
        """
        total: dict[str, LossSum] = {}
        rois_of_stages = [rois]
        for number, (head, weight, stage) in enumerate(zip(self.heads, self.weights, self.stages, strict=True)):
            rois = rois_of_stages[-1]
            logits, deltas = self._run(head, read, rois.boxes)
            losses = box_losses(logits, deltas, rois, targets, stage, self.conventions, self.class_weights)
            add_losses(total, losses, weight)
            if number + 1 < len(self.stages):
                labels = torch.where(rois.positive.flatten(), rois.labels.flatten(), self._best_class(logits))
                refined = self._refine(deltas, labels, rois.boxes, stage, windows)
                rois_of_stages.append(self._next_rois(refined, rois, targets, self.stages[number + 1]))
        return total, rois_of_stages

    def detect(self, read: RoIReader, proposals: Proposals, windows: Tensor, settings: DetectConfig) -> Detections:
        """The D highest-scoring detections per image; scores are means over the stages, boxes those of the last one.

        Args:
            windows: as in `losses`.
        """
        all_logits: list[Tensor] = []
        for number, (head, stage) in enumerate(zip(self.heads, self.stages, strict=True)):
            logits, deltas = self._run(head, read, proposals.boxes)
            all_logits.append(logits)
            if number + 1 < len(self.stages):
                refined = self._refine(deltas, self._best_class(logits), proposals.boxes, stage, windows)
                proposals = Proposals(refined, proposals.valid)
        if self.conventions.cascade.scores == "logits":
            probs = mean_of(all_logits).softmax(-1)
        else:
            probs = mean_of([logits.softmax(-1) for logits in all_logits])
        probs = probs[:, : self.num_classes + 1]  # Unused classes take part in the softmax and are never detected.
        return select_detections(probs, deltas, proposals, stage, self.conventions, windows, settings)

    def run_heads(self, features_of: Callable[[int], Tensor]) -> None:
        """Runs every head once, as `roi_heads.Branch.run_heads` does."""
        for head in self.heads:
            head(features_of(self.config.resolution))

    def _run(self, head: nn.Module, read: RoIReader, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and deltas of (B, S, 4) boxes, as `BoxHead` returns them.

        With `CascadeRules.gradient` mean the gradient of each stage in the features is divided by the number of stages.
        """
        pooled = read(*flatten_boxes(boxes), self.config.resolution)
        if len(self.heads) > 1 and pooled.requires_grad and self.conventions.cascade.gradient == "mean":
            share = 1 / len(self.heads)
            pooled = pooled * share + pooled.detach() * (1 - share)
        logits, deltas = head(pooled)
        return logits, deltas

    def _best_class(self, logits: Tensor) -> Tensor:
        """(R,) int64, the highest-scoring class of each RoI, never the background."""
        return logits[:, : self.num_classes].argmax(1)

    @torch.no_grad()
    def _refine(self, deltas: Tensor, labels: Tensor, boxes: Tensor, stage: BoxHeadConfig, windows: Tensor) -> Tensor:
        """Moves (B, S, 4) boxes by the deltas of their classes `labels` (B * S,) and clips them to the windows."""
        own, bound = _of_labels(deltas, labels).view_as(boxes), self.conventions.boxes.growth_bound
        return box_ops.clip(box_ops.decode(own, boxes, stage.box_weights, bound), windows)

    def _next_rois(self, refined: Tensor, rois: RoIs, targets: Targets, stage: BoxHeadConfig) -> RoIs:
        """The RoIs of a stage, from the boxes (B, S, 4) that the stage before has refined."""
        matching = self.conventions.matching
        if self.conventions.cascade.sampling == "once":
            return rematch(refined, rois, targets, stage, matching, self.num_classes)
        return sample_rois(Proposals(refined, rois.valid & ~rois.truth), targets, stage, matching, self.num_classes)


def _of_labels(deltas: Tensor, labels: Tensor) -> Tensor:
    """The deltas (R, 4) of the class of each RoI, from (R, K or 1, 4). The row of a background RoI has no meaning."""
    row = labels.clamp(max=deltas.shape[1] - 1)  # class-agnostic deltas have one row
    return deltas.gather(1, row[:, None, None].expand(-1, 1, 4))[:, 0]


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    rois: RoIs,
    targets: Targets,
    config: BoxHeadConfig,
    conventions: Conventions,
    class_weights: Tensor | None = None,
) -> dict[str, LossSum]:
    """`loss_class`, cross-entropy over all classes, and `loss_box` on the deltas of the true class.

    Both are divided by the number of sampled RoIs, unless `LossRules.box_divisor` says otherwise for `loss_box`.

    Args:
        logits: (B * S, K + 1 and the unused classes); deltas: (B * S, K or 1, 4).
        class_weights: one for each logit. `loss_class` is then divided by the sum of the weights of the sampled RoIs.
    """
    boxes, labels = rois.boxes.flatten(0, 1), rois.labels.flatten()
    positive, valid = rois.positive.flatten(), rois.valid.flatten()
    object_boxes = targets.boxes.gather(1, rois.slot[..., None].expand(-1, -1, 4)).flatten(0, 1)
    # A RoI without an object becomes a unit box that is its own target. Its loss is finite and is not counted.
    unit = box_ops.unit_box(boxes)
    target, start = (box.where(positive[:, None], unit) for box in (object_boxes, boxes))
    class_loss = F.cross_entropy(logits, labels, class_weights, reduction="none")
    weighed = None if class_weights is None else class_weights[labels].where(valid, 0.0).sum()
    regression = box_loss(_of_labels(deltas, labels), start, target, config, conventions.boxes.growth_bound)
    return {
        "loss_class": sum_over(class_loss, valid, weighed),
        "loss_box": sum_box_loss(regression, positive, valid, conventions.losses.box_divisor),
    }


def select_detections(
    probs: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    config: BoxHeadConfig,
    conventions: Conventions,
    windows: Tensor,
    settings: DetectConfig,
) -> Detections:
    """Decodes all pairs of a proposal and a class above the score threshold, runs non-maximum suppression per class and
    keeps the D highest-scoring boxes per image.

    Args:
        probs: (B * P, K + 1), background last; deltas: (B * P, K or 1, 4).
        windows: (B, 4) boxes of the images, network-input pixels, to which boxes are clipped.
    """
    rows, rules = deltas.shape[1], conventions.detections
    images, count = proposals.valid.shape
    scores, proposal, labels = _candidates(probs, proposals.valid, settings.score_threshold, rules)
    anchors = proposals.boxes.gather(1, proposal[..., None].expand(-1, -1, 4))
    first = torch.arange(images, device=proposal.device)[:, None] * count
    row = (first + proposal) * rows + labels.clamp(max=rows - 1)
    boxes = box_ops.decode(deltas.flatten(0, 1)[row], anchors, config.box_weights, conventions.boxes.growth_bound)
    boxes = box_ops.clip(boxes, windows)
    sides = boxes[..., 2:] - boxes[..., :2]
    valid = (scores > 0) & (sides >= rules.min_size).all(-1) & (sides > -conventions.boxes.trim).all(-1)
    keep = nms(boxes, valid, settings.nms_iou, labels)
    best, index = scores.where(keep, 0.0).topk(torch.sym_min(settings.max_detections, scores.shape[1]), dim=1)
    return Detections(boxes.gather(1, index[..., None].expand(-1, -1, 4)), best, labels.gather(1, index), best > 0)


def _candidates(probs: Tensor, valid: Tensor, threshold: float, rules: DetectionRules) -> tuple[Tensor, Tensor, Tensor]:
    """The pairs of a proposal and a class above the score threshold, highest-scoring first.

    Returns:
        (B, N) scores, 0 in empty slots, and (B, N) int64 numbers of the proposals and of the classes. N is the largest
        number of pairs that an image has, or with static shapes at most `CANDIDATES`.
    """
    classes = probs.shape[1] - 1
    scores = probs[:, :-1]
    if rules.one_class_per_roi:
        scores = scores.where(scores == probs.amax(1, keepdim=True), 0.0)
    scores = scores.reshape(valid.shape[0], -1) * valid.repeat_interleave(classes, dim=1)
    passing = scores > threshold
    if static_shapes(scores):
        slots = min(CANDIDATES, scores.shape[1])
    else:
        slots = torch.sym_int(passing.sum(1).max().clamp(min=1).item())
    scores, index = scores.where(passing, 0.0).topk(slots, dim=1)
    return scores, index // classes, index % classes
