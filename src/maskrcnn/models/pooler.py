"""RoI features: a RoI layer reads every box from the pyramid level that suits its size (paper section 3).

Legend: B images, R RoIs of all images, C channels, O side of the RoI features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from maskrcnn.config import Conventions, RoIConfig
from maskrcnn.ops.boxes import trim
from maskrcnn.ops.roi_align import level_of, roi_align
from maskrcnn.ops.roi_crop import roi_crop
from maskrcnn.ops.roi_pool import roi_pool, roi_warp


class RoIPooler(nn.Module):
    """RoIAlign, or another RoI layer, followed by what all branches share: res5 with C4, else nothing.

    Args:
        strides: of the feature maps that RoIs are read from, finest first.
        shared_head: (R, C, O, O) -> (R, C', O', O').
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

    def on(self, features: Sequence[Tensor]) -> RoIReader:
        """Binds the pooler to the feature maps of one batch, (B, C, h, w) each; those beyond `strides` are left out."""
        return RoIReader(self, features[: len(self.strides)])

    def forward(self, features: Sequence[Tensor], boxes: Tensor, image_index: Tensor, output_size: int) -> Tensor:
        """
        Args:
            features: one (B, C, h, w) map a stride.
            boxes: (R, 4) network-input pixels.
            image_index: (R,) int64, the image of each box.
            output_size: O.

        Returns:
            (R, C', O', O') of `shared_head`.
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
                pooled = roi_align(
                    *args, strides=self.strides, output_size=output_size, aligned=rules.aligned, **sampling
                )
            case "warp":
                pooled = roi_warp(*args, strides=self.strides, output_size=output_size, **sampling)
            case "pool":
                pooled = roi_pool(*args, strides=self.strides, output_size=output_size)
        return self.shared_head(pooled)

    def _level(self, features: Sequence[Tensor], boxes: Tensor) -> Tensor:
        """(R,) int64, the feature map that each box is read from."""
        config, trimmed = self.config, self.box_rules.trim
        canonical_size = config.canonical_size
        if trimmed:  # A box of the whole input ends a pixel earlier, and still counts with the size of the input.
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
    """A pooler bound to the features of one batch: all that a branch needs to read RoIs.

    Attributes:
        features: one (B, C, h, w) map a stride of the pooler, finest first.
    """

    pooler: RoIPooler
    features: Sequence[Tensor]

    def __call__(self, boxes: Tensor, image_index: Tensor, output_size: int) -> Tensor:
        """(R, 4) boxes in network-input pixels and the (R,) int64 image of each -> (R, C', O', O') RoI features."""
        pooled: Tensor = self.pooler(self.features, boxes, image_index, output_size)
        return pooled

    def span(self, boxes: Tensor) -> Tensor:
        """The part of a box that its features cover, and so its mask and keypoint maps: (..., 4) -> (..., 4)."""
        return trim(boxes, self.pooler.box_rules.roi_trim)

    @property
    def finest(self) -> tuple[Tensor, int]:
        """The feature map with the smallest stride, (B, C, h, w), and that stride, network-input pixels a cell."""
        return self.features[0], self.pooler.strides[0]
