"""The engine of names, and the table of every framework in both directions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskrcnn.config import (
    AnchorConfig,
    BoxHeadConfig,
    Config,
    HeadNorm,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    PointRendConfig,
    ResNetConfig,
)
from maskrcnn.config.conventions import CascadeRules, Conventions
from maskrcnn.models.build import build_model
from maskrcnn.weights.frameworks.detectron.names import TABLE as DETECTRON
from maskrcnn.weights.frameworks.detectron2.names import TABLE as DETECTRON2
from maskrcnn.weights.frameworks.maskrcnn_benchmark.names import TABLE as MASKRCNN_BENCHMARK
from maskrcnn.weights.frameworks.matterport.names import TABLE as MATTERPORT
from maskrcnn.weights.frameworks.mmdetection.names import TABLE as MMDETECTION
from maskrcnn.weights.frameworks.names import NameTable, Row, under
from maskrcnn.weights.frameworks.pytorch_mask_rcnn.names import TABLE as PYTORCH_MASK_RCNN
from maskrcnn.weights.frameworks.tensorpack.names import TABLE as TENSORPACK
from maskrcnn.weights.frameworks.torchvision.names import TABLE as TORCHVISION

STATISTICS = (".running_mean", ".running_var")


def test_numbers_may_be_counted_otherwise() -> None:
    table = NameTable(
        [Row("group{s-2}/block{b}/W", "res{s}.{b}.weight"), Row("list.{3*i+1}.{leaf}", "convs.{i}.{leaf}")]
    )
    assert table.our_names(["group0/block12/W", "list.7.bias", "list.8.bias", "group0/block1/b"]) == {
        "group0/block12/W": "res2.12.weight",
        "list.7.bias": "convs.2.bias",
    }
    assert table.their_names(["res5.0.weight", "convs.0.bias", "res5.0.bias"]) == {
        "res5.0.weight": "group3/block0/W",
        "convs.0.bias": "list.1.bias",
    }


def test_words_are_translated_and_a_field_that_stands_twice_is_one() -> None:
    table = NameTable([Row("c{i+2}p{i+2}_{leaf}", "lateral.{i}.{leaf}")], {"leaf": {"w": "weight", "b": "bias"}})
    assert table.our_names(["c2p2_w", "c2p3_w", "c3p3_x"]) == {"c2p2_w": "lateral.0.weight"}
    assert table.their_names(["lateral.1.bias", "lateral.1.other"]) == {"lateral.1.bias": "c3p3_b"}


def test_a_convolution_is_a_module_of_its_own_where_a_norm_follows() -> None:
    table = NameTable(
        under("list.{i}.", "convs.{i}", (Row("0.{leaf}", "{.conv}.{leaf}"), Row("1.{leaf}", ".norm.{leaf}")))
    )
    names = {"list.0.0.weight": "convs.0.conv.weight", "list.0.1.weight": "convs.0.norm.weight"}
    names |= {"list.1.0.weight": "convs.1.weight"}
    assert table.our_names(names) == names
    assert table.their_names(names.values()) == {our: their for their, our in names.items()}


def test_the_letters_of_a_norm_follow_its_statistics() -> None:
    table = NameTable([Row("{norm}{c}.{leaf}", "conv{c}.norm.{leaf}")])
    assert table.our_names(["bn1.bias", "gn2.bias"]) == {"bn1.bias": "conv1.norm.bias", "gn2.bias": "conv2.norm.bias"}
    ours = ["conv1.norm.bias", "conv1.norm.running_var", "conv2.norm.bias"]
    assert list(table.their_names(ours).values()) == ["bn1.bias", "bn1.running_var", "gn2.bias"]


def test_conditions_choose_between_rows() -> None:
    rows = [
        Row("only", "convs.0", unless=("convs.1",)),
        Row("several{i}", "convs.{i}"),
        Row("top", "last", where=("neck",)),
    ]
    table = NameTable([*rows, Row("last", "last")])
    assert table.their_names(["convs.0"]) == {"convs.0": "only"}
    assert table.their_names(["convs.0", "convs.1"]) == {"convs.0": "several0", "convs.1": "several1"}
    assert table.their_names(["last"]) == {"last": "last"}
    assert table.their_names(["last", "neck.0"]) == {"last": "top"}


@dataclass(frozen=True)
class Kinds:
    """What the models of a framework may have."""

    table: NameTable
    depths: tuple[int, ...] = (50, 101)
    norms: tuple[str, ...] = ("frozen_batch_norm", "group_norm")
    necks: tuple[str, ...] = ("fpn", "c4")
    several_rpn_convs: bool = False
    head_norm: bool = True
    cascade: bool = False
    cascade_masks: bool = False
    point_rend: bool = False
    keypoints: bool = True
    box_layers: tuple[int, ...] = (1, 2)
    deformable: bool = False
    without: tuple[str, ...] = ()  # ends of our names that have no counterpart there


FRAMEWORKS = {
    "torchvision": Kinds(
        TORCHVISION, (18, 50), ("frozen_batch_norm", "batch_norm"), ("fpn",), True, box_layers=(1, 2, 3)
    ),
    "detectron2": Kinds(
        DETECTRON2,
        norms=("frozen_batch_norm", "batch_norm", "group_norm"),
        necks=("fpn", "c4", "dc5"),
        several_rpn_convs=True,
        cascade=True,
        point_rend=True,
        deformable=True,
    ),
    "mmdetection": Kinds(
        MMDETECTION,
        norms=("frozen_batch_norm", "batch_norm", "group_norm"),
        necks=("fpn", "c4", "dc5"),
        several_rpn_convs=True,
        cascade=True,
        cascade_masks=True,
        keypoints=False,
        deformable=True,
    ),
    "maskrcnn_benchmark": Kinds(MASKRCNN_BENCHMARK),
    "detectron": Kinds(DETECTRON, without=STATISTICS),
    "tensorpack": Kinds(TENSORPACK, head_norm=False, cascade=True, keypoints=False),
    "matterport": Kinds(
        MATTERPORT, norms=("frozen_batch_norm",), necks=("fpn",), head_norm=False, keypoints=False, box_layers=(2,)
    ),
    "pytorch-mask-rcnn": Kinds(
        PYTORCH_MASK_RCNN,
        norms=("frozen_batch_norm",),
        necks=("fpn",),
        head_norm=False,
        keypoints=False,
        box_layers=(2,),
    ),
}


@st.composite
def configs(draw: Callable[[Any], Any], kinds: Kinds) -> Config:
    """A model of a kind that the framework has."""

    def sometimes(possible: bool) -> bool:
        return possible and draw(st.booleans())

    neck, norm = draw(st.sampled_from(kinds.necks)), draw(st.sampled_from(kinds.norms))
    head_norm: HeadNorm = "none"
    if sometimes(kinds.head_norm):
        head_norm = "batch_norm" if norm == "batch_norm" else "group_norm"
    mask, box = MaskHeadConfig(norm=head_norm), BoxHeadConfig(layers=draw(st.sampled_from(kinds.box_layers)))
    cascade = sometimes(kinds.cascade and neck == "fpn")
    if neck == "c4":
        mask, box = replace(mask, convs=0), replace(box, layers=0)
    elif box.layers == 1:
        box = replace(box, convs=draw(st.integers(1, 4)), norm=head_norm)
    if cascade:
        box = replace(box, cascade_ious=(0.6,), cascade_weights=((20.0, 20.0, 10.0, 10.0),))
    if sometimes(kinds.point_rend and neck != "c4"):
        mask = MaskHeadConfig(point_rend=PointRendConfig())
    depth = draw(st.sampled_from(kinds.depths))
    model = ModelConfig(
        num_classes=2,
        backbone=ResNetConfig(
            depth=depth,
            norm=norm,
            deformable_stages=(4,) if depth >= 50 and sometimes(kinds.deformable) else (),
        ),
        neck=neck,
        anchors=AnchorConfig() if neck == "fpn" else AnchorConfig(sizes=((32.0, 64.0),)),
        fpn_norm=head_norm,
        rpn=replace(ModelConfig().rpn, convs=2 if sometimes(kinds.several_rpn_convs) else 1),
        box_head=box,
        mask_head=mask if neck == "c4" or draw(st.booleans()) else None,
        keypoint_head=KeypointHeadConfig(17, convs=3) if sometimes(kinds.keypoints) else None,
    )
    cascade_rules = CascadeRules(mask_head_per_stage=sometimes(kinds.cascade_masks))
    return Config(model, conventions=Conventions(cascade=cascade_rules))


@cache
def names_of(config: Config) -> tuple[str, ...]:
    with torch.device("meta"):
        return tuple(build_model(config).state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_name_has_a_counterpart_and_comes_back(framework: str, data: st.DataObject) -> None:
    """Ours to theirs and back, and theirs to ours and back, is where it began."""
    kinds = FRAMEWORKS[framework]
    ours = names_of(data.draw(configs(kinds)))
    theirs = kinds.table.their_names(ours)
    expected = {name for name in ours if not name.endswith(kinds.without or ("\0",))}
    assert theirs.keys() == expected
    assert len(set(theirs.values())) == len(theirs)
    back = kinds.table.our_names(theirs.values())
    assert back == {their: our for our, their in theirs.items()}
    again = kinds.table.their_names([*back.values(), *(set(ours) - expected)])
    assert again == theirs


@pytest.mark.parametrize("framework", FRAMEWORKS)
@settings(max_examples=5, deadline=None)
@given(data=st.data())
def test_a_missing_tensor_moves_no_other(framework: str, data: st.DataObject) -> None:
    kinds = FRAMEWORKS[framework]
    ours = names_of(data.draw(configs(kinds)))
    theirs = kinds.table.their_names(ours)
    convolutions = sorted(name for name in theirs if name.endswith((".weight", ".bias")) and ".norm." not in name)
    lost = data.draw(st.sampled_from(convolutions))
    found = kinds.table.our_names([their for our, their in theirs.items() if our != lost])
    assert found == {their: our for our, their in theirs.items() if our != lost}


def test_foreign_names_have_no_counterpart() -> None:
    for kinds in FRAMEWORKS.values():
        assert kinds.table.our_names(["", "a", "fc.weight", "sem_seg_head.weight", "backbone", "conv1"]) == {}
