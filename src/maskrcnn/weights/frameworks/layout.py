"""Differences between our layout of tensors and that of other frameworks.

Our networks read RGB. The background is the last class, the anchors of a cell are ordered by ratio and then by size,
and the first fully connected layer reads a RoI feature as (row, column, channel). All names in this file are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn.config import Config, ModelConfig
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
    """The layout of a framework whose first fully connected layer reads a RoI feature as (channel, row, column).

    Attributes:
        bgr: the first convolution reads BGR.
        anchors_by_size: the anchors of a cell are ordered by size and then by ratio.
    """

    bgr: bool
    anchors_by_size: bool = False

    def to_ours(self, name: str, value: Tensor, model: ModelConfig) -> Tensor:
        """A tensor of theirs in our layout."""
        return self._converted(name, value, model, to_ours=True)

    def to_theirs(self, name: str, value: Tensor, model: ModelConfig) -> Tensor:
        """The inverse of `to_ours`."""
        return self._converted(name, value, model, to_ours=False)

    def _converted(self, name: str, value: Tensor, model: ModelConfig, *, to_ours: bool) -> Tensor:
        if name == STEM and self.bgr:
            return other_colours(value)
        if FIRST_LAYER.match(name):
            return (channels_last_columns if to_ours else channels_first_columns)(value, channels_in(model))
        if ANCHORS.match(name) and self.anchors_by_size:
            sizes, ratios = len(model.anchors.sizes[0]), len(model.anchors.ratios)
            return reordered(value, sizes, ratios) if to_ours else reordered(value, ratios, sizes)
        return value


def without_background(name: str, value: Tensor, *, mask_background: bool = True) -> Tensor:
    """A tensor of a framework whose first class is the background, with its rows in our order.

    The background's rows of box offsets and masks are dropped. If there are only four rows of offsets, they serve all
    classes and stay. Detectron and maskrcnn-benchmark have four more for the background even then.

    Args:
        mask_background: the first of several masks belongs to the background.
    """
    if CLASSES.match(name):
        return background_last(value)
    if DELTAS.match(name):
        return value[4:] if len(value) > 4 else value
    if MASKS.match(name):
        return value[1:] if mask_background and len(value) > 1 else value
    return value


def check_anchors(model: ModelConfig, found: Mapping[str, Tensor], settings: str) -> None:
    """Raises WeightsError if the settings give another number of anchors per cell than the RPN in the file has.

    Args:
        found: tensors by our names.
        settings: the settings that the user should give, for the message.
    """
    objectness = found.get("rpn.head.objectness.weight")
    if objectness is not None and objectness.shape[:1] != (model.anchors.per_cell,):
        count = objectness.shape[0] if objectness.dim() else 0
        raise WeightsError(
            f"the RPN in the file has {count} anchors per cell, and the settings give {model.anchors.per_cell}: "
            f"give {settings}"
        )


def check_image_channels(config: Config, found: Mapping[str, Tensor]) -> None:
    """Raises WeightsError if the first convolution reads another number of channels than the settings describe.

    Args:
        found: tensors by our names.
    """
    stem, given = found.get(STEM), len(config.image.statistics[0])
    if stem is not None and stem.dim() == 4 and stem.shape[1] != given:
        number = f"{stem.shape[1]} channel{'s' if stem.shape[1] > 1 else ''}"
        raise WeightsError(
            f"expected a network for images of {given} channels{' (RGB)' if given == 3 else ''}, found one for images "
            f"of {number}: give the config of the file (--config, or config_file in Python), with a mean and a "
            "standard deviation for each channel"
        )


def check_mask_channels(config: Config, framework: str) -> None:
    """Raises WeightsError if the transposed convolution of the masks has channels of its own, and no config says so."""
    mask = config.model.mask_head
    if mask is not None and mask.upsampled_channels is not None:
        raise WeightsError(
            f"{framework} has no model with mask_head.upsampled_channels {mask.upsampled_channels} and "
            f"mask_head.channels {mask.channels}: the weights cannot be written for it"
        )


def channels_in(model: ModelConfig) -> int:
    """The channels of the RoI feature before the first fully connected layer of the box branch."""
    if model.box_head.convs:
        return model.box_head.conv_channels
    if model.neck == "fpn":
        return model.fpn_channels
    return stage_channels(model.resnet)[-1]


def channels_last_columns(weight: Tensor, channels: int) -> Tensor:
    """The columns of a fully connected layer from the order (channel, row, column) to (row, column, channel).

    Args:
        weight: (out, channels * side * side). A weight with another number of columns is returned unchanged.
    """
    side = math.isqrt(weight.shape[1] // channels)
    if channels * side * side != weight.shape[1]:
        return weight
    return weight.view(len(weight), channels, side, side).permute(0, 2, 3, 1).reshape(len(weight), -1)


def channels_first_columns(weight: Tensor, channels: int) -> Tensor:
    """The inverse of `channels_last_columns`."""
    side = math.isqrt(weight.shape[1] // channels)
    return weight.view(len(weight), side, side, channels).permute(0, 3, 1, 2).reshape(len(weight), -1)


def other_colours(stem: Tensor) -> Tensor:
    """The weight (out, 3, h, w) of the first convolution for RGB instead of BGR input, or the reverse.

    Other numbers of channels have no such order and stay.
    """
    return stem.flip(1) if stem.shape[1] == 3 else stem


def reordered(rows: Tensor, outer: int, inner: int) -> Tensor:
    """Rows in the order (outer, inner, ...) -> (inner, outer, ...), such as sizes and ratios of the anchors of a cell.

    If the number of rows is no multiple of outer * inner, they are returned unchanged.
    """
    if len(rows) % (outer * inner):
        return rows
    return rows.unflatten(0, (outer, inner, -1)).transpose(0, 1).reshape(rows.shape)


def background_last(rows: Tensor) -> Tensor:
    """Rows of classes (K + 1, ...) with the background first -> with the background last."""
    return torch.cat([rows[1:], rows[:1]])


def from_tensorflow(value: Tensor) -> Tensor:
    """A tensor of TensorFlow in PyTorch's order.

    Kernels (h, w, in, out) become (out, in, h, w), those of transposed convolutions (h, w, out, in) become
    (in, out, h, w), and weights of layers (in, out) become (out, in). Vectors are returned unchanged.
    """
    return value.permute(3, 2, 0, 1) if value.dim() == 4 else value.T if value.dim() == 2 else value
