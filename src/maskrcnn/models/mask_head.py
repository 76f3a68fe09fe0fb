"""Mask branch: a small network on each RoI, fully convolutional or (for the ablation) an MLP.

Paper section 3, figure 4 right. Legend: R RoIs, K classes, C channels, O side of the RoI feature, M side of the mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskrcnn.config import MaskHeadConfig
from maskrcnn.config.conventions import MaskRules
from maskrcnn.models.box_head import fully_connected
from maskrcnn.models.losses import mean_over
from maskrcnn.models.norm import head_conv
from maskrcnn.models.rois import RoIPooler, RoIs, filled_slots, flatten_boxes, positive_slots
from maskrcnn.ops.mask_targets import mask_targets
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class MaskHead(nn.Module):
    """3x3 convolutions, a 2x2 transposed convolution of stride 2, and one 1x1 mask a class: M = 2 * O."""

    def __init__(self, in_channels: int, masks: int, config: MaskHeadConfig) -> None:
        super().__init__()
        convs, channels = config.convs, config.channels
        self.convs = nn.ModuleList(
            [head_conv(in_channels if i == 0 else channels, channels, 3, config.norm) for i in range(convs)]
        )
        self.upsample = nn.ConvTranspose2d(channels if convs else in_channels, channels, 2, stride=2)
        self.predictor = nn.Conv2d(channels, masks, 1)
        nn.init.kaiming_normal_(self.upsample.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.upsample.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)  # type: ignore[arg-type]

    def forward(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> logits (R, K, M, M) float32."""
        x = self.hidden(roi_features)
        logits = F.linear(x, self.predictor.weight.flatten(1), self.predictor.bias)
        return self._as_masks(logits, roi_features.shape[-1]).permute(0, 3, 1, 2).float()

    def of_labels(self, roi_features: Tensor, labels: Tensor) -> Tensor:
        """The logits of one class a RoI: where masks do not compete, no other is computed.

        Args:
            roi_features: (R, C, O, O).
            labels: (R,) int64 in 0..K-1.

        Returns:
            (R, M, M) float32.
        """
        x = self.hidden(roi_features)
        weight = self.predictor.weight[labels].flatten(1)  # (R, C)
        assert self.predictor.bias is not None
        bias = self.predictor.bias[labels][:, None, None]
        logits = torch.baddbmm(bias.to(x.dtype), x, weight[..., None].to(x.dtype))
        return self._as_masks(logits, roi_features.shape[-1])[..., 0].float()

    def hidden(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> (R, 4 * O * O, C) pixels of the masks, in the order (row, column, half row, half column).

        A transposed convolution whose stride is its size is one matrix product a pixel, and the 1x1 convolution
        after it asks for no order.
        """
        x = roi_features
        for conv in self.convs:
            x = F.relu_(conv(x))
        weight = self.upsample.weight.permute(2, 3, 1, 0)  # (2, 2, C, C of x)
        assert self.upsample.bias is not None
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        four = F.linear(pixels, weight.flatten(0, 2), self.upsample.bias.repeat(4))
        shape = (len(x), 4 * pixels.shape[1], weight.shape[2])
        if torch.compiler.is_compiling():  # it copies what is changed in place and viewed afterwards
            return F.relu(four.view(shape))
        return F.relu_(four).view(shape)  # the other way round autograd copies the gradient

    def _as_masks(self, values: Tensor, side: int) -> Tensor:
        """(R, 4 * O * O, K) in the order of `hidden` -> (R, M, M, K); `side` is O."""
        halves = values.view(len(values), side, side, 2, 2, values.shape[-1])
        return halves.transpose(2, 3).reshape(len(values), 2 * side, 2 * side, values.shape[-1])


class MLPMaskHead(nn.Module):
    """Fully connected layers to one M x M mask a class: the alternative of the paper's table 2e."""

    def __init__(self, in_channels: int, resolution: int, masks: int, config: MaskHeadConfig) -> None:
        super().__init__()
        self.masks, self.side = masks, 2 * resolution
        read = in_channels * resolution**2
        self.layers = fully_connected(read, config.hidden, config.layers)
        self.predictor = nn.Linear(config.hidden, masks * self.side**2)
        nn.init.normal_(self.predictor.weight, std=0.001)
        nn.init.zeros_(self.predictor.bias)

    def forward(self, roi_features: Tensor) -> Tensor:
        """(R, C, O, O) -> logits (R, K, M, M) float32."""
        return self.predictor(self.hidden(roi_features)).view(-1, self.masks, self.side, self.side).float()

    def of_labels(self, roi_features: Tensor, labels: Tensor) -> Tensor:
        """The logits of one class a RoI, (R, M, M) float32; as `MaskHead.of_labels`."""
        x = self.hidden(roi_features)
        weight = self.predictor.weight.view(self.masks, -1, x.shape[1])[labels].to(x.dtype)
        bias = self.predictor.bias.view(self.masks, -1)[labels].to(x.dtype)
        return torch.baddbmm(bias[..., None], weight, x[..., None]).view(-1, self.side, self.side).float()

    def hidden(self, roi_features: Tensor) -> Tensor:
        x = roi_features.permute(0, 2, 3, 1).flatten(1)
        for layer in self.layers:
            x = F.relu_(layer(x))
        return x


class MaskBranch(nn.Module):
    """The mask head on positives (training) or on the detections (prediction), its targets and its loss."""

    def __init__(
        self, head: MaskHead | MLPMaskHead, num_classes: int, config: MaskHeadConfig, rules: MaskRules
    ) -> None:
        super().__init__()
        self.head = head
        self.num_classes = num_classes
        self.config = config
        self.rules = rules

    def losses(
        self,
        features: Sequence[Tensor],
        pooler: RoIPooler,
        rois: RoIs,
        targets: Targets,
    ) -> dict[str, Tensor]:
        """`loss_mask`: per pixel, on the mask of the true class alone, over positive RoIs (paper section 3)."""
        index, used = mask_slots(rois, targets, self.config)
        boxes, image_index = flatten_boxes(rois.boxes)
        read = rois._replace(boxes=pooler.read_part(rois.boxes))
        labels = rois.labels.flatten()[index].clamp(max=self.num_classes - 1)
        pooled = pooler(features, boxes[index], image_index[index], self.config.resolution)
        if self.config.loss == "softmax":
            logits = self.head(pooled)
            goal = mask_goal(read, index, targets, self.rules, logits.shape[-1]) >= 0.5
            classes = torch.where(goal, labels[:, None, None], self.num_classes)  # the last one is "not this object"
            per_pixel = F.cross_entropy(logits, classes, reduction="none")
        else:
            logits = self._own(pooled, labels)
            goal = mask_goal(read, index, targets, self.rules, logits.shape[-1])
            per_pixel = F.binary_cross_entropy_with_logits(logits, goal, reduction="none")
        return {"loss_mask": mean_over(per_pixel.mean(dim=(1, 2)), used)}

    def detect(self, features: Sequence[Tensor], pooler: RoIPooler, found: Detections) -> Detections:
        """The same detections with the mask of each one's class."""
        boxes, image_index = flatten_boxes(found.boxes)
        slots = filled_slots(found.valid)
        labels = found.labels.flatten()[slots]
        pooled = pooler(features, boxes[slots], image_index[slots], self.config.resolution)
        if self.config.loss == "softmax":
            logits = self.head(pooled)
            own = logits.gather(1, labels[:, None, None, None].expand(-1, 1, *logits.shape[2:]))
            others = logits.scatter(1, labels[:, None, None, None].expand_as(own), -torch.inf)
            probs = torch.sigmoid(own - others.amax(1, keepdim=True))[:, 0]  # 0.5 is where the class begins to win
        else:
            probs = torch.sigmoid(self._own(pooled, labels))
        return with_masks(found, slots, probs)

    def _own(self, pooled: Tensor, labels: Tensor) -> Tensor:
        if self.config.class_agnostic:
            return self.head(pooled)[:, 0]
        return self.head.of_labels(pooled, labels)


def mask_slots(rois: RoIs, targets: Targets, config: MaskHeadConfig) -> tuple[Tensor, Tensor]:
    """`positive_slots` of the RoIs whose object has a mask."""
    bank = targets.masks
    assert bank is not None, "targets carry no masks"
    has_mask = (bank.sizes_hw > 0).all(-1).gather(1, rois.slot)
    return positive_slots(rois.positive & has_mask, config.samples)


def mask_crops(
    rois: RoIs, index: Tensor, targets: Targets
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor, Tensor]:
    """Where the masks of the RoIs number `index` (R,) of B * S lie: the crops as `sample_bitmaps` takes them, the
    matrices (R, 2, 3) to original pixels, and the original sizes (R, 2)."""
    bank = targets.masks
    assert bank is not None, "targets carry no masks"
    image_index = index // rois.labels.shape[1]
    slot = image_index * targets.boxes.shape[1] + rois.slot.flatten()[index]
    crops = (
        bank.pixels,
        bank.offsets.flatten()[slot],
        bank.sizes_hw.flatten(0, 1)[slot],
        bank.origins_xy.flatten(0, 1)[slot],
    )
    return crops, bank.to_original[image_index], bank.image_hw[image_index]


def mask_goal(rois: RoIs, index: Tensor, targets: Targets, rules: MaskRules, side: int) -> Tensor:
    """What the masks of the RoIs number `index` (R,) of B * S should be: (R, side, side) float32 in 0..1."""
    crops, to_original, image_hw = mask_crops(rois, index, targets)
    return mask_targets(
        rois.boxes.flatten(0, 1)[index],
        to_original,
        crops,
        image_hw,
        size=side,
        sampling_ratio=rules.target_sampling_ratio,
        aligned=rules.target_aligned,
        threshold=rules.target_threshold,
        pixels=rules.target_pixels,
        crop_and_resize=rules.target_crop_and_resize,
    )


def with_masks(found: Detections, slots: Tensor, probs: Tensor) -> Detections:
    """The detections with (R, M, M) probabilities in the given slots of B * D, zeros where nothing was found."""
    side = probs.shape[-1]
    masks = probs.new_zeros((found.valid.numel(), side, side)).index_copy_(0, slots, probs)
    masks = masks * found.valid.flatten()[:, None, None]
    return replace(found, mask_probs=masks.view(*found.valid.shape, side, side))
