"""RoI features: RoIAlign samples each box from the pyramid level that suits its size (paper section 3).

Legend: B images, R RoIs of all images, C channels, O side of the RoI features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from maskrcnn.config import Conventions, RoIConfig
from maskrcnn.ops.boxes import trim
from maskrcnn.ops.roi_align import level_of, roi_align
from maskrcnn.ops.roi_crop import roi_crop
from maskrcnn.ops.roi_pool import roi_pool, roi_warp


class RoIPooler(nn.Module):
    """RoIAlign or another RoI layer, followed by the layers that all branches share.

    Args:
        strides: strides of the feature maps that RoIs are pooled from, finest first.
        shared_head: (R, C, O, O) -> (R, C', O', O'): res5 with C4, otherwise the identity.
    """

    def __init__(
        self, strides: Sequence[int], config: RoIConfig, shared_head: nn.Module, conventions: Conventions
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.config = config
        self.rules = conventions.features
        self.box_rules = conventions.boxes
        self.shared_head = shared_head
        self.align: Callable[..., Tensor] = roi_align

    def on(self, features: Sequence[Tensor]) -> RoIReader:
        """Binds the pooler to the feature maps (B, C, h, w) of one batch. It drops P6, which serves the RPN only."""
        return RoIReader(self, features[: len(self.strides)])

    def forward(self, features: Sequence[Tensor], boxes: Tensor, image_index: Tensor, output_size: int) -> Tensor:
        """Pools the features of the boxes.

        Args:
            features: one (B, C, h, w) map per stride.
            boxes: (R, 4) network-input pixels.
            image_index: (R,) int64, the image of each box.
            output_size: O.

        Returns:
            (R, C', O', O'), the output of `shared_head`.
        """
        config, rules = self.config, self.rules
        level = self._level(features, boxes)
        args = (features, trim(boxes, self.box_rules.roi_trim), image_index, level)
        if rules.crop_and_resize:
            pooled = roi_crop(*args, strides=self.strides, output_size=output_size, trim=self.box_rules.trim)
            return self.shared_head(pooled)
        sampling: dict[str, Any] = {"sampling_ratio": config.sampling_ratio, "reduce": config.reduce}
        match config.op:
            case "align":
                pooled = self.align(
                    *args, strides=self.strides, output_size=output_size, aligned=rules.aligned, **sampling
                )
            case "warp":
                pooled = roi_warp(*args, strides=self.strides, output_size=output_size, **sampling)
            case "pool":
                pooled = roi_pool(*args, strides=self.strides, output_size=output_size)
        return self.shared_head(pooled)

    def _level(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """(R,) int64, the feature map that each box is pooled from."""
        config, trimmed = self.config, self.box_rules.trim
        canonical_size = config.canonical_size
        if trimmed:  # A trimmed box of the whole input shall have the same level as an untrimmed one.
            height, width = (side * self.strides[0] for side in features[0].shape[-2:])
            canonical_size *= math.sqrt((1 - trimmed / height) * (1 - trimmed / width))
        return level_of(
            boxes,
            len(features),
            config.canonical_level,
            canonical_size,
            rounding=self.rules.level_rounding,
            level_epsilon=self.rules.level_epsilon,
            size_epsilon=self.rules.size_epsilon,
        )


@dataclass(frozen=True)
class RoIReader:
    """A pooler bound to the features of one batch, so that a branch needs only boxes to get RoI features.

    Attributes:
        features: one (B, C, h, w) map per stride of the pooler, finest first.
    """

    pooler: RoIPooler
    features: Sequence[Tensor]

    def __call__(self, boxes: Tensor, image_index: Tensor, output_size: int) -> Tensor:
        """(R, 4) boxes in network-input pixels and the (R,) int64 image of each -> (R, C', O', O') RoI features."""
        pooled: Tensor = self.pooler(self.features, boxes, image_index, output_size)
        return pooled

    def span(self, boxes: Tensor) -> Tensor:
        """The part of each box that its RoI features, mask and keypoint maps cover: (..., 4) -> (..., 4)."""
        return trim(boxes, self.pooler.box_rules.roi_trim)

    @property
    def finest(self) -> tuple[Tensor, int]:
        """The finest feature map (B, C, h, w) and its stride, network-input pixels per cell."""
        return self.features[0], self.pooler.strides[0]
