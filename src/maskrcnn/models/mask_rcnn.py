"""Mask R-CNN (He et al. 2017): features of the whole image, proposals, then class, box and mask of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from maskrcnn.config import DetectConfig
from maskrcnn.models.losses import LossSum, mean_losses
from maskrcnn.models.roi_heads import RoIHeads
from maskrcnn.models.rpn import RPN
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.targets import Targets


class MaskRCNN(nn.Module):
    """The whole network. Legend: B images, C channels (3 for RGB), H x W pixels of the padded batch.

    Args:
        backbone: (B, C, H, W) -> [C2..C5].
        neck: an iterator over C5..C2, coarsest first -> [P2..P6], or one map without a pyramid.
        mean, std: mean and standard deviation of pixels in 0..255, one for each channel.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn: RPN,
        roi_heads: RoIHeads,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.neck = neck
        self.rpn = rpn
        self.roi_heads = roi_heads
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: ImageBatch, targets: Targets) -> dict[str, Tensor]:
        """The losses by name, each a float32 scalar. Training minimises their sum (paper section 3)."""
        return mean_losses(self.loss_sums(images, targets))

    def loss_sums(self, images: ImageBatch, targets: Targets) -> dict[str, LossSum]:
        """The losses by name before their division, for a batch that is part of a larger one."""
        features = self.features(images)
        rpn_output = self.rpn(features, images.pixels.shape[-2:])
        proposals = self.rpn.propose(rpn_output, images.sizes_hw)
        losses = self.rpn.losses(rpn_output, targets, images.sizes_hw)
        return losses | self.roi_heads.losses(features, proposals, targets, images.sizes_hw)

    @torch.no_grad()
    def detect(self, images: ImageBatch, settings: DetectConfig) -> Detections:
        """The highest-scoring detections of each image, in network-input pixels; every image has the same number of
        slots."""
        features = self.features(images)
        return self.roi_heads.complete(features, self.find_boxes(features, images, settings))

    def find_boxes(self, features: Sequence[Tensor], images: ImageBatch, settings: DetectConfig) -> Detections:
        """The detections without masks and keypoints, which `roi_heads.complete` adds."""
        rpn_output = self.rpn(features, images.pixels.shape[-2:])
        proposals = self.rpn.propose(rpn_output, images.sizes_hw)
        return self.roi_heads.find_boxes(features, proposals, images.windows, settings)

    def features(self, images: ImageBatch) -> list[Tensor]:
        """The feature maps of RPN and RoIs: [P2, P3, P4, P5, P6], each (B, C, h, w); one map without a pyramid."""
        return self.neck(_coarsest_first(self.backbone(self.normalise(images))))

    def normalise(self, images: ImageBatch) -> Tensor:
        """The network input (B, C, H, W), channels-last, with the dtype of the weights. Padding beyond the size of each
        image is zero."""
        pixels = images.pixels.contiguous(memory_format=torch.channels_last).to(self.pixel_mean.dtype)
        pixels = (pixels - self.pixel_mean) / self.pixel_std
        inside_y = torch.arange(pixels.shape[2], device=pixels.device) < images.sizes_hw[:, :1]
        inside_x = torch.arange(pixels.shape[3], device=pixels.device) < images.sizes_hw[:, 1:]
        return pixels * (inside_y[:, None, :, None] & inside_x[:, None, None, :])


def _coarsest_first(maps: list[Tensor]) -> Iterator[Tensor]:
    """Yields C5..C2 and empties the list, so that prediction frees each map as soon as the neck has used it.

    This lowers the peak memory of an image of 800 pixels from 259 to 225 MB.
    """
    while maps:
        yield maps.pop()
