"""tensorpack's Mask, Faster and Cascade R-CNN (`.npz`) in our names: ResNets with FPN and C4.

The source of every rule is tensorpack's `examples/FasterRCNN` (`modeling/`, `config.py`, `data.py`, `eval.py`). Its
layers lie as TensorFlow has them: (h, w, in, out) and (in, out).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.architecture import SHARED_HEAD, model_of
from maskrcnn.weights.frameworks.detectron2.defaults import flat
from maskrcnn.weights.frameworks.importer import Imported, listed, reordered
from maskrcnn.weights.frameworks.layout import finished, our_rows, their_layout
from maskrcnn.weights.frameworks.tensorpack.settings import DEFAULTS, our_config, read_settings, usual

BOX, MASK = "roi_heads.box.heads.", "roi_heads.mask.heads.0."
LEAVES = {
    "W": "weight",
    "b": "bias",
    "gamma": "weight",
    "beta": "bias",
    "mean/EMA": "running_mean",
    "variance/EMA": "running_var",
}
PARAMETER = re.compile(rf"^(?P<layer>.+?)(?P<norm>/bn|/gn)?/(?P<leaf>{'|'.join(LEAVES)})(?::0)?$")
# Counters and what the optimiser and the summaries keep.
OF_TRAINING = re.compile(r"(^|/)(global_step|learning_rate|Momentum|AccumGrad|EMA)(:0)?$|^EMA/")
BATCH_NORM_EMA = re.compile(r"/(mean|variance)/EMA(:0)?$")
# A norm behind a convolution that has a bias or a ReLU of its own: neither is in ours.
NORMED_HEADS = re.compile(r"^(fpn/gn_[cp]\d|(fastrcnn|cascade_rcnn_stage\d/head|maskrcnn)/gn\d)/")
LAYERS = {
    "rpn/conv0": "rpn.head.convs.0",
    "rpn/class": "rpn.head.objectness",
    "rpn/box": "rpn.head.deltas",
    "maskrcnn/deconv": f"{MASK}upsample",
    "maskrcnn/conv": f"{MASK}predictor",
}
ANCHOR_ROWS = re.compile(r"^rpn\.head\.(?:objectness|deltas)\.(?:weight|bias)$")


def recognise(names: Collection[str]) -> bool:
    """Whether these are the names of a two-stage detector of tensorpack."""
    return any(name.startswith("rpn/conv0/W") for name in names)


def read_config(path: Path | str) -> dict[str, Any]:
    """Settings as YAML or JSON, by tensorpack's names, such as BACKBONE.STRIDE_1X1; raises ConfigError."""
    settings = flat(read_settings(path))
    if "PREPROC.SHORT_EDGE_SIZE" in settings:  # before training had several
        settings.setdefault("PREPROC.TEST_SHORT_EDGE_SIZE", settings["PREPROC.SHORT_EDGE_SIZE"])
    return settings


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A model of tensorpack as ours.

    Args:
        settings: what `read_config` gives; None: what the shapes tell, and for the rest what is usual.

    Raises:
        WeightsError: tensors are missing, or do not fit the settings.
        ConfigError: a setting asks for what this package has not.
    """
    tensors = {name: value for name, value in checkpoint.tensors.items() if not _of_training(name)}
    normed = [name for name in tensors if NORMED_HEADS.match(name)]
    if normed:
        raise WeightsError(
            f"{listed(normed[:1])}: group norm of the pyramid and of the heads stands behind a convolution with a bias "
            "or a ReLU there, which has no counterpart here"
        )
    names = our_names(tensors)
    ours = {our: _our_values(our, tensors[name]) for name, our in names.items()}
    classes = len(ours.get(f"{BOX}0.class_logits.weight", ()))
    ours = {our: our_rows(our, value, mask_background=len(value) == classes) for our, value in ours.items()}
    model = model_of(ours)
    said, assumed = usual(model) if settings is None else (DEFAULTS | dict(settings), ())
    config = our_config(model, said)
    sizes, ratios = len(config.model.anchors.sizes[0]), len(config.model.anchors.ratios)
    if not said["LEGACY_ANCHORS"]:  # by size and then ratio
        for name in filter(ANCHOR_ROWS.match, ours):
            if len(ours[name]) % (sizes * ratios) == 0:
                ours[name] = reordered(ours[name], sizes, ratios)
    return finished(
        config,
        ours,
        {our: name for name, our in names.items()},
        lambda name: their_name(name, config),
        bgr=True,
        assumed=assumed,
        unused=tuple(name for name in tensors if name not in names),
    )


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `state_dict()` in the names and layout of tensorpack; anchors by size and then ratio."""
    anchors, rounding = config.model.anchors, config.conventions.anchors.rounding
    result = {}
    for name, value in state.items():
        if ANCHOR_ROWS.match(name) and rounding != "base":
            value = reordered(value, len(anchors.ratios), len(anchors.sizes[0]))
        value = their_layout(name, value, config.model, agnostic_rows=4, mask_background=False)
        result[their_name(name, config)] = _to_tensorflow(value).contiguous()
    return result


def _of_training(name: str) -> bool:
    return OF_TRAINING.search(name) is not None and BATCH_NORM_EMA.search(name) is None


def _our_values(name: str, value: Tensor) -> Tensor:
    """(h, w, in, out) to (out, in, h, w), of a transposed convolution (h, w, out, in) to (in, out, h, w), of a layer
    (in, out) to (out, in)."""
    if value.dim() == 4:
        return value.permute(3, 2, 0, 1)
    return value.T if value.dim() == 2 else value


def _to_tensorflow(value: Tensor) -> Tensor:
    if value.dim() == 4:
        return value.permute(2, 3, 1, 0)
    return value.T if value.dim() == 2 else value


def our_names(names: Collection[str]) -> dict[str, str]:
    """The names of a file that have a place in our network -> ours."""
    c4 = not any(name.startswith("fpn/") for name in names)
    pairs = ((name, _our_name(name, c4)) for name in names)
    return {name: our for name, our in pairs if our is not None}


def _our_name(name: str, c4: bool) -> str | None:
    found = PARAMETER.match(name)
    module = None if found is None else _our_module(found["layer"], c4)
    if found is None or module is None:
        return None
    inner = "norm." if found["norm"] else "conv." if module.startswith(("backbone.", SHARED_HEAD)) else ""
    return f"{module}.{inner}{LEAVES[found['leaf']]}"


def _our_module(layer: str, c4: bool) -> str | None:
    if layer == "conv0":
        return "backbone.stem"
    if found := re.fullmatch(r"group([0-3])/block(\d+)/conv([123]|shortcut)", layer):
        stage = int(found[1]) + 2
        trunk = SHARED_HEAD if c4 and stage == 5 else f"backbone.res{stage}."
        return f"{trunk}{found[2]}.{'shortcut' if found[3] == 'shortcut' else f'conv{found[3]}'}"
    if found := re.fullmatch(r"fpn/(lateral_1x1_c|posthoc_3x3_p)([2-5])", layer):
        return f"neck.{'lateral' if found[1].startswith('lateral') else 'output'}.{int(found[2]) - 2}"
    if found := re.fullmatch(r"maskrcnn/fcn(\d+)", layer):
        return f"{MASK}convs.{found[1]}"
    if found := re.fullmatch(r"(?:fastrcnn|cascade_rcnn_stage(\d)(?:/head)?)/(?:outputs/)?(\w+)", layer):
        part = _box_layer(found[2])
        return None if part is None else f"{BOX}{int(found[1] or 1) - 1}.{part}"
    return LAYERS.get(layer)


def _box_layer(name: str) -> str | None:
    """Our layer of the box branch: fc6 and fc7, or convolutions and fc."""
    if found := re.fullmatch(r"conv(\d+)", name):
        return f"convs.{found[1]}"
    return {"fc6": "layers.0", "fc7": "layers.1", "fc": "layers.0", "class": "class_logits", "box": "deltas"}.get(name)


def their_name(name: str, config: Config) -> str:
    """tensorpack's name of one of our parameters; our name where it has none."""
    module, _, leaf = name.rpartition(".")
    norm = module.endswith(".norm")
    base = module.removesuffix(".conv").removesuffix(".norm")
    layer = _their_layer(base, config)
    if layer is None:
        return name
    if not norm:
        return f"{layer}/{'W' if leaf == 'weight' else 'b'}"
    grouped = getattr(config.model.backbone, "norm", "") == "group_norm"
    theirs = {"weight": "gamma", "bias": "beta", "running_mean": "mean/EMA", "running_var": "variance/EMA"}
    return f"{layer}/{'gn' if grouped else 'bn'}/{theirs.get(leaf, leaf)}"


def _their_layer(module: str, config: Config) -> str | None:
    if module == "backbone.stem":
        return "conv0"
    if module.startswith(SHARED_HEAD):
        module = f"backbone.res5.{module.removeprefix(SHARED_HEAD)}"
    if found := re.fullmatch(r"backbone\.res(\d)\.(\d+)\.(\w+)", module):
        conv = "convshortcut" if found[3] == "shortcut" else found[3]
        return f"group{int(found[1]) - 2}/block{found[2]}/{conv}"
    if found := re.fullmatch(r"neck\.(lateral|output)\.(\d)", module):
        return f"fpn/{'lateral_1x1_c' if found[1] == 'lateral' else 'posthoc_3x3_p'}{int(found[2]) + 2}"
    if module.startswith(f"{MASK}convs."):
        return f"maskrcnn/fcn{module.removeprefix(f'{MASK}convs.')}"
    if found := re.fullmatch(rf"{re.escape(BOX)}(\d+)\.(.+)", module):
        layers = "fc" if config.model.box_head.convs else "fc6"
        part = {"layers.0": layers, "layers.1": "fc7", "class_logits": "class", "deltas": "box"}.get(found[2])
        part = part or found[2].replace("convs.", "conv")
        outputs = "outputs/" if part in ("class", "box") and config.model.neck == "fpn" else ""
        if not config.model.box_head.cascade_ious:
            return f"fastrcnn/{outputs}{part}"
        return f"cascade_rcnn_stage{int(found[1]) + 1}/{outputs or 'head/'}{part}"
    return next((theirs for theirs, ours in LAYERS.items() if ours == module), None)
