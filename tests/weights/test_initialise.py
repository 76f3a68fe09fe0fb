"""What training takes from a whole detector: tensors, and settings that the own config leaves at the default."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.config import Category, Config, ResNetConfig
from maskrcnn.config.conventions import OURS, TORCHVISION, DetectionRules
from maskrcnn.config.presets import preset
from maskrcnn.errors import WeightsError
from maskrcnn.models.build import build_model
from maskrcnn.training.loop import train
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.settings import with_rules
from maskrcnn.weights.initialise import WeightsFile, read_initial_weights
from maskrcnn.weights.model_file import save_model
from maskrcnn.weights.open import open_weights
from small_data import write_small
from small_network import lively_network, network_config

BLUE, RED = Category(3, "blue"), Category(7, "red")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint of torchvision with seven classes."""
    config = with_rules(network_config(num_classes=7).model)
    path = tmp_path_factory.mktemp("weights") / "theirs.pth"
    torch.save(Torchvision().export_state(config, lively_network(config).state_dict()), path)
    return path


def test_rules_of_an_import_are_kept_and_own_changes_too(file: Path) -> None:
    own = preset("mask_rcnn_R_50_FPN")
    own = replace(own, image=replace(own.image, short_side=320, long_side=640))
    found = read_initial_weights(file, own).with_conventions(own)
    assert found.conventions == TORCHVISION
    assert (found.image.short_side, found.image.long_side) == (320, 640)
    assert isinstance(found.model.backbone, ResNetConfig)
    assert found.model.backbone.depth == 10  # the architecture as well, where nothing else was asked for
    assert (found.train, found.augment) == (own.train, own.augment)
    assert found.model.num_classes == 7


def test_a_part_of_a_file_is_opened_as_its_flags_say(file: Path, tmp_path: Path) -> None:
    state = torch.load(file)
    teacher = {name: value for name, value in state.items() if name != "rpn.head.bbox_pred.bias"}
    torch.save({"student": state, "teacher": teacher}, tmp_path / "w.pth")
    (tmp_path / "settings.json").write_text('{"norm_eps": 0.25}')
    own = preset("mask_rcnn_R_50_FPN")
    with pytest.raises(WeightsError, match="found those of 'student', 'teacher'; to choose one: --part student"):
        read_initial_weights(tmp_path / "w.pth", own)
    with pytest.raises(WeightsError, match=r"1 missing: rpn\.head\.bbox_pred\.bias.* --allow-partial"):
        read_initial_weights(WeightsFile(tmp_path / "w.pth", part="teacher"), own)
    weights = WeightsFile(tmp_path / "w.pth", tmp_path / "settings.json", allow_partial=True, part="teacher")
    found = read_initial_weights(weights, own)
    config = found.with_conventions(own)
    assert isinstance(config.model.backbone, ResNetConfig)
    assert config.model.backbone.norm_eps == 0.25
    assert any("no names" in sentence for sentence in found.assumed)
    assert "weights of" in found.fill(build_model(config), config)


def test_heads_stay_those_that_were_asked_for(file: Path) -> None:
    own = preset("faster_rcnn_R_50_FPN")
    assert read_initial_weights(file, own).with_conventions(own).model.mask_head is None
    own = preset("keypoint_rcnn_R_50_FPN")
    keypoints = read_initial_weights(file, own).with_conventions(own).model
    assert keypoints.keypoint_head is not None
    assert keypoints.mask_head is None


def test_keypoint_rules_are_kept(tmp_path: Path) -> None:
    config = with_rules(network_config(num_classes=1, mask_head=None, keypoint_head=small_keypoints()).model)
    torch.save(Torchvision().export_state(config, lively_network(config).state_dict()), tmp_path / "k.pth")
    own = preset("keypoint_rcnn_R_50_FPN")
    found = read_initial_weights(tmp_path / "k.pth", own).with_conventions(own)
    assert found.model.keypoint_head is not None
    assert (found.conventions.keypoints.score, found.model.keypoint_head.channels) == ("logit", 16)


def small_keypoints():  # type: ignore[no-untyped-def]
    head = preset("keypoint_rcnn_R_50_FPN").model.keypoint_head
    assert head is not None
    return replace(head, convs=2, channels=16)


def test_a_backbone_brings_no_rules(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(1)}, tmp_path / "r.pth")
    own = preset("mask_rcnn_R_50_FPN")
    assert read_initial_weights(tmp_path / "r.pth", own).with_conventions(own) is own


def test_unused_classes_do_not_outlive_the_categories(tmp_path: Path) -> None:
    """A class layer of 91 rows is for COCO; other data get one without idle rows, the same data keep it."""
    data = write_small(tmp_path, "train", 2)
    base = network_config(num_classes=2)
    rules = replace(OURS, detections=DetectionRules(unused_classes=3))
    for categories, unused in (((BLUE, RED), 3), ((BLUE, Category(7, "pink")), 0)):
        config = replace(base, conventions=rules, categories=categories)
        network = lively_network(config)
        path = tmp_path / f"{unused}.safetensors"
        save_model(path, network, config, {})
        own = replace(base, train=replace(base.train, steps=1, workers=0, batch_size=1))
        train(own, data, out=tmp_path / f"run{unused}", weights=path)
        trained, found, provenance = open_weights(tmp_path / f"run{unused}" / "model.safetensors")
        assert found.conventions.detections.unused_classes == unused
        assert ("new: red" in provenance["initial_weights"]) == (unused == 0)
        rows = trained.state_dict()["roi_heads.box.heads.0.class_logits.bias"]
        assert len(rows) == 3 + unused


def test_training_on_keeps_the_rules_and_all_but_the_class_layers(file: Path, tmp_path: Path) -> None:
    data = write_small(tmp_path, "train", 2)
    own = Config(train=replace(Config().train, steps=1, workers=0, batch_size=1, learning_rate=1e-9))
    own = replace(own, image=replace(own.image, short_side=64, long_side=96))
    train(own, data, out=tmp_path / "run", weights=file)
    network, config, provenance = open_weights(tmp_path / "run" / "model.safetensors")
    assert provenance["initial_weights"] == f"weights of {file}, class layers new"
    assert config.conventions == TORCHVISION
    assert [category.name for category in config.categories] == ["blue", "red"]
    fresh = lively_network(config, seed=5)
    read_initial_weights(file, config).fill(fresh, config)
    name = "roi_heads.box.heads.0.layers.0.weight"
    np.testing.assert_allclose(network.state_dict()[name].numpy(), fresh.state_dict()[name].numpy(), atol=1e-5)
