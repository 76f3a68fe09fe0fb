"""Regions of interest (RoIs): the sample for the losses, and the choice for the mask and keypoint branches.

Legend: B images, P proposals per image, S sampled RoIs per image, D detections per image, R RoIs of all images.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from maskrcnn.config import BoxHeadConfig
from maskrcnn.config.conventions import MatchingRules
from maskrcnn.models.rpn import Proposals
from maskrcnn.ops.device import static_shapes
from maskrcnn.ops.matching import match, sample, uniform
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.targets import Targets


class RoIs(NamedTuple):
    """The sampled RoIs of a batch.

    Attributes:
        boxes: (B, S, 4) float32, network-input pixels.
        labels: (B, S) int64, K for background.
        slot: (B, S) int64, the ground-truth slot of the object that each RoI is matched with.
        positive: (B, S) bool, whether the RoI is matched with an object and not with the background.
        valid: (B, S) bool, False for RoIs that only fill up the shape.
        truth: (B, S) bool, whether the RoI is itself a ground-truth box.
    """

    boxes: Tensor
    labels: Tensor
    slot: Tensor
    positive: Tensor
    valid: Tensor
    truth: Tensor


@torch.no_grad()
def sample_rois(
    proposals: Proposals, targets: Targets, config: BoxHeadConfig, rules: MatchingRules, background: int
) -> RoIs:
    """Matches proposals and ground-truth boxes with the objects and samples `config.samples` of them per image, by
    default one positive for three negatives (paper section 3.1).

    Args:
        background: K, the label of RoIs without an object.
    """
    boxes, valid = proposals
    if rules.ground_truth_rois:
        boxes = torch.cat([boxes, targets.boxes], dim=1)
        valid = torch.cat([valid, targets.valid], dim=1)
    label, matched = _match(boxes, targets, config, rules)
    sampled = sample(label.masked_fill(~valid, -1), config.samples, config.positive_fraction, targets.seeds, 1)
    slot = matched.gather(1, sampled.chosen)
    labels = torch.where(sampled.positive, targets.labels.gather(1, slot), background)
    sampled_boxes = boxes.gather(1, sampled.chosen[..., None].expand(-1, -1, 4))
    truth = sampled.chosen >= proposals.boxes.shape[1]
    return RoIs(sampled_boxes, labels, slot, sampled.positive, sampled.valid, truth)


@torch.no_grad()
def rematch(
    boxes: Tensor, rois: RoIs, targets: Targets, config: BoxHeadConfig, rules: MatchingRules, background: int
) -> RoIs:
    """Matches all sampled RoIs again after a stage of a cascade has moved them to `boxes` (B, S, 4).

    A stage may move a box out of the image. Clipping then leaves no area, and the RoI becomes invalid.
    """
    label, slot = _match(boxes, targets, config, rules)
    valid = rois.valid & (label >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    positive = valid & (label == 1)
    labels = torch.where(positive, targets.labels.gather(1, slot), background)
    return RoIs(boxes, labels, slot, positive, valid, rois.truth)


def _match(boxes: Tensor, targets: Targets, config: BoxHeadConfig, rules: MatchingRules) -> tuple[Tensor, Tensor]:
    """(B, S) int64 of 1 positive, 0 negative and -1 ignored, and (B, S) int64 slots of the matched objects."""
    return match(
        boxes,
        targets.boxes,
        targets.valid,
        targets.crowd,
        positive_iou=config.positive_iou,
        negative_iou=config.positive_iou,
        low_quality_iou=rules.box_low_quality_iou,
        low_quality_target=rules.low_quality_target,
    )


def flatten_boxes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """(B, P, 4) -> (B * P, 4) boxes and (B * P,) int64, the image that each box belongs to."""
    images, count = boxes.shape[:2]
    image_index = torch.arange(images, device=boxes.device)[:, None].expand(images, count).flatten()
    return boxes.flatten(0, 1), image_index


class Slots(NamedTuple):
    """The R of B * N RoIs or detections of a batch for which a mask or keypoint branch runs.

    Attributes:
        chosen: (R,) int64, positions in the flattened batch.
        used: (R,) bool, False for slots that only fill up a static shape.
        shape: B and N.
    """

    chosen: Tensor
    used: Tensor
    shape: tuple[int, int]

    @property
    def image_index(self) -> Tensor:
        """(R,) int64, the image of each slot."""
        return self.chosen // self.shape[1]

    def take(self, values: Tensor) -> Tensor:
        """(B, N, ...) -> (R, ...)."""
        return values.flatten(0, 1)[self.chosen]

    def seeds(self, of_images: Tensor | None) -> Tensor | None:
        """(R,) int64 seeds of the slots, from those of the images (B,); None from None."""
        return None if of_images is None else of_images[self.image_index] + self.chosen % self.shape[1]

    def put_back(self, values: Tensor) -> Tensor:
        """(R, ...) -> (B, N, ...), with zeros where nothing was computed."""
        used = self.used.view(-1, *(1,) * (values.dim() - 1))
        everything = values.new_zeros((self.shape[0] * self.shape[1], *values.shape[1:]))
        return everything.index_copy_(0, self.chosen, values.where(used, 0.0)).view(*self.shape, *values.shape[1:])


def positive_slots(positive: Tensor, samples: int, seeds: Tensor | None = None, stream: int = 2) -> Slots:
    """A uniform random sample of at most `samples` of the positive RoIs (B, S) of each image.

    With static shapes (`ops.device.static_shapes`) the number of slots is always the maximum, and some are unused.
    Otherwise it is one of `usual_number`.

    Args:
        seeds, stream: as in `ops.matching.uniform`.
    """
    images, count = positive.shape
    keys = uniform(positive, seeds, stream).where(positive, -1.0)
    keys, chosen = keys.topk(min(samples, count), dim=1)
    index = (chosen + torch.arange(images, device=positive.device)[:, None] * count).flatten()
    used = (keys >= 0).flatten()
    if not static_shapes(positive):
        first = used.int().argsort(descending=True, stable=True)[: usual_number(int(used.sum()))]
        index, used = index[first], used[first]
    return Slots(index, used, (images, count))


def filled_slots(found: Detections) -> Slots:
    """The valid detections, or all B * D slots with static shapes (`ops.device.static_shapes`).

    Otherwise there is one of `usual_number`. An exported network takes any number as it is.
    """
    valid = found.valid.flatten()
    shape = found.valid.shape[0], found.valid.shape[1]
    if static_shapes(valid):
        return Slots(torch.arange(valid.shape[0], device=valid.device), valid, shape)
    index = valid.nonzero()[:, 0]
    if not torch.compiler.is_exporting():
        empty = (~valid).nonzero()[: usual_number(len(index)) - len(index), 0]
        index = torch.cat([index, empty])
    return Slots(index, valid[index], shape)


def usual_number(count: int) -> int:
    """The next of a few numbers that is not below `count`: all up to 32, and 16 more up to each next power of two.

    On a CPU, oneDNN prepares kernels for each new number of RoIs, a tenth of the time of a mask branch, and keeps them.
    """
    step = 1 << max(0, count.bit_length() - 5)
    return -(-count // step) * step
