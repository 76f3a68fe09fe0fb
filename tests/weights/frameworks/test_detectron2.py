"""Detectron2's names, layouts and settings on small random models, of the kinds that no fixture shows too."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
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
    PointRendConfig,
    ResNetConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import DETECTRON2
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.anchors import cell_anchors
from maskrcnn.models.build import build_model
from maskrcnn.weights.frameworks.detectron2 import Detectron2
from maskrcnn.weights.frameworks.settings import flat
from odd_shapes import check_odd_shapes

TRUNK = "backbone.bottom_up."
BACKBONE = ResNetConfig(depth=50, width=8, stem_width=16, stride_in_1x1=True)
HEADS = BoxHeadConfig(hidden=24)
MASKS = MaskHeadConfig(convs=2, channels=16)
ONE_LEVEL = AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),))
GROUPED = replace(BACKBONE, width=32, stem_width=None)


def small(**model: Any) -> ModelConfig:
    settings: dict[str, Any] = {"backbone": BACKBONE, "fpn_channels": 16, "box_head": HEADS, "mask_head": MASKS}
    return ModelConfig(num_classes=3, **(settings | model))


# The kind of model, and names that Detectron2 gives its parameters.
KINDS: dict[str, tuple[ModelConfig, tuple[str, ...]]] = {
    "FPN": (
        small(),
        (
            f"{TRUNK}stem.conv1.weight",
            f"{TRUNK}stem.conv1.norm.running_mean",
            f"{TRUNK}res2.0.shortcut.weight",
            f"{TRUNK}res4.5.conv3.norm.bias",
            "backbone.fpn_lateral2.bias",
            "backbone.fpn_output5.weight",
            "proposal_generator.rpn_head.conv.weight",
            "proposal_generator.rpn_head.objectness_logits.bias",
            "proposal_generator.rpn_head.anchor_deltas.weight",
            "roi_heads.box_head.fc1.weight",
            "roi_heads.box_head.fc2.bias",
            "roi_heads.box_predictor.cls_score.weight",
            "roi_heads.box_predictor.bbox_pred.weight",
            "roi_heads.mask_head.mask_fcn2.weight",
            "roi_heads.mask_head.deconv.weight",
            "roi_heads.mask_head.predictor.bias",
        ),
    ),
    "C4": (
        small(
            neck="c4",
            fpn_channels=256,
            anchors=ONE_LEVEL,
            box_head=replace(HEADS, layers=0),
            mask_head=replace(MASKS, convs=0),
        ),
        ("backbone.stem.conv1.weight", "backbone.res4.0.conv1.norm.weight", "roi_heads.res5.2.conv3.weight"),
    ),
    "DC5": (
        small(neck="dc5", fpn_channels=256, anchors=ONE_LEVEL),
        ("backbone.res5.0.conv2.weight", "roi_heads.box_head.fc1.weight"),
    ),
    "ResNet-18": (small(backbone=ResNetConfig(depth=18, width=8)), (f"{TRUNK}res5.1.conv2.norm.weight",)),
    "ResNet-101": (small(backbone=replace(BACKBONE, depth=101)), (f"{TRUNK}res4.22.conv1.weight",)),
    "ResNeXt": (
        small(backbone=replace(BACKBONE, groups=4, bottleneck_width=16, stride_in_1x1=False)),
        (f"{TRUNK}res2.0.conv2.weight",),
    ),
    "group norm of grouped convolutions": (  # 8 groups of 4 channels: 16 channels have no norm anywhere
        small(
            backbone=ResNetConfig(width=16, stem_width=64, groups=8, bottleneck_width=32, norm="group_norm"),
        ),
        (f"{TRUNK}res2.0.conv2.norm.weight",),
    ),
    "group norm": (
        small(
            backbone=replace(GROUPED, norm="group_norm", stride_in_1x1=False),
            fpn_channels=32,
            fpn_norm="group_norm",
            box_head=BoxHeadConfig(convs=4, conv_channels=32, layers=1, hidden=24, norm="group_norm"),
            mask_head=replace(MASKS, channels=32, norm="group_norm"),
        ),
        (
            f"{TRUNK}stem.conv1.norm.weight",
            "backbone.fpn_lateral4.norm.bias",
            "roi_heads.box_head.conv4.weight",
            "roi_heads.box_head.conv4.norm.weight",
            "roi_heads.box_head.fc1.bias",
            "roi_heads.mask_head.mask_fcn1.norm.weight",
        ),
    ),
    "new baselines": (
        small(
            backbone=replace(BACKBONE, norm="sync_batch_norm", frozen_stages=0),
            fpn_norm="sync_batch_norm",
            rpn=RPNConfig(convs=2),
            box_head=BoxHeadConfig(convs=4, conv_channels=16, layers=1, hidden=24, norm="sync_batch_norm"),
            mask_head=replace(MASKS, norm="sync_batch_norm"),
        ),
        (
            "proposal_generator.rpn_head.conv.conv0.weight",
            "proposal_generator.rpn_head.conv.conv1.bias",
            f"{TRUNK}stem.conv1.norm.num_batches_tracked",
            "backbone.fpn_output2.norm.num_batches_tracked",
        ),
    ),
    "deformable": (
        small(backbone=replace(BACKBONE, deformable_stages=(3, 4, 5), deformable_modulated=True)),
        (f"{TRUNK}res3.0.conv2_offset.weight", f"{TRUNK}res3.0.conv2.weight", f"{TRUNK}res5.2.conv2.norm.weight"),
    ),
    "class-agnostic": (
        small(box_head=replace(HEADS, class_agnostic=True), mask_head=replace(MASKS, class_agnostic=True)),
        (),
    ),
    "cascade": (
        small(
            box_head=replace(
                HEADS,
                class_agnostic=True,
                cascade_ious=(0.6, 0.7),
                cascade_weights=((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
            )
        ),
        ("roi_heads.box_head.2.fc1.weight", "roi_heads.box_predictor.0.cls_score.weight"),
    ),
    "keypoints": (
        small(mask_head=None, keypoint_head=KeypointHeadConfig(5, convs=2, channels=(16, 24))),
        ("roi_heads.keypoint_head.conv_fcn2.weight", "roi_heads.keypoint_head.score_lowres.weight"),
    ),
    "PointRend": (
        small(mask_head=MaskHeadConfig(channels=16, hidden=24, point_rend=PointRendConfig(channels=16))),
        (
            "roi_heads.mask_head.coarse_head.reduce_spatial_dim_conv.weight",
            "roi_heads.mask_head.coarse_head.fc2.weight",
            "roi_heads.mask_head.coarse_head.prediction.bias",
            "roi_heads.mask_head.point_head.fc3.weight",
            "roi_heads.mask_head.point_head.predictor.weight",
        ),
    ),
}


@cache
def random_state(model: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        state = build_model(Config(model)).state_dict()
    return {
        name: torch.randn(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.zeros((), dtype=torch.int64)
        for name, value in state.items()
    }


def exported(model: ModelConfig) -> dict[str, Tensor]:
    return Detectron2().export_state(Config(model, image=ImageConfig(divisor=32)), random_state(model))


def imported_from(tensors: dict[str, Tensor], settings: dict[str, Any] | None = None) -> Any:
    return Detectron2().import_checkpoint(Checkpoint("pickle", tensors, {}, ()), settings)


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_detectron2s(kind: str) -> None:
    model, names = KINDS[kind]
    tensors = exported(model)
    assert Detectron2().recognise(tensors)
    assert set(names) <= tensors.keys()
    ours = ("neck.", "rpn.", "roi_heads.box.", "roi_heads.mask.", "roi_heads.keypoint.", "roi_heads.pooler")
    assert not [
        name for name in tensors if name.startswith(ours) or ".conv.weight" in name.replace("rpn_head.conv", "")
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_by_its_shapes(kind: str) -> None:
    model, _ = KINDS[kind]
    state = random_state(model)
    found = imported_from(Detectron2().export_state(Config(model, image=ImageConfig(divisor=32)), state))
    assert found.unused == ()
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], value) for name, value in state.items())
    for part in ("num_classes", "neck", "backbone", "fpn_channels", "fpn_norm", "anchors"):
        assert getattr(found.config.model, part) == getattr(model, part), part
    again, first = Detectron2().export_state(found.config, found.state), exported(model)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_colours_channels_and_anchors_are_turned_round() -> None:
    model, _ = KINDS["C4"]
    theirs = exported(model)
    found = imported_from(theirs)
    stem = theirs["backbone.stem.conv1.weight"]
    assert torch.equal(found.state["backbone.stem.conv.weight"], stem[:, [2, 1, 0]])
    # Their anchor number 1 is of the first size and second ratio; ours of that kind is number 5 of ratio-major order.
    anchors = found.config.model.anchors
    cells = cell_anchors(anchors.sizes[0], anchors.ratios, 4)
    torch.testing.assert_close(cells[5], torch.tensor([-16.0, -16.0, 16.0, 16.0]))
    rows = theirs["proposal_generator.rpn_head.objectness_logits.weight"]
    assert torch.equal(found.state["rpn.head.objectness.weight"][5], rows[1])
    deltas = theirs["proposal_generator.rpn_head.anchor_deltas.bias"]
    assert torch.equal(found.state["rpn.head.deltas.bias"][20:24], deltas[4:8])

    theirs = exported(KINDS["FPN"][0])
    found = imported_from(theirs)
    column = (5 * 7 + 2) * 7 + 3  # channel 5, row 2, column 3
    assert torch.equal(
        found.state["roi_heads.box.heads.0.layers.0.weight"][:, (2 * 7 + 3) * 16 + 5],
        theirs["roi_heads.box_head.fc1.weight"][:, column],
    )


def test_surplus_is_listed_and_what_is_missing_is_named_as_in_the_file() -> None:
    tensors = exported(KINDS["FPN"][0])
    tensors["sem_seg_head.predictor.weight"] = torch.zeros(2)
    tensors["pixel_mean"] = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)
    assert imported_from(tensors).unused == ("sem_seg_head.predictor.weight",)
    del tensors["backbone.fpn_output3.bias"], tensors["roi_heads.mask_head.deconv.bias"]
    with pytest.raises(
        WeightsError, match=r"2 missing: backbone\.fpn_output3\.bias, roi_heads\.mask_head\.deconv\.bias"
    ):
        imported_from(tensors)


def test_an_unknown_backbone_is_refused() -> None:
    tensors = exported(KINDS["FPN"][0])
    for name in [name for name in tensors if ".res4.5." in name]:
        del tensors[name]
    with pytest.raises(WeightsError, match=r"ResNet of depth .* found \[3, 4, 5, 3\] blocks"):
        imported_from(tensors)


def test_frozen_stages_are_those_whose_norms_do_not_count() -> None:
    tensors = exported(KINDS["new baselines"][0])
    assert imported_from(tensors).config.model.backbone.frozen_stages == 0
    for name in [name for name in tensors if name.startswith((f"{TRUNK}stem", f"{TRUNK}res2"))]:
        if name.endswith("num_batches_tracked"):
            del tensors[name]
    assert imported_from(tensors).config.model.backbone.frozen_stages == 2


def test_stored_settings_are_read() -> None:
    """Older files hold the mean, the deviation and the anchors of each level."""
    tensors = exported(KINDS["FPN"][0])
    tensors["pixel_mean"] = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
    tensors["pixel_std"] = torch.tensor([57.375, 57.12, 58.395]).view(3, 1, 1)
    for level in range(5):
        cells = cell_anchors((24.0 * 2**level,), (0.4, 1.0, 2.5), 4 * 2**level)
        tensors[f"proposal_generator.anchor_generator.cell_anchors.{level}"] = cells
    config = imported_from(tensors).config
    assert config.image.mean == (3.0, 2.0, 1.0)
    assert config.image.std == (58.395, 57.12, 57.375)
    assert config.model.anchors.sizes == ((24.0,), (48.0,), (96.0,), (192.0,), (384.0,))
    assert config.model.anchors.ratios == (0.4, 1.0, 2.5)


def test_old_pointrend_names() -> None:
    model, _ = KINDS["PointRend"]
    old = {
        name.replace("mask_head.coarse_head.fc", "mask_coarse_head.coarse_mask_fc")
        .replace("mask_head.coarse_head", "mask_coarse_head")
        .replace("mask_head.point_head", "mask_point_head"): value
        for name, value in exported(model).items()
    }
    found = imported_from(old)
    assert found.unused == ()
    assert found.config.model.mask_head.point_rend == model.mask_head.point_rend  # type: ignore[union-attr]


SETTINGS: dict[str, Any] = {
    "INPUT": {"MIN_SIZE_TEST": 640, "MAX_SIZE_TEST": 900, "MIN_SIZE_TRAIN": [320, 640], "FORMAT": "RGB"},
    "MODEL": {
        "PIXEL_MEAN": [1.0, 2.0, 3.0],
        "PIXEL_STD": [4.0, 5.0, 6.0],
        "ANCHOR_GENERATOR": {"SIZES": [[16], [32], [64], [128], [256]], "OFFSET": 0.5},
        "BACKBONE": {"FREEZE_AT": 0},
        "RESNETS": {"STRIDE_IN_1X1": False, "NORM": "FrozenBN", "DEPTH": 50},
        "RPN": {"PRE_NMS_TOPK_TEST": 77, "NMS_THRESH": 0.6, "BBOX_REG_LOSS_TYPE": "giou"},
        "ROI_BOX_HEAD": {"POOLER_TYPE": "ROIAlign", "POOLER_SAMPLING_RATIO": 2, "SMOOTH_L1_BETA": 0.5},
        "ROI_MASK_HEAD": {"POOLER_TYPE": "ROIAlign", "POOLER_SAMPLING_RATIO": 2},
        "ROI_HEADS": {"SCORE_THRESH_TEST": 0.3, "NUM_CLASSES": 3},
    },
    "TEST": {"DETECTIONS_PER_IMAGE": 7},
}


def test_conventions_that_no_config_says() -> None:
    assert imported_from(exported(KINDS["FPN"][0])).config.conventions == DETECTRON2
    assert imported_from(exported(KINDS["C4"][0]), {}).config.conventions == DETECTRON2


def test_settings_become_fields() -> None:
    tensors = exported(KINDS["FPN"][0])
    found = imported_from(tensors, flat(SETTINGS))
    config, model = found.config, found.config.model
    assert found.assumed == ()
    assert (config.image.short_side, config.image.long_side) == (640, 900)
    assert config.augment.scale_jitter == (0.5, 1.0)
    assert (config.image.mean, config.image.std) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert torch.equal(found.state["backbone.stem.conv.weight"], tensors[f"{TRUNK}stem.conv1.weight"])
    assert (model.anchors.sizes[0], config.conventions.anchors.offset) == ((16.0,), 0.5)
    assert (model.backbone.frozen_stages, model.backbone.stride_in_1x1) == (0, False)
    assert (model.rpn.pre_nms_test, model.rpn.pre_nms_train, model.rpn.nms_iou) == (77, 12000, 0.6)
    assert (model.rpn.box_loss, config.conventions.losses) == ("giou", DETECTRON2.losses)
    assert (config.conventions.features, model.rois.sampling_ratio) == (replace(DETECTRON2.features, aligned=False), 2)
    assert model.box_head.smooth_l1_beta == 0.5
    assert (model.detect.score_threshold, model.detect.max_detections) == (0.3, 7)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("ROI_HEADS.NUM_CLASSES", 80, "NUM_CLASSES is 80 in the settings, and 3 in the file"),
        ("ROI_HEADS.NAME", "CascadeROIHeads", "'CascadeROIHeads' in the settings, and 'StandardROIHeads' in the file"),
        ("BACKBONE.NAME", "build_resnet_backbone", "and 'a name with fpn' in the file"),
        ("RESNETS.DEPTH", 101, "DEPTH is 101"),
        ("MASK_ON", False, "MASK_ON is False"),
        ("KEYPOINT_ON", True, "KEYPOINT_ON is True"),
        ("RESNETS.NORM", "GN", "'batch norm' in the file"),
        ("ROI_BOX_HEAD.USE_SIGMOID_CE", True, "USE_SIGMOID_CE True is not supported"),
        ("FPN.FUSE_TYPE", "avg", "expected 'sum'"),
        ("ROI_BOX_HEAD.POOLER_SAMPLING_RATIO", 0, "the same for all branches"),
        ("ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0], [2.0]], "the same on every level"),
        ("ANCHOR_GENERATOR.ASPECT_RATIOS", [[1.0, 2.0]], "3 anchors per cell"),
        ("RPN.BBOX_REG_LOSS_TYPE", "diou", "'diou' is not supported: expected 'smooth_l1' or 'giou'"),
        ("PIXEL_MEAN", [1.0, 2.0], "unexpected kind"),
        ("META_ARCHITECTURE", "RetinaNet", "'RetinaNet' in the settings, and 'GeneralizedRCNN' in the file"),
        ("PROPOSAL_GENERATOR.NAME", "PrecomputedProposals", "'PrecomputedProposals' is not supported: expected 'RPN'"),
        ("ANCHOR_GENERATOR.SIZES", ["[[x] for x in [8, 16]]"], "SIZES is a text, .* which is not run"),
    ],
)
def test_settings_that_do_not_fit_or_have_no_counterpart(path: str, value: Any, message: str) -> None:
    with pytest.raises((WeightsError, ConfigError), match=message):
        imported_from(exported(KINDS["FPN"][0]), flat(SETTINGS) | {f"MODEL.{path}": value})


def test_config_files_are_data_with_a_base(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("MODEL:\n  MASK_ON: true\n  RPN: {NMS_THRESH: 0.7, PRE_NMS_TOPK_TEST: 1000}\n")
    (tmp_path / "own.yaml").write_text("_BASE_: base.yaml\nMODEL:\n  RPN: {NMS_THRESH: 0.5}\n")
    assert Detectron2().read_settings(tmp_path / "own.yaml") == {
        "MODEL.MASK_ON": True,
        "MODEL.RPN.NMS_THRESH": 0.5,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    }


@pytest.mark.parametrize(
    ("text", "sides"),
    [
        ("(600, 700, 800)", [600, 700, 800]),
        ("[600, 700]", [600, 700]),
        ("(600,)", [600]),
        ("600", 600),
        ("!!python/tuple [600, 700]", [600, 700]),
        ("!!python/object/apply:builtins.tuple [[600, 700]]", [[600, 700]]),
    ],
)
def test_lists_of_every_spelling(tmp_path: Path, text: str, sides: Any) -> None:
    """In Detectron2's own files a tuple is a text, and in the files that it wrote until 2020 a tagged list."""
    (tmp_path / "own.yaml").write_text(f"MODEL: !!python/object:yacs.Node\n  MASK_ON: true\nINPUT:\n  SIDES: {text}\n")
    found = Detectron2().read_settings(tmp_path / "own.yaml")
    assert found == {"MODEL.MASK_ON": True, "INPUT.SIDES": sides}


def test_bases_may_be_several_and_stand_above(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("MODEL: {ONE: 1, TWO: 1}\n")
    (tmp_path / "b.yaml").write_text("_BASE_: a.yaml\nMODEL: {TWO: 2}\n")
    (tmp_path / "c.yaml").write_text("MODEL: {THREE: 3}\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "own.yaml").write_text('_BASE_: ["../b.yaml", "../c.yaml"]\nMODEL: {}\n')
    found = Detectron2().read_settings(tmp_path / "below" / "own.yaml")
    assert found == {"MODEL.ONE": 1, "MODEL.TWO": 2, "MODEL.THREE": 3}
    (tmp_path / "a.yaml").unlink()
    with pytest.raises(ConfigError, match=r"b\.yaml: its _BASE_ names a\.yaml, but there is no file .*a\.yaml; put"):
        Detectron2().read_settings(tmp_path / "below" / "own.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "line 1: expected YAML"),
        ("- 1", "found list"),
        ("{}", "expected the YAML config of Detectron2, with settings under MODEL, found nothing"),
        ("NUM_CLASSES: 3", "with settings under MODEL, found NUM_CLASSES"),
        (
            "model: {_target_: detectron2.modeling.GeneralizedRCNN}",
            "model.proposal_generator is nothing, .*expected RPN",
        ),
        ("_BASE_: own.yaml", "_BASE_ should name another file"),
        ("MODEL: !!python/object/apply:os.getcwd []", "with settings under MODEL"),
    ],
)
def test_config_files_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        Detectron2().read_settings(tmp_path / "own.yaml")
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        Detectron2().read_settings(tmp_path / "missing.yaml")


def test_odd_shapes_are_refused() -> None:
    for kind in ("FPN", "PointRend"):
        check_odd_shapes(imported_from, exported(KINDS[kind][0]), every=31)
