"""Detectron's Mask, Faster and Keypoint R-CNN (pickles of Caffe2 blobs) in our names: ResNets with FPN and C4.

The source of the names is Detectron (`modeling/`). What maskrcnn-benchmark took over from it is in
`maskrcnn_benchmark_config`; this file says in what the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config, ModelConfig, ResNetConfig
from maskrcnn.config.conventions import DETECTRON
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.resnet import BLOCKS
from maskrcnn.weights.frameworks.architecture import SHARED_HEAD, model_of
from maskrcnn.weights.frameworks.detectron.settings import DEFAULTS, in_other_names, usual
from maskrcnn.weights.frameworks.detectron2.defaults import flat
from maskrcnn.weights.frameworks.importer import Imported
from maskrcnn.weights.frameworks.layout import finished, our_rows, plain_yaml, read_yaml, their_layout
from maskrcnn.weights.frameworks.maskrcnn_benchmark.settings import DEFAULTS as DEFAULTS_THERE
from maskrcnn.weights.frameworks.maskrcnn_benchmark.settings import our_config, with_rpn_rules

# A blob is a layer, perhaps its norm (bn: scale and shift of a batch norm that is folded), and what it is of that.
BLOB = re.compile(r"^(?P<layer>.+?)(?P<norm>_bn|_gn)?_(?P<leaf>[wbs])$")
MOMENTUM = "_momentum"
# Without effect: the first convolution has no bias, and the maps of keypoints are enlarged by a fixed layer.
IDLE = frozenset({"conv1_b", "kps_score_w", "kps_score_b"})
OWN_RES5 = ("_[mask]_res5_", "_[pose]_res5_")
BOX, MASK, KEYPOINT = "roi_heads.box.heads.0.", "roi_heads.mask.heads.0.", "roi_heads.keypoint.head."
LAYERS = {
    "conv_rpn": "rpn.head.convs.0",
    "rpn_cls_logits": "rpn.head.objectness",
    "rpn_bbox_pred": "rpn.head.deltas",
    "fc6": f"{BOX}layers.0",
    "fc7": f"{BOX}layers.1",
    "cls_score": f"{BOX}class_logits",
    "bbox_pred": f"{BOX}deltas",
    "conv5_mask": f"{MASK}upsample",
    "mask_fcn_logits": f"{MASK}predictor",
    "kps_score_lowres": f"{KEYPOINT}predictor",
}
LIST = {"head_conv": f"{BOX}convs.", "_[mask]_fcn": f"{MASK}convs.", "conv_fcn": f"{KEYPOINT}convs."}  # from one
BRANCHES = {"2a": "conv1", "2b": "conv2", "2c": "conv3", "1": "shortcut"}
STATISTICS = (".running_mean", ".running_var")


def recognise(names: Collection[str]) -> bool:
    """Whether these are the blobs of a two-stage detector of Detectron."""
    return "cls_score_w" in names and "res2_0_branch2a_w" in names


def read_config(path: Path | str) -> dict[str, Any]:
    """The YAML config, by names such as TEST.NMS; raises ConfigError."""
    return _settings(read_yaml(path, "Detectron"))


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A model of Detectron as ours.

    Args:
        settings: what `read_config` gives; None: the config that lies in the file, and where none does, what the
            shapes tell and what is usual.

    Raises:
        WeightsError: blobs are missing, or do not fit the settings.
        ConfigError: a setting asks for what this package has not.
    """
    tensors = {name: value for name, value in checkpoint.tensors.items() if not name.endswith(MOMENTUM)}
    own = [name for name in tensors if name.startswith(OWN_RES5)]
    if own:
        raise WeightsError(f"the branch of {own[0]} has a res5 of its own: here all branches share that of the boxes")
    names = our_names(tensors)
    ours = {our: our_rows(our, tensors[name]) for name, our in names.items()}
    ours |= _rest(names, tensors)
    model = model_of(ours)
    given = settings
    if given is None and isinstance(checkpoint.extra.get("cfg"), str):
        given = _stored(checkpoint.extra["cfg"])
    said, assumed = usual(model) if given is None else (DEFAULTS | dict(given), ())
    renamed = DEFAULTS_THERE | in_other_names(model, said)
    config = replace(
        _with_levels(our_config(model, renamed), said), conventions=with_rpn_rules(DETECTRON, model, renamed)
    )
    momentum = len(checkpoint.tensors) - len(tensors)
    if momentum:
        assumed += (f"{momentum} blobs of the optimiser (..._momentum) are left out",)
    return finished(
        config,
        ours,
        {our: name for name, our in names.items()},
        lambda name: their_name(name, config.model),
        bgr=True,
        assumed=assumed,
        unused=tuple(name for name in tensors if name not in names and name not in IDLE),
    )


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `state_dict()` as blobs: batch norm as scale and shift alone."""
    result = {}
    for name, value in state.items():
        if name.endswith((*STATISTICS, ".num_batches_tracked")):
            continue
        result[their_name(name, config.model)] = their_layout(
            name, _folded(name, value, state, config), config.model, agnostic_rows=8
        )
    return result


def _folded(name: str, value: Tensor, state: Mapping[str, Tensor], config: Config) -> Tensor:
    """Scale or shift of a batch norm whose statistics are in it; other tensors as they are."""
    module, _, leaf = name.rpartition(".")
    if f"{module}.running_var" not in state:
        return value
    assert isinstance(config.model.backbone, ResNetConfig)
    scale = torch.rsqrt(state[f"{module}.running_var"] + config.model.backbone.norm_eps)
    if leaf == "weight":
        return value * scale
    return value - state[f"{module}.running_mean"] * scale * state[f"{module}.weight"]


def _rest(names: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Statistics of the batch norms that are folded: a mean of 0 and a variance of 1, with no epsilon beside it."""
    result = {}
    for name, our in names.items():
        if name.endswith("_bn_s"):
            module = our.removesuffix(".weight")
            result[f"{module}.running_mean"] = torch.zeros_like(tensors[name])
            result[f"{module}.running_var"] = torch.ones_like(tensors[name])
    return result


def _with_levels(config: Config, said: Mapping[str, Any]) -> Config:
    """The config with the levels of RoIs, which are settings in Detectron alone."""
    rois = replace(
        config.model.rois,
        canonical_size=float(said["FPN.ROI_CANONICAL_SCALE"]),
        canonical_level=said["FPN.ROI_CANONICAL_LEVEL"],
    )
    return replace(config, model=replace(config.model, rois=rois))


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Flat names; TEST.SCALES, which older configs have, as TEST.SCALE."""
    settings = flat(content)
    scales = settings.pop("TEST.SCALES", None)
    if isinstance(scales, list) and len(scales) == 1:
        settings.setdefault("TEST.SCALE", scales[0])
    return settings


def _stored(text: str) -> dict[str, Any] | None:
    """The settings that a file holds; None where they cannot be read. What stands there as an object of numpy (the
    mean of the pixels) is left at its default."""
    try:
        settings = _settings(plain_yaml(text, "the cfg in the file", "Detectron"))
    except ConfigError:
        return None
    return {name: value for name, value in settings.items() if name != "PIXEL_MEANS" or _is_numbers(value)}


def _is_numbers(value: Any) -> bool:
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return isinstance(value, list) and len(value) == 3 and all(isinstance(item, int | float) for item in value)


def our_names(names: Collection[str]) -> dict[str, str]:
    """The blobs of a file that have a place in our network -> our names."""
    known = set(names)
    c4 = not any(name.startswith("fpn_") for name in known)
    pairs = ((name, _our_name(name, known, c4)) for name in names if name not in IDLE)
    return {name: our for name, our in pairs if our is not None}


def _our_name(name: str, known: set[str], c4: bool) -> str | None:
    found = BLOB.match(name)
    module = None if found is None else _our_module(found["layer"], c4)
    if found is None or module is None:
        return None
    leaf = "bias" if found["leaf"] == "b" else "weight"
    if found["norm"]:
        return f"{module}.norm.{leaf}"
    normed = module.startswith(("backbone.", SHARED_HEAD)) or f"{found['layer']}_gn_s" in known
    return f"{module}.{'conv.' if normed else ''}{leaf}"


def _our_module(layer: str, c4: bool) -> str | None:
    """Our module of a layer. That of proposals is named after the level of the pyramid at which it is shared."""
    if layer in ("conv1", "res_conv1"):
        return "backbone.stem"
    if found := re.fullmatch(r"res([2-5])_(\d+)_branch(2[abc]|1)", layer):
        stage, block, branch = found.groups()
        trunk = SHARED_HEAD if c4 and stage == "5" else f"backbone.res{stage}."
        return f"{trunk}{block}.{BRANCHES[branch]}"
    if found := re.fullmatch(r"fpn_(inner_)?res([2-5])_\d+_sum(?:_lateral)?", layer):
        return f"neck.{'lateral' if found[1] else 'output'}.{int(found[2]) - 2}"
    if found := re.fullmatch(r"(head_conv|_?\[?mask\]?_fcn|conv_fcn)(\d+)", layer):
        kind = "_[mask]_fcn" if "mask" in found[1] else found[1]
        return f"{LIST[kind]}{int(found[2]) - 1}"
    return LAYERS.get(re.sub(r"_fpn\d$", "", layer))


def their_name(name: str, model: ModelConfig) -> str:
    """The blob of one of our parameters; our name where it has none."""
    module, _, leaf = name.rpartition(".")
    part = module.rpartition(".")[2]
    base = module.removesuffix(".conv").removesuffix(".norm")
    layer = _their_layer(base, model)
    if layer is None:
        return name
    if part != "norm":
        return f"{layer}_{'w' if leaf == 'weight' else 'b'}"
    assert isinstance(model.backbone, ResNetConfig)
    folded = base.startswith(("backbone.", SHARED_HEAD)) and model.backbone.norm != "group_norm"
    stem = "res_conv1" if layer == "conv1" and folded else layer
    return f"{stem}_{'bn' if folded else 'gn'}_{'s' if leaf == 'weight' else 'b'}"


def _their_layer(module: str, model: ModelConfig) -> str | None:
    assert isinstance(model.backbone, ResNetConfig)
    if module == "backbone.stem":
        return "conv1"
    if module.startswith(SHARED_HEAD):
        module = f"backbone.res5.{module.removeprefix(SHARED_HEAD)}"
    if found := re.fullmatch(r"backbone\.res(\d)\.(\d+)\.(\w+)", module):
        branch = next(theirs for theirs, ours in BRANCHES.items() if ours == found[3])
        return f"res{found[1]}_{found[2]}_branch{branch}"
    if found := re.fullmatch(r"neck\.(lateral|output)\.(\d)", module):
        stage = int(found[2]) + 2
        end = f"res{stage}_{BLOCKS[model.backbone.depth][stage - 2] - 1}_sum"
        lateral = "" if stage == 5 else "_lateral"  # the top level adds nothing from above
        return f"fpn_inner_{end}{lateral}" if found[1] == "lateral" else f"fpn_{end}"
    for theirs, ours in LIST.items():
        if module.startswith(ours):
            return f"{theirs}{int(module.removeprefix(ours)) + 1}"
    layer = next((theirs for theirs, ours in LAYERS.items() if ours == module), None)
    proposals = module.startswith("rpn.") and model.neck == "fpn"
    return f"{layer}_fpn2" if proposals else layer
