"""Settings that cannot work are refused when they are built, with what to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from maskrcnn.config import (
    AnchorConfig,
    AugmentConfig,
    BoxHeadConfig,
    Category,
    Config,
    DetectConfig,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    PointRendConfig,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
    TimmConfig,
    TrainConfig,
    config_from_dict,
    config_to_dict,
)
from maskrcnn.errors import ConfigError

ONE_LEVEL = AnchorConfig(sizes=((32.0, 64.0, 128.0, 256.0, 512.0),))

REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "long side below the short": (lambda: ImageConfig(short_side=800, long_side=600), "short_side .*800.*600"),
    "two rules for the size": (lambda: ImageConfig(scale=2.0, fixed_size=(64, 64)), "scale and image.fixed_size"),
    "blocks that are compiled and computed again": (
        lambda: TrainConfig(compile=True, activation_checkpointing=True),
        "train.compile decides by itself what is computed twice",
    ),
    "a backbone without blocks to compute again": (
        lambda: Config(
            model=ModelConfig(backbone=TimmConfig("convnext_tiny")), train=TrainConfig(activation_checkpointing=True)
        ),
        "activation_checkpointing is for the blocks of a ResNet",
    ),
    "a size that is not padded": (lambda: ImageConfig(fixed_size=(100, 64)), r"multiples of image.divisor 32.*100"),
    "jitter upside down": (lambda: AugmentConfig(scale_jitter=(1.2, 0.8)), "low <= high"),
    "no probability": (
        lambda: AugmentConfig(flip_horizontal=50),
        "augment.flip_horizontal must be .* from 0 to 1, found 50",
    ),
    "a stage that is not there": (
        lambda: ResNetConfig(frozen_stages=6),
        "frozen_stages must be .* from 0 to 5, found 6",
    ),
    "groups without bottlenecks": (lambda: ResNetConfig(depth=18, groups=32), "groups.*bottleneck.*depth to 50.*18"),
    "a stride in no 1x1": (lambda: ResNetConfig(depth=34, stride_in_1x1=True), "stride_in_1x1.*depth to 50"),
    "groups that do not divide": (
        lambda: ResNetConfig(groups=32, bottleneck_width=100),
        "groups must divide backbone.bottleneck_width, found 32 groups of 100",
    ),
    "group norm on few channels": (
        lambda: ResNetConfig(width=24, norm="group_norm"),
        "backbone.norm group_norm .*backbone.width must be a multiple of 32, found 24",
    ),
    "group norm inside grouped convolutions": (
        lambda: ResNetConfig(groups=8, bottleneck_width=48, norm="group_norm"),
        "backbone.bottleneck_width must be a multiple of 32, found 48",
    ),
    "group norm behind a block": (
        lambda: ResNetConfig(width=12, stem_width=32, bottleneck_width=32, norm="group_norm"),
        "backbone.width times 4 must be a multiple of 32, found 48",
    ),
    "group norm in the pyramid": (lambda: ModelConfig(fpn_channels=48, fpn_norm="group_norm"), "fpn_channels .*48"),
    "group norm in the box branch": (
        lambda: BoxHeadConfig(convs=4, conv_channels=80, norm="group_norm"),
        "box_head.norm group_norm .*box_head.conv_channels .*80",
    ),
    "group norm in the mask branch": (lambda: MaskHeadConfig(channels=40, norm="group_norm"), "mask_head.channels"),
    "a norm of no convolution": (lambda: BoxHeadConfig(norm="batch_norm"), "box_head.convs is 0: set box_head.convs 4"),
    "fewer than no layers": (
        lambda: BoxHeadConfig(layers=-1),
        "box_head.layers must be .* from 0 to 100, found -1",
    ),
    "more stages than a cascade has": (
        lambda: BoxHeadConfig(cascade_ious=(0.6,) * 101, cascade_weights=((1.0, 1.0, 1.0, 1.0),) * 101),
        r"length of box_head.cascade_ious must lie in 0\.\.100, found 101",
    ),
    "convolutions without end": (
        lambda: MaskHeadConfig(convs=10**9),
        "mask_head.convs must be .* from 0 to 100, found 1000000000",
    ),
    "masks of any size": (
        lambda: MaskHeadConfig(resolution=10**9),
        "mask_head.resolution must be .* from 1 to 256, found 1000000000",
    ),
    "stages of a cascade without weights": (
        lambda: BoxHeadConfig(class_agnostic=True, cascade_ious=(0.6, 0.7)),
        "cascade_ious and box_head.cascade_weights .*found 2 and 0",
    ),
    "softmax over one class": (
        lambda: MaskHeadConfig(loss="softmax", class_agnostic=True),
        "mask_head.loss softmax .* mask_head.class_agnostic",
    ),
    "a norm without convolutions": (
        lambda: MaskHeadConfig(kind="mlp", norm="batch_norm"),
        "mask_head.norm batch_norm .*mask_head.kind is mlp",
    ),
    "PointRend with another head": (
        lambda: MaskHeadConfig(kind="mlp", point_rend=PointRendConfig()),
        "mask_head.point_rend .*mask_head.kind fcn.* found mlp",
    ),
    "PointRend on whole RoIs": (
        lambda: ModelConfig(neck="c4", anchors=ONE_LEVEL, mask_head=MaskHeadConfig(point_rend=PointRendConfig())),
        "mask_head.point_rend .*model.neck c4",
    ),
    "more than all points": (
        lambda: PointRendConfig(important=1.5),
        "important must be .* from 0 to 1, found 1.5",
    ),
    "fewer points than chosen": (
        lambda: PointRendConfig(oversample=0.5),
        "oversample must be .* from 1 to 1000, found 0.5",
    ),
    "no keypoint": (
        lambda: KeypointHeadConfig(num_keypoints=0),
        "num_keypoints must be .* from 1 to 1000000000, found 0",
    ),
    "channels of some convolutions": (
        lambda: KeypointHeadConfig(convs=3, channels=(40, 56)),
        r"a number for each of keypoint_head.convs 3, found \(40, 56\)",
    ),
    "no stem": (lambda: ResNetConfig(stem_width=0), "stem_width must be .* from 1 to 16384, found 0"),
    "no channels in the RPN": (
        lambda: RPNConfig(channels=0),
        "rpn.channels must be .* from 1 to 16384, found 0",
    ),
    "an average RoIPool": (lambda: RoIConfig(op="pool"), "rois.op pool .*rois.reduce max, found average"),
    "less than no samples": (
        lambda: RoIConfig(sampling_ratio=-1),
        "sampling_ratio must be .* from 0 to 1000, found -1",
    ),
    "C4 with the anchors of a pyramid": (
        lambda: ModelConfig(neck="c4"),
        r"model.neck c4 has one level.*model.anchors.sizes has 5 levels",
    ),
    "a pyramid with the anchors of C4": (
        lambda: ModelConfig(anchors=ONE_LEVEL),
        r"model.neck fpn has the levels P2\.\.P6.*model.anchors.sizes has 1 levels",
    ),
    "stages of a timm backbone": (
        lambda: ModelConfig(neck="dc5", anchors=ONE_LEVEL, backbone=TimmConfig("convnext_tiny")),
        "model.neck dc5 .*ResNet: choose model.neck fpn",
    ),
    "deformable basic blocks": (
        lambda: ResNetConfig(depth=18, deformable_stages=(3,)),
        "deformable_stages belong to bottleneck.*18",
    ),
    "a deformable stem": (
        lambda: ResNetConfig(deformable_stages=(1,)),
        "deformable_stages must be .* from 2 to 5, found 1",
    ),
    "no convolution in the RPN": (
        lambda: RPNConfig(convs=0),
        "rpn.convs must be .* from 1 to 100, found 0",
    ),
    "thresholds crossed": (lambda: RPNConfig(positive_iou=0.3, negative_iou=0.7), "negative_iou <= positive_iou"),
    "a level without anchors": (lambda: AnchorConfig(sizes=((32.0,), ())), "the same number of sizes on every level"),
    "detections of none": (
        lambda: DetectConfig(max_detections=0),
        "max_detections must be .* from 1 to 1000000000, found 0",
    ),
    "a mask threshold of 1": (lambda: DetectConfig(mask_threshold=1), "mask_threshold"),
    "no steps": (lambda: TrainConfig(steps=0), "train.steps must be .* from 1 to 1000000000, found 0"),
    "a drop after the end": (
        lambda: TrainConfig(drops=(8, 11)),
        "train.drops must be .* between 0 and 1, found 8",
    ),
    "other classes than the data": (lambda: Config(categories=(Category(1, "cat"),)), "1 entries.*num_classes is 80"),
    "two keypoints of one name": (
        lambda: Category(1, "dog", ("ear", "ear")),
        "category dog: .*different names, found ear, ear",
    ),
    "a limb to nowhere": (
        lambda: Category(1, "dog", ("ear", "tail"), ((0, 2),)),
        r"category dog: skeleton connects positions 0\.\.1 of its 2 keypoints, found \(\(0, 2\),\)",
    ),
    "a divisor below the stride": (lambda: Config(image=ImageConfig(divisor=16)), "multiple of 32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused(case: str) -> None:
    build, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message):
        build()


def test_a_config_survives_as_plain_types_and_fills_in_what_is_missing() -> None:
    config = replace(Config(), train=TrainConfig(steps=7), model=ModelConfig(mask_head=None))
    assert config_from_dict(config_to_dict(config)) == config
    timm = replace(
        Config(), model=ModelConfig(backbone=TimmConfig("convnext_tiny"), keypoint_head=KeypointHeadConfig())
    )
    assert config_from_dict(config_to_dict(timm)) == timm
    assert config_from_dict({"train": {"steps": 7}}) == replace(Config(), train=TrainConfig(steps=7))


def test_keypoints_of_categories_survive_json_and_old_files_have_none() -> None:
    categories = (Category(4, "person", ("nose", "left_eye", "right_eye"), ((0, 1), (0, 2))), Category(9, "ball"))
    config = Config(model=ModelConfig(num_classes=2), categories=categories)
    assert config_from_dict(json.loads(json.dumps(config_to_dict(config)))) == config
    old = {"model": {"num_classes": 1}, "categories": [{"id": 9, "name": "ball"}]}
    assert config_from_dict(old).categories == (Category(9, "ball", (), ()),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"model": {"backbone": {"dept": 50}}}, r"model\.backbone\.dept: there is no such setting"),
        ({"model": {"backbone": {"depth": 51}}}, r"model\.backbone\..*depth.*51"),
        ({"train": {"steps": "many"}}, r"train\.steps.*'many'"),
    ],
)
def test_a_stored_config_of_another_kind(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict(data)
