"""Matterport's Mask R-CNN (Keras HDF5): its names, layouts and rules in ours, and back.

The source of every rule is `mrcnn/model.py`, `mrcnn/utils.py` and `mrcnn/config.py` of matterport/Mask_RCNN. A layer
lies in the file as group/layer/parameter; its name alone says what it is, as in `load_weights(by_name=True)`.

Batch norms of the backbone stay, with the bias of the convolution before them moved into their mean. Those of the
heads, whose statistics rest there by default, are folded into the layers before them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config, ResNetConfig
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.resnet import BLOCKS
from maskrcnn.weights.frameworks.importer import Imported, background_first, background_last, complete, fold_norm
from maskrcnn.weights.frameworks.matterport.settings import EPS, XYWH, Layers, config_of

PARAMETER = re.compile(r"^(kernel|bias|gamma|beta|moving_mean|moving_variance)(?:_\d+)?(?::\d+)?$")
LAYER = re.compile(
    r"conv1|bn_conv1|(res|bn)[2-5][a-z]_branch(1|2[abc])|fpn_(c\dp\d|p\d)|rpn_(conv_shared|class_raw|bbox_pred)"
    r"|mrcnn_(class_(conv|bn)[12]|class_logits|bbox_fc|mask|mask_deconv|mask_(conv|bn)[1-4])"
)
NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

# Convolutions and layers without a norm: theirs -> ours.
PLAIN = {
    **{f"fpn_c{stage}p{stage}": f"neck.lateral.{stage - 2}" for stage in range(2, 6)},
    **{f"fpn_p{stage}": f"neck.output.{stage - 2}" for stage in range(2, 6)},
    "rpn_conv_shared": "rpn.head.convs.0",
    "mrcnn_mask_deconv": "roi_heads.mask.heads.0.upsample",
}
# Layers of the heads with the norm after them: theirs -> ours.
FOLDED = {
    ("mrcnn_class_conv1", "mrcnn_class_bn1"): "roi_heads.box.heads.0.layers.0",
    ("mrcnn_class_conv2", "mrcnn_class_bn2"): "roi_heads.box.heads.0.layers.1",
    **{(f"mrcnn_mask_conv{i}", f"mrcnn_mask_bn{i}"): f"roi_heads.mask.heads.0.convs.{i - 1}" for i in range(1, 5)},
}
PREDICTORS = {
    "rpn_class_raw": "rpn.head.objectness",
    "rpn_bbox_pred": "rpn.head.deltas",
    "mrcnn_class_logits": "roi_heads.box.heads.0.class_logits",
    "mrcnn_bbox_fc": "roi_heads.box.heads.0.deltas",
    "mrcnn_mask": "roi_heads.mask.heads.0.predictor",
}


def recognise(names: Collection[str]) -> bool:
    """Whether tensors of these names are such a model."""
    layers = {found[0] for name in names if (found := _place_of(name)) is not None}
    return {"rpn_conv_shared", "mrcnn_class_logits"} <= layers


def read_config(path: Path | str) -> dict[str, Any]:
    """The attributes of a Config object written as JSON.

    Raises:
        WeightsError: no file, or no JSON object.
    """
    try:
        settings = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: expected the attributes of a Matterport Config as JSON ({error})") from None
    if not isinstance(settings, dict):
        raise WeightsError(f"{path}: expected a JSON object of settings, found {type(settings).__name__}")
    return settings


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A Matterport model as ours.

    Args:
        settings: the attributes of its Config by name; those that are missing take Matterport's defaults.

    Raises:
        WeightsError: layers are missing, have shapes that do not fit together, or ask for what we do not have.
    """
    layers: Layers = {}
    unused = []
    for name, value in checkpoint.tensors.items():
        place = _place_of(name)
        if place is None or place[1] in layers.get(place[0], {}):
            unused.append(name)
        else:
            layers.setdefault(place[0], {})[place[1]] = value.to(torch.float32)
    try:
        config, assumed = config_of(layers, settings)
    except (TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        raise WeightsError(f"Matterport config: expected its attributes with their own types, found {error}") from None
    assert isinstance(config.model.backbone, ResNetConfig)
    pairs = backbone_names(config.model.backbone.depth)
    used = {layer for pair in (*pairs, *FOLDED) for layer in pair} | PLAIN.keys() | PREDICTORS.keys()
    unused += [name for name in checkpoint.tensors if (place := _place_of(name)) and place[0] not in used]
    ours = {ours: layer for (layer, _), ours in (pairs | FOLDED).items()}
    ours |= {ours: layer for layer, ours in (PLAIN | PREDICTORS).items()}

    def their_name(name: str) -> str:
        owner = max((module for module in ours if name.startswith(f"{module}.")), key=len, default="")
        return ours.get(owner, name)

    return Imported(config, complete(config, _state(layers, pairs), their_name), assumed, tuple(unused))


def _place_of(name: str) -> tuple[str, str] | None:
    """Layer and parameter of a path in the file. Where the graph held two models Keras numbers the layers of one."""
    *groups, last = name.split("/")
    parameter = PARAMETER.match(last)
    if parameter is None:
        return None
    for group in reversed(groups):
        for layer in (group, re.sub(r"_\d+$", "", group)):
            if LAYER.fullmatch(layer):
                return layer, parameter[1]
    return None


def backbone_names(depth: int) -> dict[tuple[str, str], str]:
    """Convolution and norm of every pair in the backbone -> our module."""
    names = {("conv1", "bn_conv1"): "backbone.stem"}
    for stage, blocks in enumerate(BLOCKS[depth], start=2):
        for block in range(blocks):
            base = f"{stage}{chr(ord('a') + block)}_branch"
            for branch, ours in (("2a", "conv1"), ("2b", "conv2"), ("2c", "conv3"), ("1", "shortcut")):
                if branch != "1" or block == 0:
                    names[f"res{base}{branch}", f"bn{base}{branch}"] = f"backbone.res{stage}.{block}.{ours}"
    return names


def backbone_state(layers: Layers, backbone: Mapping[tuple[str, str], str]) -> dict[str, Tensor]:
    """Our tensors of the convolutions and norms that are there.

    Args:
        backbone: as `backbone_names` gives it.
    """
    state: dict[str, Tensor] = {}
    for (conv, bn), ours in backbone.items():
        if "kernel" in layers.get(conv, {}):
            state[f"{ours}.conv.weight"] = _from_keras(layers[conv]["kernel"])
        norm = dict(layers.get(bn, {}))
        if "moving_mean" in norm and "bias" in layers.get(conv, {}):
            norm["moving_mean"] = norm["moving_mean"] - layers[conv]["bias"]
        state |= {f"{ours}.norm.{part}": norm[theirs] for part, theirs in NORM.items() if theirs in norm}
    return state


def _state(layers: Layers, backbone: Mapping[tuple[str, str], str]) -> dict[str, Tensor]:
    """Our tensors, of the layers that are there."""
    state = backbone_state(layers, backbone)
    for layer, ours in (PLAIN | PREDICTORS).items():
        kernel, bias = (layers.get(layer, {}).get(part) for part in ("kernel", "bias"))
        if kernel is not None and bias is not None:
            rows = (_from_keras(kernel), bias)
            state[f"{ours}.weight"], state[f"{ours}.bias"] = (_our_rows(layer, part) for part in rows)
    for (layer, bn), ours in FOLDED.items():
        whole = {**layers.get(layer, {}), **layers.get(bn, {})}
        if {"kernel", "bias", *NORM.values()} <= whole.keys():
            gamma, beta, mean, var = (whole[part] for part in NORM.values())
            # A convolution over the whole RoI is a layer, and (row, column, channel) is our order.
            kernel = whole["kernel"]
            weight = kernel.flatten(0, 2).T if layer.startswith("mrcnn_class") else _from_keras(kernel)
            folded = fold_norm(weight, whole["bias"], (gamma, beta, mean, var), EPS)
            state[f"{ours}.weight"], state[f"{ours}.bias"] = folded
    return state


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our model in Matterport's names and layouts, by the paths that `save_weights` gives them.

    What was folded comes out as a norm that changes nothing; rows of a background that has no box or mask are zeros.

    Args:
        config: of a model that was imported from there.
        state: its state_dict.
    """
    assert isinstance(config.model.backbone, ResNetConfig)
    pool = config.model.box_head.resolution
    layers: Layers = {}
    for (conv, bn), ours in backbone_names(config.model.backbone.depth).items():
        weight = state[f"{ours}.conv.weight"]
        layers[conv] = {"kernel": _to_keras(weight), "bias": torch.zeros(len(weight))}
        layers[bn] = {part: state[f"{ours}.norm.{our_part}"] for our_part, part in NORM.items()}
    for layer, ours in (PLAIN | PREDICTORS).items():
        weight, bias = (_their_rows(layer, state[f"{ours}.{part}"]) for part in ("weight", "bias"))
        layers[layer] = {"kernel": _to_keras(weight), "bias": bias}
    for (layer, bn), ours in FOLDED.items():
        weight, bias = state[f"{ours}.weight"], state[f"{ours}.bias"]
        if layer.startswith("mrcnn_class"):
            side = pool if layer == "mrcnn_class_conv1" else 1
            weight = weight.T.reshape(side, side, -1, len(weight))
        else:
            weight = _to_keras(weight)
        one, zero = torch.ones_like(bias), torch.zeros_like(bias)
        layers[layer] = {"kernel": weight, "bias": bias}
        layers[bn] = {"gamma": one, "beta": zero, "moving_mean": zero, "moving_variance": one - EPS}
    return {
        f"{'rpn_model' if layer.startswith('rpn') else layer}/{layer}/{part}:0": value.contiguous()
        for layer, parts in layers.items()
        for part, value in parts.items()
    }


def _our_rows(layer: str, rows: Tensor) -> Tensor:
    """The rows of a layer's weight or bias in our order."""
    match layer:
        case "rpn_class_raw":  # the softmax of background and object is the sigmoid of their difference
            return rows[1::2] - rows[::2]
        case "rpn_bbox_pred":
            return _offsets(rows)
        case "mrcnn_class_logits":
            return background_last(rows)
        case "mrcnn_bbox_fc":  # four rows of a background that has no box
            return _offsets(rows)[4:]
        case "mrcnn_mask":
            return rows[1:]
        case _:
            return rows


def _their_rows(layer: str, rows: Tensor) -> Tensor:
    """The inverse of `_our_rows`, with zeros for what we have not."""
    match layer:
        case "rpn_class_raw":
            return torch.stack([torch.zeros_like(rows), rows], dim=1).flatten(0, 1)
        case "rpn_bbox_pred":
            return _offsets(rows)
        case "mrcnn_class_logits":
            return background_first(rows)
        case "mrcnn_bbox_fc":
            return torch.cat([torch.zeros_like(rows[:4]), _offsets(rows)])
        case "mrcnn_mask":
            return torch.cat([torch.zeros_like(rows[:1]), rows])
        case _:
            return rows


def _offsets(rows: Tensor) -> Tensor:
    """Rows in fours of y x h w as x y w h, or back."""
    return rows.view(-1, 4, *rows.shape[1:])[:, XYWH].flatten(0, 1)


def _from_keras(kernel: Tensor) -> Tensor:
    """(h, w, in, out) to (out, in, h, w); of a transposed convolution (h, w, out, in) to (in, out, h, w); of a layer
    (in, out) to (out, in)."""
    return kernel.permute(3, 2, 0, 1) if kernel.dim() == 4 else kernel.T


def _to_keras(weight: Tensor) -> Tensor:
    return weight.permute(2, 3, 1, 0) if weight.dim() == 4 else weight.T
