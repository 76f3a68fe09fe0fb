"""Names of norms and losses, and checks, which several parts of the config share."""

from __future__ import annotations

from typing import Literal

from maskrcnn.errors import ConfigError

# frozen_batch_norm trains nothing; fixed_batch_norm trains weight and bias but no statistics (MMDetection's norm_eval).
Norm = Literal["frozen_batch_norm", "fixed_batch_norm", "batch_norm", "sync_batch_norm", "group_norm"]
HeadNorm = Literal["none", "batch_norm", "sync_batch_norm", "group_norm"]
MOST_CELLS = 256  # of a RoI feature in each direction
MOST_LAYERS = 100  # convolutions or layers of one head, and stages of a cascade
NORM_GROUPS = 32  # groups of group norm (Wu & He 2018)
# smooth_l1: on the four offsets (Girshick 2015). giou: on the decoded box (Rezatofighi et al. 2019).
BoxLoss = Literal["smooth_l1", "giou"]


def require(ok: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds."""
    if not ok:
        raise ConfigError(message)


def require_side(setting: str, cells: int) -> None:
    """Raises ConfigError unless the RoI features of a head can have so many cells in each direction."""
    require(0 < cells <= MOST_CELLS, f"{setting} must lie in 1..{MOST_CELLS}, found {cells}")


def require_layers(setting: str, count: int, least: int = 0) -> None:
    """Raises ConfigError unless a head can have so many layers."""
    require(least <= count <= MOST_LAYERS, f"{setting} must lie in {least}..{MOST_LAYERS}, found {count}")


def require_groups(what: str, channels: int, setting: str, norm: str) -> None:
    """Raises ConfigError where group norm cannot divide the channels into its groups."""
    require(
        norm != "group_norm" or channels % NORM_GROUPS == 0,
        f"{setting} group_norm has {NORM_GROUPS} groups of channels: {what} must be a multiple of {NORM_GROUPS}, "
        f"found {channels}; change it or choose another norm",
    )
