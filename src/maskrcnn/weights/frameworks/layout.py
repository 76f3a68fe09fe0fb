"""How other frameworks lay out tensors that are laid out otherwise here, each difference once.

Ours: RGB input; the background is the last class; anchors of a cell by ratio and then size; the first fully connected
layer reads a RoI feature by (row, column, channel). All names in this file are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn.config import ModelConfig, ResNetConfig
from maskrcnn.errors import WeightsError
from maskrcnn.models.resnet import stage_channels

STEM = "backbone.stem.conv.weight"
HEAD = r"^roi_heads\.box\.heads\.\d+\."
FIRST_LAYER = re.compile(HEAD + r"layers\.0\.weight$")
CLASSES = re.compile(HEAD + r"class_logits\.")
DELTAS = re.compile(HEAD + r"deltas\.")
MASKS = re.compile(r"^roi_heads\.mask\.heads\.\d+\.predictor\.")
ANCHORS = re.compile(r"^rpn\.head\.(?:objectness|deltas)\.(?:weight|bias)$")


@dataclass(frozen=True)
class Layout:
    """The layout of a framework whose first fully connected layer reads (channel, row, column).

    Attributes:
        bgr: the first convolution reads BGR.
        anchors_by_size: anchors of a cell are ordered by size and then ratio.
    """

    bgr: bool
    anchors_by_size: bool = False

    def to_ours(self, name: str, value: Tensor, model: ModelConfig) -> Tensor:
        """One of their tensors as ours; `name` is ours."""
        if name == STEM and self.bgr:
            return other_colours(value)
        if FIRST_LAYER.match(name):
            return channels_last_columns(value, channels_read(model))
        if ANCHORS.match(name) and self.anchors_by_size:
            return reordered(value, len(model.anchors.sizes[0]), len(model.anchors.ratios))
        return value

    def to_theirs(self, name: str, value: Tensor, model: ModelConfig) -> Tensor:
        """The inverse of `to_ours`."""
        if name == STEM and self.bgr:
            return other_colours(value)
        if FIRST_LAYER.match(name):
            return channels_first_columns(value, channels_read(model))
        if ANCHORS.match(name) and self.anchors_by_size:
            return reordered(value, len(model.anchors.ratios), len(model.anchors.sizes[0]))
        return value


def without_background(name: str, value: Tensor, *, mask_background: bool = True) -> Tensor:
    """One of their tensors in which the background comes first, with the rows of classes in our order.

    Rows of boxes come in fours, those of the background first. They are dropped, unless four rows serve all classes.
    Detectron and maskrcnn-benchmark keep four for the background even then.

    Args:
        name: ours.
        mask_background: the first of several masks is that of the background.
    """
    if CLASSES.match(name):
        return background_last(value)
    if DELTAS.match(name):
        return value[4:] if len(value) > 4 else value
    if MASKS.match(name):
        return value[1:] if mask_background and len(value) > 1 else value
    return value


def check_anchors(model: ModelConfig, found: Mapping[str, Tensor], settings: str) -> None:
    """Raises WeightsError where the RPN of a file has another number of anchors a cell than the settings make.

    Args:
        found: tensors by our names.
        settings: what to give, in the words of the framework.
    """
    objectness = found.get("rpn.head.objectness.weight")
    if objectness is not None and len(objectness) != model.anchors.per_cell:
        raise WeightsError(
            f"the RPN of the file has {len(objectness)} anchors a cell, and the settings make "
            f"{model.anchors.per_cell}: give {settings}"
        )


def channels_read(model: ModelConfig) -> int:
    """Channels of the feature that the first fully connected layer of the box branch reads."""
    if model.box_head.convs:
        return model.box_head.conv_channels
    if model.neck == "fpn":
        return model.fpn_channels
    assert isinstance(model.backbone, ResNetConfig)
    return stage_channels(model.backbone)[-1]


def channels_last_columns(weight: Tensor, channels: int) -> Tensor:
    """Columns of a layer that reads a flattened RoI feature, from (channel, row, column) to (row, column, channel):
    (out, channels * side * side) in both. Another number of columns stays as it is."""
    side = math.isqrt(weight.shape[1] // channels)
    if channels * side * side != weight.shape[1]:
        return weight
    return weight.view(len(weight), channels, side, side).permute(0, 2, 3, 1).reshape(len(weight), -1)


def channels_first_columns(weight: Tensor, channels: int) -> Tensor:
    """The inverse of `channels_last_columns`."""
    side = math.isqrt(weight.shape[1] // channels)
    return weight.view(len(weight), side, side, channels).permute(0, 3, 1, 2).reshape(len(weight), -1)


def other_colours(stem: Tensor) -> Tensor:
    """The first convolution (out, 3, h, w) for BGR instead of RGB input, or the other way round."""
    return stem.flip(1)


def reordered(rows: Tensor, outer: int, inner: int) -> Tensor:
    """Rows (outer, inner, ...) of the anchors of a cell -> (inner, outer, ...), with as many rows for each. Another
    number of rows stays as it is."""
    if len(rows) % (outer * inner):
        return rows
    return rows.unflatten(0, (outer, inner, -1)).transpose(0, 1).reshape(rows.shape)


def background_last(rows: Tensor) -> Tensor:
    """Class scores (K + 1, ...) with the background first -> with the background last."""
    return torch.cat([rows[1:], rows[:1]])


def from_tensorflow(value: Tensor) -> Tensor:
    """A kernel (h, w, in, out) -> (out, in, h, w), the kernel of a transposed convolution (h, w, out, in) ->
    (in, out, h, w), the weight of a layer (in, out) -> (out, in). Vectors stay as they are."""
    return value.permute(3, 2, 0, 1) if value.dim() == 4 else value.T if value.dim() == 2 else value
