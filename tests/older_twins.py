"""Small random models of ours, and the layout that Detectron, maskrcnn-benchmark and tensorpack keep them in.

Written anew, without the tables and layout functions of the importers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn.config import (
    AnchorConfig,
    BoxHeadConfig,
    Config,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
)
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.weights.frameworks.importer import Imported, Importer
from maskrcnn.weights.frameworks.names import NameTable
from maskrcnn.weights.open import importer_of

BACKBONE = ResNetConfig(depth=50, width=8, stem_width=16, stride_in_1x1=True)
HEADS = BoxHeadConfig(hidden=24)
MASKS = MaskHeadConfig(convs=4, channels=16)
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


def small(**model: Any) -> ModelConfig:
    settings: dict[str, Any] = {"backbone": BACKBONE, "fpn_channels": 16, "box_head": HEADS, "mask_head": MASKS}
    return ModelConfig(num_classes=3, **(settings | model))


GROUPED = replace(BACKBONE, width=32, stem_width=None, norm="group_norm", stride_in_1x1=False)
KINDS: dict[str, ModelConfig] = {
    "FPN": small(),
    "ResNet-101": small(backbone=replace(BACKBONE, depth=101)),
    "Faster R-CNN": small(mask_head=None),
    "C4": small(
        neck="c4",
        fpn_channels=256,
        anchors=AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),)),
        box_head=replace(HEADS, layers=0),
        mask_head=replace(MASKS, convs=0),
    ),
    "group norm": small(
        backbone=GROUPED,
        fpn_channels=32,
        fpn_norm="group_norm",
        box_head=BoxHeadConfig(convs=4, conv_channels=32, layers=1, hidden=24, norm="group_norm"),
        mask_head=replace(MASKS, channels=32, norm="group_norm"),
    ),
    "keypoints": small(mask_head=None, keypoint_head=KeypointHeadConfig(5, convs=2, channels=16)),
    "class-agnostic": small(box_head=replace(HEADS, class_agnostic=True)),
}


# Kinds that take long to build and differ from another one in little.
SLOW = ("ResNet-101", "Faster R-CNN", "group norm", "class-agnostic", "4conv1fc")


def kinds(models: dict[str, ModelConfig]) -> list[Any]:
    """Their names as parameters of a test."""
    return [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in models]


@cache
def random_state(model: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        state = build_model(Config(model, image=ImageConfig(divisor=32))).state_dict()
    return {name: torch.randn(value.shape, generator=generator) for name, value in state.items()}


def their_values(model: ModelConfig, agnostic_rows: int = 8) -> dict[str, Tensor]:
    """The tensors by our names, as these frameworks order them: BGR, background first, (channel, row, column)."""
    values = dict(random_state(model))
    values["backbone.stem.conv.weight"] = values["backbone.stem.conv.weight"][:, [2, 1, 0]]
    for part in ("weight", "bias"):
        name = f"roi_heads.box.heads.0.class_logits.{part}"
        values[name] = values[name][[-1, *range(model.num_classes)]]
        name = f"roi_heads.box.heads.0.deltas.{part}"
        invented = agnostic_rows - 4 if model.box_head.class_agnostic else 4
        values[name] = torch.cat([torch.full_like(values[name][:invented], 7.0), values[name]])
        name = f"roi_heads.mask.heads.0.predictor.{part}"
        if name in values:
            values[name] = torch.cat([torch.full_like(values[name][:1], 7.0), values[name]])
    name = "roi_heads.box.heads.0.layers.0.weight"
    if name in values:
        rows = values[name]
        channels = model.box_head.conv_channels if model.box_head.convs else model.fpn_channels
        turned = torch.empty_like(rows)
        for channel in range(channels):
            for cell in range(49):
                turned[:, channel * 49 + cell] = rows[:, cell * channels + channel]
        values[name] = turned
    return values


def convolutions(model: ModelConfig) -> list[tuple[str, int, int, str]]:
    """Our name of every convolution of the stages, with its stage 2..5, block and place: 1, 2, 3 or shortcut."""
    assert isinstance(model.backbone, ResNetConfig)
    found = []
    for stage, blocks in enumerate(BLOCKS[model.backbone.depth], start=2):
        ours = "roi_heads.pooler.shared_head" if model.neck == "c4" and stage == 5 else f"backbone.res{stage}"
        for block in range(blocks):
            for place in ("1", "2", "3", *(["shortcut"] if block == 0 else [])):
                part = place if place == "shortcut" else f"conv{place}"
                found.append((f"{ours}.{block}.{part}", stage, block, place))
    return found


def put(result: dict[str, Tensor], values: dict[str, Tensor], ours: str, names: dict[str, str]) -> None:
    """Moves tensors of one of our modules over; `names`: our name of each in the module -> theirs of it."""
    for leaf, theirs in names.items():
        result[theirs] = values.pop(f"{ours}.{leaf}")


AFFINE = ("weight", "bias")
STATISTICS = ("weight", "bias", "running_mean", "running_var")


def found_and_returned(
    importer: Importer, table: NameTable, tensors: dict[str, Tensor], state: dict[str, Tensor], model: ModelConfig
) -> Imported:
    """The import of a twin, once names and shapes alone gave back its state and kind, and the table the file's names.

    Args:
        tensors: by the framework's names; state: by ours.
    """
    checkpoint = Checkpoint("torch", tensors, {}, ())
    assert importer.recognise(tensors)
    assert importer_of(checkpoint, "theirs")[0].name == importer.name
    found: Imported = importer.import_checkpoint(checkpoint, None)
    assert found.unused == ()
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], value) for name, value in state.items())
    for part in ("num_classes", "neck", "fpn_channels", "fpn_norm"):
        assert getattr(found.config.model, part) == getattr(model, part), part
    theirs = table.their_names(state)
    assert set(theirs.values()) == tensors.keys()
    assert {our: name for name, our in table.our_names(tensors).items()} == theirs
    return found
