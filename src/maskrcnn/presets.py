"""Named configurations, each a plain function. Names are the literature's; the head of each says its cost.

Nothing here imports torch, so that `maskrcnn --help` is instant.
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
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RPNConfig,
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
    """ResNet-50-FPN with batch norm throughout, as torchvision's V2 (Li et al. 2021): 46.3 M parameters.

    Two RPN convolutions, and four convolutions in the box branch.
    """
    base = _with_normalised_heads(_with_backbone(depth=50, norm="batch_norm"), "batch_norm")
    return replace(base, model=replace(base.model, rpn=replace(base.model.rpn, convs=2)))


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
            mask_head=MaskHeadConfig(convs=2, channels=64, samples=16),
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


def _with_backbone(**settings: Any) -> Config:
    """mask_rcnn_R_50_FPN with other fields of its `ResNetConfig`."""
    base = mask_rcnn_R_50_FPN()
    return replace(base, model=replace(base.model, backbone=replace(base.model.backbone, **settings)))


def _with_normalised_heads(base: Config, norm: HeadNorm) -> Config:
    """A norm in the pyramid, in a box branch of four convolutions and one layer, and in the mask branch."""
    model = base.model
    assert model.mask_head is not None
    box_head = replace(model.box_head, convs=4, layers=1, norm=norm)
    mask_head = replace(model.mask_head, norm=norm)
    return replace(base, model=replace(model, fpn_norm=norm, box_head=box_head, mask_head=mask_head))


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
        mask_rcnn_tiny,
    )
}


def preset(name: str) -> Config:
    """The configuration of that name.

    Raises:
        ConfigError: no such preset; names the nearest.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.4)
        hint = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(PRESETS)}"
        raise ConfigError(f"unknown preset {name!r}; {hint}")
    return PRESETS[name]()
