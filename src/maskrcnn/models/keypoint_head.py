"""Keypoint branch: each point of a person is one cell of a 56 x 56 map over the box (paper section 5).

Legend: R RoIs, N keypoints, C channels, O side of the RoI feature, M = 4 * O side of the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import KeypointHeadConfig
from maskrcnn.config.conventions import KeypointRules
from maskrcnn.models.losses import mean_over
from maskrcnn.models.norm import Conv
from maskrcnn.models.rois import RoIPooler, RoIs, filled_slots, flatten_boxes, positive_slots
from maskrcnn.ops.boxes import unit_box
from maskrcnn.ops.keypoints import decode_keypoints, keypoint_targets
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class KeypointHead(nn.Module):
    """3x3 convolutions, a 4x4 transposed convolution of stride 2 to one map a keypoint, enlarged by 2 bilinearly."""

    def __init__(self, in_channels: int, config: KeypointHeadConfig, rules: KeypointRules) -> None:
        super().__init__()
        self.zero_border = rules.border == "zero"
        widths = (in_channels, *config.widths)
        self.convs = nn.ModuleList([Conv(read, wide, 3, padding=1) for read, wide in pairwise(widths)])
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
    """The keypoint head on positives that show a labelled point (training) or on the detections (prediction).

    Args:
        side: M of the head's maps.
    """

    def __init__(self, head: KeypointHead, side: int, config: KeypointHeadConfig, rules: KeypointRules) -> None:
        super().__init__()
        self.head = head
        self.side = side
        self.config = config
        self.rules = rules

    def losses(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        rois: RoIs,
        targets: Targets,
    ) -> dict[str, Tensor]:
        """`loss_keypoint`: softmax cross-entropy over the cells of the map, mean over the labelled points inside."""
        assert targets.keypoints is not None, "targets carry no keypoints"
        boxes, image_index = flatten_boxes(rois.boxes)
        images, slots = rois.labels.shape
        row = torch.arange(images, device=boxes.device)[:, None]
        points = targets.keypoints[row, rois.slot].flatten(0, 1)  # (B * S, N, 3)
        # An empty slot's box may have no area: a unit box in its place keeps the division finite.
        safe = pooler.read_part(boxes).where(rois.positive.flatten()[:, None], unit_box(boxes))
        cells, inside = keypoint_targets(points, safe, self.side)
        shown = rois.positive & inside.any(-1).view(images, slots)
        index, used = positive_slots(shown, self.config.samples)
        logits = self.head(pooler(features, boxes[index], image_index[index], self.config.resolution))
        loss = F.cross_entropy(logits.flatten(2).flatten(0, 1), cells[index].flatten(), reduction="none")
        return {"loss_keypoint": mean_over(loss, (inside[index] & used[:, None]).flatten())}

    def detect(self, features: Sequence[Tensor], pooler: RoIPooler, found: Detections) -> Detections:
        """The same detections with the keypoints of each."""
        boxes, image_index = flatten_boxes(found.boxes)
        slots = filled_slots(found.valid)
        logits = self.head(pooler(features, boxes[slots], image_index[slots], self.config.resolution))
        points, logit, probability = decode_keypoints(logits, pooler.read_part(boxes[slots]))
        score = probability if self.rules.score == "probability" else logit
        every = points.new_zeros((found.valid.numel(), self.config.num_keypoints, 3))
        every = every.index_copy_(0, slots, torch.cat([points, score[..., None]], dim=-1))
        return replace(found, keypoints=every.view(*found.valid.shape, -1, 3))
