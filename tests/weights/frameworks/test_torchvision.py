"""Names, layout and rules against torchvision's own models; that whole networks agree is in tests/models."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection import (
    FasterRCNN,
    KeypointRCNN,
    MaskRCNN,
    fasterrcnn_mobilenet_v3_large_fpn,
    fasterrcnn_resnet50_fpn,
    fasterrcnn_resnet50_fpn_v2,
    keypointrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn,
    maskrcnn_resnet50_fpn_v2,
)
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from maskrcnn.config import DetectConfig
from maskrcnn.config.conventions import TORCHVISION
from maskrcnn.config.presets import preset
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.branches.box import BoxBranch
from maskrcnn.models.branches.box_head import BoxHead
from maskrcnn.models.build import build_model
from maskrcnn.models.pooler import RoIPooler
from maskrcnn.models.rpn import Proposals
from maskrcnn.weights.frameworks.coco_categories import COCO, COCO_PERSON
from maskrcnn.weights.frameworks.importer import Imported, IncompleteError
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.layout import class_rows, our_layout
from maskrcnn.weights.frameworks.torchvision.names import TABLE
from maskrcnn.weights.frameworks.torchvision.settings import torchvision_config, with_rules

Build = Callable[[], nn.Module]


def imported(state: dict[str, Tensor], settings: dict[str, Any] | None = None) -> Imported:
    assert Torchvision().recognise(state)
    return Torchvision().import_checkpoint(Checkpoint("torch", state, {}, ()), settings)


def on_meta(build: Callable[..., nn.Module], **settings: Any) -> dict[str, Tensor]:
    """The names and shapes of a model of TORCHVISION."""
    with torch.device("meta"):
        return build(weights=None, weights_backbone=None, **settings).state_dict()


def with_backbone(name: str, kind: Callable[..., nn.Module], classes: int, **settings: Any) -> Build:
    """A detector around `resnet_fpn_backbone`, as torchvision's documentation builds one: frozen norms."""
    return lambda: kind(resnet_fpn_backbone(backbone_name=name, weights=None), num_classes=classes, **settings)


def shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state.items()}


def numbered(build: Build) -> dict[str, Tensor]:
    """The state of a model of torchvision with random values."""
    with torch.device("meta"):
        state = build().state_dict()
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else torch.tensor(7)
        for name, value in state.items()
    }


ARCHITECTURES: dict[str, Build] = {
    "v1": lambda: maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4),
    "v2": lambda: maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=2),
    "faster v1": lambda: fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None),
    "faster v2": lambda: fasterrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None),
    "keypoint": lambda: keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3, num_keypoints=5),
    "resnet18": with_backbone("resnet18", MaskRCNN, 91),
    "resnet34": with_backbone("resnet34", FasterRCNN, 2),
    "resnet101": with_backbone("resnet101", KeypointRCNN, 2),
    "resnext": with_backbone("resnext50_32x4d", MaskRCNN, 91),
    "wide": with_backbone("wide_resnet50_2", MaskRCNN, 91),
    "other heads": lambda: MaskRCNN(
        resnet_fpn_backbone(backbone_name="resnet18", weights=None),
        num_classes=None,
        box_head=FastRCNNConvFCHead((256, 7, 7), [32, 32], [64, 64, 64]),
        box_predictor=FastRCNNPredictor(64, 4),
        mask_head=MaskRCNNHeads(256, (48, 48), 1),
        mask_predictor=MaskRCNNPredictor(48, 40, 4),
    ),
}


@pytest.mark.parametrize("build", ARCHITECTURES.values(), ids=ARCHITECTURES)
def test_architecture_is_told_by_names_and_shapes(build: Build) -> None:
    """Our network has just the tensors that come in, and just those that torchvision has go out."""
    with torch.device("meta"):
        theirs = build().state_dict()
        found = imported(theirs)
        ours = build_model(found.config).state_dict()
    assert shapes(found.state) == shapes(ours)
    assert found.unused == ()
    assert shapes(Torchvision().export_state(found.config, ours)) == shapes(theirs)


@pytest.mark.parametrize("name", ["v2", "resnet18"])
def test_every_value_arrives_and_returns(name: str) -> None:
    """Import, export, import: bit-equal; and the export differs from the file only in rows that nothing reads."""
    state = numbered(ARCHITECTURES[name])
    first = imported(state)
    exported = Torchvision().export_state(first.config, first.state)
    used, _ = class_rows(first.config)
    for name, value in exported.items():
        expected = state[name]
        if name.startswith("roi_heads.box_predictor.bbox_pred."):
            value, expected = (x.unflatten(0, (-1, 4))[used] for x in (value, expected))
        elif name.startswith("roi_heads.mask_predictor.mask_fcn_logits."):
            value, expected = value[used], expected[used]
        assert torch.equal(value, expected), name
    again = imported(exported)
    assert again.config == first.config
    assert all(torch.equal(value, first.state[name]) for name, value in again.state.items())


def test_the_background_moves_to_the_end_and_unused_ids_behind_it() -> None:
    config = imported(on_meta(maskrcnn_resnet50_fpn)).config
    assert config.categories == COCO
    assert (config.model.num_classes, config.conventions.detections.unused_classes) == (80, 10)
    ids = [category.id for category in COCO]
    found = our_layout("roi_heads.box.heads.0.class_logits.bias", torch.arange(91), config).tolist()
    assert found == [*ids, 0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert our_layout("roi_heads.mask.heads.0.predictor.bias", torch.arange(91), config).tolist() == ids
    boxes = our_layout("roi_heads.box.heads.0.deltas.bias", torch.arange(364), config).view(80, 4)
    assert boxes.tolist() == [[4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in ids]


def test_columns_of_the_first_layer_become_row_column_channel() -> None:
    config = torchvision_config(1, 1)
    value = torch.arange(256 * 49).view(1, 256, 7, 7)  # channel, row, column
    found = our_layout("roi_heads.box.heads.0.layers.0.weight", value.flatten(1), config).view(7, 7, 256)
    assert found[2, 5, 100] == value[0, 100, 2, 5]


FORMER = {
    "backbone.fpn.inner_blocks.3.0.weight": "backbone.fpn.inner_blocks.3.weight",
    "backbone.fpn.layer_blocks.0.0.bias": "backbone.fpn.layer_blocks.0.bias",
    "rpn.head.conv.0.0.weight": "rpn.head.conv.weight",
    "rpn.head.conv.0.0.bias": "rpn.head.conv.bias",
    "roi_heads.mask_head.0.0.weight": "roi_heads.mask_head.mask_fcn1.weight",
    "roi_heads.mask_head.3.0.bias": "roi_heads.mask_head.mask_fcn4.bias",
}


def test_names_of_before_0_13_are_the_same_layers() -> None:
    """The published V1 files have the names of 2019, which torchvision itself renames when it loads them."""
    now = list(on_meta(maskrcnn_resnet50_fpn))
    before = [FORMER.get(name, name) for name in now]
    assert before != now
    assert list(TABLE.our_names(before).values()) == list(TABLE.our_names(now).values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "eps"),
    [
        (with_backbone("resnet18", MaskRCNN, 91), 0.0),
        (with_backbone("resnet18", FasterRCNN, 91), 0.0),
        (with_backbone("resnet18", KeypointRCNN, 2), 0.0),
        (with_backbone("resnet50", MaskRCNN, 3), 0.0),
        (with_backbone("resnet50", KeypointRCNN, 2, num_keypoints=4), 0.0),
        (with_backbone("resnet50", FasterRCNN, 21), 0.0),
        (with_backbone("resnet101", MaskRCNN, 3), 1e-5),
        (with_backbone("resnext50_32x4d", MaskRCNN, 3), 1e-5),
        (with_backbone("wide_resnet50_2", MaskRCNN, 3), 1e-5),
        (with_backbone("resnet18", MaskRCNN, 2), 1e-5),
        (with_backbone("resnet18", KeypointRCNN, 2, num_keypoints=4), 1e-5),
        (lambda: maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None), 1e-5),
    ],
)
def test_epsilon_is_0_where_the_file_may_be_a_published_one_or_tuned_from_it(build: Build, eps: float) -> None:
    with torch.device("meta"):
        state = build().state_dict()
    found = imported(state)
    assert found.config.model.backbone.norm_eps == eps  # type: ignore[union-attr]
    frozen = "backbone.body.bn1.num_batches_tracked" not in state
    assert any("norm_eps" in sentence for sentence in found.assumed) == frozen
    chosen = imported(state, {"norm_eps": 3e-4})
    assert chosen.config.model.backbone.norm_eps == 3e-4  # type: ignore[union-attr]
    assert not any("epsilon" in sentence for sentence in chosen.assumed)
    flag = next((re.search(r"--config (\S+)", sentence) for sentence in found.assumed if "norm_eps" in sentence), None)
    if flag is not None:
        other = imported(state, Torchvision().read_settings(flag[1]))
        assert {other.config.model.backbone.norm_eps, eps} == {0.0, 1e-5}  # type: ignore[union-attr]


def test_one_setting_is_given_in_place_of_a_file_unless_there_is_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Torchvision().read_settings("min_size=640") == {"min_size": 640}
    with pytest.raises(ConfigError, match=r"norm_eps=small: expected norm_eps= and a value in JSON"):
        Torchvision().read_settings("norm_eps=small")
    with pytest.raises(ConfigError, match=r"eps=0: expected a config of torchvision, but it cannot be read"):
        Torchvision().read_settings("eps=0")
    Path("norm_eps=0").write_text('{"norm_eps": 0.5}')
    assert Torchvision().read_settings("norm_eps=0") == {"norm_eps": 0.5}


def test_norms_that_count_are_trained_ones() -> None:
    """Without pretrained weights torchvision's V1 has ordinary batch norm, and trains everything."""
    backbone = imported(on_meta(maskrcnn_resnet50_fpn)).config.model.backbone
    assert (backbone.norm, backbone.frozen_stages) == ("batch_norm", 0)  # type: ignore[union-attr]
    with torch.device("meta"):
        frozen = imported(with_backbone("resnet50", MaskRCNN, 3)().state_dict()).config.model.backbone
    assert (frozen.norm, frozen.frozen_stages) == ("frozen_batch_norm", 2)  # type: ignore[union-attr]


def test_categories_are_told_or_said_to_be_unknown() -> None:
    with torch.device("meta"):
        person = imported(with_backbone("resnet18", KeypointRCNN, 2)().state_dict())
        three = with_backbone("resnet18", MaskRCNN, 4)().state_dict()
    assert person.config.categories == (COCO_PERSON,)
    unnamed = imported(three)
    assert unnamed.config.categories == ()
    named = imported(three, {"categories": ["cat", {"id": 7, "name": "dog"}, "cow"]})
    assert [(category.id, category.name) for category in named.config.categories] == [
        (1, "cat"),
        (7, "dog"),
        (3, "cow"),
    ]
    assert named.config.conventions == TORCHVISION
    with pytest.raises(ConfigError, match="2 entries, and the file has 3 classes"):
        imported(three, {"categories": ["cat", "dog"]})
    for wrong in ([{"id": 3}, 1, 2], "cat"):
        with pytest.raises(ConfigError, match="names, or objects with id and name"):
            imported(three, {"categories": wrong})


def test_arguments_of_the_constructors_are_followed() -> None:
    with torch.device("meta"):
        state = with_backbone("resnet18", MaskRCNN, 4)().state_dict()
    settings = {
        "min_size": [320, 640],
        "max_size": 1000,
        "image_mean": [0.5, 0.25, 0.0],
        "image_std": [1, 1, 1],
        "box_score_thresh": 0.3,
        "rpn_post_nms_top_n_test": 50,
        "bbox_reg_weights": [1, 2, 3, 4],
        "sizes": [[16], [32], [64], [128], [256]],
        "aspect_ratios": [[0.3, 1, 3]] * 5,
    }
    found = imported(state, settings)
    config = found.config
    assert (config.image.short_side, config.image.long_side) == (640, 1000)
    assert config.image.mean == (127.5, 63.75, 0)
    assert config.model.detect.score_threshold == 0.3
    assert config.model.rpn.post_nms_test == 50
    assert config.model.box_head.box_weights == (1, 2, 3, 4)
    assert config.model.anchors.ratios == (0.3, 1, 3)
    assert config.conventions == TORCHVISION
    with pytest.raises(ConfigError, match="'box_score' is not supported: expected min_size"):
        imported(state, {"box_score": 0.3})
    with pytest.raises(ConfigError, match="short_side"):
        imported(state, {"min_size": "big"})
    with pytest.raises(ConfigError, match=r"aspect_ratios .* differ between levels"):
        imported(state, {"aspect_ratios": [[0.5, 1], [1, 2]]})
    with pytest.raises(WeightsError, match="3 anchors per cell, and the settings give 6"):
        imported(state, {"sizes": [[16, 20], [32, 40], [64, 80], [128, 160], [256, 320]]})


def test_missing_tensors_are_listed_by_their_own_names() -> None:
    state = on_meta(maskrcnn_resnet50_fpn)
    del state["roi_heads.mask_head.2.0.bias"]
    state["roi_heads.box_head.fc7.weight"] = torch.empty(1024, 3, device="meta")
    with pytest.raises(
        IncompleteError,
        match=r"1 missing: roi_heads.mask_head.2.0.bias; 1 of another shape: roi_heads.box_head.fc7.weight",
    ) as caught:
        imported(state)
    assert "roi_heads.mask.heads.0.convs.2.weight" in caught.value.partial.state
    assert "roi_heads.mask.heads.0.convs.2.bias" not in caught.value.partial.state


def test_surplus_tensors_are_listed() -> None:
    state = on_meta(maskrcnn_resnet50_fpn) | {
        "roi_heads.edge_head.weight": torch.zeros(1),
        "backbone.body.fc.bias": torch.zeros(1),
    }
    assert imported(state).unused == ("roi_heads.edge_head.weight", "backbone.body.fc.bias")


def test_a_backbone_that_is_no_resnet_is_named() -> None:
    with pytest.raises(WeightsError, match=r"MobileNet"):
        imported(on_meta(fasterrcnn_mobilenet_v3_large_fpn))


def resnet_without_pyramid() -> nn.Module:
    trunk = IntermediateLayerGetter(resnet18(weights=None), {"layer4": "0"})
    backbone = nn.Sequential(OrderedDict(body=trunk))
    backbone.out_channels = 512  # type: ignore[assignment]
    anchors = AnchorGenerator(((32, 64, 128),), ((0.5, 1.0, 2.0),))
    return FasterRCNN(backbone, num_classes=2, rpn_anchor_generator=anchors)


def pyramid(**settings: Any) -> nn.Module:
    return MaskRCNN(resnet_fpn_backbone(backbone_name="resnet18", weights=None, **settings), num_classes=2)


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda: pyramid(returned_layers=[2, 3, 4]), r"a pyramid of 3 levels \(`returned_layers`\)"),
        (lambda: pyramid(returned_layers=[1, 2, 3]), r"a pyramid of 3 levels"),
        (lambda: pyramid(returned_layers=[4]), r"a pyramid of 1 level \("),
        (
            lambda: pyramid(extra_blocks=LastLevelP6P7(256, 256)),
            r".*convolutions \(`LastLevelP6P7`\)",
        ),
        (resnet_without_pyramid, r"a ResNet without a pyramid \(FPN\)"),
    ],
)
def test_other_pyramids_are_refused_by_what_they_are(build: Build, found: str) -> None:
    with torch.device("meta"):
        state = build().state_dict()
    with pytest.raises(WeightsError, match=f"with a ResNet and a pyramid of four levels .* found one with {found}"):
        imported(state)


@pytest.mark.parametrize(
    "name", ["mask_rcnn_R_50_C4", "cascade_mask_rcnn_R_50_FPN", "pointrend_rcnn_R_50_FPN", "mask_rcnn_R_50_FPN_GN"]
)
def test_what_torchvision_has_not_is_not_exported(name: str) -> None:
    with pytest.raises(WeightsError, match="torchvision has no model with"):
        Torchvision().export_state(preset(name), {})


def test_torchvision_opens_the_export_strictly() -> None:
    """With all its own checks, and into frozen norms as well as ordinary ones."""
    config = with_rules(replace(preset("mask_rcnn_R_18_FPN").model, num_classes=4))
    exported = Torchvision().export_state(config, build_model(config).state_dict())
    with_backbone("resnet18", MaskRCNN, 5)().load_state_dict(exported, strict=True)
    norm = nn.BatchNorm2d
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None, norm_layer=norm)
    MaskRCNN(backbone, num_classes=5).load_state_dict(exported, strict=True)


def test_unused_classes_lower_the_scores_and_are_never_found() -> None:
    """91 rows: the softmax of all, and detections of the 80 alone."""
    config = torchvision_config(1, 2)
    box = replace(config.model.box_head, hidden=8, layers=0)
    head = BoxHead(4, 7, 2, box, unused_classes=3)
    logits = torch.tensor([[2.0, 1.0, 0.5, 3.0, 2.5, 1.5]])
    with torch.no_grad():
        head.class_logits.weight.zero_()
        head.class_logits.bias.copy_(logits[0])
    proposals = Proposals(torch.tensor([[[2.0, 2.0, 20.0, 20.0]]]), torch.tensor([[True]]))
    branch = BoxBranch([head], (1.0,), box, TORCHVISION)
    read = RoIPooler([4], config.model.rois, nn.Identity(), TORCHVISION).on([torch.zeros(1, 4, 8, 8)])
    with torch.no_grad():
        found = branch.detect(read, proposals, torch.tensor([[0, 0, 32, 32]]), DetectConfig())
    assert found.labels.tolist() == [[0, 1]]
    np.testing.assert_allclose(found.scores.numpy(), logits.softmax(-1)[:, :2].numpy(), rtol=1e-6)


def test_configs_of_both_versions_are_what_their_files_give() -> None:
    with torch.device("meta"):
        first = imported(with_backbone("resnet50", MaskRCNN, 6)().state_dict(), {"norm_eps": 1e-5}).config
    assert first == torchvision_config(1, 5)
    assert imported(on_meta(maskrcnn_resnet50_fpn_v2, num_classes=6)).config == torchvision_config(2, 5)
