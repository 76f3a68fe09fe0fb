"""MMDetection's names, layouts and settings on small random models, of the kinds that no fixture shows too."""

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
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RPNConfig,
)
from maskrcnn.config.conventions import MMDETECTION, MatchingRules, PixelRules
from maskrcnn.errors import ConfigError, WeightsError
from maskrcnn.files.checkpoint import Checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.weights.frameworks.coco_categories import COCO
from maskrcnn.weights.frameworks.mmdetection import AVERAGED, MMDetection
from odd_shapes import check_odd_shapes

BACKBONE = ResNetConfig(depth=50, width=8, stem_width=16, stride_in_1x1=True)
PLAIN = replace(BACKBONE, stride_in_1x1=False, norm="fixed_batch_norm")  # style pytorch
HEADS = BoxHeadConfig(hidden=24)
MASKS = MaskHeadConfig(convs=2, channels=16)
ONE_LEVEL = AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),))
STAGES: dict[str, Any] = {"cascade_ious": (0.6, 0.7), "cascade_weights": ((20.0, 20.0, 10.0, 10.0),) * 2}


def small(**model: Any) -> ModelConfig:
    settings: dict[str, Any] = {"backbone": BACKBONE, "fpn_channels": 16, "box_head": HEADS, "mask_head": MASKS}
    return ModelConfig(num_classes=3, **(settings | model))


# The kind of model, and names that MMDetection gives its parameters.
KINDS: dict[str, tuple[ModelConfig, tuple[str, ...]]] = {
    "FPN": (
        small(),
        (
            "backbone.conv1.weight",
            "backbone.bn1.running_mean",
            "backbone.bn1.num_batches_tracked",
            "backbone.layer1.0.downsample.0.weight",
            "backbone.layer1.0.downsample.1.running_var",
            "backbone.layer3.5.conv3.weight",
            "backbone.layer3.5.bn3.bias",
            "neck.lateral_convs.0.conv.bias",
            "neck.fpn_convs.3.conv.weight",
            "rpn_head.rpn_conv.weight",
            "rpn_head.rpn_cls.bias",
            "rpn_head.rpn_reg.weight",
            "roi_head.bbox_head.shared_fcs.0.weight",
            "roi_head.bbox_head.shared_fcs.1.bias",
            "roi_head.bbox_head.fc_cls.weight",
            "roi_head.bbox_head.fc_reg.weight",
            "roi_head.mask_head.convs.1.conv.bias",
            "roi_head.mask_head.upsample.weight",
            "roi_head.mask_head.conv_logits.bias",
        ),
    ),
    "pytorch style": (small(backbone=PLAIN), ("backbone.layer4.2.bn2.weight",)),
    "Faster R-CNN": (small(mask_head=None), ()),
    "C4": (
        small(
            neck="c4",
            fpn_channels=256,
            anchors=ONE_LEVEL,
            box_head=replace(HEADS, layers=0),
            mask_head=replace(MASKS, convs=0),
        ),
        (
            "backbone.layer3.5.conv1.weight",
            "roi_head.shared_head.layer4.0.downsample.0.weight",
            "roi_head.shared_head.layer4.2.bn3.num_batches_tracked",
            "roi_head.mask_head.upsample.bias",
        ),
    ),
    "DC5": (
        small(neck="dc5", fpn_channels=256, anchors=ONE_LEVEL, mask_head=None),
        ("backbone.layer4.0.conv2.weight", "roi_head.bbox_head.shared_fcs.0.weight"),
    ),
    "ResNet-18": (
        small(backbone=ResNetConfig(depth=18, width=8, norm="fixed_batch_norm")),
        ("backbone.layer4.1.bn2.weight",),
    ),
    "ResNet-101": (small(backbone=replace(BACKBONE, depth=101)), ("backbone.layer3.22.conv1.weight",)),
    "ResNeXt": (
        small(backbone=replace(PLAIN, groups=4, bottleneck_width=16)),
        ("backbone.layer1.0.conv2.weight",),
    ),
    "group norm": (
        small(
            backbone=replace(PLAIN, width=32, stem_width=None, norm="group_norm"),
            fpn_channels=32,
            fpn_norm="group_norm",
            box_head=BoxHeadConfig(convs=4, conv_channels=32, layers=1, hidden=24, norm="group_norm"),
            mask_head=replace(MASKS, channels=32, norm="group_norm"),
        ),
        (
            "backbone.gn1.weight",
            "backbone.layer1.0.gn3.bias",
            "backbone.layer1.0.downsample.1.weight",
            "neck.lateral_convs.2.gn.bias",
            "roi_head.bbox_head.shared_convs.3.conv.weight",
            "roi_head.bbox_head.shared_convs.3.gn.weight",
            "roi_head.mask_head.convs.0.gn.weight",
        ),
    ),
    "batch norm of the heads": (
        small(
            backbone=PLAIN,
            fpn_norm="batch_norm",
            rpn=RPNConfig(convs=2),
            box_head=BoxHeadConfig(convs=4, conv_channels=16, layers=1, hidden=24, norm="batch_norm"),
        ),
        (
            "neck.fpn_convs.0.bn.num_batches_tracked",
            "rpn_head.rpn_conv.1.conv.bias",
            "roi_head.bbox_head.shared_convs.0.bn.running_mean",
        ),
    ),
    "convolutions without a norm": (
        small(box_head=BoxHeadConfig(convs=2, conv_channels=16, layers=1, hidden=24)),
        ("roi_head.bbox_head.shared_convs.1.conv.bias",),
    ),
    "deformable": (
        small(backbone=replace(PLAIN, deformable_stages=(3, 4, 5), deformable_modulated=True)),
        (
            "backbone.layer2.0.conv2.conv_offset.weight",
            "backbone.layer2.0.conv2.weight",
            "backbone.layer4.2.bn2.weight",
        ),
    ),
    "class-agnostic": (
        small(box_head=replace(HEADS, class_agnostic=True), mask_head=replace(MASKS, class_agnostic=True)),
        (),
    ),
    "cascade": (
        small(box_head=replace(HEADS, class_agnostic=True, **STAGES)),
        (
            "roi_head.bbox_head.2.shared_fcs.0.weight",
            "roi_head.bbox_head.0.fc_cls.weight",
            "roi_head.mask_head.0.convs.1.conv.weight",
            "roi_head.mask_head.2.conv_logits.bias",
        ),
    ),
    "class-specific cascade": (small(box_head=replace(HEADS, **STAGES), mask_head=None), ()),
}


@cache
def random_state(model: ModelConfig) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        state = build_model(Config(model, conventions=MMDETECTION)).state_dict()
    random = {
        name: torch.rand(value.shape, generator=generator) + 0.5
        if value.is_floating_point()
        else torch.zeros((), dtype=torch.int64)
        for name, value in state.items()
    }
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    if backbone.stride_in_1x1:  # pixels that are not divided by their deviation
        random["backbone.stem.norm.running_var"] *= 1e6
    return random


def config_of(model: ModelConfig) -> Config:
    backbone = model.backbone
    assert isinstance(backbone, ResNetConfig)
    plain = backbone.stride_in_1x1 or backbone.norm == "group_norm"
    image = ImageConfig(std=(1.0, 1.0, 1.0)) if plain else ImageConfig()
    return Config(model, image=image, conventions=MMDETECTION)


def exported(model: ModelConfig) -> dict[str, Tensor]:
    return MMDetection().export_state(config_of(model), random_state(model))


def imported_from(tensors: dict[str, Tensor], settings: Any = None, meta: Any = None) -> Any:
    return MMDetection().import_checkpoint(
        Checkpoint("torch", tensors, {} if meta is None else {"meta": meta}, ()), settings
    )


@pytest.mark.parametrize("kind", KINDS)
def test_names_are_mmdetections(kind: str) -> None:
    model, names = KINDS[kind]
    tensors = exported(model)
    assert MMDetection().recognise(tensors)
    assert set(names) <= tensors.keys()
    ours = ("backbone.res", "backbone.stem", "neck.lateral.", "neck.output.", "rpn.", "roi_heads.")
    assert not [name for name in tensors if name.startswith(ours) or ".norm." in name or "shortcut" in name]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_by_its_shapes_and_statistics(kind: str) -> None:
    model, _ = KINDS[kind]
    state = random_state(model)
    found = imported_from(exported(model))
    assert found.unused == ()
    assert found.state.keys() == state.keys()
    assert all(torch.equal(found.state[name], value) for name, value in state.items())
    for part in ("num_classes", "neck", "backbone", "fpn_channels", "fpn_norm", "anchors"):
        assert getattr(found.config.model, part) == getattr(model, part), part
    assert found.config.image.std == config_of(model).image.std
    again, first = MMDetection().export_state(found.config, found.state), exported(model)
    assert again.keys() == first.keys()
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_colours_are_turned_round_where_the_network_reads_bgr() -> None:
    for kind, order in (("FPN", [2, 1, 0]), ("pytorch style", [0, 1, 2]), ("group norm", [2, 1, 0])):
        theirs = exported(KINDS[kind][0])
        found = imported_from(theirs)
        assert torch.equal(found.state["backbone.stem.conv.weight"], theirs["backbone.conv1.weight"][:, order])
        assert found.config.image.mean == (123.675, 116.28, 103.53)


def test_resnext_32x8d_reads_bgr() -> None:
    model = small(backbone=replace(PLAIN, groups=32, bottleneck_width=256))
    theirs = exported(model)
    found = imported_from(theirs)
    assert torch.equal(found.state["backbone.stem.conv.weight"], theirs["backbone.conv1.weight"][:, [2, 1, 0]])
    assert found.config.image.std == (58.395, 57.12, 57.375)


def test_the_first_layer_reads_row_column_channel() -> None:
    theirs = exported(KINDS["FPN"][0])
    found = imported_from(theirs)
    column = (5 * 7 + 2) * 7 + 3  # channel 5, row 2, column 3
    assert torch.equal(
        found.state["roi_heads.box.heads.0.layers.0.weight"][:, (2 * 7 + 3) * 16 + 5],
        theirs["roi_head.bbox_head.shared_fcs.0.weight"][:, column],
    )


def test_surplus_is_listed_and_what_is_missing_is_named_as_in_the_file() -> None:
    tensors = exported(KINDS["ResNet-18"][0])
    tensors["roi_head.semantic_head.conv_logits.weight"] = torch.zeros(2)
    assert imported_from(tensors).unused == ("roi_head.semantic_head.conv_logits.weight",)
    del tensors["neck.fpn_convs.1.conv.bias"], tensors["roi_head.mask_head.upsample.bias"]
    with pytest.raises(WeightsError, match=r"2 missing: neck\.fpn_convs\.1\.conv\.bias, roi_head\.mask_head\.upsample"):
        imported_from(tensors)


def test_the_buffers_of_its_averages_are_left_out_and_said() -> None:
    theirs = exported(KINDS["ResNet-18"][0])
    buffers = {f"ema_{name.replace('.', '_')}": torch.zeros_like(value) for name, value in theirs.items()}
    plain, found = imported_from(theirs), imported_from(theirs | buffers)
    assert found.unused == ()
    assert all(torch.equal(value, plain.state[name]) for name, value in found.state.items())
    assert [sentence for sentence in found.assumed if sentence not in plain.assumed] == [AVERAGED]


def test_other_detectors_of_mmdetection_are_not_taken() -> None:
    assert not MMDetection().recognise(["bbox_head.fc_cls.weight", "rpn_head.rpn_cls.weight"])  # MMDetection 1
    assert not MMDetection().recognise(["bbox_head.retina_cls.weight", "neck.fpn_convs.0.conv.weight"])
    assert not MMDetection().recognise(["roi_head.bbox_head.fc_cls.weight"])  # Fast R-CNN has no proposals of its own


# A part of what a config says; what it leaves out is MMDetection's default.
MODEL: dict[str, Any] = {
    "type": "MaskRCNN",
    "data_preprocessor": {"mean": [1, 2, 3], "std": [4, 5, 6], "bgr_to_rgb": False, "pad_size_divisor": 64},
    "backbone": {"depth": 50, "style": "caffe", "frozen_stages": -1, "norm_cfg": {"type": "BN", "requires_grad": True}},
    "neck": {"type": "FPN", "num_outs": 5},
    "rpn_head": {
        "anchor_generator": {"scales": [4], "ratios": [0.5, 1.0, 2.0], "strides": [4, 8, 16, 32, 64]},
        "bbox_coder": {"target_stds": [0.5, 0.5, 1.0, 1.0]},
        "loss_bbox": {"type": "SmoothL1Loss", "beta": 0.25},
    },
    "roi_head": {
        "bbox_roi_extractor": {"roi_layer": {"type": "RoIAlign", "output_size": 7, "sampling_ratio": 2}},
        "mask_roi_extractor": {"roi_layer": {"type": "RoIAlign", "output_size": 14, "sampling_ratio": 2}},
        "bbox_head": {
            "num_classes": 3,
            "reg_decoded_bbox": True,
            "loss_bbox": {"type": "GIoULoss", "loss_weight": 10.0},
        },
        "mask_head": {"type": "FCNMaskHead"},
    },
    "train_cfg": {
        "rpn": {"assigner": {"min_pos_iou": 0.2}, "sampler": {"num": 99}, "allowed_border": 0},
        "rpn_proposal": {"nms_pre": 333, "max_per_img": 222},
        "rcnn": {"assigner": {"pos_iou_thr": 0.6, "match_low_quality": False}, "sampler": {"num": 64}},
    },
    "test_cfg": {
        "rpn": {"nms_pre": 77, "max_per_img": 55, "nms": {"type": "nms", "iou_threshold": 0.6}, "min_bbox_size": 4},
        "rcnn": {
            "score_thr": 0.3,
            "nms": {"type": "nms", "iou_threshold": 0.4},
            "max_per_img": 7,
            "mask_thr_binary": 0.4,
        },
    },
}
PIPELINES: dict[str, Any] = {
    "test_pipeline": [{"type": "Resize", "scale": (900, 640), "keep_ratio": True, "backend": "pillow"}],
    "train_pipeline": [
        {"type": "RandomChoiceResize", "scales": [(900, 320), (900, 640)]},
        {"type": "RandomFlip", "prob": 0.25},
    ],
}


def test_conventions_that_no_config_says() -> None:
    assert imported_from(exported(KINDS["FPN"][0])).config.conventions == MMDETECTION


def test_settings_become_fields() -> None:
    found = imported_from(exported(KINDS["FPN"][0]), {"model": MODEL, **PIPELINES})
    config, model = found.config, found.config.model
    assert found.assumed == (
        "roi_head.bbox_head.loss_bbox.loss_weight 10.0 is not supported: training continues with 1",
    )
    assert (config.image.short_side, config.image.long_side, config.image.divisor) == (640, 900, 64)
    assert (config.image.mean, config.image.std, config.conventions.pixels) == ((3, 2, 1), (6, 5, 4), PixelRules("pil"))
    assert (config.augment.scale_jitter, config.augment.flip_horizontal) == ((0.5, 1.0), 0.25)
    assert (model.backbone.norm, model.backbone.frozen_stages, model.backbone.stride_in_1x1) == (
        "fixed_batch_norm",
        0,
        True,
    )
    assert model.anchors.sizes == ((16.0,), (32.0,), (64.0,), (128.0,), (256.0,))
    assert (model.rpn.box_weights, model.rpn.smooth_l1_beta) == ((2.0, 2.0, 1.0, 1.0), 0.25)
    assert config.conventions.matching == MatchingRules(0.2, None, "own", (0.0, 0.0), ignore_padding_anchors=True)
    assert config.conventions.proposals.min_size == 4
    assert model.rpn.samples == 99
    assert (model.rpn.pre_nms_train, model.rpn.post_nms_train) == (333, 222)
    assert (model.rpn.pre_nms_test, model.rpn.post_nms_test, model.rpn.nms_iou) == (77, 55, 0.6)
    assert config.conventions.features == MMDETECTION.features
    assert (model.rois.sampling_ratio, model.rois.canonical_level, model.rois.canonical_size) == (2, 2, 56.0)
    assert (model.box_head.positive_iou, model.box_head.samples) == (0.6, 64)
    assert (model.box_head.box_loss, config.conventions.boxes.growth_bound) == ("giou", "both")
    detect = model.detect
    assert (detect.score_threshold, detect.nms_iou, detect.max_detections, detect.mask_threshold) == (0.3, 0.4, 7, 0.4)


def test_settings_of_mmdetection_2() -> None:
    """Normalisation and padding are steps, the size belongs to the step around them, and the settings of training and
    testing may lie beside the model, with older names."""
    inner = [
        {"type": "Resize", "keep_ratio": True},
        {"type": "Normalize", "mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 6.0], "to_rgb": True},
        {"type": "Pad", "size_divisor": 32},
    ]
    settings = {
        "model": {name: MODEL[name] for name in ("backbone", "neck", "rpn_head", "roi_head")},
        "train_cfg": {"rpn": {}, "rpn_proposal": {"nms_pre": 333, "nms_post": 222}},
        "test_cfg": {"rpn": {"nms_pre": 77, "max_num": 55, "nms_thr": 0.6}, "rcnn": {"nms": {"iou_thr": 0.4}}},
        "data": {"test": {"pipeline": [{"type": "MultiScaleFlipAug", "img_scale": (900, 640), "transforms": inner}]}},
    }
    theirs = exported(KINDS["FPN"][0])
    found = imported_from(theirs, settings)
    config, model = found.config, found.config.model
    assert (config.image.short_side, config.image.long_side, config.image.divisor) == (640, 900, 32)
    assert (config.image.mean, config.image.std) == ((1, 2, 3), (4, 5, 6))
    assert torch.equal(found.state["backbone.stem.conv.weight"], theirs["backbone.conv1.weight"])
    assert (model.rpn.post_nms_train, model.rpn.post_nms_test, model.rpn.nms_iou) == (222, 55, 0.6)
    assert model.detect.nms_iou == 0.4


def test_older_names_of_settings() -> None:
    """MMDetection 2.0: the head had the anchors and deviations, and the RoI layer other names."""
    head = {
        "anchor_scales": [4],
        "anchor_ratios": [0.5, 1.0, 2.0],
        "anchor_strides": [4, 8, 16, 32, 64],
        "target_stds": [0.5, 0.5, 1.0, 1.0],
    }
    heads = {
        "bbox_roi_extractor": {"roi_layer": {"type": "RoIAlign", "out_size": 7, "sample_num": 2}},
        "mask_roi_extractor": {"roi_layer": {"type": "RoIAlign", "out_size": 10, "sample_num": 2}},
    }
    settings = {"model": {**MODEL, "rpn_head": head, "roi_head": {**MODEL["roi_head"], **heads}}}
    model = imported_from(exported(KINDS["FPN"][0]), settings).config.model
    assert model.anchors.sizes[0] == (16.0,)
    assert model.rpn.box_weights == (2.0, 2.0, 1.0, 1.0)
    assert (model.rois.sampling_ratio, model.mask_head.resolution) == (2, 10)


def test_a_cascade_keeps_the_rules_of_its_stages() -> None:
    model, _ = KINDS["cascade"]
    config = imported_from(exported(model)).config
    guessed, box = config.model, config.model.box_head
    assert box.cascade_ious == (0.6, 0.7)
    assert config.conventions.cascade == MMDETECTION.cascade
    assert box.box_weights == (10.0, 10.0, 5.0, 5.0)
    assert box.cascade_weights[1] == pytest.approx((1 / 0.033, 1 / 0.033, 1 / 0.067, 1 / 0.067))
    assert (guessed.rpn.smooth_l1_beta, box.smooth_l1_beta) == (1 / 9, 1.0)
    assert (config.conventions.matching.allowed_border, guessed.rpn.post_nms_train) == ((0.0, 0.0), 2000)
    assert guessed.mask_head is not None
    with pytest.raises(WeightsError, match=r"3 box stages, and the config has 1"):
        imported_from(exported(model), {"model": MODEL})


def test_one_level_has_the_settings_of_its_kind() -> None:
    c4 = imported_from(exported(KINDS["C4"][0])).config
    assert (c4.model.rpn.pre_nms_train, c4.model.rpn.pre_nms_test, c4.model.rpn.post_nms_train) == (12000, 6000, 2000)
    assert (c4.model.box_head.resolution, c4.conventions.matching.box_low_quality_iou) == (14, None)
    dc5 = exported(KINDS["DC5"][0])
    assert imported_from(dc5).config.model.neck == "dc5"
    backbone = {**MODEL["backbone"], "dilations": (1, 1, 1, 1)}
    generator = {"scales": [2, 4, 8, 16, 32], "ratios": [0.5, 1.0, 2.0], "strides": [16]}
    heads = {**MODEL["roi_head"], "mask_head": None}
    rpn_head = {"anchor_generator": generator}
    model = {**MODEL, "neck": None, "backbone": backbone, "rpn_head": rpn_head, "roi_head": heads}
    assert imported_from(dc5, {"model": model}).config.model.neck == "c5"


def test_octaves_are_sizes_of_anchors() -> None:
    generator = {
        "octave_base_scale": 4,
        "scales_per_octave": 2,
        "ratios": [1.0],
        "strides": [4, 8, 16, 32, 64],
        "center_offset": 0.5,
    }
    model = replace(KINDS["ResNet-18"][0], anchors=AnchorConfig(sizes=((1.0, 2.0),) * 5, ratios=(1.0,)))
    anchors = imported_from(
        exported(model), {"model": {**MODEL, "backbone": {"depth": 18}, "rpn_head": {"anchor_generator": generator}}}
    )
    assert anchors.config.model.anchors.sizes[0] == pytest.approx((16.0, 16.0 * 2**0.5))
    assert anchors.config.conventions.anchors.offset == 0.5


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("backbone.depth", 101, "backbone.depth is 101 in the settings, and 50 in the file"),
        ("roi_head.bbox_head.num_classes", 80, "num_classes is 80"),
        ("backbone.norm_cfg.type", "GN", "'BN' in the file"),
        ("neck", None, "neck is 'none' in the settings, and 'a part of the model' in the file"),
        ("roi_head.mask_head", None, "roi_head.mask_head is 'none'"),
        ("type", "HybridTaskCascade", "HybridTaskCascade.*expected 'MaskRCNN' or"),
        ("backbone.type", "ResNetV1d", "backbone.type 'ResNetV1d'"),
        ("backbone.conv_cfg", {"type": "ConvWS"}, "ConvWS.*expected none"),
        ("neck.type", "PAFPN", "neck.type 'PAFPN'"),
        ("rpn_head.anchor_generator.scale_major", False, "scale_major False"),
        ("rpn_head.loss_cls", {"use_sigmoid": False}, "use_sigmoid False"),
        ("roi_head.bbox_head.bbox_coder", {"type": "BucketingBBoxCoder"}, "BucketingBBoxCoder"),
        ("roi_head.mask_roi_extractor.roi_layer.sampling_ratio", 0, "the same for boxes and masks"),
        ("test_cfg.rcnn.nms.type", "soft_nms", "soft_nms"),
        ("data_preprocessor.mean", [1.0, 2.0], "unexpected kind"),
        ("roi_head.bbox_roi_extractor.roi_layer", "RoIAlign", "unexpected kind"),
        ("roi_head.bbox_head", "Shared2FCBBoxHead", "unexpected kind"),
        ("rpn_head.anchor_generator.ratios", [1.0], "3 anchors per cell, and the settings give 1"),
    ],
)
def test_settings_that_do_not_fit_or_have_no_counterpart(path: str, value: Any, message: str) -> None:
    def changed(part: Any, names: list[str]) -> Any:
        first, *others = names
        return {**part, first: changed(part.get(first, {}), others) if others else value}

    with pytest.raises((WeightsError, ConfigError), match=message):
        imported_from(exported(KINDS["FPN"][0]), {"model": changed(MODEL, path.split("."))})


def test_sizes_that_do_not_keep_the_shape_are_refused() -> None:
    for step in ({"keep_ratio": False}, {"interpolation": "nearest"}):
        settings = {"model": MODEL, "test_pipeline": [{"type": "Resize", "scale": (900, 640), **step}]}
        with pytest.raises(ConfigError, match="Resize"):
            imported_from(exported(KINDS["FPN"][0]), settings)


HELD = """
model = dict(
    backbone=dict(depth=18),
    neck=dict(type='FPN'),
    rpn_head=dict(anchor_generator=dict(scales=[4], ratios=[0.5, 1.0, 2.0], strides=[4, 8, 16, 32, 64])),
    roi_head=dict(bbox_head=dict(), bbox_roi_extractor=dict(), mask_head=dict()))
"""


@pytest.mark.parametrize("key", ["cfg", "config"])
def test_the_config_inside_of_the_file_is_followed(key: str) -> None:
    tensors = exported(KINDS["ResNet-18"][0])
    found = imported_from(tensors, meta={key: HELD})
    assert found.config.model.anchors.sizes[0] == (16.0,)
    of_another = imported_from(tensors, meta={key: HELD.replace("bbox_head=dict()", "bbox_head=dict(num_classes=81)")})
    assert of_another.config.model.anchors.sizes[0] == (32.0,)
    assert "num_classes is 81 in the settings" in of_another.assumed[0]
    broken = imported_from(tensors, meta={key: "model = build()"})
    assert broken.config.model.anchors.sizes[0] == (32.0,)
    assert "the config in the file is ignored" in broken.assumed[0]


@pytest.mark.parametrize(
    ("meta", "names"),
    [
        ({"CLASSES": ("a", "b", "c")}, ["a", "b", "c"]),
        ({"dataset_meta": {"classes": ["a", "b", "c"], "palette": None}}, ["a", "b", "c"]),
        ({"dataset_meta": {"CLASSES": ("a", "b", "c")}}, ["a", "b", "c"]),
        ({"CLASSES": ("a", "b")}, []),
        ({"CLASSES": None}, []),
        ("no dictionary", []),
    ],
)
def test_names_of_classes(meta: Any, names: list[str]) -> None:
    found = imported_from(exported(KINDS["ResNet-18"][0]), meta=meta).config.categories
    assert [category.name for category in found] == names
    assert [category.id for category in found] == list(range(1, len(names) + 1))


def test_classes_of_coco_get_its_ids() -> None:
    model = replace(KINDS["ResNet-18"][0], num_classes=80)
    found = imported_from(exported(model), meta={"CLASSES": tuple(category.name for category in COCO)})
    assert found.config.categories == COCO


def test_odd_shapes_are_refused() -> None:
    check_odd_shapes(imported_from, exported(KINDS["FPN"][0]))
