"""PointRend (Kirillov et al. 2020): a coarse mask, refined at the points that it is least sure of.

Numbers and rules as in Detectron2's `projects/PointRend`. Legend: R RoIs, K masks (classes, or 1 if agnostic),
C channels, O side of the RoI feature, P points a RoI.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import MaskHeadConfig, PointRendConfig
from maskrcnn.config.conventions import MaskRules
from maskrcnn.models.box_head import fully_connected
from maskrcnn.models.losses import mean_over
from maskrcnn.models.mask_head import mask_crops, mask_goal, mask_slots, with_masks
from maskrcnn.models.rois import RoIPooler, RoIs, filled_slots, flatten_boxes
from maskrcnn.ops.mask_targets import sample_bitmaps
from maskrcnn.ops.points import sample_feature, sample_map
from maskrcnn.ops.roi_align import roi_align
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class CoarseMaskHead(nn.Module):
    """A 2x2 convolution of stride 2, fully connected layers, and one O/2 x O/2 mask a class."""

    def __init__(self, in_channels: int, masks: int, config: MaskHeadConfig) -> None:
        super().__init__()
        self.masks, self.side = masks, config.resolution // 2
        self.reduce = nn.Conv2d(in_channels, config.channels, 2, stride=2)
        read = config.channels * self.side**2
        self.layers = fully_connected(read, config.hidden, config.layers)
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
    """An MLP on each point: its fine features, and the coarse logits there beside the input of every layer."""

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
    """Takes the place of `MaskBranch`. Reads the finest level alone, whatever the size of the box."""

    def __init__(
        self,
        coarse_head: CoarseMaskHead,
        point_head: PointHead,
        num_classes: int,
        stride: int,
        config: MaskHeadConfig,
        rules: MaskRules,
    ) -> None:
        super().__init__()
        assert config.point_rend is not None
        self.coarse_head, self.point_head = coarse_head, point_head
        self.num_classes, self.stride = num_classes, stride
        self.config, self.points = config, config.point_rend
        self.rules = rules

    def losses(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        rois: RoIs,
        targets: Targets,
    ) -> dict[str, Tensor]:
        """`loss_mask` of the coarse masks and `loss_mask_point` of the chosen points, on the true class alone."""
        index, used = mask_slots(rois, targets, self.config)
        boxes, image_index = flatten_boxes(rois.boxes)
        boxes, image_index = boxes[index], image_index[index]
        labels = rois.labels.flatten()[index].clamp(max=self.num_classes - 1)
        coarse = self._coarse(features, boxes, image_index)
        own = self._own(coarse, labels)
        goal = mask_goal(rois, index, targets, self.rules, own.shape[-1])
        coarse_loss = F.binary_cross_entropy_with_logits(own, goal, reduction="none").mean((1, 2))
        points = self._training_points(own.detach())
        logits = self._own(self._refine(features, boxes, image_index, coarse, points), labels)
        crops, to_original, image_hw = mask_crops(rois, index, targets)
        at = boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]
        at = at @ to_original[:, :, :2].transpose(1, 2) + to_original[:, None, :, 2]
        point_goal = sample_bitmaps(*crops, at, image_hw)
        point_loss = F.binary_cross_entropy_with_logits(logits, point_goal, reduction="none").mean(1)
        return {"loss_mask": mean_over(coarse_loss, used), "loss_mask_point": mean_over(point_loss, used)}

    def detect(self, features: Sequence[Tensor], pooler: RoIPooler, found: Detections) -> Detections:
        """The same detections with the mask of each one's class: a small grid, doubled again and again, its least
        certain cells computed anew each time."""
        boxes, image_index = flatten_boxes(found.boxes)
        slots = filled_slots(found.valid)
        boxes, image_index, labels = boxes[slots], image_index[slots], found.labels.flatten()[slots]
        coarse = self._coarse(features, boxes, image_index)
        side, steps = self.first_grid()
        cells = torch.arange(side**2, device=boxes.device).expand(len(boxes), -1)
        points = _centres(cells, side)
        masks = self._own(self._refine(features, boxes, image_index, coarse, points), labels)
        masks = masks.view(-1, 1, side, side)
        for _ in range(steps):
            masks = F.interpolate(masks, scale_factor=2, mode="bilinear", align_corners=False)
            side *= 2
            flat = masks.view(len(masks), -1)
            cells = flat.abs().topk(min(self.points.subdivision_points, side**2), dim=1, largest=False)[1]
            points = _centres(cells, side)
            logits = self._own(self._refine(features, boxes, image_index, coarse, points), labels)
            masks = flat.scatter(1, cells, logits).view_as(masks)
        return with_masks(found, slots, torch.sigmoid(masks[:, 0]))

    def first_grid(self) -> tuple[int, int]:
        """Side of the grid that is computed whole, and how often it is doubled after that."""
        side, steps = self.coarse_head.side, self.points.subdivision_steps
        while 4 * side**2 <= self.points.subdivision_points:  # a doubled grid of which every cell would be computed
            side, steps = 2 * side, steps - 1
        return side, steps

    def _coarse(self, features: Sequence[Tensor], boxes: Tensor, image_index: Tensor) -> Tensor:
        """(R, K, O/2, O/2): features at the centres of an O x O grid, which is RoIAlign with one sample a bin."""
        level = torch.zeros_like(image_index)
        side = self.config.resolution
        pooled = roi_align(
            features[:1], boxes, image_index, level, strides=[self.stride], output_size=side, sampling_ratio=1
        )
        return self.coarse_head(pooled)

    def _refine(
        self, features: Sequence[Tensor], boxes: Tensor, image_index: Tensor, coarse: Tensor, points: Tensor
    ) -> Tensor:
        """Logits (R, K, P) at (R, P, 2) points, given as fractions of their boxes."""
        at = boxes[:, None, :2] + points * (boxes[:, 2:] - boxes[:, :2])[:, None]
        fine = sample_feature(features[0], at, image_index, self.stride)
        return self.point_head(fine, sample_map(coarse, points))

    def _own(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(R, K, ...) -> (R, ...), the mask of each RoI's class."""
        row = torch.zeros_like(labels) if self.config.class_agnostic else labels
        return logits[torch.arange(len(labels), device=labels.device), row]

    @torch.no_grad()
    def _training_points(self, own: Tensor) -> Tensor:
        """(R, P, 2) fractions of the box: of several times as many at random the least certain, and some at random."""
        settings = self.points
        count = settings.train_points
        candidates = int(count * settings.oversample)
        important = int(count * settings.important)
        drawn = torch.rand((len(own), candidates + count - important, 2), device=own.device)
        among = drawn[:, :candidates]
        unsure = sample_map(own[:, None], among)[:, 0].abs().topk(important, dim=1, largest=False)[1]
        return torch.cat([among.gather(1, unsure[..., None].expand(-1, -1, 2)), drawn[:, candidates:]], dim=1)


def _centres(cells: Tensor, side: int) -> Tensor:
    """Numbers of cells of a side x side grid over the box, row by row -> (..., 2) x, y as fractions of the box."""
    return (torch.stack([cells % side, cells // side], dim=-1) + 0.5) / side
