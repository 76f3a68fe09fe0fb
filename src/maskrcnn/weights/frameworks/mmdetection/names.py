"""MMDetection 2 and 3: Mask, Faster and Cascade R-CNN with a ResNet, FPN, C4 or one level, in our names.

The source of every rule is MMDetection 3.3 with MMCV 2. Names are the same in both versions. The first convolution is
turned round where its network reads BGR, as is the first fully connected layer, which reads (channel, row, column). Its
background is last and the anchors of a cell are ordered as ours. Everything else in which the two differ is a field of
the config, which `mmdetection_config` makes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config, HeadNorm, Norm, ResNetConfig
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.resnet import stage_channels
from maskrcnn.weights.frameworks.architecture import model_of
from maskrcnn.weights.frameworks.importer import (
    Imported,
    channels_first_columns,
    channels_last_columns,
    complete,
    other_colours,
)
from maskrcnn.weights.frameworks.mmdetection.config_file import read_config
from maskrcnn.weights.frameworks.mmdetection.defaults import reads_bgr
from maskrcnn.weights.frameworks.mmdetection.settings import our_config

__all__ = ["export_state", "import_checkpoint", "read_config", "recognise"]

# Modules in MMDetection and here; what follows is a number of a layer, or the parameter. {k}: of a stage of Cascade.
TRUNK = {f"backbone.layer{stage - 1}": f"backbone.res{stage}" for stage in range(2, 6)} | {
    "roi_head.shared_head.layer4": "roi_heads.pooler.shared_head"
}
CONVOLUTIONS = {
    "neck.lateral_convs": "neck.lateral",
    "neck.fpn_convs": "neck.output",
    "roi_head.bbox_head.shared_convs": "roi_heads.box.heads.0.convs",
    "roi_head.mask_head.convs": "roi_heads.mask.heads.0.convs",
}
OTHERS = {
    "rpn_head.rpn_cls": "rpn.head.objectness",
    "rpn_head.rpn_reg": "rpn.head.deltas",
    "roi_head.bbox_head.shared_fcs": "roi_heads.box.heads.0.layers",
    "roi_head.bbox_head.fc_cls": "roi_heads.box.heads.0.class_logits",
    "roi_head.bbox_head.fc_reg": "roi_heads.box.heads.0.deltas",
    "roi_head.mask_head.upsample": "roi_heads.mask.heads.0.upsample",
    "roi_head.mask_head.conv_logits": "roi_heads.mask.heads.0.predictor",
}
STEM = "backbone.stem.conv.weight"
RPN_CONV = "rpn_head.rpn_conv"
FIRST_LAYER = re.compile(r"^roi_heads\.box\.heads\.\d+\.layers\.0\.weight$")
THEIR_STAGE = re.compile(r"^(roi_head\.(?:bbox|mask)_head)\.(\d+)\.")
OUR_STAGE = re.compile(r"^(roi_heads\.(box|mask)\.heads)\.(\d+)\.")
COUNTER = "num_batches_tracked"


def recognise(names: Collection[str]) -> bool:
    """Whether these are the names of a two-stage detector of MMDetection 2 or 3 with proposals."""
    return all(any(name.startswith(part) for name in names) for part in ("rpn_head.", "roi_head.bbox_head."))


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A model of MMDetection as ours.

    The counts of batches of norms whose statistics stay have no place here; they are not listed as unused.

    Args:
        settings: what `read_config` gives; None: the config that the file holds, and without one what the shapes tell,
            and for the rest what is usual.

    Raises:
        WeightsError: tensors are missing, of another kind of model, or do not fit the settings.
        ConfigError: a setting asks for what this package has not.
    """
    tensors = checkpoint.tensors
    names = our_names(tensors)
    ours = {our: tensors[name] for name, our in names.items()}
    config, bgr, assumed = our_config(model_of(ours), ours, checkpoint.extra, settings)
    table = {our: name for name, our in names.items()}
    found = {name: _turned(name, value, config, channels_last_columns, bgr=bgr) for name, value in ours.items()}
    state = complete(config, found, lambda our: table.get(our) or their_name(our, config))
    unused = tuple(name for name in tensors if names.get(name) not in state and not name.endswith(COUNTER))
    return Imported(config, state, assumed, unused)


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back: our `state_dict()` in MMDetection's names and layout.

    Its network then reads the colours that its own configs read for such a model: BGR in the style caffe, where pixels
    are not divided by their deviation, and for ResNeXt 32x8d, else RGB. Norms whose statistics stay get a count of no
    batches, which its own have.
    """
    bgr = reads_bgr(config.model, plain=config.image.std == (1.0, 1.0, 1.0))
    result = {}
    for name, value in state.items():
        theirs = their_name(name, config)
        result[theirs] = _turned(name, value, config, channels_first_columns, bgr=bgr)
        if theirs.endswith(".running_var") and f"{name.removesuffix('running_var')}{COUNTER}" not in state:
            result[f"{theirs.removesuffix('running_var')}{COUNTER}"] = torch.zeros((), dtype=torch.int64)
    return result


def _turned(name: str, value: Tensor, config: Config, columns: Callable[[Tensor, int], Tensor], *, bgr: bool) -> Tensor:
    """A tensor in the other layout; `name` is ours."""
    if name == STEM and bgr:
        return other_colours(value)
    if FIRST_LAYER.match(name):
        return columns(value, _channels_read(config))
    return value


def _channels_read(config: Config) -> int:
    """Channels of what the first fully connected layer of the box branch reads."""
    model = config.model
    if model.box_head.convs:
        return model.box_head.conv_channels
    if model.neck == "fpn":
        return model.fpn_channels
    assert isinstance(model.backbone, ResNetConfig)
    return stage_channels(model.backbone)[-1]


def our_names(names: Collection[str]) -> dict[str, str]:
    """The names of a file that have a place in our network -> ours."""
    known = set(names)
    found = {name: _our_name(name, known) for name in names}
    return {name: our for name, our in found.items() if our is not None}


def _our_name(name: str, known: set[str]) -> str | None:
    stage = THEIR_STAGE.match(name)
    plain = THEIR_STAGE.sub(r"\1.", name)
    our = _of_one_stage(plain, lambda module: _has_norm(module if stage is None else _staged(module, stage[2]), known))
    if our is None or stage is None:
        return our
    return OUR_STAGE.sub(rf"\1.{stage[2]}.", our)


def _staged(module: str, stage: str) -> str:
    return re.sub(r"^(roi_head\.(?:bbox|mask)_head)\.", rf"\1.{stage}.", module)


def _has_norm(module: str, known: set[str]) -> bool:
    return any(f"{module}.{norm}.weight" in known for norm in ("bn", "gn"))


def _of_one_stage(name: str, has_norm: Callable[[str], bool]) -> str | None:
    """Our name of a parameter; `has_norm` tells of a module with a convolution, by its own name."""
    if found := re.match(r"^backbone\.(conv1|bn1|gn1)\.(\w+)$", name):
        return f"backbone.stem.{'conv' if found[1] == 'conv1' else 'norm'}.{found[2]}"
    for theirs, ours in TRUNK.items():
        if name.startswith(f"{theirs}."):
            rest = name.removeprefix(theirs).replace(".conv2.conv_offset.", ".conv2.offset.")
            rest = re.sub(
                r"\.(?:bn|gn)(\d)\.", r".conv\1.norm.", re.sub(r"\.conv(\d)\.(weight)$", r".conv\1.conv.\2", rest)
            )
            return ours + rest.replace(".downsample.0.", ".shortcut.conv.").replace(".downsample.1.", ".shortcut.norm.")
    for theirs, ours in CONVOLUTIONS.items():
        if found := re.match(rf"^({re.escape(theirs)})(\.\d+)\.(conv|bn|gn)\.(\w+)$", name):
            if not has_norm(found[1] + found[2]):
                return f"{ours}{found[2]}.{found[4]}"
            return f"{ours}{found[2]}.{'conv' if found[3] == 'conv' else 'norm'}.{found[4]}"
    if found := re.match(rf"^{re.escape(RPN_CONV)}(?:\.(\d+)\.conv)?\.(\w+)$", name):
        return f"rpn.head.convs.{found[1] or 0}.{found[2]}"
    for theirs, ours in OTHERS.items():
        if name.startswith(f"{theirs}."):
            return ours + name.removeprefix(theirs)
    return None


def their_name(name: str, config: Config) -> str:
    """The name in MMDetection of one of our parameters."""
    model = config.model
    stage = OUR_STAGE.match(name)
    plain = OUR_STAGE.sub(r"\1.0.", name)
    theirs = _their_name_of_one_stage(plain, config)
    if plain.startswith("rpn.head.convs.") and model.rpn.convs == 1:
        theirs = theirs.replace(f"{RPN_CONV}.0.conv.", f"{RPN_CONV}.")
    cascade = bool(model.box_head.cascade_ious)
    per_stage = {"box": cascade, "mask": cascade and config.conventions.cascade.mask_head_per_stage}
    return _staged(theirs, stage[3]) if stage is not None and per_stage[stage[2]] else theirs


def _their_name_of_one_stage(name: str, config: Config) -> str:
    model = config.model
    assert isinstance(model.backbone, ResNetConfig)
    norm = _letters(model.backbone.norm)
    if name.startswith("backbone.stem."):
        return name.replace("stem.conv.", "conv1.").replace("stem.norm.", f"{norm}1.")
    for theirs, ours in TRUNK.items():
        if name.startswith(f"{ours}."):
            rest = name.removeprefix(ours).replace(".shortcut.conv.", ".downsample.0.")
            rest = rest.replace(".shortcut.norm.", ".downsample.1.").replace(".conv2.offset.", ".conv2.conv_offset.")
            return theirs + re.sub(
                r"\.conv(\d)\.norm\.", rf".{norm}\1.", re.sub(r"\.conv(\d)\.conv\.", r".conv\1.", rest)
            )
    heads = {"neck": model.fpn_norm, "roi_heads.box": model.box_head.norm}
    if model.mask_head is not None:
        heads["roi_heads.mask"] = model.mask_head.norm
    for theirs, ours in CONVOLUTIONS.items():
        if found := re.match(rf"^{re.escape(ours)}(\.\d+)\.(?:(conv|norm)\.)?(\w+)$", name):
            letters = next(_letters(kind) for part, kind in heads.items() if name.startswith(f"{part}."))
            return f"{theirs}{found[1]}.{letters if found[2] == 'norm' else 'conv'}.{found[3]}"
    if found := re.match(r"^rpn\.head\.convs(\.\d+)\.(\w+)$", name):
        return f"{RPN_CONV}{found[1]}.conv.{found[2]}"
    for theirs, ours in OTHERS.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name


def _letters(norm: Norm | HeadNorm) -> str:
    return "gn" if norm == "group_norm" else "bn"
