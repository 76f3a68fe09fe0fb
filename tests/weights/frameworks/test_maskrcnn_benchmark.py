"""maskrcnn-benchmark's names, layout and settings on small random models, written down by a second table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn.config import ModelConfig
from maskrcnn.config.conventions import MASKRCNN_BENCHMARK
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.maskrcnn_benchmark import MaskRCNNBenchmark
from maskrcnn.weights.frameworks.maskrcnn_benchmark.names import TABLE
from maskrcnn.weights.open import open_weights
from odd_shapes import check_odd_shapes
from older_twins import (
    AFFINE,
    KINDS,
    STATISTICS,
    convolutions,
    found_and_returned,
    kinds,
    put,
    random_state,
    their_values,
)

BOX, MASK, KEYPOINT = (f"roi_heads.{branch}" for branch in ("box", "mask", "keypoint"))


def twin(model: ModelConfig) -> dict[str, Tensor]:
    """What maskrcnn-benchmark would store of the model that `random_state` fills."""
    values = their_values(model)
    grouped = model.fpn_norm == "group_norm"
    norm = AFFINE if grouped else STATISTICS
    result: dict[str, Tensor] = {}
    put(result, values, "backbone.stem.conv", {leaf: f"backbone.body.stem.conv1.{leaf}" for leaf in ["weight"]})
    put(result, values, "backbone.stem.norm", {leaf: f"backbone.body.stem.bn1.{leaf}" for leaf in norm})
    for ours, stage, block, place in convolutions(model):
        c4 = stage == 5 and model.neck == "c4"
        base = "roi_heads.box.feature_extractor.head." if c4 else "backbone.body."
        base += f"layer{stage - 1}.{block}."
        conv, bn = ("downsample.0", "downsample.1") if place == "shortcut" else (f"conv{place}", f"bn{place}")
        put(result, values, f"{ours}.conv", {leaf: f"{base + conv}.{leaf}" for leaf in ["weight"]})
        put(result, values, f"{ours}.norm", {leaf: f"{base + bn}.{leaf}" for leaf in norm})
    modules = {
        "rpn.head.convs.0": "rpn.head.conv",
        "rpn.head.objectness": "rpn.head.cls_logits",
        "rpn.head.deltas": "rpn.head.bbox_pred",
        f"{BOX}.heads.0.layers.0": f"{BOX}.feature_extractor.fc6",
        f"{BOX}.heads.0.layers.1": f"{BOX}.feature_extractor.fc7",
        f"{BOX}.heads.0.class_logits": f"{BOX}.predictor.cls_score",
        f"{BOX}.heads.0.deltas": f"{BOX}.predictor.bbox_pred",
        f"{MASK}.heads.0.upsample": f"{MASK}.predictor.conv5_mask",
        f"{MASK}.heads.0.predictor": f"{MASK}.predictor.mask_fcn_logits",
        f"{KEYPOINT}.head.predictor": f"{KEYPOINT}.predictor.kps_score_lowres",
        f"{KEYPOINT}.head.convs.0": f"{KEYPOINT}.feature_extractor.conv_fcn1",
        f"{KEYPOINT}.head.convs.1": f"{KEYPOINT}.feature_extractor.conv_fcn2",
    }
    for i in range(4):
        modules[f"neck.lateral.{i}"] = f"backbone.fpn.fpn_inner{i + 1}"
        modules[f"neck.output.{i}"] = f"backbone.fpn.fpn_layer{i + 1}"
        modules[f"{MASK}.heads.0.convs.{i}"] = f"{MASK}.feature_extractor.mask_fcn{i + 1}"
    for ours, theirs in modules.items():
        if f"{ours}.conv.weight" in values:
            put(result, values, f"{ours}.conv", {leaf: f"{theirs}.0.{leaf}" for leaf in ["weight"]})
            put(result, values, f"{ours}.norm", {leaf: f"{theirs}.1.{leaf}" for leaf in AFFINE})
        elif f"{ours}.weight" in values:
            put(result, values, ours, {leaf: f"{theirs}.{leaf}" for leaf in AFFINE})
    for i in range(model.box_head.convs):  # conv, norm and ReLU in a row
        xconvs = f"{BOX}.feature_extractor.xconvs"
        put(result, values, f"{BOX}.heads.0.convs.{i}.conv", {leaf: f"{xconvs}.{3 * i}.{leaf}" for leaf in ["weight"]})
        put(result, values, f"{BOX}.heads.0.convs.{i}.norm", {leaf: f"{xconvs}.{3 * i + 1}.{leaf}" for leaf in AFFINE})
    assert not values
    return result


def imported_from(tensors: dict[str, Tensor], settings: dict[str, Any] | None = None) -> Any:
    return MaskRCNNBenchmark().import_checkpoint(Checkpoint("torch", tensors, {}, ()), settings)


@pytest.mark.parametrize("kind", kinds(KINDS))
def test_every_kind_is_found_by_names_and_shapes(kind: str) -> None:
    model = KINDS[kind]
    found = found_and_returned(MaskRCNNBenchmark(), TABLE, twin(model), random_state(model), model)
    assert found.config.model.backbone.stride_in_1x1 == (kind != "group norm")
    assert found.config.model.box_head.class_agnostic == model.box_head.class_agnostic


def test_rules_that_no_config_says() -> None:
    config = imported_from(twin(KINDS["FPN"])).config
    model = config.model
    assert (config.image.mean, config.image.std) == ((122.7717, 115.9465, 102.9801), (1.0, 1.0, 1.0))
    assert (config.image.divisor, config.conventions) == (32, MASKRCNN_BENCHMARK)
    assert (model.backbone.norm_eps, model.backbone.frozen_stages) == (0.0, 2)
    assert model.rois.sampling_ratio == 2
    assert (model.rpn.pre_nms_test, model.rpn.post_nms_test) == (1000, 1000)
    assert (model.rpn.pre_nms_train, model.rpn.post_nms_train) == (2000, 2000)
    assert (model.rpn.smooth_l1_beta, model.box_head.smooth_l1_beta) == (1 / 9, 1.0)
    assert model.mask_head.resolution == 14

    config = imported_from(twin(KINDS["C4"])).config
    assert (config.model.rois.sampling_ratio, config.image.divisor, config.model.box_head.resolution) == (0, 1, 14)
    assert (config.model.rpn.pre_nms_test, config.model.rpn.post_nms_test) == (6000, 1000)
    assert config.conventions.proposals.post_nms_per == "image"
    assert config.model.anchors.sizes == ((32.0, 64.0, 128.0, 256.0, 512.0),)


CONFIG = """
MODEL:
  MASK_ON: True
  BACKBONE: {FREEZE_CONV_BODY_AT: 0}
  RESNETS: {STRIDE_IN_1X1: False}
  RPN:
    USE_FPN: True
    ANCHOR_SIZES: (16, 32, 64, 128, 256)
    ASPECT_RATIOS: [0.5, 1.0, 2.0]
    PRE_NMS_TOP_N_TRAIN: 2000
    PRE_NMS_TOP_N_TEST: 500
    POST_NMS_TOP_N_TEST: 500
    FPN_POST_NMS_TOP_N_TEST: 300
    FPN_POST_NMS_PER_BATCH: False
    STRADDLE_THRESH: -1
  ROI_HEADS: {SCORE_THRESH: 0.2, BBOX_REG_WEIGHTS: "(20., 20., 10., 10.)"}
  ROI_BOX_HEAD: {POOLER_SAMPLING_RATIO: 3, NUM_CLASSES: 4}
  ROI_MASK_HEAD: {POOLER_SAMPLING_RATIO: 3}
INPUT:
  MIN_SIZE_TRAIN: "(400, 600)"
  MIN_SIZE_TEST: 600
  MAX_SIZE_TEST: 1000
  TO_BGR255: False
  PIXEL_MEAN: [0.1, 0.2, 0.4]
DATALOADER: {SIZE_DIVISIBILITY: 32}
"""


def test_settings_become_fields(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    tensors = twin(KINDS["FPN"])
    found = imported_from(tensors, MaskRCNNBenchmark().read_settings(file))
    config, model = found.config, found.config.model
    assert found.assumed == ()
    assert (config.image.short_side, config.image.long_side) == (600, 1000)
    assert config.augment.scale_jitter == (400 / 600, 1.0)
    assert config.image.mean == pytest.approx((25.5, 51.0, 102.0))
    assert torch.equal(found.state["backbone.stem.conv.weight"], tensors["backbone.body.stem.conv1.weight"])
    assert model.anchors.sizes == ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
    assert (model.rpn.pre_nms_test, model.rpn.post_nms_test) == (500, 300)
    assert config.conventions.proposals.post_nms_per == "image"
    assert config.conventions.matching.allowed_border is None
    assert (model.backbone.stride_in_1x1, model.backbone.frozen_stages) == (False, 0)
    assert (model.rois.sampling_ratio, model.box_head.box_weights) == (3, (20.0, 20.0, 10.0, 10.0))
    assert model.detect.score_threshold == 0.2


PYRAMID = {"DATALOADER.SIZE_DIVISIBILITY": 32, "MODEL.RPN.FPN_POST_NMS_TOP_N_TEST": 1000}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("MODEL: {ROI_BOX_HEAD: {NUM_CLASSES: 81}}", "NUM_CLASSES is 81 in the settings, and 4 in the file"),
        ("MODEL: {MASK_ON: False}", "MASK_ON is False"),
        ("MODEL: {RESNETS: {RES5_DILATION: 2}}", "RES5_DILATION 2 is not supported"),
        ("MODEL: {GROUP_NORM: {DIM_PER_GP: 16}}", "DIM_PER_GP 16"),
        ("MODEL: {ROI_BOX_HEAD: {POOLER_SAMPLING_RATIO: 2}}", "the same for all branches"),
        ("MODEL: {ROI_HEADS: {BG_IOU_THRESHOLD: 0.4}}", "must be equal"),
        ("MODEL: {RPN: {ASPECT_RATIOS: [1.0]}}", "3 anchors per cell, and the settings give 1"),
        ("MODEL: {RPN: {POST_NMS_TOP_N_TEST: 100}}", "limits the proposals of a level"),
        ("MODEL: {ROI_HEADS: {NMS: wrong}}", "unexpected kind"),
        ("- a list", "expected the YAML config of maskrcnn-benchmark, found list"),
        ("a: [", "line 1: expected YAML"),
    ],
)
def test_settings_that_cannot_be_followed(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    with pytest.raises((ConfigError, WeightsError), match=message):
        imported_from(twin(KINDS["FPN"]), PYRAMID | MaskRCNNBenchmark().read_settings(file))


def test_yaml_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f'MODEL: {{MASK_ON: !!python/object/apply:os.system ["touch {tmp_path / "ran"}"]}}')
    assert MaskRCNNBenchmark().read_settings(file) == {"MODEL.MASK_ON": [f"touch {tmp_path / 'ran'}"]}
    assert not (tmp_path / "ran").exists()


def test_stored_anchors_must_be_those_of_the_settings() -> None:
    tensors = twin(KINDS["FPN"])
    name = "rpn.anchor_generator.cell_anchors"
    published = [[-22.0, -10.0, 25.0, 13.0], [-14.0, -14.0, 17.0, 17.0], [-10.0, -22.0, 13.0, 25.0]]
    tensors[f"{name}.0"] = torch.tensor(published)
    assert imported_from(tensors).unused == ()
    tensors[f"{name}.1"] = torch.tensor(published)
    with pytest.raises(WeightsError, match=r"anchors in the file .*cell_anchors\.1"):
        imported_from(tensors)


def test_tensors_that_c4_names_twice() -> None:
    tensors = twin(KINDS["C4"])
    box, mask = (f"roi_heads.{branch}.feature_extractor.head.layer4.0.conv1.weight" for branch in ("box", "mask"))
    tensors[mask] = tensors[box].clone()
    assert imported_from(tensors).unused == ()
    tensors[mask] += 1
    with pytest.raises(WeightsError, match="the mask branch has a res5 of its own"):
        imported_from(tensors)


def test_surplus_is_listed_and_what_is_missing_is_named_as_in_the_file(tmp_path: Path) -> None:
    tensors = twin(KINDS["FPN"])
    tensors["roi_heads.box.extra.weight"] = torch.zeros(2)
    tensors["backbone.body.stem.bn1.num_batches_tracked"] = torch.tensor(3)
    assert imported_from(tensors).unused == ("roi_heads.box.extra.weight",)
    gone = ("backbone.fpn.fpn_inner2.bias", "roi_heads.mask.predictor.conv5_mask.bias")
    for name in gone:
        del tensors[name]
    with pytest.raises(WeightsError, match=r"2 missing: backbone\.fpn\.fpn_inner2\.bias, roi_heads\.mask\.pred"):
        imported_from(tensors)
    torch.save({"model": tensors}, tmp_path / "theirs.pth")
    _, config, provenance = open_weights(tmp_path / "theirs.pth", allow_partial=True)
    assert provenance["new"] == ["neck.lateral.1.bias", "roi_heads.mask.heads.0.upsample.bias"]
    assert provenance["unused"] == ["roi_heads.box.extra.weight"]
    assert config.conventions == MASKRCNN_BENCHMARK


def test_odd_shapes_are_refused() -> None:
    check_odd_shapes(imported_from, twin(KINDS["FPN"]))
