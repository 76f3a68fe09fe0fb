"""maskrcnn-benchmark's Mask, Faster and Keypoint R-CNN in our names: ResNets with FPN and C4.

The source of the names is maskrcnn-benchmark (`modeling/`); its rules are in `maskrcnn_benchmark_config`, and the
layout that it shares with other frameworks in `before_detectron2`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maskrcnn.config import Config
from maskrcnn.errors import WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.anchors import cell_anchors
from maskrcnn.weights.frameworks.architecture import SHARED_HEAD, model_of
from maskrcnn.weights.frameworks.detectron2.defaults import flat
from maskrcnn.weights.frameworks.importer import Imported
from maskrcnn.weights.frameworks.layout import finished, our_rows, read_yaml, their_layout
from maskrcnn.weights.frameworks.maskrcnn_benchmark.settings import DEFAULTS, our_config, usual
from maskrcnn.weights.imagenet import ours_to_torchvision, torchvision_to_ours

BODY = "backbone.body."
BOX, MASK, KEYPOINT = (f"roi_heads.{branch}." for branch in ("box", "mask", "keypoint"))
C4_HEAD = f"{BOX}feature_extractor.head.layer4."
# With C4 the mask branch reads the box branch's features, and the file names the same tensors a second time.
C4_MASK_HEAD = f"{MASK}feature_extractor.head.layer4."
CELL_ANCHORS = "rpn.anchor_generator.cell_anchors."
LAYERS = (
    ("rpn.head.conv.", "rpn.head.convs.0."),
    ("rpn.head.cls_logits.", "rpn.head.objectness."),
    ("rpn.head.bbox_pred.", "rpn.head.deltas."),
    (f"{BOX}feature_extractor.fc6.", f"{BOX}heads.0.layers.0."),
    (f"{BOX}feature_extractor.fc7.", f"{BOX}heads.0.layers.1."),
    (f"{BOX}predictor.cls_score.", f"{BOX}heads.0.class_logits."),
    (f"{BOX}predictor.bbox_pred.", f"{BOX}heads.0.deltas."),
    (f"{MASK}predictor.conv5_mask.", f"{MASK}heads.0.upsample."),
    (f"{MASK}predictor.mask_fcn_logits.", f"{MASK}heads.0.predictor."),
    (f"{KEYPOINT}predictor.kps_score_lowres.", f"{KEYPOINT}head.predictor."),
)
# Convolutions that are numbered from one; `.0` and `.1` follow where a norm stands behind them.
NUMBERED = (
    ("backbone.fpn.fpn_inner", "neck.lateral."),
    ("backbone.fpn.fpn_layer", "neck.output."),
    (f"{MASK}feature_extractor.mask_fcn", f"{MASK}heads.0.convs."),
    (f"{KEYPOINT}feature_extractor.conv_fcn", f"{KEYPOINT}head.convs."),
)
# A list of convolution, perhaps norm, and ReLU.
XCONVS = f"{BOX}feature_extractor.xconvs."


def recognise(names: Collection[str]) -> bool:
    """Whether these are the names of a two-stage detector of maskrcnn-benchmark."""
    return f"{BOX}predictor.cls_score.weight" in names


def read_config(path: Path | str) -> dict[str, Any]:
    """The YAML config, by names such as MODEL.RPN.NMS_THRESH; raises ConfigError."""
    return flat(read_yaml(path, "maskrcnn-benchmark"))


def import_checkpoint(checkpoint: Checkpoint, settings: Mapping[str, Any] | None) -> Imported:
    """A model of maskrcnn-benchmark as ours.

    Args:
        settings: what `read_config` gives; None: what the shapes tell, and for the rest what is usual.

    Raises:
        WeightsError: tensors are missing, or do not fit the settings.
        ConfigError: a setting asks for what this package has not.
    """
    tensors = checkpoint.tensors
    _check_shared(tensors)
    names = our_names(tensors)
    ours = {our: our_rows(our, tensors[name]) for name, our in names.items()}
    model = model_of(ours)
    said, assumed = usual(model) if settings is None else (DEFAULTS | dict(settings), ())
    config = our_config(model, said)
    _check_cells(config, tensors)
    return finished(
        config,
        ours,
        {our: name for name, our in names.items()},
        lambda name: their_name(name, config),
        bgr=bool(said["INPUT.TO_BGR255"]),
        assumed=assumed,
        unused=tuple(
            name
            for name in tensors
            if name not in names
            and not name.startswith((CELL_ANCHORS, C4_MASK_HEAD))
            and not name.endswith(".num_batches_tracked")
        ),
    )


def export_state(config: Config, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our `state_dict()` in the names and layout of maskrcnn-benchmark, for BGR input."""
    return {
        their_name(name, config): their_layout(name, value, config.model, agnostic_rows=8)
        for name, value in state.items()
    }


def our_names(names: Collection[str]) -> dict[str, str]:
    """The names of a file that have a place in our network -> ours."""
    known = set(names)
    pairs = ((name, _our_name(name, known)) for name in names)
    return {name: our for name, our in pairs if our is not None}


def _our_name(name: str, known: set[str]) -> str | None:
    if name.endswith(".num_batches_tracked"):
        return None
    if name.startswith(C4_HEAD):
        return SHARED_HEAD + torchvision_to_ours(f"layer4.{name.removeprefix(C4_HEAD)}").removeprefix("res5.")
    if name.startswith(BODY):
        our = torchvision_to_ours(name.removeprefix(BODY).removeprefix("stem."))
        return f"backbone.{our}" if re.match(r"(stem|res\d)\.", our) else None
    for theirs, ours in LAYERS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    for theirs, ours in NUMBERED:
        if found := re.fullmatch(rf"{re.escape(theirs)}(\d+)\.(?:([01])\.)?(\w+)", name):
            number, part, leaf = found.groups()
            normed = f"{theirs}{number}.1.weight" in known
            inner = ("conv.", "norm.")[int(part or 0)] if normed else ""
            return f"{ours}{int(number) - 1}.{inner}{leaf}"
    if found := re.fullmatch(rf"{re.escape(XCONVS)}(\d+)\.(\w+)", name):
        step = 3 if known >= {f"{XCONVS}0.weight", f"{XCONVS}1.weight"} else 2
        number, part = divmod(int(found[1]), step)
        return f"{BOX}heads.0.convs.{number}.{('conv.', 'norm.')[part] if step == 3 else ''}{found[2]}"
    return None


def their_name(name: str, config: Config) -> str:
    """maskrcnn-benchmark's name of one of our parameters."""
    if name.startswith(SHARED_HEAD):
        return C4_HEAD + ours_to_torchvision(f"res5.{name.removeprefix(SHARED_HEAD)}").removeprefix("layer4.")
    if name.startswith("backbone."):
        theirs = ours_to_torchvision(name.removeprefix("backbone."))
        return f"{BODY}{theirs if theirs.startswith('layer') else f'stem.{theirs}'}"
    for theirs, ours in LAYERS:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    if found := re.fullmatch(rf"{re.escape(BOX)}heads\.0\.convs\.(\d+)\.(?:(conv|norm)\.)?(\w+)", name):
        step = 2 if config.model.box_head.norm == "none" else 3
        return f"{XCONVS}{int(found[1]) * step + (found[2] == 'norm')}.{found[3]}"
    for theirs, ours in NUMBERED:
        if found := re.fullmatch(rf"{re.escape(ours)}(\d+)\.(?:(conv|norm)\.)?(\w+)", name):
            part = "" if found[2] is None else f"{int(found[2] == 'norm')}."
            return f"{theirs}{int(found[1]) + 1}.{part}{found[3]}"
    return name


def _check_shared(tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError where the mask branch has a res5 of its own, which ours shares with the box branch."""
    for name, value in tensors.items():
        if name.startswith(C4_MASK_HEAD):
            box = tensors.get(C4_HEAD + name.removeprefix(C4_MASK_HEAD))
            if box is None or not torch.equal(box, value):
                raise WeightsError(
                    f"the mask branch has a res5 of its own ({name}): here box and mask branch share it "
                    "(SHARE_BOX_FEATURE_EXTRACTOR)"
                )


def _check_cells(config: Config, tensors: Mapping[str, Tensor]) -> None:
    """Raises WeightsError where the anchors that the file stores are not those of the settings."""
    anchors = config.model.anchors
    strides = [4, 8, 16, 32, 64] if config.model.neck == "fpn" else [32 if config.model.neck == "c5" else 16]
    for level, (sizes, stride) in enumerate(zip(anchors.sizes, strides, strict=True)):
        stored = tensors.get(f"{CELL_ANCHORS}{level}")
        ours = cell_anchors(sizes, anchors.ratios, stride, "base") + stride / 2
        ours = ours - ours.new_tensor([0, 0, 1, 1])  # pixels from first to last
        if stored is not None and (stored.shape != ours.shape or not torch.allclose(stored.float(), ours, atol=0.01)):
            raise WeightsError(
                f"the anchors in the file ({CELL_ANCHORS}{level}: {stored.tolist()}) are others than sizes "
                f"{list(sizes)} and ratios {list(anchors.ratios)} make: give its YAML config, with MODEL.RPN"
            )
