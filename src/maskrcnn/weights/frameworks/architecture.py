"""The architecture of a model, from the names and shapes of its tensors.

The tensors have our names. Settings that names and shapes do not determine, such as anchors, keep their defaults.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from torch import Tensor

from maskrcnn.config import (
    BoxHeadConfig,
    HeadNorm,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    Norm,
    PointRendConfig,
    ResNetConfig,
    RPNConfig,
)
from maskrcnn.errors import WeightsError
from maskrcnn.models.resnet import BLOCKS, Bottleneck


class MissingTensorError(WeightsError):
    """A tensor that determines the architecture is missing, or has a shape that no such tensor has.

    Attributes:
        name: our name of the tensor.
        shape: the shape of the tensor. None if it is missing.
    """

    def __init__(self, name: str, shape: tuple[int, ...] | None = None) -> None:
        found = f"no {name}" if shape is None else f"{name} of shape {shape}"
        super().__init__(f"expected the weights of a Mask R-CNN, found {found} (named as in this package)")
        self.name, self.shape = name, shape


Tensors = Mapping[str, Tensor]
BOX, MASK, KEYPOINT = "roi_heads.box.heads", "roi_heads.mask.", "roi_heads.keypoint.head"
SHARED_HEAD = "roi_heads.pooler.shared_head."  # res5 with C4


def model_of(tensors: Tensors) -> ModelConfig:
    """The architecture of a model.

    Batch norm without a count of batches is taken as frozen batch norm, and a backbone without FPN or C4 as DC5.

    Args:
        tensors: by our names. Unexpected tensors are ignored.

    Raises:
        MissingTensorError: a tensor that determines the architecture is missing, or has an odd shape.
        WeightsError: the backbone is no ResNet.
    """
    neck: Literal["fpn", "c4", "dc5"] = "dc5"
    if "neck.lateral.0.weight" in tensors or "neck.lateral.0.conv.weight" in tensors:
        neck = "fpn"
    elif any(name.startswith(SHARED_HEAD) for name in tensors):
        neck = "c4"
    backbone = backbone_of(tensors)
    lateral = _conv(tensors, "neck.lateral.0") if neck == "fpn" else None
    features = backbone.width * 4 * 8 if lateral is None else lateral
    classes = _shape(tensors, f"{BOX}.0.class_logits.weight", 2)[0] - 1
    return ModelConfig(
        num_classes=classes,
        backbone=backbone,
        neck=neck,
        fpn_channels=ModelConfig.fpn_channels if lateral is None else lateral,
        fpn_norm=_head_norm(tensors, "neck.lateral.0"),
        anchors=ModelConfig().anchors if neck == "fpn" else replace(ModelConfig().anchors, sizes=(FIVE_SIZES,)),
        rpn=_rpn(tensors),
        box_head=_box_head(tensors, features, classes, neck),
        mask_head=_mask_head(tensors, classes),
        keypoint_head=_keypoint_head(tensors),
    )


MAX_MODULES = 100  # in one list; an index in a name can be any number
FIVE_SIZES = (32.0, 64.0, 128.0, 256.0, 512.0)


def backbone_of(tensors: Tensors) -> ResNetConfig:
    """The backbone of a model, as in `model_of`."""
    counts = []
    for stage in range(2, 6):
        block = re.compile(rf"^(?:backbone\.res{stage}|{re.escape(SHARED_HEAD[:-1]) if stage == 5 else '$'})\.(\d+)\.")
        numbers = {int(found[1]) for name in tensors if (found := block.match(name))}
        counts.append(len(numbers))
    bottleneck = "backbone.res2.0.conv3.conv.weight" in tensors
    depths = [depth for depth, blocks in BLOCKS.items() if blocks == tuple(counts) and (depth >= 50) == bottleneck]
    if not depths:
        raise WeightsError(
            f"expected a ResNet of depth {', '.join(map(str, BLOCKS))} as the backbone, found "
            f"{counts} blocks in its four stages"
        )
    middle = "backbone.res2.0.conv2"
    inner, in_group = _shape(tensors, f"{middle}.conv.weight", 4)[:2]
    out = _shape(tensors, f"backbone.res2.0.conv{3 if bottleneck else 2}.conv.weight", 4)[0]
    width = out // Bottleneck.expansion if bottleneck else out
    stem = _shape(tensors, "backbone.stem.conv.weight", 4)[0]
    offsets = {
        int(found[1]): _shape(tensors, name, 4)[0]
        for name in tensors
        if (found := re.match(r"^backbone\.res(\d)\.\d+\.conv2\.offset\.weight$", name))
    }
    return ResNetConfig(
        depth=cast(Any, depths[0]),
        width=width,
        stem_width=None if stem == width else stem,
        groups=inner // in_group,
        bottleneck_width=None if inner == width else inner,
        norm=_norm(tensors, "backbone.res4.0.conv1"),  # norms of the first stages may be frozen
        deformable_stages=tuple(sorted(offsets)),
        deformable_modulated=27 in offsets.values(),
    )


def _rpn(tensors: Tensors) -> RPNConfig:
    channels, in_channels = _shape(tensors, "rpn.head.convs.0.weight", 4)[:2]
    return RPNConfig(convs=_count(tensors, "rpn.head.convs"), channels=None if channels == in_channels else channels)


def _box_head(tensors: Tensors, features: int, classes: int, neck: str) -> BoxHeadConfig:
    head, stages = f"{BOX}.0", _count(tensors, BOX)
    convs, layers = _count(tensors, f"{head}.convs"), _count(tensors, f"{head}.layers")
    conv = _conv(tensors, f"{head}.convs.0") if convs else None
    resolution = 14 if neck == "c4" else 7
    hidden = BoxHeadConfig.hidden
    if layers:
        hidden, columns = _shape(tensors, f"{head}.layers.0.weight", 2)
        resolution = _side(columns, features if conv is None else conv)
    return BoxHeadConfig(
        resolution=resolution,
        convs=convs,
        conv_channels=BoxHeadConfig.conv_channels if conv is None else conv,
        norm=_head_norm(tensors, f"{head}.convs.0"),
        layers=layers,
        hidden=hidden,
        # A model with one class has four rows in either case.
        class_agnostic=(classes > 1 or stages > 1) and _shape(tensors, f"{head}.deltas.weight", 2)[0] == 4,
        cascade_ious=tuple(0.5 + 0.1 * i for i in range(1, stages)),
        cascade_weights=tuple((10.0 * i, 10.0 * i, 5.0 * i, 5.0 * i) for i in range(2, stages + 1)),
    )


def _mask_head(tensors: Tensors, classes: int) -> MaskHeadConfig | None:
    if not any(name.startswith(MASK) for name in tensors):
        return None
    if f"{MASK}coarse_head.reduce.weight" in tensors:
        coarse = _shape(tensors, f"{MASK}coarse_head.reduce.weight", 4)[0]
        hidden, columns = _shape(tensors, f"{MASK}coarse_head.layers.0.weight", 2)
        return MaskHeadConfig(
            resolution=2 * _side(columns, coarse),
            channels=coarse,
            layers=_count(tensors, f"{MASK}coarse_head.layers"),
            hidden=hidden,
            class_agnostic=classes > 1 and _shape(tensors, f"{MASK}point_head.predictor.weight", 3)[0] == 1,
            point_rend=PointRendConfig(
                layers=_count(tensors, f"{MASK}point_head.layers"),
                channels=_shape(tensors, f"{MASK}point_head.layers.0.weight", 3)[0],
            ),
        )
    head = f"{MASK}heads.0"
    convs, (read, upsampled) = _count(tensors, f"{head}.convs"), _shape(tensors, f"{head}.upsample.weight", 4)[:2]
    return MaskHeadConfig(
        convs=convs,
        channels=read if convs else upsampled,
        upsampled_channels=upsampled if convs and upsampled != read else None,
        norm=_head_norm(tensors, f"{head}.convs.0"),
        class_agnostic=classes > 1 and _shape(tensors, f"{head}.predictor.weight", 4)[0] == 1,
    )


def _keypoint_head(tensors: Tensors) -> KeypointHeadConfig | None:
    if f"{KEYPOINT}.predictor.weight" not in tensors:
        return None
    keypoints = _shape(tensors, f"{KEYPOINT}.predictor.weight", 4)[1]
    count = _count(tensors, f"{KEYPOINT}.convs")
    widths = tuple(_shape(tensors, f"{KEYPOINT}.convs.{i}.weight", 4)[0] for i in range(count))
    same = len(set(widths)) == 1
    return KeypointHeadConfig(keypoints, convs=count, channels=widths[0] if same else widths)


def _norm(tensors: Tensors, conv: str) -> Norm:
    if f"{conv}.norm.running_mean" not in tensors:
        return "group_norm"
    return "batch_norm" if f"{conv}.norm.num_batches_tracked" in tensors else "frozen_batch_norm"


def _head_norm(tensors: Tensors, conv: str) -> HeadNorm:
    if f"{conv}.norm.weight" not in tensors:
        return "none"
    return "batch_norm" if f"{conv}.norm.running_mean" in tensors else "group_norm"


def _conv(tensors: Tensors, name: str) -> int:
    """The output channels of a convolution, with or without a norm."""
    normed = f"{name}.conv.weight"
    return _shape(tensors, normed if normed in tensors else f"{name}.weight", 4)[0]


def _count(tensors: Tensors, prefix: str) -> int:
    """The length of a list of modules, from the indices in their names."""
    numbers = {int(name[len(prefix) + 1 :].partition(".")[0]) for name in tensors if name.startswith(f"{prefix}.")}
    count = 1 + max(numbers, default=-1)
    if count > MAX_MODULES:
        raise WeightsError(f"expected at most {MAX_MODULES} modules in a list, found {prefix}.{count - 1}")
    return count


def _side(columns: int, channels: int) -> int:
    """The side of the square RoI feature that a fully connected layer reads, at least 1."""
    return max(1, math.isqrt(columns // channels))


def _shape(tensors: Tensors, name: str, axes: int) -> tuple[int, ...]:
    """The shape of a tensor, which must have so many axes and some elements.

    Raises:
        MissingTensorError: there is no such tensor, or it has another number of axes or no elements.
    """
    if name not in tensors:
        raise MissingTensorError(name)
    shape = tuple(tensors[name].shape)
    if len(shape) != axes or 0 in shape:
        raise MissingTensorError(name, shape)
    return shape
