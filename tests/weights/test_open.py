"""Any file to a model: what is recognised, what is refused and how, and what is said of missing and surplus tensors."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import maskrcnn
from maskrcnn.config import Category, Config, differing_settings
from maskrcnn.config.conventions import OURS, PixelRules
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint, read_checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.frameworks.families import FAMILIES, found_in
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.settings import with_rules
from maskrcnn.weights.model_file import save_model
from maskrcnn.weights.open import EXPORTERS, IMPORTERS, detector_in, holds_detector, importer_of, open_weights
from odd_shapes import check_odd_shapes
from small_network import lively_network, network_config

SETTINGS = {"min_size": 64, "max_size": 96, "categories": ["cat", "dog"], "box_score_thresh": 0.02}


def foreign_config() -> Config:
    """The smallest config with torchvision's rules."""
    return with_rules(network_config(num_classes=2).model)


@pytest.fixture(scope="module")
def theirs() -> dict[str, Tensor]:
    """A model of torchvision, as small as one of ours."""
    config = foreign_config()
    return Torchvision().export_state(config, lively_network(config).state_dict())


@pytest.fixture
def file(theirs: dict[str, Tensor], tmp_path: Path) -> Path:
    torch.save({"model": theirs, "epoch": 3}, tmp_path / "theirs.pth")  # as torchvision's reference scripts save
    return tmp_path / "theirs.pth"


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "settings.json").write_text(json.dumps(SETTINGS))
    return tmp_path / "settings.json"


def replace_samples(part: Any) -> Any:
    """A part with the number of samples that every file gets, as no file tells it."""
    return replace(part, samples=type(part)().samples) if hasattr(part, "samples") else part


def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (50, 70, 3), dtype=np.uint8)


def test_a_foreign_file_becomes_a_model_with_its_rules_and_origin(file: Path, theirs: dict[str, Tensor]) -> None:
    network, config, provenance = open_weights(file)
    assert not network.training
    expected = foreign_config()
    assert config.image == expected.image
    for part in ("num_classes", "backbone", "fpn_channels", "anchors", "rois", "mask_head"):
        assert getattr(config.model, part) == replace_samples(getattr(expected.model, part)), part
    assert (provenance["framework"], provenance["imported_from"]) == ("torchvision", str(file))
    assert any("no names" in sentence for sentence in provenance["assumed"])
    assert (provenance["new"], provenance["unused"]) == ([], [])
    exported = Torchvision().export_state(config, network.state_dict())
    assert exported.keys() == theirs.keys()


def test_import_save_load_gives_equal_outputs(file: Path, settings: Path, tmp_path: Path) -> None:
    model = maskrcnn.load(file, "cpu", config_file=settings, precision="fp32")
    assert model.names == ("cat", "dog")
    assert model.config.image.short_side == 64
    before = model.predict([image()])[0]
    model.save(tmp_path / "ours.safetensors")
    again = maskrcnn.load(tmp_path / "ours.safetensors", "cpu", precision="fp32")
    assert again.config == model.config
    assert again.provenance == model.provenance
    after = again.predict([image()])[0]
    assert len(before) > 3
    assert np.array_equal(before.boxes, after.boxes)
    assert np.array_equal(before.scores, after.scores)
    assert before.masks is not None
    assert after.masks is not None
    assert np.array_equal(before.masks.dense(), after.masks.dense())


@pytest.mark.parametrize("prefix", ["model.", "task.detector_.", "lightning.model.module."])
def test_a_detector_inside_of_other_modules_opens(theirs: dict[str, Tensor], tmp_path: Path, prefix: str) -> None:
    """As LightningModules keep it beside metrics and losses."""
    state = {f"{prefix}{name}": value for name, value in theirs.items()}
    beside = {"metric.total": torch.zeros(3), "criterion.weight": torch.ones(3)}
    torch.save({"epoch": 1, "state_dict": state | beside}, tmp_path / "w.ckpt")
    network, _, provenance = open_weights(tmp_path / "w.ckpt")
    torch.save(theirs, tmp_path / "plain.pth")
    expected = open_weights(tmp_path / "plain.pth")[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())
    assert "2 tensors beside the detector are left out: metric.total, criterion.weight" in provenance["assumed"]
    assert provenance["unused"] == []


@pytest.mark.parametrize("around", ["entries", "names"])
def test_one_of_two_detectors_is_chosen(theirs: dict[str, Tensor], tmp_path: Path, around: str) -> None:
    """As semi-supervised training saves them, in two dictionaries or below two prefixes."""
    bias = "roi_heads.box_predictor.cls_score.bias"
    states = {"student": theirs, "teacher": theirs | {bias: theirs[bias] + 1}}
    joined = {f"student.{name}": value for name, value in states["student"].items()}
    joined |= {f"teacher.module.{name}": value for name, value in states["teacher"].items()}
    torch.save({"epoch": 1, **(states if around == "entries" else {"state_dict": joined})}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: expected the weights of one network, .*student.*teacher.*--part"):
        open_weights(tmp_path / "w.pth")
    found = open_weights(tmp_path / "w.pth", part="student")[0].state_dict()
    other = maskrcnn.load(tmp_path / "w.pth", "cpu", part="teacher").network.state_dict()
    ours = "roi_heads.box.heads.0.class_logits.bias"
    assert torch.equal(found[ours] + 1, other[ours])


@pytest.mark.parametrize("around", ["entries", "names", "names of one"])
def test_averages_beside_a_detector_are_said(theirs: dict[str, Tensor], tmp_path: Path, around: str) -> None:
    averages = {f"module.{name}": value * 0 for name, value in theirs.items()}
    joined = {f"model.{name}" if around == "names" else name: value for name, value in theirs.items()}
    joined |= {f"model_ema.{name}": value for name, value in averages.items()}
    entries = {"model": theirs, "model_ema": averages}
    torch.save(entries if around == "entries" else {"state_dict": joined}, tmp_path / "w.pth")
    network, _, provenance = open_weights(tmp_path / "w.pth")
    assert network.state_dict()["rpn.head.objectness.weight"].any()
    sentences = [sentence for sentence in provenance["assumed"] if "left out" in sentence]
    assert len(sentences) == 1
    assert "the file holds other weights, which are left out: model_ema" in sentences[0]
    assert "to choose one: --part model_ema" in sentences[0]
    averaged = open_weights(tmp_path / "w.pth", part="model_ema")[0]
    assert not averaged.state_dict()["rpn.head.objectness.weight"].any()


def test_our_own_file_and_a_foreign_config(settings: Path, tmp_path: Path) -> None:
    config = network_config(num_classes=2)
    network = lively_network(config)
    Predictor(TorchBackend(network), config, {"step": 5}).save(tmp_path / "ours.safetensors")
    found, found_config, provenance = open_weights(tmp_path / "ours.safetensors")
    assert (found_config, provenance) == (config, {"step": 5})
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.state_dict().items())
    with pytest.raises(ConfigError, match="holds its own config"):
        open_weights(tmp_path / "ours.safetensors", settings)


def test_missing_and_surplus_tensors_are_listed_together(theirs: dict[str, Tensor], file: Path, tmp_path: Path) -> None:
    broken = {name: value for name, value in theirs.items() if not name.endswith("cls_score.bias")}
    broken["roi_heads.box_head.fc7.bias"] = torch.zeros(3)
    broken["sem_seg_head.weight"] = torch.zeros(1)
    torch.save(broken, tmp_path / "broken.pth")
    with pytest.raises(WeightsError) as caught:
        open_weights(tmp_path / "broken.pth")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'broken.pth'}: ")
    assert "1 missing: roi_heads.box_predictor.cls_score.bias" in message
    assert "1 of another shape: roi_heads.box_head.fc7.bias is (3,)" in message
    assert "1 unexpected: sem_seg_head.weight" in message
    assert "to continue without them: --allow-partial, or allow_partial=True in Python" in message
    assert "\n" not in message

    network, config, provenance = open_weights(tmp_path / "broken.pth", allow_partial=True)
    assert config.model.num_classes == 2
    assert sorted(provenance["new"]) == [
        "roi_heads.box.heads.0.class_logits.bias",
        "roi_heads.box.heads.0.layers.1.bias",
    ]
    assert provenance["unused"] == ["sem_seg_head.weight"]
    complete, _, _ = open_weights(file)
    given = complete.state_dict()
    for name, value in network.state_dict().items():
        assert name in provenance["new"] or torch.equal(value, given[name]), name


def test_a_config_file_that_cannot_be_followed(file: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    for text, expected in (
        ("[1]", "found list"),
        ("{", "expected a JSON object"),
        ('{"box": 1}', "'box' is not supported"),
    ):
        bad.write_text(text)
        with pytest.raises(ConfigError, match=expected):
            open_weights(file, bad)
    with pytest.raises(ConfigError, match=r"none\.json: expected a config of torchvision, but it cannot be read"):
        open_weights(file, tmp_path / "none.json")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("model.22.cv2.0.0.conv.weight", "YOLO"),
        ("model.model.0.conv.weight", "YOLO"),
        ("backbone.backbone.dark2.0.conv.weight", "YOLOX"),
        ("transformer.encoder.layers.0.linear1.weight", "DETR"),
        ("class_embed.weight", "DETR"),
        ("transformer.encoder.layers.0.self_attn.sampling_offsets.weight", "Deformable DETR"),
        ("image_encoder.blocks.0.attn.qkv.weight", "Segment Anything"),
        ("mask_decoder.iou_token.weight", "Segment Anything"),
        ("head.classification_head.conv.0.0.weight", "RetinaNet"),
        ("head.cls_subnet.0.weight", "RetinaNet"),
        ("bbox_head.retina_cls.weight", "RetinaNet"),
        ("head.classification_head.module_list.0.weight", "SSD"),
        ("head.regression_head.bbox_ctrness.weight", "FCOS"),
        ("sem_seg_head.predictor.query_feat.weight", "MaskFormer"),
        ("fc.weight", "classifier"),
        ("head.fc.weight", "classifier"),
        ("classifier.1.weight", "classifier"),
        ("roi_heads.box.feature_extractor.fc6.weight", "maskrcnn-benchmark"),
        ("conv_rpn_fpn2_w", "Detectron"),
        ("rpn.head.objectness.weight", "this package without their settings"),
        ("Conv_Body.conv_body.res2.0.conv1.weight", "Detectron.pytorch"),
        ("RCNN_base.0.weight", "faster-rcnn.pytorch"),
        ("backbone.res2.res2a.branch2a.conv.weight", "PaddleDetection"),
        ("conv2d_12.w_0", "PaddleDetection"),
        ("0.conv.weight", "YOLO"),
        ("sem_seg_head.pixel_decoder.adapter_1.weight", "Mask2Former"),
        ("model.decoder.layers.0.encoder_attn.sampling_offsets.weight", "RT-DETR"),
        ("class_labels_classifier.weight", "DETR"),
        ("sam_mask_decoder.iou_token.weight", "Segment Anything"),
        ("proposal_generator.fcos_head.cls_logits.weight", "CondInst"),
        ("mask_head.kernel_convs.0.conv.weight", "SOLO"),
        ("proto_net.0.weight", "YOLACT"),
        ("model.layers.0.self_attn.q_proj.weight", "language model"),
        ("roi_heads.box_predictor.cls_score.bias", "Detectron2 without an RPN"),
    ],
)
def test_other_families_are_named_from_their_keys(name: str, family: str, tmp_path: Path) -> None:
    torch.save({name: torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(
        WeightsError, match=rf"w\.pth: expected a model file .*found the weights of.*{family}"
    ) as caught:
        maskrcnn.load(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("names", "backbone"),
    [
        (["backbone.stages.0.blocks.0.attn.w_msa.qkv.weight"], "a Swin Transformer"),
        (["backbone.layers.0.blocks.0.attn.relative_position_bias_table"], "a Swin Transformer"),
        (["backbone.net.blocks.0.attn.rel_pos_h", "backbone.net.pos_embed"], "a Vision Transformer"),
        (["backbone.blocks.0.attn.pool_q.weight", "backbone.blocks.0.attn.qkv.weight"], "an MViT"),
        (["backbone.s1.b1.f.a.weight"], "a RegNet"),
        (["backbone.trunk_output.block1.block1-0.f.a.0.weight"], "a RegNet"),
        (["backbone.features.3.0.block.1.fc1.weight"], "an EfficientNet or MobileNet"),
        (["backbone.stages.0.0.depthwise_conv.weight"], "a ConvNeXt"),
        (["backbone.stage2.0.branches.0.0.conv1.weight"], "an HRNet"),
        (["backbone.layer1.0.convs.1.weight"], "a Res2Net"),
        (["backbone.res2.0.conv2.bn0.weight"], "a ResNeSt"),
        (["backbone.stem.0.weight", "backbone.layer1.0.conv1.weight"], "a ResNet-C or -D"),
        (["backbone.0.weight"], "layers without names"),
    ],
)
def test_another_backbone_is_named(names: list[str], backbone: str, theirs: dict[str, Tensor]) -> None:
    """The same parts stand below other prefixes in Detectron2 and torchvision."""
    heads = {name: value for name, value in theirs.items() if not name.startswith("backbone.body.")}
    for prefix in ("backbone.", "backbone.body."):
        trunk = {name.replace("backbone.", prefix): torch.zeros(1) for name in names}
        message = rf"w\.pth: expected a detector of torchvision with a ResNet, found one with {backbone}"
        with pytest.raises(WeightsError, match=message):
            detector_in(Checkpoint("torch", heads | trunk, {}, ()), "w.pth", allow_partial=True)


@pytest.mark.parametrize(
    "config",
    [
        "model = dict(\n    type='MaskRCNN',\n    backbone=dict(\n        type='RegNet', arch='regnetx_3.2gf'))",
        {"model": {"backbone": {"_delete_": True, "type": "RegNet"}}},
    ],
)
def test_another_backbone_is_named_by_the_config_inside(config: Any) -> None:
    names = ["rpn_head.rpn_conv.weight", "roi_head.bbox_head.fc_cls.weight", "backbone.layer1.0.conv1.weight"]
    file = Checkpoint("torch", {name: torch.zeros(1) for name in names}, {"meta": {"config": config}}, ())
    with pytest.raises(WeightsError, match=r"detector of mmdetection with a ResNet, found one with RegNet"):
        detector_in(file, "w.pth")


def test_a_network_for_other_images_needs_their_statistics(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    stem, settings = theirs["backbone.body.conv1.weight"], tmp_path / "settings.json"
    for channels, found in ((1, "1 channel:"), (4, "4 channels:")):
        other = theirs | {"backbone.body.conv1.weight": stem[:, :1].repeat(1, channels, 1, 1)}
        file = Checkpoint("torch", other, {}, ())
        with pytest.raises(WeightsError, match=rf"images of 3 channels \(RGB\), found one for images of {found}"):
            detector_in(file, "w.pth")
        settings.write_text(json.dumps({"image_mean": [0.5] * channels, "image_std": [0.25] * channels}))
        opened = detector_in(file, "w.pth", settings)
        assert opened.config.image.statistics == ((127.5,) * channels, (63.75,) * channels)
        assert {channel.stretch for channel in opened.config.image.channels} == {"none"}
        assert opened.network().backbone.stem.conv.weight.shape[1] == channels  # type: ignore[union-attr]
        settings.write_text(json.dumps({"image_mean": [0.5] * 2, "image_std": [0.25] * channels}))
        with pytest.raises(ConfigError, match="a mean and a standard deviation for each channel"):
            detector_in(file, "w.pth", settings)


def test_a_config_inside_is_never_written_out(theirs: dict[str, Tensor]) -> None:
    """A pickle can hold one long text a thousand times in little space."""
    config = {"cfg": {"model": [["long" * 1_000_000] * 1000] * 1000}}
    tracemalloc.start()
    assert detector_in(Checkpoint("torch", theirs, {"meta": config}, ()), "w.pth").config.model.num_classes == 2
    assert tracemalloc.get_traced_memory()[1] < 50_000_000
    tracemalloc.stop()


def test_missing_tensors_of_any_size_are_not_made(theirs: dict[str, Tensor]) -> None:
    wide = {name: value for name, value in theirs.items() if ".layer_blocks." not in name}
    for level in range(4):
        name = f"backbone.fpn.inner_blocks.{level}.0.weight"
        wide[name] = torch.zeros(1, 1, 1, 1).expand(16_000, *theirs[name].shape[1:])
    with pytest.raises(WeightsError, match=r"at most 300,000,000 numbers in the missing tensors.*found 11,526"):
        detector_in(Checkpoint("torch", wide, {}, ()), "w.pth", allow_partial=True)


def test_odd_shapes_are_refused(theirs: dict[str, Tensor]) -> None:
    for partly in (False, True):
        check_odd_shapes(
            lambda tensors, partly=partly: detector_in(  # type: ignore[misc]
                Checkpoint("torch", dict(tensors), {}, ()), "w.pth", allow_partial=partly
            ),
            theirs,
        )


def test_surplus_parts_are_said_to_be_what_they_are(theirs: dict[str, Tensor]) -> None:
    panoptic = theirs | {"sem_seg_head.p2.0.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"1 unexpected: .* \(the semantic segmentation of a Panoptic FPN\)"):
        detector_in(Checkpoint("torch", panoptic, {}, ()), "w.pth")


def test_every_family_can_be_found_and_no_importable_file_is_one(theirs: dict[str, Tensor]) -> None:
    assert len({family for _, family, _ in FAMILIES}) == len(FAMILIES)
    assert found_in(FAMILIES, theirs)[0] not in {family for _, family, advice in FAMILIES if advice}
    assert found_in(FAMILIES, ["something.weight"]) == ("", "")
    with pytest.raises(WeightsError, match=r"w\.pth: .*found tensors named something\.weight"):
        importer_of(Checkpoint("torch", {"something.weight": torch.zeros(1)}, {}, ()), "w.pth")


def test_importers_are_listed_by_name() -> None:
    names = [importer.name for importer in IMPORTERS]
    assert len(set(names)) == len(names) == 8
    assert [exporter.name for exporter in EXPORTERS] == ["torchvision", "detectron2", "mmdetection"]


def test_which_sources_hold_a_detector(file: Path, tmp_path: Path) -> None:
    config = network_config()
    save_model(tmp_path / "ours.safetensors", lively_network(config), config, {})
    torch.save({"fc.weight": torch.zeros(2), "layer4.0.conv1.weight": torch.zeros(2)}, tmp_path / "backbone.pth")
    torch.save({"model.0.conv.weight": torch.zeros(2)}, tmp_path / "yolo.pth")

    def holds(name: str) -> bool:
        return holds_detector(read_checkpoint(tmp_path / name), name)

    found = {name: holds(name) for name in ("theirs.pth", "ours.safetensors", "backbone.pth")}
    assert found == {"theirs.pth": True, "ours.safetensors": True, "backbone.pth": False}
    with pytest.raises(WeightsError, match=r"yolo\.pth.*YOLO"):
        holds("yolo.pth")


def test_settings_that_differ_are_named_with_both_values() -> None:
    one = network_config(num_classes=2)
    rules = replace(OURS, pixels=PixelRules("bilinear"))
    other = replace(one, conventions=rules, categories=(Category(1, "a"), Category(2, "b")))
    assert differing_settings(one, one) == {}
    found = differing_settings(one, other)
    assert list(found) == ["categories", "conventions.pixels.kernel"]
    assert found["conventions.pixels.kernel"] == ("antialias", "bilinear")


@pytest.mark.parametrize(
    ("classes", "names", "said"),
    [(80, ("person", "bicycle"), "the 80 classes are COCO's"), (2, (), "the 2 classes have no names")],
)
def test_classes_without_names_are_cocos_where_there_are_as_many(
    classes: int, names: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Detectron2's files name no classes."""
    config = network_config(num_classes=classes)
    torch.save(Detectron2().export_state(config, build_model(config).state_dict()), tmp_path / "d2.pth")
    _, found, provenance = open_weights(tmp_path / "d2.pth")
    assert tuple(category.name for category in found.categories[:2]) == names
    assert any(said in sentence for sentence in provenance["assumed"])
