"""Keypoint branch: the target of each keypoint is one cell of a 56 x 56 map over the box (paper section 5).

Legend: B images, S sampled RoIs per image, R RoIs, N keypoints, C channels, O side of the RoI features, M = 4 * O side
of the map.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import KeypointHeadConfig
from maskrcnn.config.conventions import KeypointRules
from maskrcnn.models.losses import LossSum, sum_over
from maskrcnn.models.norm import Conv
from maskrcnn.models.pooler import RoIReader
from maskrcnn.models.rois import RoIs, filled_slots, positive_slots
from maskrcnn.ops.boxes import unit_box
from maskrcnn.ops.keypoints import decode_keypoints, keypoint_targets
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class KeypointHead(nn.Module):
    """3x3 convolutions, a 4x4 transposed convolution of stride 2 to one map per keypoint, bilinear upsampling by 2."""

    def __init__(self, in_channels: int, config: KeypointHeadConfig, rules: KeypointRules) -> None:
        super().__init__()
        self.zero_border = rules.border == "zero"
        widths = (in_channels, *config.widths)
        self.convs = nn.ModuleList([Conv(before, after, 3, padding=1) for before, after in pairwise(widths)])
        self.predictor = nn.ConvTranspose2d(widths[-1], config.num_keypoints, 4, stride=2, padding=1)
        for layer in (*self.convs, self.predictor):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> logits (R, N, M, M) float32."""
        x = roi_features
        for conv in self.convs:
            x = F.relu_(conv(x))
        maps = self.predictor(x).float()
        if self.zero_border:
            maps = F.pad(maps, (1, 1, 1, 1))
        maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)
        return maps[..., 2:-2, 2:-2] if self.zero_border else maps


class KeypointBranch(nn.Module):
    """Runs the keypoint head on positive RoIs with a labelled keypoint (training) or on detections (prediction).

    Args:
        side: M.
    """

    def __init__(self, head: KeypointHead, side: int, config: KeypointHeadConfig, rules: KeypointRules) -> None:
        super().__init__()
        self.head = head
        self.side = side
        self.config = config
        self.rules = rules
        self.decode: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = decode_keypoints

    def losses(self, read: RoIReader, stages: Sequence[RoIs], targets: Targets) -> dict[str, LossSum]:
        """`loss_keypoint`: softmax cross-entropy over the cells of the map, the mean over labelled points in RoIs."""
        assert targets.keypoints is not None, "targets have no keypoints"
        rois = stages[0]
        images, count = rois.labels.shape
        row = torch.arange(images, device=rois.slot.device)[:, None]
        points = targets.keypoints[row, rois.slot].flatten(0, 1)  # (B * S, N, 3)
        # A RoI without an object may have no area. A unit box in its place keeps the division finite.
        spans = read.span(rois.boxes.flatten(0, 1))
        spans = spans.where(rois.positive.flatten()[:, None], unit_box(spans))
        cells, inside = keypoint_targets(points, spans, self.side)
        labelled = rois.positive & inside.any(-1).view(images, count)
        slots = positive_slots(labelled, self.config.samples, targets.seeds, 3)
        logits = self.head(read(slots.take(rois.boxes), slots.image_index, self.config.resolution))
        cells, inside = cells[slots.chosen], inside[slots.chosen] & slots.used[:, None]
        loss = F.cross_entropy(logits.flatten(2).flatten(0, 1), cells.flatten(), reduction="none")
        return {"loss_keypoint": sum_over(loss, inside.flatten())}

    def detect(self, read: RoIReader, found: Detections) -> Detections:
        """The same detections with (B, D, N, 3) keypoints: x, y in network-input pixels, and the score."""
        slots = filled_slots(found)
        boxes = slots.take(found.boxes)
        logits = self.head(read(boxes, slots.image_index, self.config.resolution))
        points, logit, probability = self.decode(logits, read.span(boxes))
        score = probability if self.rules.score == "probability" else logit
        return replace(found, keypoints=slots.put_back(torch.cat([points, score[..., None]], dim=-1)))

    def run_heads(self, features_of: Callable[[int], Tensor]) -> None:
        """Runs the head once, as `roi_heads.Branch.run_heads` does."""
        self.head(features_of(self.config.resolution))
