"""PointRend (Kirillov et al. 2020): a coarse mask, refined at the points where it is least certain.

The numbers and rules are those of Detectron2's `projects/PointRend`. Legend: R RoIs, K masks per RoI (one per class, or
1 if class-agnostic), C channels, O side of the RoI features, P points per RoI.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import MaskHeadConfig, PointRendConfig
from maskrcnn.config.conventions import MaskRules
from maskrcnn.models.branches.box_head import fully_connected
from maskrcnn.models.branches.mask import mask_crops, mask_goal, mask_slots
from maskrcnn.models.losses import LossSum, sum_over
from maskrcnn.models.pooler import RoIReader
from maskrcnn.models.rois import RoIs, filled_slots
from maskrcnn.ops.mask_targets import sample_bitmaps
from maskrcnn.ops.matching import uniform
from maskrcnn.ops.points import sample_feature, sample_map
from maskrcnn.ops.roi_align import roi_align
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class CoarseMaskHead(nn.Module):
    """A 2x2 convolution of stride 2 and fully connected layers to one O/2 x O/2 mask per class."""

    def __init__(self, in_channels: int, masks: int, config: MaskHeadConfig) -> None:
        super().__init__()
        self.masks, self.side = masks, config.resolution // 2
        self.reduce = nn.Conv2d(in_channels, config.channels, 2, stride=2)
        self.layers = fully_connected(config.channels * self.side**2, config.hidden, config.layers)
        self.predictor = nn.Linear(config.hidden, masks * self.side**2)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.reduce.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> logits (R, K, O/2, O/2) float32."""
        x = F.relu_(self.reduce(roi_features)).flatten(1)
        for layer in self.layers:
            x = F.relu_(layer(x))
        return self.predictor(x).view(-1, self.masks, self.side, self.side).float()


class PointHead(nn.Module):
    """An MLP on the fine features and coarse logits at each point. Every layer gets the coarse logits again."""

    def __init__(self, in_channels: int, masks: int, config: PointRendConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv1d((in_channels if i == 0 else config.channels) + masks, config.channels, 1)
                for i in range(config.layers)
            ]
        )
        self.predictor = nn.Conv1d(config.channels + masks, masks, 1)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """Features (R, C, P) and coarse logits (R, K, P) -> logits (R, K, P) float32."""
        coarse = coarse.to(fine.dtype)
        x = torch.cat([fine, coarse], dim=1)
        for layer in self.layers:
            x = torch.cat([F.relu_(layer(x)), coarse], dim=1)
        return self.predictor(x).float()


class PointRendBranch(nn.Module):
    """A mask branch that samples the finest feature map, for boxes of every size."""

    def __init__(
        self,
        coarse_head: CoarseMaskHead,
        point_head: PointHead,
        num_classes: int,
        config: MaskHeadConfig,
        points: PointRendConfig,
        rules: MaskRules,
    ) -> None:
        super().__init__()
        self.coarse_head, self.point_head = coarse_head, point_head
        self.num_classes = num_classes
        self.config, self.points, self.rules = config, points, rules

    def losses(self, read: RoIReader, stages: Sequence[RoIs], targets: Targets) -> dict[str, LossSum]:
        """`loss_mask` of the coarse masks and `loss_mask_point` at the sampled points, on the true class alone."""
        rois = stages[0]
        slots = mask_slots(rois, targets, self.config)
        boxes, image_index = slots.take(rois.boxes), slots.image_index
        labels = slots.take(rois.labels).clamp(max=self.num_classes - 1)
        masks = mask_crops(rois, slots, targets)
        coarse = self._coarse(read, boxes, image_index)
        own = self._of_class(coarse, labels)
        target = mask_goal(boxes, masks, self.rules, own.shape[-1])
        coarse_loss = F.binary_cross_entropy_with_logits(own, target, reduction="none").mean((1, 2))
        points = self._training_points(own.detach(), slots.seeds(targets.seeds))
        logits = self._of_class(self._refine(read, boxes, image_index, coarse, points), labels)
        points_px = _in_network_pixels(points, boxes)
        original_px = points_px @ masks.to_original[:, :, :2].transpose(1, 2) + masks.to_original[:, None, :, 2]
        point_target = sample_bitmaps(masks, original_px)
        point_loss = F.binary_cross_entropy_with_logits(logits, point_target, reduction="none").mean(1)
        return {"loss_mask": sum_over(coarse_loss, slots.used), "loss_mask_point": sum_over(point_loss, slots.used)}

    def detect(self, read: RoIReader, found: Detections) -> Detections:
        """The same detections with mask probabilities for the class of each.

        A small grid of logits is upsampled by 2 several times; each time its least certain cells are predicted anew.
        """
        slots = filled_slots(found)
        boxes, image_index, labels = slots.take(found.boxes), slots.image_index, slots.take(found.labels)
        coarse = self._coarse(read, boxes, image_index)
        side, steps = self.first_grid()
        cells = torch.arange(side**2, device=boxes.device).expand(len(boxes), -1)
        points = _centres(cells, side)
        masks = self._of_class(self._refine(read, boxes, image_index, coarse, points), labels)
        masks = masks.view(-1, 1, side, side)
        for _ in range(steps):
            masks = F.interpolate(masks, scale_factor=2, mode="bilinear", align_corners=False)
            side *= 2
            flat = masks.flatten(1)
            cells = flat.abs().topk(min(self.points.subdivision_points, side**2), dim=1, largest=False)[1]
            points = _centres(cells, side)
            logits = self._of_class(self._refine(read, boxes, image_index, coarse, points), labels)
            masks = flat.scatter(1, cells, logits).view_as(masks)
        return replace(found, mask_probs=slots.put_back(torch.sigmoid(masks[:, 0])))

    def run_heads(self, features_of: Callable[[int], Tensor]) -> None:
        """Runs both heads once on all points of a detection, as `roi_heads.Branch.run_heads` does."""
        pooled = features_of(self.config.resolution)
        coarse = self.coarse_head(pooled)
        side, steps = self.first_grid()
        points = side**2 + steps * self.points.subdivision_points
        self.point_head(*(maps.new_empty((*maps.shape[:2], points)) for maps in (pooled, coarse)))

    def first_grid(self) -> tuple[int, int]:
        """The side of the first grid, and how often it is doubled. All cells of the first grid are predicted."""
        side, steps = self.coarse_head.side, self.points.subdivision_steps
        while 4 * side**2 <= self.points.subdivision_points:  # all cells of the doubled grid would be predicted
            side, steps = 2 * side, steps - 1
        return side, steps

    def _coarse(self, read: RoIReader, boxes: Tensor, image_index: Tensor) -> Tensor:
        """The coarse logits (R, K, O/2, O/2). The head gets the features at the centres of an O x O grid over the box,
        which is RoIAlign with one sample per bin."""
        feature, stride = read.finest
        level = torch.zeros_like(image_index)
        side = self.config.resolution
        pooled = roi_align([feature], boxes, image_index, level, strides=[stride], output_size=side, sampling_ratio=1)
        return self.coarse_head(pooled)

    def _refine(self, read: RoIReader, boxes: Tensor, image_index: Tensor, coarse: Tensor, points: Tensor) -> Tensor:
        """Logits (R, K, P) at points (R, P, 2), which are fractions of their boxes."""
        feature, stride = read.finest
        fine = sample_feature(feature, _in_network_pixels(points, boxes), image_index, stride)
        return self.point_head(fine, sample_map(coarse, points))

    def _of_class(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(R, K, ...) -> (R, ...), the logits of each RoI's class."""
        row = torch.zeros_like(labels) if self.config.class_agnostic else labels
        return logits[torch.arange(len(labels), device=labels.device), row]

    @torch.no_grad()
    def _training_points(self, own: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Points (R, P, 2) as fractions of the box. Most of them are the least certain of many random points, and the
        others are uniformly random.

        Args:
            own: (R, O/2, O/2) coarse logits of the true class.
            seeds: (R,) int64, as in `ops.matching.uniform`.
        """
        settings = self.points
        count = settings.train_points
        candidates = int(count * settings.oversample)
        important = int(count * settings.important)
        coordinates = own.new_empty((len(own), 2 * (candidates + count - important)))
        random = uniform(coordinates, seeds, 4).unflatten(1, (-1, 2))
        first = random[:, :candidates]
        uncertain = sample_map(own[:, None], first)[:, 0].abs().topk(important, dim=1, largest=False)[1]
        return torch.cat([first.gather(1, uncertain[..., None].expand(-1, -1, 2)), random[:, candidates:]], dim=1)


def _in_network_pixels(points: Tensor, boxes: Tensor) -> Tensor:
    """(R, P, 2) fractions of the boxes (R, 4) -> (R, P, 2) x, y in network-input pixels."""
    return boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]


def _centres(cells: Tensor, side: int) -> Tensor:
    """Cells (...) of a side x side grid over the box, numbered row by row -> centres (..., 2) x, y as fractions of the
    box."""
    return (torch.stack([cells % side, cells // side], dim=-1) + 0.5) / side
