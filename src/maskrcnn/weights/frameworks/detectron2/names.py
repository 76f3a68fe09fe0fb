"""Detectron2's Mask R-CNN and its relatives in our names: ResNets with FPN, C4 and DC5, Cascade, keypoints, PointRend.

The source of every rule is Detectron2 (`modeling/`, `projects/PointRend`). Its network reads BGR and ours RGB, its
anchors of one cell are ordered by size and then ratio and ours by ratio and then size, and its first fully connected
layer reads (channel, row, column) and ours (row, column, channel): the weights are turned round. Everything else in
which the two differ is a field of the config, which `detectron2_config` makes.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from maskrcnn.config import AnchorConfig, Config
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.architecture import model_of
from maskrcnn.weights.frameworks.detectron2.defaults import CELL_ANCHORS, STORED_SETTINGS, read_config
from maskrcnn.weights.frameworks.detectron2.settings import our_config
from maskrcnn.weights.frameworks.importer import (
    Imported,
    channels_first_columns,
    channels_last_columns,
    channels_read,
    complete,
    other_colours,
    reordered,
)

__all__ = ["export_state", "import_checkpoint", "read_config", "recognise"]

RPN_HEAD, BOX_HEAD, BOX_PREDICTOR, MASK_HEAD = (
    "proposal_generator.rpn_head",
    "roi_heads.box_head",
    "roi_heads.box_predictor",
    "roi_heads.mask_head",
)
MOST = 20  # layers of one kind in a head
STEM = "backbone.stem.conv.weight"
FIRST_LAYER = re.compile(r"^roi_heads\.box\.heads\.\d+\.layers\.0\.weight$")
ANCHOR_ROWS = re.compile(r"^rpn\.head\.(?:objectness|deltas)\.(?:weight|bias)$")


def recognise(names: Collection[str]) -> bool:
    """Whether these are the names of a Detectron2 model with proposals."""
    return any(name.startswith(f"{RPN_HEAD}.") for name in names)


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A model of Detectron2 as ours.

    The counts of batches of norms that are frozen have no place here and no meaning; they are not listed as unused.

    Args:
        settings: what `read_config` gives; None: what the shapes tell, and for the rest what is usual.

    Raises:
        WeightsError: tensors are missing, of another kind of model, or do not fit the settings.
        ConfigError: a setting asks for what this package has not.
    """
    tensors = checkpoint.tensors
    names = our_names(tensors)
    ours = {our: tensors[name] for name, our in names.items()}
    config, assumed = our_config(model_of(ours), tensors, settings)
    _check_anchors(config.model.anchors, ours)
    bgr = settings is None or settings.get("INPUT", {}).get("FORMAT", "BGR") == "BGR"
    table = {our: name for name, our in names.items()}
    found = {name: _to_ours(name, value, config, bgr=bgr) for name, value in ours.items()}
    state = complete(config, found, lambda our: table.get(our) or their_name(our, config))
    unused = tuple(
        name
        for name in tensors
        if names.get(name) not in state
        and not name.startswith((*STORED_SETTINGS, CELL_ANCHORS))
        and not name.endswith(".num_batches_tracked")
    )
    return Imported(config, state, assumed, unused)


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: our `state_dict()` in Detectron2's names and layout, for its default INPUT.FORMAT, BGR."""
    return {their_name(name, config): _to_theirs(name, value, config) for name, value in state.items()}


def _to_ours(name: str, value: Tensor, config: Config, *, bgr: bool) -> Tensor:
    """One of Detectron2's tensors as our network stores it; `name` is ours."""
    if name == STEM and bgr:
        return other_colours(value)
    if FIRST_LAYER.match(name):
        return channels_last_columns(value, channels_read(config.model))
    if ANCHOR_ROWS.match(name):
        return reordered(value, len(config.model.anchors.sizes[0]), len(config.model.anchors.ratios))
    return value


def _to_theirs(name: str, value: Tensor, config: Config) -> Tensor:
    """The inverse of `_to_ours`, for BGR."""
    if name == STEM:
        return other_colours(value)
    if FIRST_LAYER.match(name):
        return channels_first_columns(value, channels_read(config.model))
    if ANCHOR_ROWS.match(name):
        return reordered(value, len(config.model.anchors.ratios), len(config.model.anchors.sizes[0]))
    return value


def _check_anchors(anchors: AnchorConfig, ours: Mapping[str, Tensor]) -> None:
    rows = len(ours["rpn.head.objectness.weight"]) if "rpn.head.objectness.weight" in ours else anchors.per_cell
    if rows != anchors.per_cell:
        raise WeightsError(
            f"the proposals of the file have {rows} anchors a cell, and {len(anchors.sizes[0])} sizes with "
            f"{len(anchors.ratios)} ratios make {anchors.per_cell}: give the config.yaml of the file, with its "
            "MODEL.ANCHOR_GENERATOR"
        )


def _table(*, pyramid: bool, several_rpn_convs: bool, cascade: bool) -> dict[str, str]:
    """Detectron2's names of modules -> ours; what stands behind them is the same but for norms and offsets."""
    trunk = "backbone.bottom_up." if pyramid else "backbone."
    rpn_convs = [f"{RPN_HEAD}.conv.conv{i}" for i in range(MOST)] if several_rpn_convs else [f"{RPN_HEAD}.conv"]
    table = {f"{trunk}stem.conv1": "backbone.stem", "roi_heads.res5": "roi_heads.pooler.shared_head"}
    table |= {f"{trunk}res{stage}": f"backbone.res{stage}" for stage in range(2, 6)}
    table |= {f"backbone.fpn_lateral{i + 2}": f"neck.lateral.{i}" for i in range(4)}
    table |= {f"backbone.fpn_output{i + 2}": f"neck.output.{i}" for i in range(4)}
    table |= {theirs: f"rpn.head.convs.{i}" for i, theirs in enumerate(rpn_convs)}
    table |= {f"{RPN_HEAD}.objectness_logits": "rpn.head.objectness", f"{RPN_HEAD}.anchor_deltas": "rpn.head.deltas"}
    for stage, head in ((f".{k}" if cascade else "", f"heads.{k}") for k in range(MOST if cascade else 1)):
        table |= {f"{BOX_HEAD}{stage}.conv{i + 1}": f"roi_heads.box.{head}.convs.{i}" for i in range(MOST)}
        table |= {f"{BOX_HEAD}{stage}.fc{i + 1}": f"roi_heads.box.{head}.layers.{i}" for i in range(MOST)}
        table[f"{BOX_PREDICTOR}{stage}.cls_score"] = f"roi_heads.box.{head}.class_logits"
        table[f"{BOX_PREDICTOR}{stage}.bbox_pred"] = f"roi_heads.box.{head}.deltas"
    mask, keypoint = "roi_heads.mask", "roi_heads.keypoint"
    table |= {f"{MASK_HEAD}.mask_fcn{i + 1}": f"{mask}.heads.0.convs.{i}" for i in range(MOST)}
    table |= {f"{MASK_HEAD}.deconv": f"{mask}.heads.0.upsample", f"{MASK_HEAD}.predictor": f"{mask}.heads.0.predictor"}
    table[f"{MASK_HEAD}.coarse_head.reduce_spatial_dim_conv"] = f"{mask}.coarse_head.reduce"
    table |= {f"{MASK_HEAD}.coarse_head.fc{i + 1}": f"{mask}.coarse_head.layers.{i}" for i in range(MOST)}
    table[f"{MASK_HEAD}.coarse_head.prediction"] = f"{mask}.coarse_head.predictor"
    table |= {f"{MASK_HEAD}.point_head.fc{i + 1}": f"{mask}.point_head.layers.{i}" for i in range(MOST)}
    table[f"{MASK_HEAD}.point_head.predictor"] = f"{mask}.point_head.predictor"
    table |= {f"{keypoint}_head.conv_fcn{i + 1}": f"{keypoint}.head.convs.{i}" for i in range(MOST)}
    table[f"{keypoint}_head.score_lowres"] = f"{keypoint}.head.predictor"
    return table


def _renamed(name: str, table: Mapping[str, str]) -> str | None:
    """`name` with the longest module of the table in front of it replaced; None where there is none."""
    module, rest = name, ""
    while module:
        module, _, last = module.rpartition(".")
        rest = f".{last}{rest}"
        if module in table:
            return table[module] + rest
    return None


def our_names(names: Collection[str]) -> dict[str, str]:
    """The names of a file that have a place in our network -> ours."""
    known = set(names)
    table = _table(
        pyramid=any(name.startswith("backbone.bottom_up.") for name in known),
        several_rpn_convs=any(name.startswith(f"{RPN_HEAD}.conv.conv") for name in known),
        cascade=any(name.startswith(f"{BOX_PREDICTOR}.0.") for name in known),
    )
    result = {}
    for name in names:
        module, _, leaf = name.rpartition(".")
        if f"{module}.norm.weight" in known:  # a convolution that is followed by a norm is one module with it here
            module += ".conv"
        # Before 2020-06 PointRend kept its heads outside the mask head, and called the layers otherwise.
        module = module.replace("roi_heads.mask_coarse_head.", f"{MASK_HEAD}.coarse_head.")
        module = module.replace("roi_heads.mask_point_head.", f"{MASK_HEAD}.point_head.").replace(
            "coarse_mask_fc", "fc"
        )
        our = _renamed(f"{module}.{leaf}".replace(".conv2_offset.", ".conv2.offset."), table)
        if our is not None:
            result[name] = our
    return result


def their_name(name: str, config: Config) -> str:
    """The name in Detectron2 of one of our parameters."""
    model = config.model
    table = _table(
        pyramid=model.neck == "fpn", several_rpn_convs=model.rpn.convs > 1, cascade=bool(model.box_head.cascade_ious)
    )
    plain = name.replace(".conv2.offset.", ".conv2_offset.")
    plain = f"{plain.removesuffix('.conv.weight')}.weight" if plain.endswith(".conv.weight") else plain
    return _renamed(plain, {ours: theirs for theirs, ours in table.items()}) or plain
