"""What every importer gives, and the rewrites of tensors that several of them need."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.errors import WeightsError


@dataclass(frozen=True)
class Imported:
    """A checkpoint of another framework as a model of ours.

    Attributes:
        config: of our model, conventions included.
        state: our state_dict, complete.
        assumed: what neither the file nor a config said, one sentence each.
        unused: names in the file with no place in the model.
    """

    config: Config
    state: dict[str, Tensor]
    assumed: tuple[str, ...]
    unused: tuple[str, ...]


def require_names(wanted: Iterable[str], found: Collection[str], framework: str) -> None:
    """
    Raises:
        WeightsError: names are missing; lists them.
    """
    missing = [name for name in wanted if name not in found]
    if missing:
        shown = ", ".join(missing[:4]) + (", ..." if len(missing) > 4 else "")
        raise WeightsError(
            f"expected a whole {framework} model, found {len(found)} tensors without {len(missing)} of it: {shown}; "
            "is it a checkpoint of all layers?"
        )


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
