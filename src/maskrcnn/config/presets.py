"""Named configurations, each a plain function with a name from the literature. The docstrings say what each costs.

Nothing here imports torch, so that the help of a command is fast.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from maskrcnn.config import (
    AnchorConfig,
    AugmentConfig,
    BoxHeadConfig,
    Config,
    HeadNorm,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    PointRendConfig,
    ResNetConfig,
    RPNConfig,
    TimmConfig,
    TrainConfig,
)
from maskrcnn.errors import ConfigError


def mask_rcnn_R_50_FPN() -> Config:
    """ResNet-50-FPN, the paper's standard model: 44.3 M parameters, 12 epochs of COCO at 16 images a step."""
    return Config(augment=AugmentConfig(scale_jitter=(0.8, 1.0)))


def mask_rcnn_R_101_FPN() -> Config:
    """ResNet-101-FPN: 63.3 M parameters, otherwise as mask_rcnn_R_50_FPN."""
    return _with_backbone(depth=101)


def mask_rcnn_R_34_FPN() -> Config:
    """ResNet-34-FPN, for small machines: otherwise as mask_rcnn_R_50_FPN."""
    return _with_backbone(depth=34)


def mask_rcnn_R_18_FPN() -> Config:
    """ResNet-18-FPN, for laptops: otherwise as mask_rcnn_R_50_FPN."""
    return _with_backbone(depth=18)


def mask_rcnn_R_152_FPN() -> Config:
    """ResNet-152-FPN: 78.9 M parameters, otherwise as mask_rcnn_R_50_FPN."""
    return _with_backbone(depth=152)


def mask_rcnn_X_50_32x4d_FPN() -> Config:
    """ResNeXt-50-FPN of 32 groups of 4 channels: 43.8 M parameters, otherwise as mask_rcnn_R_50_FPN."""
    return _with_backbone(depth=50, groups=32, bottleneck_width=32 * 4)


def mask_rcnn_X_101_32x8d_FPN() -> Config:
    """ResNeXt-101-FPN of 32 groups of 8 channels: 107.4 M parameters, otherwise as mask_rcnn_R_50_FPN."""
    return _with_backbone(depth=101, groups=32, bottleneck_width=32 * 8)


def mask_rcnn_X_101_64x4d_FPN() -> Config:
    """ResNeXt-101-FPN of 64 groups of 4 channels: 102.1 M parameters, otherwise as mask_rcnn_R_50_FPN."""
    return _with_backbone(depth=101, groups=64, bottleneck_width=64 * 4)


def mask_rcnn_R_50_FPN_GN() -> Config:
    """ResNet-50-FPN with group norm (Wu & He 2018): 45.7 M parameters, independent of the batch size."""
    base = _with_backbone(depth=50, norm="group_norm")
    return _with_normalised_heads(base, "group_norm")


def mask_rcnn_R_50_FPN_V2() -> Config:
    """ResNet-50-FPN with batch norm everywhere, as in torchvision's V2 (Li et al. 2021): 46.3 M parameters.

    Two RPN convolutions, and four convolutions in the box branch.
    """
    base = _with_normalised_heads(_with_backbone(depth=50, norm="batch_norm"), "batch_norm")
    return replace(base, model=replace(base.model, rpn=replace(base.model.rpn, convs=2)))


def mask_rcnn_R_50_FPN_dconv_c3_c5() -> Config:
    """ResNet-50-FPN with deformable convolutions in res3..res5 (Dai et al. 2017): 44.9 M parameters."""
    return _with_backbone(deformable_stages=(3, 4, 5))


def mask_rcnn_ConvNeXt_T_FPN() -> Config:
    """ConvNeXt-Tiny-FPN (Liu et al. 2022), by timm: 48.1 M parameters, trained with AdamW."""
    base = mask_rcnn_R_50_FPN()
    train = replace(base.train, optimizer="adamw", learning_rate=1e-4, weight_decay=0.05, warmup_steps=1000)
    return replace(base, model=replace(base.model, backbone=TimmConfig("convnext_tiny")), train=train)


def mask_rcnn_R_50_C4() -> Config:
    """ResNet-50-C4, the paper's ablation model: 35.9 M parameters, res5 on each RoI, and therefore slower than FPN."""
    return with_c4(mask_rcnn_R_50_FPN())


def mask_rcnn_R_101_C4() -> Config:
    """ResNet-101-C4: 54.8 M parameters, otherwise as mask_rcnn_R_50_C4."""
    return with_c4(mask_rcnn_R_101_FPN())


def mask_rcnn_X_50_32x4d_C4() -> Config:
    """ResNeXt-50-C4 of 32 groups of 4 channels: 35.4 M parameters, otherwise as mask_rcnn_R_50_C4."""
    return with_c4(mask_rcnn_X_50_32x4d_FPN())


def mask_rcnn_X_101_32x8d_C4() -> Config:
    """ResNeXt-101-C4 of 32 groups of 8 channels: 99.0 M parameters, otherwise as mask_rcnn_R_50_C4."""
    return with_c4(mask_rcnn_X_101_32x8d_FPN())


def mask_rcnn_R_50_DC5() -> Config:
    """ResNet-50 with a dilated res5 and no pyramid: 172.4 M parameters."""
    return with_dc5(mask_rcnn_R_50_FPN())


def mask_rcnn_R_101_DC5() -> Config:
    """ResNet-101 with a dilated res5 and no pyramid: 191.3 M parameters."""
    return with_dc5(mask_rcnn_R_101_FPN())


def cascade_mask_rcnn_R_50_FPN() -> Config:
    """Cascade Mask R-CNN (Cai & Vasconcelos 2018), three box stages: 72.0 M parameters."""
    base = mask_rcnn_R_50_FPN()
    box_head = replace(
        base.model.box_head,
        class_agnostic=True,
        cascade_ious=(0.6, 0.7),
        cascade_weights=((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
    )
    rpn = replace(base.model.rpn, post_nms_train=2000)
    return replace(base, model=replace(base.model, box_head=box_head, rpn=rpn))


def pointrend_rcnn_R_50_FPN() -> Config:
    """PointRend (Kirillov et al. 2020), with sharp masks of 224 x 224: 60.2 M parameters."""
    base = mask_rcnn_R_50_FPN()
    mask_head = MaskHeadConfig(point_rend=PointRendConfig())
    return replace(base, model=replace(base.model, mask_head=mask_head))


def faster_rcnn_R_50_FPN() -> Config:
    """Faster R-CNN with ResNet-50-FPN, without masks: 41.7 M parameters."""
    base = mask_rcnn_R_50_FPN()
    return replace(base, model=replace(base.model, mask_head=None))


def faster_rcnn_R_50_C4() -> Config:
    """Faster R-CNN with ResNet-50-C4, without masks: 33.8 M parameters."""
    base = mask_rcnn_R_50_C4()
    return replace(base, model=replace(base.model, mask_head=None))


def keypoint_rcnn_R_50_FPN() -> Config:
    """Keypoint R-CNN with ResNet-50-FPN, persons with 17 keypoints each: 59.1 M parameters."""
    return _with_keypoints(mask_rcnn_R_50_FPN())


def keypoint_rcnn_R_101_FPN() -> Config:
    """Keypoint R-CNN with ResNet-101-FPN: 78.1 M parameters, otherwise as keypoint_rcnn_R_50_FPN."""
    return _with_keypoints(mask_rcnn_R_101_FPN())


def keypoint_rcnn_X_101_32x8d_FPN() -> Config:
    """Keypoint R-CNN with ResNeXt-101-FPN: 122.2 M parameters, otherwise as keypoint_rcnn_R_50_FPN."""
    return _with_keypoints(mask_rcnn_X_101_32x8d_FPN())


def mask_rcnn_tiny() -> Config:
    """A Mask R-CNN of 1.9 M parameters for images of about 160 pixels, trained from scratch in minutes on 2 cores."""
    return Config(
        model=ModelConfig(
            num_classes=5,
            backbone=ResNetConfig(depth=10, width=24, norm="batch_norm", frozen_stages=0),
            fpn_channels=64,
            anchors=AnchorConfig(sizes=((12.0,), (24.0,), (48.0,), (96.0,), (160.0,))),
            rpn=RPNConfig(samples=128, pre_nms_train=300, pre_nms_test=300, post_nms_train=200, post_nms_test=200),
            box_head=BoxHeadConfig(samples=64, hidden=256),
            mask_head=MaskHeadConfig(convs=2, channels=64, samples=8),
        ),
        image=ImageConfig(short_side=160, long_side=224),
        augment=AugmentConfig(scale_jitter=(0.85, 1.15), crop=(160, 160), flip_vertical=0.5, quarter_turns=True),
        train=TrainConfig(
            steps=1000,
            batch_size=8,
            optimizer="adamw",
            learning_rate=2e-3,
            weight_decay=0.05,
            warmup_steps=50,
            schedule="cosine",
            clip_norm=5.0,
            evaluate_every=0,
            checkpoint_every=500,
        ),
    )


def keypoint_rcnn_tiny() -> Config:
    """mask_rcnn_tiny with masks and four keypoints, for objects that are never upside down: 2.0 M parameters."""
    base = mask_rcnn_tiny()
    keypoint_head = KeypointHeadConfig(num_keypoints=4, convs=4, channels=64, samples=8)
    augment = replace(base.augment, flip_vertical=0.0, quarter_turns=False)
    return replace(base, model=replace(base.model, keypoint_head=keypoint_head), augment=augment)


def _with_backbone(**settings: Any) -> Config:
    """mask_rcnn_R_50_FPN with other fields of its `ResNetConfig`."""
    base = mask_rcnn_R_50_FPN()
    return replace(base, model=replace(base.model, backbone=replace(base.model.backbone, **settings)))


def _with_normalised_heads(base: Config, norm: HeadNorm) -> Config:
    """Norms in the pyramid, the mask branch, and a box branch of four convolutions and one layer."""
    model = base.model
    assert model.mask_head is not None
    box_head = replace(model.box_head, convs=4, layers=1, norm=norm)
    mask_head = replace(model.mask_head, norm=norm)
    return replace(base, model=replace(model, fpn_norm=norm, box_head=box_head, mask_head=mask_head))


def with_c4(base: Config) -> Config:
    """RPN and RoIs on res4, and res5 in the head, as in the paper and in Detectron2's C4 models."""
    model = base.model
    box_head = replace(model.box_head, resolution=14, layers=0, samples=min(64, model.box_head.samples))
    mask_head = None if model.mask_head is None else replace(model.mask_head, convs=0)
    return _on_one_level(base, neck="c4", box_head=box_head, mask_head=mask_head)


def with_c5(base: Config) -> Config:
    """RPN and RoIs on res5 at stride 32, for the paper's table 2d."""
    return _on_one_level(base, neck="c5")


def with_dc5(base: Config) -> Config:
    """RPN and RoIs on a dilated res5, as in Detectron2's DC5 models."""
    return _on_one_level(base, neck="dc5")


def _on_one_level(base: Config, **changes: Any) -> Config:
    """Puts all anchor sizes on one map, and takes more proposals from it because it replaces several levels."""
    sizes = tuple(size for level in base.model.anchors.sizes for size in level)
    rpn = replace(
        base.model.rpn,
        pre_nms_train=6 * base.model.rpn.pre_nms_train,
        pre_nms_test=6 * base.model.rpn.pre_nms_test,
        post_nms_train=2 * base.model.rpn.post_nms_train,
    )
    anchors = replace(base.model.anchors, sizes=(sizes,))
    return replace(base, model=replace(base.model, anchors=anchors, rpn=rpn, **changes))


def _with_keypoints(base: Config) -> Config:
    """The keypoint branch in place of the mask branch, for persons, as in Detectron2's keypoint models."""
    rpn = replace(base.model.rpn, post_nms_train=1500)
    keypoint_head = KeypointHeadConfig()
    return replace(base, model=replace(base.model, num_classes=1, rpn=rpn, mask_head=None, keypoint_head=keypoint_head))


PRESETS: dict[str, Callable[[], Config]] = {
    function.__name__: function
    for function in (
        mask_rcnn_R_18_FPN,
        mask_rcnn_R_34_FPN,
        mask_rcnn_R_50_FPN,
        mask_rcnn_R_101_FPN,
        mask_rcnn_R_152_FPN,
        mask_rcnn_X_50_32x4d_FPN,
        mask_rcnn_X_101_32x8d_FPN,
        mask_rcnn_X_101_64x4d_FPN,
        mask_rcnn_R_50_FPN_GN,
        mask_rcnn_R_50_FPN_V2,
        mask_rcnn_R_50_FPN_dconv_c3_c5,
        mask_rcnn_ConvNeXt_T_FPN,
        mask_rcnn_R_50_C4,
        mask_rcnn_R_101_C4,
        mask_rcnn_X_50_32x4d_C4,
        mask_rcnn_X_101_32x8d_C4,
        mask_rcnn_R_50_DC5,
        mask_rcnn_R_101_DC5,
        cascade_mask_rcnn_R_50_FPN,
        pointrend_rcnn_R_50_FPN,
        faster_rcnn_R_50_FPN,
        faster_rcnn_R_50_C4,
        keypoint_rcnn_R_50_FPN,
        keypoint_rcnn_R_101_FPN,
        keypoint_rcnn_X_101_32x8d_FPN,
        mask_rcnn_tiny,
        keypoint_rcnn_tiny,
    )
}


def preset(name: str) -> Config:
    """The configuration with this name.

    Raises:
        ConfigError: there is no such preset; the message names the nearest ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(PRESETS)}"
        raise ConfigError(f"unknown preset {name!r}; {hint}")
    return PRESETS[name]()
