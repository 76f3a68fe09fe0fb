"""Detectron's blobs, layout and settings on small random models, written down by a second table."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from maskrcnn.config import ModelConfig
from maskrcnn.config.conventions import DETECTRON
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.weights.frameworks.coco_categories import named_as_coco
from maskrcnn.weights.frameworks.detectron import Detectron
from maskrcnn.weights.frameworks.detectron.names import TABLE
from maskrcnn.weights.open import open_weights
from odd_shapes import check_odd_shapes
from older_twins import BLOCKS, KINDS, convolutions, found_and_returned, kinds, put, random_state, their_values

BOX, MASK, KEYPOINT = "roi_heads.box.heads.0", "roi_heads.mask.heads.0", "roi_heads.keypoint.head"
LAYER = {"weight": "_w", "bias": "_b"}


def folded_state(model: ModelConfig) -> dict[str, Tensor]:
    """What comes back: batch norms rest at a mean of 0 and a variance of 1."""
    rest = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
    state = random_state(model)
    return {name: rest.get(name.rpartition(".")[2], lambda value: value)(value) for name, value in state.items()}


def twin(model: ModelConfig) -> dict[str, Tensor]:
    """What Detectron would store of the model that `folded_state` fills."""
    values = {name: value for name, value in their_values(model).items() if ".running_" not in name}
    gn = model.fpn_norm == "group_norm"
    norm = {"weight": "_gn_s", "bias": "_gn_b"} if gn else {"weight": "_bn_s", "bias": "_bn_b"}
    result: dict[str, Tensor] = {}

    def move(ours: str, theirs: str, leaves: dict[str, str]) -> None:
        put(result, values, ours, {leaf: theirs + suffix for leaf, suffix in leaves.items()})

    move("backbone.stem.conv", "conv1", {"weight": "_w"})
    move("backbone.stem.norm", "conv1" if gn else "res_conv1", norm)
    for ours, stage, block, place in convolutions(model):
        branch = {"1": "2a", "2": "2b", "3": "2c", "shortcut": "1"}[place]
        move(f"{ours}.conv", f"res{stage}_{block}_branch{branch}", {"weight": "_w"})
        move(f"{ours}.norm", f"res{stage}_{block}_branch{branch}", norm)
    fpn = "_fpn2" if model.neck == "fpn" else ""
    modules = {
        "rpn.head.convs.0": f"conv_rpn{fpn}",
        "rpn.head.objectness": f"rpn_cls_logits{fpn}",
        "rpn.head.deltas": f"rpn_bbox_pred{fpn}",
        f"{BOX}.layers.0": "fc6",
        f"{BOX}.layers.1": "fc7",
        f"{BOX}.class_logits": "cls_score",
        f"{BOX}.deltas": "bbox_pred",
        f"{MASK}.upsample": "conv5_mask",
        f"{MASK}.predictor": "mask_fcn_logits",
        f"{KEYPOINT}.predictor": "kps_score_lowres",
    }
    for i, blocks in enumerate(BLOCKS[model.backbone.depth]):  # type: ignore[union-attr]
        end = f"res{i + 2}_{blocks - 1}_sum"
        modules[f"neck.lateral.{i}"] = f"fpn_inner_{end}" + ("_lateral" if i < 3 else "")
        modules[f"neck.output.{i}"] = f"fpn_{end}"
        modules[f"{BOX}.convs.{i}"] = f"head_conv{i + 1}"
        modules[f"{MASK}.convs.{i}"] = f"_[mask]_fcn{i + 1}"
        modules[f"{KEYPOINT}.convs.{i}"] = f"conv_fcn{i + 1}"
    for ours, theirs in modules.items():
        if f"{ours}.conv.weight" in values:
            move(f"{ours}.conv", theirs, {"weight": "_w"})
            move(f"{ours}.norm", theirs, {"weight": "_gn_s", "bias": "_gn_b"})
        elif f"{ours}.weight" in values:
            move(ours, theirs, LAYER)
    assert not values
    return result


def imported_from(tensors: dict[str, Tensor], settings: dict[str, Any] | None = None, **extra: Any) -> Any:
    return Detectron().import_checkpoint(Checkpoint("pickle", tensors, extra, ()), settings)


@pytest.mark.parametrize("kind", kinds(KINDS))
def test_every_kind_is_found_by_names_and_shapes(kind: str) -> None:
    model = KINDS[kind]
    found = found_and_returned(Detectron(), TABLE, twin(model), folded_state(model), model)
    assert found.config.model.backbone.stride_in_1x1 == (kind != "group norm")


def test_rules_that_no_config_says() -> None:
    config = imported_from(twin(KINDS["FPN"])).config
    image, model = config.image, config.model
    assert (image.mean, image.std) == ((122.7717, 115.9465, 102.9801), (1.0, 1.0, 1.0))
    assert (image.divisor, config.conventions) == (32, DETECTRON)
    assert (image.short_side, image.long_side) == (800, 1333)
    assert (model.backbone.norm_eps, model.backbone.frozen_stages) == (0.0, 2)
    assert model.rois.sampling_ratio == 2
    assert (model.rpn.pre_nms_test, model.rpn.post_nms_test) == (1000, 1000)
    assert (model.rpn.pre_nms_train, model.rpn.post_nms_train) == (2000, 2000)
    assert (model.box_head.smooth_l1_beta, model.detect.nms_iou) == (1.0, 0.5)
    c4 = imported_from(twin(KINDS["C4"])).config
    assert (c4.model.rois.sampling_ratio, c4.image.divisor, c4.model.rpn.pre_nms_test) == (0, 1, 6000)
    keypoints = imported_from(twin(KINDS["keypoints"])).config
    assert keypoints.conventions == DETECTRON
    assert keypoints.augment.scale_jitter == (0.8, 1.0)


CONFIG = """
MODEL: {NUM_CLASSES: 4, MASK_ON: True}
FPN: {FPN_ON: True, MULTILEVEL_ROIS: True, RPN_ANCHOR_START_SIZE: 16, ROI_CANONICAL_SCALE: 112}
FAST_RCNN: {ROI_XFORM_METHOD: RoIAlign, ROI_XFORM_RESOLUTION: 7, ROI_XFORM_SAMPLING_RATIO: 2}
MRCNN: {ROI_XFORM_RESOLUTION: 14, ROI_XFORM_SAMPLING_RATIO: 2, DILATION: 1}
TRAIN:
  SCALES: (400, 500)
  RPN_PRE_NMS_TOP_N: 2000
TEST:
  SCALES: (500,)
  MAX_SIZE: 833
  NMS: 0.5
  RPN_PRE_NMS_TOP_N: 900
  RPN_POST_NMS_TOP_N: 700
PIXEL_MEANS: [[[1.0, 2.0, 3.0]]]
"""


def test_settings_become_fields(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    found = imported_from(twin(KINDS["FPN"]), Detectron().read_settings(file))
    config, model = found.config, found.config.model
    assert found.assumed == ()
    assert (config.image.short_side, config.image.long_side, config.image.mean) == (500, 833, (3.0, 2.0, 1.0))
    assert config.augment.scale_jitter == (0.8, 1.0)
    assert (model.anchors.sizes[0], model.anchors.sizes[4]) == ((16.0,), (256.0,))
    assert (model.rpn.pre_nms_test, model.rpn.post_nms_test) == (900, 700)
    assert (model.rois.canonical_size, model.box_head.samples, model.detect.nms_iou) == (112.0, 64, 0.5)


@pytest.mark.slow
def test_the_config_in_the_file_is_read() -> None:
    """As Detectron writes it: an AttrDict in YAML, with an array of numpy, of which nothing is run."""
    body = "\n".join(f"  {line}" for line in CONFIG.replace("PIXEL_MEANS: [[[1.0, 2.0, 3.0]]]", "").splitlines())
    text = (
        "!!python/object/new:DETECTRON.utils.collections.AttrDict\ndictitems:\n"
        f"{body}\n  PIXEL_MEANS: !!python/object/apply:numpy.core.multiarray._reconstruct\n    args: [1, 2]\n"
        "    state: [1, 2]\nstate: {}\n"
    )
    found = imported_from(twin(KINDS["FPN"]), cfg=text)
    assert (found.config.image.short_side, len(found.assumed)) == (500, 0)
    assert found.config.image.mean == (122.7717, 115.9465, 102.9801)
    assert len(imported_from(twin(KINDS["FPN"]), cfg="a: [").assumed) > 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("MODEL.NUM_CLASSES", 81, "NUM_CLASSES is 81 in the settings, and 4 in the file"),
        ("TEST.SOFT_NMS.ENABLED", True, "SOFT_NMS.ENABLED True is not supported"),
        ("FAST_RCNN.ROI_XFORM_METHOD", "RoIPoolF", "'RoIPoolF' is not supported: expected 'RoIAlign'"),
        ("MRCNN.DILATION", 2, "MRCNN.DILATION 2"),
        ("FPN.RPN_MAX_LEVEL", 7, "RPN_MAX_LEVEL 7"),
        ("TEST.RPN_NMS_THRESH", 0.6, "must be equal"),
        ("FPN.RPN_ASPECT_RATIOS", [1], "3 anchors per cell, and the settings give 1"),
    ],
)
def test_settings_that_cannot_be_followed(name: str, value: Any, message: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    with pytest.raises((ConfigError, WeightsError), match=message):
        imported_from(twin(KINDS["FPN"]), Detectron().read_settings(file) | {name: value})


def test_what_is_left_out_is_said() -> None:
    tensors = twin(KINDS["keypoints"])
    tensors |= {f"{name}_momentum": value for name, value in tensors.items()}
    tensors |= {"conv1_b": torch.zeros(16), "kps_score_w": torch.zeros(5, 5, 4, 4), "kps_score_b": torch.zeros(5)}
    tensors["something_else_w"] = torch.zeros(2)
    found = imported_from(tensors)
    assert found.unused == ("something_else_w",)
    assert "blobs of the optimiser (..._momentum) are ignored" in found.assumed[-1]
    assert imported_from(twin(KINDS["keypoints"])).assumed == found.assumed[:-1]


@pytest.mark.parametrize("form", ["_mask_fcn", "mask_fcn"])
def test_other_names_of_the_mask_branch(form: str) -> None:
    tensors = {name.replace("_[mask]_fcn", form): value for name, value in twin(KINDS["FPN"]).items()}
    assert imported_from(tensors).unused == ()


def test_a_res5_of_the_mask_branch_alone_is_refused() -> None:
    tensors = twin(KINDS["C4"])
    tensors["_[mask]_res5_0_branch2a_w"] = tensors["res5_0_branch2a_w"]
    with pytest.raises(WeightsError, match=r"branch of _\[mask\]_res5_0_branch2a_w has a res5 of its own"):
        imported_from(tensors)


def test_a_pickle_opens_by_its_content(tmp_path: Path) -> None:
    tensors = twin(KINDS["FPN"])
    del tensors["fpn_res3_3_sum_b"]
    blobs = {name: value.numpy() for name, value in tensors.items()}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps({"blobs": blobs, "cfg": "not: [yaml"}, protocol=2))
    with pytest.raises(WeightsError, match=r"1 missing: fpn_res3_3_sum_b; is"):
        open_weights(tmp_path / "model_final.pkl")
    _, config, provenance = open_weights(tmp_path / "model_final.pkl", allow_partial=True)
    assert (provenance["framework"], provenance["new"]) == ("detectron", ["neck.output.1.bias"])
    assert config.conventions == DETECTRON


def test_as_many_classes_as_coco_has_are_taken_for_them() -> None:
    """Rows 1 to 80 are COCO's categories in the order of their ids."""
    model = KINDS["FPN"]
    tensors = twin(model)
    for name, rows in (("cls_score", 81), ("bbox_pred", 4 * 81), ("mask_fcn_logits", 81)):
        for leaf in ("w", "b"):
            tensors[f"{name}_{leaf}"] = torch.randn(rows, *tensors[f"{name}_{leaf}"].shape[1:])
    found = imported_from(tensors)
    config, assumed = named_as_coco(found.config)
    assert [category.id for category in config.categories][9:13] == [10, 11, 13, 14]
    assert torch.equal(found.state[f"{BOX}.class_logits.bias"], tensors["cls_score_b"].roll(-1))
    assert assumed == ("the 80 classes are COCO's, in the order of their ids",)


def test_odd_shapes_are_refused() -> None:
    check_odd_shapes(imported_from, twin(KINDS["FPN"]))
