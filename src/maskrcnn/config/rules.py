"""What several parts of the config share: names of norms and losses, and the checks of a setting."""

from __future__ import annotations

from typing import Literal

from maskrcnn.errors import ConfigError

# fixed_batch_norm: the statistics stay, weight and bias are trained (MMDetection's norm_eval); frozen: both stay.
Norm = Literal["frozen_batch_norm", "fixed_batch_norm", "batch_norm", "sync_batch_norm", "group_norm"]
HeadNorm = Literal["none", "batch_norm", "sync_batch_norm", "group_norm"]
NORM_GROUPS = 32  # of group norm (Wu & He 2018)
# smooth_l1: on the four offsets (Girshick 2015). giou: on the decoded box (Rezatofighi et al. 2019).
BoxLoss = Literal["smooth_l1", "giou"]


def require(ok: bool, message: str) -> None:
    if not ok:
        raise ConfigError(message)


def require_groups(what: str, channels: int, setting: str, norm: str) -> None:
    require(
        norm != "group_norm" or channels % NORM_GROUPS == 0,
        f"{setting} group_norm works on {NORM_GROUPS} groups of channels: {what} must be a multiple of {NORM_GROUPS}, "
        f"found {channels}; change it or choose another norm",
    )
