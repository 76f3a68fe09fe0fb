"""Computes detections: the only part that differs between PyTorch and an exported model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from maskrcnn.config import DetectConfig
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import Precision, compiled, in_precision, name_of, resolve_precision
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.tensors import map_tensors, to_device


class Backend(Protocol):
    """Computes the detections of a batch. Everything before and after it is the same for all backends."""

    @property
    def device(self) -> torch.device:
        """The device that computes the detections."""

    @property
    def computes_in(self) -> str:
        """The precision of the arithmetic: fp32, bf16 or fp16."""

    @property
    def static_shapes(self) -> bool:
        """Whether each new size of a batch costs time, so that batches are padded to one of a few sizes."""

    def detect(self, images: ImageBatch, settings: DetectConfig) -> Detections:
        """The detections of the batch, in pixels of the network input. The tensors of both may lie on any device."""


@dataclass(frozen=True)
class TorchBackend:
    """The network in PyTorch.

    Attributes:
        network: the network in evaluation mode.
        precision: precision of its arithmetic; `auto` is bf16 where the processor multiplies bf16 faster, else fp32.
        compile: whether the network is compiled for each size of a batch; on CUDA its graphs are replayed.
    """

    network: MaskRCNN
    precision: Precision = "fp32"
    compile: bool = False

    @property
    def device(self) -> torch.device:
        return self.network.pixel_mean.device

    @property
    def computes_in(self) -> str:
        return name_of(resolve_precision(self.precision, self.device))

    @property
    def static_shapes(self) -> bool:
        return self.compile

    def detect(self, images: ImageBatch, settings: DetectConfig) -> Detections:
        images = to_device(images, self.device)
        with in_precision(self.precision, self.device):
            if not self.compile:
                return self.network.detect(images, settings)
            # Copies, because the next batch overwrites what a replayed graph returns.
            return map_tensors(self._compiled(images, settings), torch.clone)

    @torch.no_grad()
    def detect_views(
        self,
        views: Sequence[ImageBatch],
        settings: DetectConfig,
        agree: Callable[[Sequence[Detections]], Sequence[Detections]],
    ) -> list[Detections]:
        """The detections of several views of the same images, which have their boxes in common.

        The features of each view are computed once. The network is not compiled.

        Args:
            agree: gets the boxes of each view, and returns for each view the boxes in which masks and keypoints are
                computed.
        """
        batches = [to_device(view, self.device) for view in views]
        with in_precision(self.precision, self.device):
            features = [self.network.features(batch) for batch in batches]
            found = [
                self.network.find_boxes(maps, batch, settings) for maps, batch in zip(features, batches, strict=True)
            ]
            return [
                self.network.roi_heads.complete(maps, boxes) for maps, boxes in zip(features, agree(found), strict=True)
            ]

    @cached_property
    def _compiled(self) -> Callable[..., Detections]:
        return compiled(self.network.detect, self.device)
