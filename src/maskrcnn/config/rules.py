"""Names of norms and losses, and checks, which several parts of the config share."""

from __future__ import annotations

from typing import Literal

from maskrcnn.errors import ConfigError

# frozen_batch_norm trains nothing; fixed_batch_norm trains weight and bias but no statistics (MMDetection's norm_eval).
Norm = Literal["frozen_batch_norm", "fixed_batch_norm", "batch_norm", "sync_batch_norm", "group_norm"]
HeadNorm = Literal["none", "batch_norm", "sync_batch_norm", "group_norm"]
NORM_GROUPS = 32  # groups of group norm (Wu & He 2018)
# smooth_l1: on the four offsets (Girshick 2015). giou: on the decoded box (Rezatofighi et al. 2019).
BoxLoss = Literal["smooth_l1", "giou"]


def require(ok: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds."""
    if not ok:
        raise ConfigError(message)


def require_groups(what: str, channels: int, setting: str, norm: str) -> None:
    """Raises ConfigError where group norm cannot divide the channels into its groups."""
    require(
        norm != "group_norm" or channels % NORM_GROUPS == 0,
        f"{setting} group_norm has {NORM_GROUPS} groups of channels: {what} must be a multiple of {NORM_GROUPS}, "
        f"found {channels}; change it or choose another norm",
    )
