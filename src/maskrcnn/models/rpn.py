"""Region proposal network: boxes that may hold an object (paper section 3; Ren et al. 2015).

Legend: B images, L levels, A anchors per cell, N anchors per image, P proposals per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import Conventions, RPNConfig
from maskrcnn.models.anchors import Anchors
from maskrcnn.models.losses import LossSum, box_loss, sum_box_loss, sum_over
from maskrcnn.models.norm import Conv
from maskrcnn.ops import boxes as box_ops
from maskrcnn.ops.matching import match, sample
from maskrcnn.ops.nms import nms
from maskrcnn.structures.targets import Targets


class Proposals(NamedTuple):
    """Boxes (B, P, 4) float32 in network-input pixels, highest-scoring first, and `valid` (B, P) bool, False for
    empty slots. `BoxRules.end` says where these boxes end."""

    boxes: Tensor
    valid: Tensor


class RPNOutput(NamedTuple):
    """Predictions by level, float32: logits (B, n), deltas (B, n, 4) and anchors (n, 4), where n = h * w * A."""

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]

    def joined(self) -> RPNOutput:
        """The same predictions with all levels concatenated into one."""
        return RPNOutput([torch.cat(self.logits, 1)], [torch.cat(self.deltas, 1)], [torch.cat(self.anchors)])


class RPNHead(nn.Module):
    """3x3 convolutions (one in the paper), then 1x1 convolutions to objectness and offsets. All levels share it.

    Args:
        channels: channels of every level.
        hidden: channels of the 3x3 convolutions; None takes `channels`.
    """

    def __init__(self, channels: int, anchors_per_cell: int, convs: int = 1, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or channels
        self.convs = nn.ModuleList([Conv(channels if i == 0 else hidden, hidden, 3, padding=1) for i in range(convs)])
        self.objectness = nn.Conv2d(hidden, anchors_per_cell, 1)
        self.deltas = nn.Conv2d(hidden, 4 * anchors_per_cell, 1)
        for conv in (*self.convs, self.objectness, self.deltas):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, feature: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, h, w) -> logits (B, n) and deltas (B, n, 4), float32, n = h * w * A in the order (y, x, anchor)."""
        x = feature
        for conv in self.convs:
            x = F.relu_(conv(x))
        # One convolution for both reads the map once and writes its gradient once.
        layers = (self.objectness, self.deltas)
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
        both = F.conv2d(x, weight, bias).permute(0, 2, 3, 1).float()
        anchors = self.objectness.out_channels
        return both[..., :anchors].flatten(1), both[..., anchors:].reshape(x.shape[0], -1, 4)


class RPN(nn.Module):
    """The head, the anchors, the proposals and the losses.

    Args:
        channels: channels of every level.
        divisor: an image is padded to multiples of this, network-input pixels.
    """

    def __init__(
        self, channels: int, anchors: Anchors, config: RPNConfig, conventions: Conventions, divisor: int
    ) -> None:
        super().__init__()
        self.config = config
        self.conventions = conventions
        self.divisor = divisor
        self.anchors = anchors
        self.head = RPNHead(channels, len(anchors.cells[0]), config.convs, config.channels)

    def forward(self, features: Sequence[Tensor], padded_hw: tuple[int, int]) -> RPNOutput:
        """Runs the head on each feature map (B, C, h, w).

        Args:
            padded_hw: size of the padded batch, network-input pixels.
        """
        raw = [self.head(feature) for feature in features]
        grids = [(feature.shape[2], feature.shape[3]) for feature in features]
        anchors = self.anchors(grids, padded_hw, features[0].device)
        return RPNOutput([logits for logits, _ in raw], [deltas for _, deltas in raw], anchors)

    @torch.no_grad()
    def propose(self, output: RPNOutput, sizes_hw: Tensor) -> Proposals:
        """Takes the highest-scoring anchors of each level, decodes and clips them, runs non-maximum suppression (NMS)
        within the level, and merges the levels by score. `ProposalRules.merge_levels` treats all levels as one.

        Args:
            sizes_hw: (B, 2) sizes of the images without padding, network-input pixels.
        """
        config, rules, box_rules = self.config, self.conventions.proposals, self.conventions.boxes
        before = config.pre_nms_train if self.training else config.pre_nms_test
        after = config.post_nms_train if self.training else config.post_nms_test
        windows = box_ops.trim(box_ops.whole_images(sizes_hw).float(), box_rules.trim)
        if rules.merge_levels:
            output = output.joined()
        best = []
        for logits, deltas, anchors in zip(*output, strict=True):
            scores, index = logits.topk(torch.sym_min(before, logits.shape[1]), dim=1)
            best.append((scores, deltas.gather(1, index[..., None].expand(-1, -1, 4)), anchors[index]))
        counts = [scores.shape[1] for scores, _, _ in best]
        slots: int = reduce(torch.sym_max, counts)  # type: ignore[arg-type]
        # All images and levels get lists of one length, (B, L, slots, ...), so that one call of NMS serves them all.
        scores, deltas, anchors = (
            torch.stack([_pad_slots(part, slots) for part in levels], dim=1) for levels in zip(*best, strict=True)
        )
        filled = (anchors[..., 2:] > anchors[..., :2]).all(-1)
        anchors = box_ops.trim(anchors, box_rules.trim)
        boxes = box_ops.decode(deltas, anchors, config.box_weights, box_rules.growth_bound)
        boxes = box_ops.clip(boxes.flatten(1, 2), windows).view_as(deltas)
        sides = boxes[..., 2:] - boxes[..., :2]
        valid = filled & (sides >= rules.min_size).all(-1) & (sides > -box_rules.trim).all(-1)
        keep = nms(boxes.flatten(0, 1), valid.flatten(0, 1), config.nms_iou).view_as(valid)
        scores, index = scores.masked_fill(~keep, -torch.inf).flatten(1).topk(torch.sym_min(after, sum(counts)), dim=1)
        valid = scores > -torch.inf
        if self.training and rules.post_nms_per == "batch":
            valid &= scores >= scores.flatten().topk(scores.shape[1]).values[-1]
        boxes = boxes.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, 4))
        return Proposals(boxes * valid[..., None], valid)

    def losses(self, output: RPNOutput, targets: Targets, sizes_hw: Tensor) -> dict[str, LossSum]:
        """`loss_rpn_class`, binary cross-entropy on the sampled anchors, and `loss_rpn_box` on the positive ones.

        `LossRules` says what both are divided by.

        Args:
            sizes_hw: (B, 2) sizes of the images without padding, network-input pixels.
        """
        config, matching, loss_rules = self.config, self.conventions.matching, self.conventions.losses
        (logits,), (deltas,), (anchors,) = output.joined()
        with torch.no_grad():
            label, matched = match(
                anchors[None],
                targets.boxes,
                targets.valid,
                targets.crowd,
                positive_iou=config.positive_iou,
                negative_iou=config.negative_iou,
                low_quality_iou=matching.rpn_low_quality_iou,
                low_quality_target=matching.low_quality_target,
                left_out=self.left_out(output.anchors, sizes_hw),
            )
            sampled = sample(label, config.samples, config.positive_fraction, targets.seeds)
            box = targets.boxes.gather(1, matched.gather(1, sampled.chosen)[..., None].expand(-1, -1, 4))
            # An anchor without an object is its own target, which keeps its loss finite; the loss is not counted.
            anchor = anchors[sampled.chosen]
            target = torch.where(sampled.positive[..., None], box, anchor)
        sampled_logits = logits.gather(1, sampled.chosen)
        sampled_deltas = deltas.gather(1, sampled.chosen[..., None].expand(-1, -1, 4))
        class_loss = F.binary_cross_entropy_with_logits(
            sampled_logits, sampled.positive.to(sampled_logits.dtype), reduction="none"
        )
        regression = box_loss(sampled_deltas, anchor, target, config, self.conventions.boxes.growth_bound)
        divisor = None if loss_rules.rpn_divisor == "sampled" else config.samples * len(label)
        return {
            "loss_rpn_class": sum_over(class_loss, sampled.valid, divisor),
            "loss_rpn_box": sum_box_loss(regression, sampled.positive, sampled.valid, loss_rules.box_divisor, divisor),
        }

    def left_out(self, anchors: Sequence[Tensor], sizes_hw: Tensor) -> Tensor | None:
        """Which anchors the losses ignore, (B, N) bool; None if no rule ignores any.

        Args:
            anchors: one (n, 4) tensor per level.
            sizes_hw: as in `losses`.
        """
        rules, ignored = self.conventions.matching, None
        if rules.allowed_border is not None:
            edges = torch.cat(list(anchors))
            before, after = rules.allowed_border
            limit = sizes_hw.flip(-1)[:, None] + after  # (B, 1, 2)
            ignored = (edges[:, :2] < -before).any(-1) | (edges[:, 2:] >= limit).any(-1)
        if rules.ignore_padding_anchors:
            beyond = []
            for level, stride in zip(anchors, self.anchors.strides, strict=True):
                # The cell follows from the anchor's centre; 1e-3 allows for edges that were rounded.
                cell = ((level[:, :2] + level[:, 2:]) / (2 * stride) + 1e-3).floor()
                cells = (sizes_hw.flip(-1) / self.divisor).ceil() * self.divisor / stride
                beyond.append((cell >= cells.ceil()[:, None]).any(-1))
            padding = torch.cat(beyond, dim=1)
            ignored = padding if ignored is None else ignored | padding
        return ignored


def _pad_slots(values: Tensor, slots: int) -> Tensor:
    """(B, n, ...) -> (B, slots, ...), padded with zeros at the end."""
    return F.pad(values, (0, 0) * (values.dim() - 2) + (0, slots - values.shape[1]))
