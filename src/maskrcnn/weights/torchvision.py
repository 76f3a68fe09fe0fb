"""torchvision's Mask R-CNN in our names: `maskrcnn_resnet50_fpn` is version 1, `maskrcnn_resnet50_fpn_v2` version 2,
and `keypointrcnn_resnet50_fpn` is of version 1.

The source of every rule is torchvision/models/detection (`mask_rcnn.py`, `faster_rcnn.py`, `rpn.py`, `roi_heads.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from maskrcnn.config import (
    AnchorConfig,
    BoxHeadConfig,
    Config,
    DetectConfig,
    HeadNorm,
    ImageConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    ModelConfig,
    ResNetConfig,
    RoIConfig,
    RPNConfig,
)
from maskrcnn.weights.imagenet import torchvision_to_ours

Version = Literal[1, 2]

# torchvision's name -> ours, applied in order
RENAMES = (
    (r"^backbone\.fpn\.inner_blocks\.", "neck.lateral."),
    (r"^backbone\.fpn\.layer_blocks\.", "neck.output."),
    (r"^rpn\.head\.conv\.(\d)\.0\.", r"rpn.head.convs.\1."),
    (r"^rpn\.head\.cls_logits\.", "rpn.head.objectness."),
    (r"^rpn\.head\.bbox_pred\.", "rpn.head.deltas."),
    (r"^roi_heads\.box_head\.(fc6|5)\.", "roi_heads.box.head.layers.0."),
    (r"^roi_heads\.box_head\.fc7\.", "roi_heads.box.head.layers.1."),
    (r"^roi_heads\.box_head\.(\d)\.", r"roi_heads.box.head.convs.\1."),
    (r"^roi_heads\.box_predictor\.cls_score\.", "roi_heads.box.head.class_logits."),
    (r"^roi_heads\.box_predictor\.bbox_pred\.", "roi_heads.box.head.deltas."),
    (r"^roi_heads\.mask_head\.(\d)\.", r"roi_heads.mask.head.convs.\1."),
    (r"^roi_heads\.mask_predictor\.conv5_mask\.", "roi_heads.mask.head.upsample."),
    (r"^roi_heads\.mask_predictor\.mask_fcn_logits\.", "roi_heads.mask.head.predictor."),
    (r"^roi_heads\.keypoint_predictor\.kps_score_lowres\.", "roi_heads.keypoint.head.predictor."),
    *((rf"^roi_heads\.keypoint_head\.{2 * i}\.", f"roi_heads.keypoint.head.convs.{i}.") for i in range(8)),
)
# A convolution of the pyramid or of a branch and its norm: V1 has no norm, and ours then no module around the two.
NORMED = re.compile(r"^(neck\.(?:lateral|output)\.\d|roi_heads\.(?:box|mask)\.head\.convs\.\d)\.([01])\.")


def our_name(name: str, version: Version) -> str:
    """The name of one of torchvision's parameters in our network."""
    if name.startswith("backbone.body."):
        return "backbone." + torchvision_to_ours(name.removeprefix("backbone.body."))
    for pattern, replacement in RENAMES:
        name = re.sub(pattern, replacement, name)
    parts = {"0": ".conv." if version == 2 else ".", "1": ".norm."}
    return NORMED.sub(lambda found: found[1] + parts[found[2]], name)


def our_layout(name: str, value: Tensor) -> Tensor:
    """One of torchvision's tensors (or its gradient) as our network stores it; `name` is torchvision's."""
    if name in ("roi_heads.box_head.fc6.weight", "roi_heads.box_head.5.weight"):
        # columns (channel, row, column) to (row, column, channel)
        return value.view(len(value), 256, 7, 7).permute(0, 2, 3, 1).reshape(len(value), -1)
    if name.startswith("roi_heads.box_predictor.cls_score."):  # the background moves to the end
        return torch.cat([value[1:], value[:1]])
    if name.startswith("roi_heads.box_predictor.bbox_pred."):  # four rows of a background that has no box
        return value[4:]
    if name.startswith("roi_heads.mask_predictor.mask_fcn_logits."):
        return value[1:]
    return value


def our_state(state: Mapping[str, Tensor], version: Version) -> dict[str, Tensor]:
    """torchvision's `state_dict()` as that of our network with `torchvision_config(version, ...)`."""
    return {
        our_name(name, version): our_layout(name, value)
        for name, value in state.items()
        # Version 1 freezes its norms, and a frozen norm counts nothing.
        if version == 2 or not name.endswith(".num_batches_tracked")
    }


def torchvision_config(version: Version, num_classes: int, num_keypoints: int | None = None) -> Config:
    """The config in which our network follows torchvision wherever the two differ by default.

    Args:
        num_classes: without the background, which is class 0 there.
        num_keypoints: of Keypoint R-CNN, which has no masks; None for Mask R-CNN.
    """
    mask_head, keypoint_head = None, None
    norm: HeadNorm = "batch_norm" if version == 2 else "none"
    if num_keypoints is None:
        mask_head = MaskHeadConfig(norm=norm, target_sampling_ratio=0, target_aligned=False, paste="expanded_box")
    else:
        keypoint_head = KeypointHeadConfig(num_keypoints, score="logit")
    return Config(
        model=ModelConfig(
            num_classes=num_classes,
            backbone=ResNetConfig(norm="frozen_batch_norm" if version == 1 else "batch_norm", norm_eps=1e-5),
            fpn_norm=norm,
            anchors=AnchorConfig(rounded=True, stride="grid"),
            rpn=RPNConfig(convs=version, min_size=1e-3, post_nms_train=2000),
            rois=RoIConfig(aligned=False),
            box_head=BoxHeadConfig(convs=4 if version == 2 else 0, layers=1 if version == 2 else 2, norm=norm),
            mask_head=mask_head,
            keypoint_head=keypoint_head,
            detect=DetectConfig(min_size=1e-2),
        ),
        image=ImageConfig(
            mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
            std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
            kernel="bilinear",
            rounding="floor",
        ),
    )
