"""Settings of the backbone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from maskrcnn.config.ranges import Channels, NotNegative, Range, require_ranges
from maskrcnn.config.rules import Norm, require, require_groups


@dataclass(frozen=True)
class ResNetConfig:
    """ResNet or ResNeXt (He et al. 2016). Stage 1 is the stem; stages 2 to 5 are res2 to res5."""

    # number of layers; 10 layers have one block in each stage, for tests and the demo
    depth: Literal[10, 18, 34, 50, 101, 152] = 50
    width: Channels = 64  # channels inside the blocks of res2; 64 in the literature
    stem_width: Channels | None = None  # channels of the stem; None: as many as `width`
    groups: Channels = 1  # groups of the 3x3 convolutions; 32 in ResNeXt 32x8d (Xie et al. 2017)
    # channels of the 3x3 convolutions in res2, all groups together; 256 in ResNeXt 32x8d; None: `width`
    bottleneck_width: Channels | None = None
    # the stride of a block lies in its first 1x1 convolution, as in the original ResNet, and not in its 3x3 convolution
    stride_in_1x1: bool = False
    # frozen: neither statistics nor weights are trained; fixed: only the weights are trained
    norm: Norm = "frozen_batch_norm"
    norm_eps: NotNegative = 1e-5  # added to the variance in the norms
    # number of stages that are not trained, counted from the stem; 0: none
    frozen_stages: Annotated[int, Range(0, 5)] = 2
    # stages with deformable 3x3 convolutions, for example 3 4 5 (Dai et al. 2017)
    deformable_stages: tuple[Annotated[int, Range(2, 5)], ...] = ()
    # deformable convolutions also learn a weight for each sample (Zhu et al. 2019)
    deformable_modulated: bool = False

    def __post_init__(self) -> None:
        require_ranges(self, "model.backbone")
        plain = self.groups == 1 and self.bottleneck_width is None and not self.stride_in_1x1
        require(
            self.depth >= 50 or (plain and not self.deformable_stages),
            "backbone.groups, bottleneck_width, stride_in_1x1 and deformable_stages belong to bottleneck blocks: "
            f"leave them at their defaults or set backbone.depth to 50 or more, found {self.depth}",
        )
        inner = self.width if self.bottleneck_width is None else self.bottleneck_width
        require(
            inner % self.groups == 0,
            f"backbone.groups must divide backbone.bottleneck_width, found {self.groups} groups of {inner} channels",
        )
        stem = self.width if self.stem_width is None else self.stem_width
        inside = "width" if self.bottleneck_width is None else "bottleneck_width"
        for name, channels in ((inside, inner), ("stem_width", stem), ("width times 4", 4 * self.width)):
            require_groups(f"backbone.{name}", channels, "backbone.norm", self.norm)

    @property
    def name(self) -> str:
        """The name in the literature, with the width if it is another: ResNet-50, ResNeXt-101 32x8d."""
        inside = self.width if self.bottleneck_width is None else self.bottleneck_width
        name = (
            f"ResNeXt-{self.depth} {self.groups}x{inside // self.groups}d"
            if self.groups > 1
            else f"ResNet-{self.depth}"
        )
        return name if self.width == 64 else f"{name} of width {self.width}"


@dataclass(frozen=True)
class TimmConfig:
    """A backbone of the timm library that has features at strides 4, 8, 16 and 32."""

    name: str  # a name in timm.list_models(), for example convnext_tiny
    frozen: bool = False  # nothing in the backbone is trained
