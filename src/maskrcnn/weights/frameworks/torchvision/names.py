"""torchvision's Mask, Faster and Keypoint R-CNN with a ResNet and FPN, in our names and back.

The source of every rule is torchvision/models/detection (`mask_rcnn.py`, `faster_rcnn.py`, `keypoint_rcnn.py`,
`rpn.py`, `roi_heads.py`) and torchvision/ops/feature_pyramid_network.py. `maskrcnn_resnet50_fpn` is version 1,
`maskrcnn_resnet50_fpn_v2` version 2; names and shapes tell every mixture of the two.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from maskrcnn.config import Config, ResNetConfig
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.architecture import model_of
from maskrcnn.weights.frameworks.importer import (
    Imported,
    channels_first_columns,
    channels_last_columns,
    channels_read,
    complete,
)
from maskrcnn.weights.frameworks.torchvision.settings import our_config, read_config
from maskrcnn.weights.imagenet import ours_to_torchvision, torchvision_to_ours

__all__ = ["export_state", "import_checkpoint", "read_config", "recognise"]

BODY = "backbone.body."
# A list of convolutions, each with a norm behind it or without: `list.0.0` and `list.0.1` there, and `list.0` or
# `list.0.conv` and `list.0.norm` here.
BLOCKS = (
    ("backbone.fpn.inner_blocks.", "neck.lateral."),
    ("backbone.fpn.layer_blocks.", "neck.output."),
    ("rpn.head.conv.", "rpn.head.convs."),
    ("roi_heads.box_head.", "roi_heads.box.heads.0.convs."),
    ("roi_heads.mask_head.", "roi_heads.mask.heads.0.convs."),
)
LAYERS = (
    ("rpn.head.cls_logits.", "rpn.head.objectness."),
    ("rpn.head.bbox_pred.", "rpn.head.deltas."),
    ("roi_heads.box_head.fc6.", "roi_heads.box.heads.0.layers.0."),
    ("roi_heads.box_head.fc7.", "roi_heads.box.heads.0.layers.1."),
    ("roi_heads.box_predictor.cls_score.", "roi_heads.box.heads.0.class_logits."),
    ("roi_heads.box_predictor.bbox_pred.", "roi_heads.box.heads.0.deltas."),
    ("roi_heads.mask_predictor.conv5_mask.", "roi_heads.mask.heads.0.upsample."),
    ("roi_heads.mask_predictor.mask_fcn_logits.", "roi_heads.mask.heads.0.predictor."),
    ("roi_heads.keypoint_predictor.kps_score_lowres.", "roi_heads.keypoint.head.predictor."),
)
# Before version 0.13, and so in the published V1 files, -> since then.
FORMER_NAMES = (
    (r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2"),
    (r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1"),
    (r"^roi_heads\.mask_head\.mask_fcn(\d+)\.", lambda found: f"roi_heads.mask_head.{int(found[1]) - 1}.0."),
)
FIRST_LAYER = "roi_heads.box.heads.0.layers.0.weight"


def recognise(names: Collection[str]) -> bool:
    """Whether these are the names of one of torchvision's two-stage detectors."""
    return "rpn.head.cls_logits.weight" in names and "roi_heads.box_predictor.cls_score.weight" in names


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A model of torchvision as ours: architecture and classes from names and shapes, rules from the source.

    Args:
        settings: what `read_config` gives; None: torchvision's defaults.

    Raises:
        WeightsError: tensors are missing, or the backbone is none of torchvision's ResNets.
        ConfigError: a setting that is unknown, or does not fit the file.
    """
    names = our_names(checkpoint.tensors)
    found = {our: checkpoint.tensors[name] for name, our in names.items()}
    if "backbone.stem.conv.weight" not in found:
        raise WeightsError(
            "a detector of torchvision whose backbone is no ResNet (MobileNet?), which has no counterpart here; "
            "those with a ResNet and FPN can be opened"
        )
    config, assumed = our_config(model_of(found), settings)
    anchors = len(found["rpn.head.objectness.weight"])
    if config.model.anchors.per_cell != anchors:
        raise WeightsError(
            f"the proposals of the file have {anchors} anchors a cell, and the settings make "
            f"{config.model.anchors.per_cell}: give `sizes` and `aspect_ratios` of its AnchorGenerator"
        )
    state = complete(config, our_state(checkpoint.tensors, config), lambda our: their_name(our, config))
    unused = tuple(name for name in checkpoint.tensors if name not in names)
    return Imported(config, state, assumed, unused)


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `state_dict()` in torchvision's names and layout: what its constructors open strictly, with as many classes
    as rows. Rows that we do not keep (boxes and masks of the background and of unused classes) are zeros.

    Raises:
        WeightsError: torchvision has no such architecture; says which setting it is.
    """
    _check_exportable(config)
    return {their_name(name, config): _their_layout(name, value, config) for name, value in state.items()}


def our_names(names: Collection[str]) -> dict[str, str]:
    """The names of a file that have a place in our network -> ours."""
    current = {name: _current(name) for name in names}
    known = set(current.values())
    convs = sum(re.fullmatch(r"roi_heads\.box_head\.\d+\.0\.weight", name) is not None for name in known)
    pairs = ((name, _our_name(now, known, convs)) for name, now in current.items())
    return {name: our for name, our in pairs if our is not None}


def _current(name: str) -> str:
    for pattern, replacement in FORMER_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _our_name(name: str, known: Collection[str], box_convs: int) -> str | None:
    if name.startswith(BODY):
        our = f"backbone.{torchvision_to_ours(name.removeprefix(BODY))}"
        return our if re.match(r"backbone\.(stem|res\d)\.", our) else None
    for theirs, ours in LAYERS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    for theirs, ours in BLOCKS:
        if found := re.fullmatch(rf"{re.escape(theirs)}(\d+)\.([01])\.(\w+)", name):
            number, part, leaf = found.groups()
            normed = f"{theirs}{number}.1.weight" in known
            return f"{ours}{number}.{('conv.', 'norm.')[int(part)] if normed else ''}{leaf}"
    if found := re.fullmatch(r"roi_heads\.box_head\.(\d+)\.(\w+)", name):  # behind the convolutions and a flattening
        return f"roi_heads.box.heads.0.layers.{(int(found[1]) - box_convs - 1) // 2}.{found[2]}"
    if found := re.fullmatch(r"roi_heads\.keypoint_head\.(\d+)\.(\w+)", name):  # every second one is a ReLU
        return f"roi_heads.keypoint.head.convs.{int(found[1]) // 2}.{found[2]}"
    return None


def their_name(name: str, config: Config) -> str:
    """torchvision's name of one of our parameters."""
    box_head = config.model.box_head
    two_layers = box_head.convs == 0 and box_head.layers == 2  # a TwoMLPHead, else a FastRCNNConvFCHead
    if not two_layers and (found := re.fullmatch(r"roi_heads\.box\.heads\.0\.layers\.(\d+)\.(\w+)", name)):
        return f"roi_heads.box_head.{box_head.convs + 1 + 2 * int(found[1])}.{found[2]}"
    if name.startswith("backbone."):
        return BODY + ours_to_torchvision(name.removeprefix("backbone."))
    for theirs, ours in LAYERS:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    for theirs, ours in BLOCKS:
        if name.startswith(ours):
            number, *part, leaf = name.removeprefix(ours).split(".")
            return f"{theirs}{number}.{int(part == ['norm'])}.{leaf}"
    return re.sub(
        r"^roi_heads\.keypoint\.head\.convs\.(\d+)\.",
        lambda found: f"roi_heads.keypoint_head.{2 * int(found[1])}.",
        name,
    )


def class_rows(config: Config) -> tuple[list[int], list[int]]:
    """Which of torchvision's rows of classes hold our categories, and which are unused; row 0 is the background.

    Where classes are unused, a row is the id of its category.
    """
    used = list(range(1, config.model.num_classes + 1))
    unused = config.conventions.detections.unused_classes
    if unused:
        used = [category.id for category in config.categories]
    rows = range(1, config.model.num_classes + unused + 1)
    return used, sorted(set(rows) - set(used))


def our_layout(name: str, value: Tensor, config: Config) -> Tensor:
    """One of torchvision's tensors (or its gradient) as our network stores it; `name` is ours."""
    used, unused = class_rows(config)
    if name == FIRST_LAYER:
        return channels_last_columns(value, channels_read(config.model))
    if name.startswith("roi_heads.box.heads.0.class_logits."):
        return value[[*used, 0, *unused]]
    if name.startswith("roi_heads.box.heads.0.deltas."):
        return value.unflatten(0, (-1, 4))[used].flatten(0, 1)
    if name.startswith("roi_heads.mask.heads.0.predictor."):
        return value[used]
    return value


def _their_layout(name: str, value: Tensor, config: Config) -> Tensor:
    """The inverse of `our_layout`."""
    used, unused = class_rows(config)
    rows = 1 + len(used) + len(unused)
    if name == FIRST_LAYER:
        return channels_first_columns(value, channels_read(config.model)).contiguous()
    if name.startswith("roi_heads.box.heads.0.class_logits."):
        return _spread(value, [*used, 0, *unused], rows)
    if name.startswith("roi_heads.box.heads.0.deltas."):
        return _spread(value.unflatten(0, (-1, 4)), used, rows).flatten(0, 1)
    if name.startswith("roi_heads.mask.heads.0.predictor."):
        return _spread(value, used, rows)
    return value.contiguous()


def _spread(value: Tensor, to: Sequence[int], rows: int) -> Tensor:
    """The rows of `value` as rows `to` of a tensor of that many, zeros elsewhere."""
    wide = value.new_zeros((rows, *value.shape[1:]))
    wide[list(to)] = value
    return wide


def our_state(state: Mapping[str, Tensor], config: Config) -> dict[str, Tensor]:
    """torchvision's `state_dict()` as that of our network with `config`, as far as names have a place in it.

    A norm that is frozen counts nothing: where the config has such norms, torchvision's counters are left out.
    """
    backbone = config.model.backbone
    frozen = isinstance(backbone, ResNetConfig) and backbone.norm == "frozen_batch_norm"
    return {
        our: our_layout(our, state[name], config)
        for name, our in our_names(state).items()
        if not (frozen and our.startswith("backbone.") and our.endswith(".num_batches_tracked"))
    }


def _check_exportable(config: Config) -> None:
    model = config.model
    backbone, box, mask = model.backbone, model.box_head, model.mask_head
    norms: set[str] = {model.fpn_norm, box.norm, "none" if mask is None else mask.norm}
    problems = [f"model.neck {model.neck}"] if model.neck != "fpn" else []
    if isinstance(backbone, ResNetConfig):
        norms |= {backbone.norm}
        problems += ["backbone.stride_in_1x1"] if backbone.stride_in_1x1 else []
        problems += ["backbone.deformable_stages"] if backbone.deformable_stages else []
    else:
        problems += ["a backbone of timm"]
    problems += ["group_norm"] if "group_norm" in norms else []
    problems += ["box_head.cascade_ious"] if box.cascade_ious else []
    problems += ["box_head.class_agnostic"] if box.class_agnostic else []
    if mask is not None:
        problems += ["mask_head.point_rend"] if mask.point_rend is not None else []
        problems += ["mask_head.class_agnostic"] if mask.class_agnostic else []
        problems += ["mask_head.kind mlp"] if mask.kind == "mlp" else []
        problems += ["mask_head.loss softmax"] if mask.loss == "softmax" else []
    unused = config.conventions.detections.unused_classes
    rows = range(1, model.num_classes + unused + 1)
    if unused and not all(category.id in rows for category in config.categories):
        problems += ["detections.unused_classes and ids of categories beyond its rows"]
    if problems:
        raise WeightsError(f"torchvision has no model with {', '.join(problems)}: its weights cannot be written for it")
