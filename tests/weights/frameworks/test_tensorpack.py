"""tensorpack's names, layout and settings on small random models, written down by a second table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maskrcnn.config import ModelConfig
from maskrcnn.config.conventions import DETECTRON, TENSORPACK
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.anchors import cell_anchors
from maskrcnn.weights.frameworks.tensorpack import Tensorpack
from maskrcnn.weights.frameworks.tensorpack.names import TABLE
from maskrcnn.weights.open import open_weights
from odd_shapes import check_odd_shapes
from older_twins import (
    GROUPED,
    HEADS,
    KINDS,
    convolutions,
    found_and_returned,
    kinds,
    put,
    random_state,
    small,
    their_values,
)

BOX, MASK = "roi_heads.box", "roi_heads.mask.heads.0"
CASCADE = small(
    box_head=replace(
        HEADS,
        class_agnostic=True,
        cascade_ious=(0.6, 0.7),
        cascade_weights=((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
    )
)
MODELS = {
    **{kind: KINDS[kind] for kind in ("FPN", "ResNet-101", "Faster R-CNN", "C4", "class-agnostic")},
    "cascade": CASCADE,
    "4conv1fc": small(box_head=replace(HEADS, convs=4, conv_channels=16, layers=1)),
    "group norm": small(backbone=GROUPED),
}


def twin(model: ModelConfig) -> dict[str, Tensor]:
    """What tensorpack would store of the model that `random_state` fills."""
    values = values_there(model)
    norms = {"weight": "gn/gamma", "bias": "gn/beta"}
    if model.backbone.norm != "group_norm":  # type: ignore[union-attr]
        norms = {
            "weight": "bn/gamma",
            "bias": "bn/beta",
            "running_mean": "bn/mean/EMA",
            "running_var": "bn/variance/EMA",
        }
    result: dict[str, Tensor] = {}

    def move(ours: str, theirs: str, leaves: dict[str, str]) -> None:
        put(result, values, ours, {leaf: f"{theirs}/{name}" for leaf, name in leaves.items()})

    move("backbone.stem.conv", "conv0", {"weight": "W"})
    move("backbone.stem.norm", "conv0", norms)
    for ours, stage, block, place in convolutions(model):
        move(f"{ours}.conv", f"group{stage - 2}/block{block}/conv{place}", {"weight": "W"})
        move(f"{ours}.norm", f"group{stage - 2}/block{block}/conv{place}", norms)
    outputs = "fastrcnn/outputs" if model.neck == "fpn" else "fastrcnn"
    modules = {
        "rpn.head.convs.0": "rpn/conv0",
        "rpn.head.objectness": "rpn/class",
        "rpn.head.deltas": "rpn/box",
        f"{BOX}.heads.0.layers.0": "fastrcnn/fc" if model.box_head.convs else "fastrcnn/fc6",
        f"{BOX}.heads.0.layers.1": "fastrcnn/fc7",
        f"{BOX}.heads.0.class_logits": f"{outputs}/class",
        f"{BOX}.heads.0.deltas": f"{outputs}/box",
        f"{MASK}.upsample": "maskrcnn/deconv",
        f"{MASK}.predictor": "maskrcnn/conv",
    }
    for i in range(4):
        modules[f"neck.lateral.{i}"] = f"fpn/lateral_1x1_c{i + 2}"
        modules[f"neck.output.{i}"] = f"fpn/posthoc_3x3_p{i + 2}"
        modules[f"{MASK}.convs.{i}"] = f"maskrcnn/fcn{i}"
        modules[f"{BOX}.heads.0.convs.{i}"] = f"fastrcnn/conv{i}"
    for stage in range(3 if model.box_head.cascade_ious else 0):
        there = f"cascade_rcnn_stage{stage + 1}"
        modules[f"{BOX}.heads.{stage}.layers.0"] = f"{there}/head/fc6"
        modules[f"{BOX}.heads.{stage}.layers.1"] = f"{there}/head/fc7"
        modules[f"{BOX}.heads.{stage}.class_logits"] = f"{there}/outputs/class"
        modules[f"{BOX}.heads.{stage}.deltas"] = f"{there}/outputs/box"
    for ours, theirs in modules.items():
        if f"{ours}.weight" in values:
            move(ours, theirs, {"weight": "W", "bias": "b"})
    assert not values
    turned = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
    return {name: value.permute(turned[value.dim()]).contiguous() for name, value in result.items()}


def values_there(model: ModelConfig) -> dict[str, Tensor]:
    """`their_values`, with what tensorpack has otherwise: no mask of the background, anchors by size and ratio."""
    ours = random_state(model)
    if not model.box_head.cascade_ious:
        values = their_values(model, agnostic_rows=4)
    else:  # the stages one by one, each as the only one
        values = dict(ours)
        for stage in range(3):
            one = {name.replace(f"heads.{stage}.", "heads.0."): name for name in ours if f"heads.{stage}." in name}
            values |= {one[name]: value for name, value in stage_values(model, one, ours).items()}
        values["backbone.stem.conv.weight"] = ours["backbone.stem.conv.weight"][:, [2, 1, 0]]
    values |= {name: ours[name] for name in ours if name.startswith(f"{MASK}.predictor.")}
    sizes = len(model.anchors.sizes[0])
    for part in ("weight", "bias"):
        for name, rows in ((f"rpn.head.objectness.{part}", 1), (f"rpn.head.deltas.{part}", 4)):
            order = [ratio * sizes + size for size in range(sizes) for ratio in range(3)]
            values[name] = torch.cat([ours[name][rows * i : rows * i + rows] for i in order])
    return values


def stage_values(model: ModelConfig, names: dict[str, str], ours: dict[str, Tensor]) -> dict[str, Tensor]:
    result = {name: ours[full] for name, full in names.items()}
    for part in ("weight", "bias"):
        name = f"{BOX}.heads.0.class_logits.{part}"
        result[name] = result[name][[-1, *range(model.num_classes)]]
    name = f"{BOX}.heads.0.layers.0.weight"
    result[name] = result[name].view(-1, 7, 7, 16).permute(0, 3, 1, 2).flatten(1)
    return result


def imported_from(tensors: dict[str, Tensor], settings: dict[str, Any] | None = None) -> Any:
    return Tensorpack().import_checkpoint(Checkpoint("npz", tensors, {}, ()), settings)


@pytest.mark.parametrize("kind", kinds(MODELS))
def test_every_kind_is_found_by_names_and_shapes(kind: str) -> None:
    model = MODELS[kind]
    found = found_and_returned(Tensorpack(), TABLE, twin(model), random_state(model), model)
    assert found.config.model.box_head.cascade_weights == model.box_head.cascade_weights


def test_anchors_of_a_cell_are_by_size_and_then_ratio_there() -> None:
    tensors = twin(MODELS["C4"])
    found = imported_from(tensors)
    anchors = found.config.model.anchors
    cells = cell_anchors(anchors.sizes[0], anchors.ratios, 4)
    torch.testing.assert_close(cells[5], torch.tensor([-16.0, -16.0, 16.0, 16.0]))  # first size, second ratio
    assert torch.equal(found.state["rpn.head.objectness.bias"][5], tensors["rpn/class/b"][1])
    legacy = imported_from(tensors, {"LEGACY_ANCHORS": True})
    assert torch.equal(legacy.state["rpn.head.objectness.bias"], tensors["rpn/class/b"])
    assert legacy.config.conventions.anchors == DETECTRON.anchors


def test_rules_that_no_config_says() -> None:
    config = imported_from(twin(MODELS["FPN"])).config
    image, model = config.image, config.model
    assert (image.mean, image.std) == ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert (image.long_side, image.divisor, config.conventions) == (1344, 32, TENSORPACK)
    assert (model.backbone.stride_in_1x1, model.backbone.norm_eps) == (False, 1e-5)
    assert model.rois.sampling_ratio == 2
    assert (model.rpn.post_nms_train, model.rpn.pre_nms_test) == (2000, 1000)
    assert (model.rpn.smooth_l1_beta, model.box_head.smooth_l1_beta) == (1 / 9, 0.0)
    c4 = imported_from(twin(MODELS["C4"])).config
    assert (c4.image.long_side, c4.image.divisor, c4.conventions) == (1333, 1, TENSORPACK)
    assert (c4.model.rpn.pre_nms_test, c4.model.rpn.post_nms_test) == (6000, 1000)


def test_settings_become_fields(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    settings = {
        "BACKBONE": {"STRIDE_1X1": True, "NORM": "SyncBN", "FREEZE_AT": 0},
        "PREPROC": {"PIXEL_MEAN": [1, 2, 3], "MAX_SIZE": 1000, "SHORT_EDGE_SIZE": 640},
        "RPN.ANCHOR_SIZES": "(16, 32, 64, 128, 256)",
        "MRCNN.ACCURATE_PASTE": False,
        "DATA": {"NUM_CATEGORY": 3},
    }
    file.write_text(json.dumps(settings))
    found = imported_from(twin(MODELS["FPN"]), Tensorpack().read_settings(file))
    config, model = found.config, found.config.model
    assert found.assumed == ()
    assert (config.image.mean, config.image.short_side, config.image.long_side) == ((1.0, 2.0, 3.0), 640, 1024)
    assert (model.backbone.stride_in_1x1, model.backbone.norm, model.backbone.frozen_stages) == (
        True,
        "sync_batch_norm",
        0,
    )
    assert (model.anchors.sizes[0], config.conventions.masks.paste) == ((16.0,), "expanded_box")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"DATA.NUM_CATEGORY": 80}, "NUM_CATEGORY is 80 in the settings, and 3 in the file"),
        ({"MODE_MASK": False}, "MODE_MASK is False"),
        ({"BACKBONE.TF_PAD_MODE": True}, "TF_PAD_MODE True is not supported"),
        ({"FPN.PROPOSAL_MODE": "Joint"}, "PROPOSAL_MODE 'Joint'"),
        ({"RPN.ANCHOR_RATIOS": [1.0]}, "3 anchors per cell, and the settings give 1"),
        ({"BACKBONE.NORM": "other"}, "unexpected kind"),
    ],
)
def test_settings_that_cannot_be_followed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, WeightsError), match=message):
        imported_from(twin(MODELS["FPN"]), settings)


def test_group_norm_of_the_heads_is_refused() -> None:
    tensors = twin(MODELS["FPN"]) | {"fpn/gn_c2/gamma": torch.ones(16)}
    with pytest.raises(WeightsError, match=r"fpn/gn_c2/gamma: group norm .* is not supported"):
        imported_from(tensors)


def test_older_files_have_a_mask_of_the_background() -> None:
    tensors = twin(MODELS["FPN"])
    for part, ones in (("W", (1, 1, 16, 1)), ("b", (1,))):
        tensors[f"maskrcnn/conv/{part}"] = torch.cat([torch.ones(ones), tensors[f"maskrcnn/conv/{part}"]], dim=-1)
    state = random_state(MODELS["FPN"])
    assert torch.equal(imported_from(tensors).state[f"{MASK}.predictor.bias"], state[f"{MASK}.predictor.bias"])


def test_a_file_opens_by_its_content(tmp_path: Path) -> None:
    tensors = {name: value.numpy() for name, value in twin(MODELS["FPN"]).items()}
    tensors |= {"global_step": np.array(7), "conv0/W/Momentum": np.zeros(3, np.float32), "more/W": np.zeros((2, 2))}
    del tensors["fpn/lateral_1x1_c4/b"]
    np.savez(tmp_path / "theirs.npz", **tensors)
    with pytest.raises(WeightsError, match=r"1 missing: fpn/lateral_1x1_c4/b; is .*1 unexpected"):
        open_weights(tmp_path / "theirs.npz")
    _, _, provenance = open_weights(tmp_path / "theirs.npz", allow_partial=True)
    assert (provenance["framework"], provenance["new"]) == ("tensorpack", ["neck.lateral.2.bias"])
    assert provenance["unused"] == ["more/W"]


def test_a_cascade_has_the_stages_of_its_file() -> None:
    tensors = {name: value for name, value in twin(CASCADE).items() if "cascade_rcnn_stage3" not in name}
    box = imported_from(tensors).config.model.box_head
    assert box.cascade_ious == pytest.approx((0.6,))
    assert box.cascade_weights == ((20.0, 20.0, 10.0, 10.0),)
    with pytest.raises(ConfigError, match=r"has 2 stages: give so many CASCADE.IOUS .*found 3 and 2"):
        imported_from(tensors, {"CASCADE.IOUS": [0.5, 0.6, 0.7]})
    other = {"CASCADE.IOUS": [0.5, 0.75], "CASCADE.BBOX_REG_WEIGHTS": [[1, 2, 3, 4], [5, 6, 7, 8]]}
    assert imported_from(tensors, other).config.model.box_head.cascade_ious == (0.75,)


def test_odd_shapes_are_refused() -> None:
    check_odd_shapes(imported_from, twin(MODELS["FPN"]))
