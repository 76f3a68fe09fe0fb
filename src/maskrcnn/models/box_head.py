"""Box branch: what each RoI holds, and where exactly (Fast R-CNN with the two layers of FPN).

Legend: B images, P proposals an image, S sampled RoIs an image, R RoIs of all images, K classes, C channels,
O side of the RoI feature, D detections an image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import BoxHeadConfig, Conventions, DetectConfig
from maskrcnn.models.losses import box_loss, mean_box_loss, mean_over
from maskrcnn.models.norm import head_conv
from maskrcnn.models.rois import RoIPooler, RoIs, flatten_boxes
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops import boxes as box_ops
from maskrcnn.ops.device import fixed_shapes
from maskrcnn.ops.nms import nms
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets

# Of an image, where their number may not be looked at: the best of them, far more than ever are detected.
CANDIDATES = 4096


class BoxHead(nn.Module):
    """Convolutions if asked for, fully connected layers or (with none) the mean over the RoI, then K+1 class
    scores, background last (and behind it unused classes), and box offsets.

    The first fully connected layer reads its input in (row, column, channel) order, in which RoIAlign writes
    it, so that nothing is copied; a checkpoint that stores (channel, row, column) is permuted once when imported.

    Args:
        channels, resolution: of the RoI features.
        unused_classes: further rows of the classifier, behind the background.
    """

    def __init__(
        self, channels: int, resolution: int, num_classes: int, config: BoxHeadConfig, unused_classes: int = 0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_agnostic = config.class_agnostic
        wide, hidden = config.conv_channels, config.hidden
        self.convs = nn.ModuleList(
            [head_conv(channels if i == 0 else wide, wide, 3, config.norm) for i in range(config.convs)]
        )
        read = wide if config.convs else channels
        self.layers = fully_connected(resolution**2 * read, hidden, config.layers)
        told = hidden if config.layers else read
        self.class_logits = nn.Linear(told, num_classes + 1 + unused_classes)
        self.deltas = nn.Linear(told, 4 if config.class_agnostic else 4 * num_classes)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.normal_(self.deltas.weight, std=0.001)
        for layer in (self.class_logits, self.deltas):
            nn.init.zeros_(layer.bias)

    def forward(self, roi_features: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, O, O) channels-last -> logits (R, K+1, and as many more as classes are unused) and deltas
        (R, K, 4), or (R, 1, 4) if agnostic; float32."""
        x = roi_features
        for conv in self.convs:
            x = F.relu_(conv(x))
        x = x.permute(0, 2, 3, 1).flatten(1) if self.layers else x.mean(dim=(2, 3))
        for layer in self.layers:
            x = F.relu_(layer(x))
        deltas = self.deltas(x).float()
        return self.class_logits(x).float(), deltas.view(len(deltas), -1, 4)


def fully_connected(read: int, hidden: int, count: int) -> nn.ModuleList:
    """`count` layers of `hidden` units, the first of which reads `read` values (Caffe2's XavierFill)."""
    layers = nn.ModuleList()
    for i in range(count):
        layer = nn.Linear(hidden if i else read, hidden)
        nn.init.kaiming_uniform_(layer.weight, a=1)
        nn.init.zeros_(layer.bias)
        layers.append(layer)
    return layers


class BoxBranch(nn.Module):
    """The box head on every proposal, its losses, and the choice of detections."""

    def __init__(self, head: BoxHead, config: BoxHeadConfig, conventions: Conventions) -> None:
        super().__init__()
        self.head = head
        self.num_classes = head.num_classes
        self.config = config
        self.conventions = conventions

    def losses(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        rois: RoIs,
        targets: Targets,
        windows: Tensor,
    ) -> tuple[dict[str, Tensor], list[RoIs]]:
        """`loss_class` and `loss_box` of the sampled RoIs, and the RoIs of each stage: here these alone."""
        boxes, image_index = flatten_boxes(rois.boxes)
        logits, deltas = self.head(pooler(features, boxes, image_index, self.config.resolution))
        return box_losses(logits, deltas, rois, targets, self.config, self.conventions), [rois]

    def detect(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        proposals: Proposals,
        windows: Tensor,
        settings: DetectConfig,
    ) -> Detections:
        """The best D of all proposals and classes, without masks."""
        boxes, image_index = flatten_boxes(proposals.boxes)
        logits, deltas = self.head(pooler(features, boxes, image_index, self.config.resolution))
        probs = logits.softmax(-1)[:, : self.num_classes + 1]  # unused classes compete and are never found
        return select(probs, deltas, proposals, self.config, self.conventions, windows, settings)


def box_losses(
    logits: Tensor,
    deltas: Tensor,
    rois: RoIs,
    targets: Targets,
    config: BoxHeadConfig,
    conventions: Conventions,
) -> dict[str, Tensor]:
    """Cross-entropy over all classes and the box loss of the true class's offsets, both per sampled RoI.

    Args:
        logits: (B * S, K + 1 and the unused classes); deltas: (B * S, K or 1, 4).
    """
    boxes, labels = rois.boxes.flatten(0, 1), rois.labels.flatten()
    positive, valid = rois.positive.flatten(), rois.valid.flatten()
    object_boxes = targets.boxes.gather(1, rois.slot[..., None].expand(-1, -1, 4)).flatten(0, 1)
    # Slots without an object aim from a unit box at itself: finite, and never counted.
    unit = box_ops.unit_box(boxes)
    goal, start = (box.where(positive[:, None], unit) for box in (object_boxes, boxes))
    row = labels.clamp(max=deltas.shape[1] - 1)  # of the background anything; agnostic offsets have one row
    own = deltas.gather(1, row[:, None, None].expand(-1, 1, 4))[:, 0]
    class_loss = F.cross_entropy(logits, labels, reduction="none")
    regression = box_loss(own, start, goal, config, conventions.boxes.growth_bound)
    return {
        "loss_class": mean_over(class_loss, valid),
        "loss_box": mean_box_loss(regression, positive, valid, conventions.losses.box_divisor),
    }


def select(
    probs: Tensor,
    deltas: Tensor,
    proposals: Proposals,
    config: BoxHeadConfig,
    conventions: Conventions,
    windows: Tensor,
    settings: DetectConfig,
) -> Detections:
    """Scores and offsets of every proposal and class -> NMS per class -> the best D detections an image.

    Args:
        probs: (B * P, K + 1), background last; deltas: (B * P, K or 1, 4).
        windows: (B, 4) where the images lie, to which boxes are clipped.
    """
    classes, rows = probs.shape[1] - 1, deltas.shape[1]
    images, count = proposals.valid.shape
    scores = probs[:, :-1]
    if conventions.detections.one_class_per_roi:
        scores = scores.where(scores == probs.amax(1, keepdim=True), 0.0)
    scores = scores.reshape(images, count * classes)
    scores = scores * proposals.valid.repeat_interleave(classes, dim=1)
    passing = scores > settings.score_threshold
    # Only candidates above the threshold are decoded: as many slots as the fullest image needs.
    most = min(CANDIDATES, scores.shape[1]) if fixed_shapes(scores) else max(int(passing.sum(1).max()), 1)
    scores, index = scores.where(passing, 0.0).topk(most, dim=1)
    proposal, labels = index // classes, index % classes
    anchors = proposals.boxes.gather(1, proposal[..., None].expand(-1, -1, 4))
    flat = (proposal + torch.arange(images, device=index.device)[:, None] * count) * rows + labels.clamp(max=rows - 1)
    boxes = box_ops.decode(deltas.flatten(0, 1)[flat], anchors, config.box_weights, conventions.boxes.growth_bound)
    boxes = box_ops.clip(boxes, windows)
    sides = boxes[..., 2:] - boxes[..., :2]
    valid = (scores > 0) & (sides >= conventions.detections.min_size).all(-1) & (sides > 0).all(-1)
    keep = nms(boxes, valid, settings.nms_iou, labels)
    best, index = scores.where(keep, 0.0).topk(min(settings.max_detections, most), dim=1)
    return Detections(boxes.gather(1, index[..., None].expand(-1, -1, 4)), best, labels.gather(1, index), best > 0)
