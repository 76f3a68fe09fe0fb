"""What the importers of foreign checkpoints share: their result, its check, and layouts that several frameworks have.

Every importer is a table of names and a list of rules; the rules become fields of the config.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn.config import Config, ModelConfig, ResNetConfig
from maskrcnn.errors import WeightsError
from maskrcnn.models.build import build_model
from maskrcnn.models.resnet import stage_channels

LISTED = 20  # names in one message


@dataclass(frozen=True)
class Imported:
    """config: of our model, conventions included. state: our state_dict, complete. assumed: what neither the file nor
    a config said, one sentence each. unused: names in the file with no place in the model."""

    config: Config
    state: dict[str, Tensor]
    assumed: tuple[str, ...]
    unused: tuple[str, ...]


class IncompleteError(WeightsError):
    """Tensors of the model that the file describes are missing, or of another shape.

    Attributes:
        config: of the model.
        state: those that fit, by our names.
    """

    def __init__(self, message: str, config: Config, state: dict[str, Tensor]) -> None:
        super().__init__(message)
        self.config = config
        self.state = state


def complete(config: Config, found: dict[str, Tensor], their_name: Callable[[str], str]) -> dict[str, Tensor]:
    """The tensors that the network of `config` has, float32 and in its order.

    The counters of batch norm may be missing, as they are where a framework froze it; they become 0.

    Args:
        found: by our names; may hold more than the network has.
        their_name: our name -> the name in the file, for the message.

    Raises:
        IncompleteError: tensors are missing or of another shape; lists them by the names of the file.
    """
    with torch.device("meta"):
        expected = build_model(config).state_dict()
    counters = {name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith(".num_batches_tracked")}
    found = counters | found
    missing = [their_name(name) for name in expected if name not in found]
    wrong = [
        f"{their_name(name)} is {tuple(found[name].shape)} and should be {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    problems = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (("missing", missing), ("of another shape", wrong))
        if names
    ]
    if problems:
        fitting = {
            name: found[name].to(value.dtype)
            for name, value in expected.items()
            if name in found and found[name].shape == value.shape
        }
        raise IncompleteError(
            f"the tensors do not make a whole model: {'; '.join(problems)}; "
            "is the file whole, and is it a Mask R-CNN of this kind?",
            config,
            fitting,
        )
    return {name: found[name].to(value.dtype).contiguous() for name, value in expected.items()}


def listed(names: Iterable[str]) -> str:
    """Names in one line, each once and the first twenty of them."""
    names = list(dict.fromkeys(names))
    return ", ".join(names[:LISTED]) + (f" and {len(names) - LISTED} more" if len(names) > LISTED else "")


def channels_last_columns(weight: Tensor, channels: int) -> Tensor:
    """Columns of a layer that reads a flattened RoI feature, from (channel, row, column) to our (row, column,
    channel): (out, channels * side * side) in both."""
    side = math.isqrt(weight.shape[1] // channels)
    return weight.view(len(weight), channels, side, side).permute(0, 2, 3, 1).reshape(len(weight), -1)


def channels_first_columns(weight: Tensor, channels: int) -> Tensor:
    """The inverse of `channels_last_columns`."""
    side = math.isqrt(weight.shape[1] // channels)
    return weight.view(len(weight), side, side, channels).permute(0, 3, 1, 2).reshape(len(weight), -1)


def channels_read(model: ModelConfig) -> int:
    """Channels of what the first fully connected layer of the box branch reads."""
    if model.box_head.convs:
        return model.box_head.conv_channels
    if model.neck == "fpn":
        return model.fpn_channels
    assert isinstance(model.backbone, ResNetConfig)
    return stage_channels(model.backbone)[-1]


def other_colours(stem: Tensor) -> Tensor:
    """The first convolution (out, 3, h, w) for BGR instead of RGB input, or the other way round."""
    return stem.flip(1)


def reordered(rows: Tensor, outer: int, inner: int) -> Tensor:
    """Rows (outer, inner, ...) of the anchors of a cell -> (inner, outer, ...), with as many rows for each."""
    return rows.unflatten(0, (outer, inner, -1)).transpose(0, 1).reshape(rows.shape)


def background_last(rows: Tensor) -> Tensor:
    """Class scores (K + 1, ...) with the background first -> with the background last."""
    return torch.cat([rows[1:], rows[:1]])


def background_first(rows: Tensor) -> Tensor:
    """The inverse of `background_last`."""
    return torch.cat([rows[-1:], rows[:-1]])


def fold_norm(
    weight: Tensor, bias: Tensor, norm: tuple[Tensor, Tensor, Tensor, Tensor], eps: float
) -> tuple[Tensor, Tensor]:
    """Weight (C, ...) and bias (C,) of a layer that does the work of the batch norm after it, whose statistics rest.

    Args:
        norm: scale, shift, mean and variance, (C,) each.
    """
    gamma, beta, mean, var = norm
    scale = gamma / torch.sqrt(var + eps)
    return weight * scale.view(-1, *[1] * (weight.dim() - 1)), beta + (bias - mean) * scale
