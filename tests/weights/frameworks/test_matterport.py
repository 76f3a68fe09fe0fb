"""Matterport's names, layouts and settings on small random models: variants, round trips and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from keras_weights import weights
from maskrcnn.config.conventions import MATTERPORT
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.structures.frame import network_frame
from maskrcnn.weights.frameworks.matterport import Matterport
from maskrcnn.weights.frameworks.matterport.layout import EPS, fold_norm
from maskrcnn.weights.frameworks.matterport.names import TABLE, places
from odd_shapes import check_odd_shapes
from small_network import batch_of, sample_of


def checkpoint(tensors: dict[str, Tensor]) -> Checkpoint:
    return Checkpoint("hdf5", tensors, {}, ())


@pytest.mark.parametrize(("blocks", "depth"), [(6, 50), (23, 101)])
def test_sizes_are_told_by_the_shapes(blocks: int, depth: int) -> None:
    imported = Matterport().import_checkpoint(checkpoint(weights(5, blocks)), None)
    model = imported.config.model
    assert imported.unused == ()
    assert (model.num_classes, model.backbone.depth, model.backbone.stem_width) == (4, depth, 6)  # type: ignore[union-attr]
    assert (model.rpn.channels, model.fpn_channels, model.box_head.hidden) == (12, 8, 10)
    build_model(imported.config).load_state_dict(imported.state)
    assert "IMAGE_MAX_DIM 1024" in imported.assumed[0]


def test_the_table_names_every_tensor_both_ways() -> None:
    found = places(weights())
    assert found.keys() == weights().keys()
    ours = TABLE.our_names(found.values())
    assert TABLE.their_names(ours.values()) == {our: place for place, our in ours.items()}
    assert Matterport().import_checkpoint(checkpoint(weights()), None).state.keys() <= set(ours.values())


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: f"model_weights/{name}",
        lambda name: name.replace("/kernel", "_1/kernel").replace("/gamma", "_1/gamma"),  # a graph of two models
        lambda name: name.removesuffix(":0"),
        lambda name: f"mask_rcnn/{name}",  # several GPUs: the model in a model
    ],
)
def test_names_as_other_versions_of_keras_write_them(rename: Any) -> None:
    expected = Matterport().import_checkpoint(checkpoint(weights()), None)
    renamed = {rename(name): value for name, value in weights().items()}
    assert Matterport().recognise(renamed)
    found = Matterport().import_checkpoint(checkpoint(renamed), None)
    assert found.unused == ()
    assert all(torch.equal(found.state[name], value) for name, value in expected.state.items())


def test_other_files_are_not_recognised() -> None:
    assert Matterport().recognise(weights())
    assert not Matterport().recognise(
        {name: v for name, v in weights().items() if name.startswith(("res", "bn", "conv1"))}
    )
    assert not Matterport().recognise(["backbone.conv1.weight", "rpn.head.conv.weight"])


def test_names_without_a_place_are_listed() -> None:
    extra = {
        **weights(),
        "attention/attention/kernel:0": torch.zeros(1),
        "res3e_branch2a/res3e_branch2a/bias:0": torch.zeros(1),
    }
    assert set(Matterport().import_checkpoint(checkpoint(extra), None).unused) == extra.keys() - weights().keys()


def test_rows_and_offsets_find_their_place() -> None:
    tensors = weights(3)
    tensors["rpn_model/rpn_class_raw/bias:0"] = torch.tensor([1.0, 11, 2, 22, 3, 33])
    tensors["rpn_model/rpn_bbox_pred/bias:0"] = torch.arange(12.0)
    tensors["mrcnn_class_logits/mrcnn_class_logits/bias:0"] = torch.arange(3.0)
    tensors["mrcnn_bbox_fc/mrcnn_bbox_fc/bias:0"] = torch.arange(12.0)
    tensors["mrcnn_mask/mrcnn_mask/bias:0"] = torch.arange(3.0)
    state = Matterport().import_checkpoint(checkpoint(tensors), None).state
    assert state["rpn.head.objectness.bias"].tolist() == [10, 20, 30]
    assert state["rpn.head.deltas.bias"].tolist() == [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10]
    assert state["roi_heads.box.heads.0.class_logits.bias"].tolist() == [1, 2, 0]
    assert state["roi_heads.box.heads.0.deltas.bias"].tolist() == [5, 4, 7, 6, 9, 8, 11, 10]
    assert state["roi_heads.mask.heads.0.predictor.bias"].tolist() == [1, 2]
    kernel = tensors["res2a_branch2b/res2a_branch2b/kernel:0"]
    assert state["backbone.res2.0.conv2.conv.weight"][1, 2, 0, 2] == kernel[0, 2, 2, 1]


def test_folded_norms_do_the_same() -> None:
    conv, x = torch.nn.Conv2d(3, 5, 3), torch.randn(2, 3, 8, 8)
    gamma, beta, mean, var = torch.randn(5), torch.randn(5), torch.randn(5), torch.rand(5)
    weight, bias = fold_norm(conv.weight, conv.bias, (gamma, beta, mean, var), EPS)  # type: ignore[arg-type]
    expected = F.batch_norm(conv(x), mean, var, gamma, beta, eps=EPS)
    torch.testing.assert_close(F.conv2d(x, weight, bias), expected)


def test_a_convolution_without_bias_is_read_too() -> None:
    tensors = weights()
    bias = tensors.pop("conv1/conv1/bias:0")
    state = Matterport().import_checkpoint(checkpoint(tensors), None).state
    mean = tensors["bn_conv1/bn_conv1/moving_mean:0"]
    assert torch.equal(state["backbone.stem.norm.running_mean"], mean)
    with_bias = Matterport().import_checkpoint(checkpoint(weights()), None).state
    torch.testing.assert_close(with_bias["backbone.stem.norm.running_mean"], mean - bias)


SETTINGS: dict[str, Any] = {
    "NUM_CLASSES": 3,
    "IMAGE_MIN_DIM": 256,
    "IMAGE_MAX_DIM": 512,
    "RPN_ANCHOR_RATIOS": [0.25, 1, 4],
    "RPN_ANCHOR_SCALES": [8, 16, 32, 64, 128],
    "BBOX_STD_DEV": [0.1, 0.2, 0.25, 0.5],
    "DETECTION_MIN_CONFIDENCE": 0.9,
    "LEARNING_RATE": 0.002,
    "TRAIN_BN": False,
}


def test_settings_become_the_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    imported = Matterport().import_checkpoint(
        checkpoint(weights()), Matterport().read_settings(tmp_path / "config.json")
    )
    model, image = imported.config.model, imported.config.image
    assert model.anchors.ratios == (4.0, 1.0, 0.25)  # width / height there
    assert model.anchors.sizes[0] == (8.0,)
    assert model.box_head.box_weights == (5.0, 10.0, 2.0, 4.0)  # y x h w there
    assert model.detect.score_threshold == 0.9
    assert imported.config.train.learning_rate == 0.002
    assert (image.short_side, image.long_side) == (256, 512)
    assert imported.config.conventions == MATTERPORT
    assert "NUM_CLASSES" not in imported.assumed[0]
    assert "POST_NMS_ROIS_INFERENCE 1000" in imported.assumed[0]


@pytest.mark.parametrize(
    ("settings", "size", "size_hw", "input_hw"),
    [
        ({"IMAGE_RESIZE_MODE": "square"}, (100, 300), (171, 512), (512, 512)),
        ({"IMAGE_RESIZE_MODE": "square"}, (300, 320), (300, 320), (512, 512)),  # never made smaller
        ({"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_SCALE": 1.5}, (300, 320), (450, 480), (512, 512)),
        ({"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": None}, (100, 300), (100, 300), (512, 512)),
        ({"IMAGE_RESIZE_MODE": "pad64"}, (100, 900), (256, 2304), (256, 2304)),
        ({"IMAGE_RESIZE_MODE": "pad64"}, (300, 310), (300, 310), (320, 320)),
        ({"IMAGE_RESIZE_MODE": "none"}, (128, 192), (128, 192), (128, 192)),
    ],
)
def test_modes_of_resizing(
    settings: dict[str, Any], size: tuple[int, int], size_hw: tuple[int, int], input_hw: tuple[int, int]
) -> None:
    config = Matterport().import_checkpoint(checkpoint(weights()), {**SETTINGS, **settings}).config
    frame = network_frame(size, config)
    assert (frame.resized_hw, frame.input_hw) == (size_hw, input_hw)


def test_what_is_assumed_is_said() -> None:
    settings = {**SETTINGS, "TRAIN_BN": None, "IMAGE_RESIZE_MODE": "crop", "LOSS_WEIGHTS": {"rpn_class_loss": 2.0}}
    text = " ".join(Matterport().import_checkpoint(checkpoint(weights()), settings).assumed)
    for word in ("TRAIN_BN", "pad64", "LOSS_WEIGHTS"):
        assert word in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"NUM_CLASSES": 81}, "NUM_CLASSES is 81 in the settings, and 3 in the file"),
        ({"RPN_ANCHOR_STRIDE": 2}, "RPN_ANCHOR_STRIDE 2 is not supported: expected 1"),
        ({"RPN_ANCHOR_RATIOS": [1]}, "3 anchors per cell, and the settings give 1: .*RPN_ANCHOR_RATIOS"),
        ({"BACKBONE_STRIDES": [8, 16, 32, 64, 128]}, "BACKBONE_STRIDES"),
        ({"IMAGE_CHANNEL_COUNT": 4}, "IMAGE_CHANNEL_COUNT 4 is not supported: expected 3"),
        ({"IMAGE_MIN_DIM": "large"}, "setting of Matterport has a value of an unexpected kind"),
        ({"IMAGE_MAX_DIM": 500}, "long_side must be a multiple"),
        ({"BBOX_STD_DEV": [0, 0, 0, 0]}, "unexpected kind"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):  # of our own errors: WeightsError and ConfigError
        Matterport().import_checkpoint(checkpoint(weights()), {**SETTINGS, **settings})


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("rpn_conv_shared/kernel", "found no rpn_conv_shared/kernel"),
        ("res4c_branch2b", "missing: res4c_branch2b"),
        ("mrcnn_mask_bn2", "missing: mrcnn_mask_conv2"),
        ("fpn_p3/bias", "missing: fpn_p3"),
    ],
)
def test_missing_layers_are_named(lost: str, message: str) -> None:
    part = {name: value for name, value in weights().items() if lost not in name}
    with pytest.raises(WeightsError, match=message):
        Matterport().import_checkpoint(checkpoint(part), None)


def test_layers_of_another_shape_are_named() -> None:
    with pytest.raises(WeightsError, match="fpn_p2/fpn_p2/kernel:0 is"):
        Matterport().import_checkpoint(
            checkpoint({**weights(), "fpn_p2/fpn_p2/kernel:0": torch.zeros(3, 3, 8, 7)}), None
        )


def test_a_config_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match="JSON object"):
        Matterport().read_settings(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        Matterport().read_settings(tmp_path / "none.json")


def test_an_imported_model_learns() -> None:
    """Its rules in a step of training: letterbox, crops, last pixels and its own losses."""
    imported = Matterport().import_checkpoint(
        checkpoint(weights()), {**SETTINGS, "PRE_NMS_LIMIT": 50, "POST_NMS_ROIS_TRAINING": 20}
    )
    network = build_model(imported.config)
    batch = batch_of(sample_of(64, 64, [(0, (10, 10, 40, 50)), (1, (30, 5, 60, 40))]))
    losses = network(batch.images, batch.targets)
    assert set(losses) == {"loss_rpn_class", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"}
    torch.stack(list(losses.values())).sum().backward()
    assert network.backbone.stem.conv.weight.grad is not None  # type: ignore[union-attr]


def test_odd_shapes_are_refused() -> None:
    def opened(tensors: Any) -> None:
        Matterport().import_checkpoint(checkpoint(dict(tensors)), None)

    check_odd_shapes(opened, weights(), every=59)
