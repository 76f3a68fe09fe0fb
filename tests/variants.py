"""Small networks of every kind, and a batch that all of them can learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from maskrcnn.config import (
    AnchorConfig,
    KeypointHeadConfig,
    MaskHeadConfig,
    PointRendConfig,
    ResNetConfig,
    RoIConfig,
)
from maskrcnn.config.conventions import MMDETECTION, OURS
from maskrcnn.data.loading.loader import Batch
from maskrcnn.models.mask_rcnn import MaskRCNN
from small_network import batch_of, lively_network, network_config, sample_of

BASE = network_config().model
MASK = BASE.mask_head or MaskHeadConfig()
ONE_LEVEL = AnchorConfig(sizes=((16.0, 32.0, 64.0),))
SMALL_RESNET = ResNetConfig(depth=50, width=8, frozen_stages=0, norm="batch_norm")
CASCADE = replace(
    BASE.box_head,
    class_agnostic=True,
    cascade_ious=(0.6, 0.7),
    cascade_weights=((20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)),
)
VARIANTS: dict[str, dict[str, Any]] = {
    "FPN": {},
    "softmax masks": {"mask_head": replace(MASK, loss="softmax")},
    "MLP masks": {"mask_head": replace(MASK, kind="mlp", hidden=32)},
    "agnostic MLP masks": {"mask_head": replace(MASK, kind="mlp", hidden=32, class_agnostic=True)},
    "PointRend": {"mask_head": replace(MASK, hidden=32, point_rend=PointRendConfig(channels=16))},
    "agnostic PointRend": {
        "mask_head": replace(MASK, hidden=32, class_agnostic=True, point_rend=PointRendConfig(channels=16))
    },
    "keypoints": {"mask_head": None, "keypoint_head": KeypointHeadConfig(3, convs=1, channels=16)},
    "keypoints and masks": {"keypoint_head": KeypointHeadConfig(3, convs=0)},
    "cascade": {"box_head": CASCADE},
    "cascade as in MMDetection": {
        "box_head": replace(CASCADE, class_agnostic=False),
        "conventions": replace(OURS, cascade=MMDETECTION.cascade),
    },
    "C4": {"neck": "c4", "anchors": ONE_LEVEL, "box_head": replace(BASE.box_head, layers=0)},
    "C4 with layers, masks and keypoints": {
        "neck": "c4",
        "anchors": ONE_LEVEL,
        "keypoint_head": KeypointHeadConfig(3, convs=1, channels=16),
    },
    "RoIPool": {"rois": RoIConfig(op="pool", reduce="max")},
    "RoIWarp": {"neck": "c5", "anchors": ONE_LEVEL, "rois": RoIConfig(op="warp")},
    "adaptive maxima": {"rois": RoIConfig(sampling_ratio=0, reduce="max")},
    "C5": {"neck": "c5", "anchors": ONE_LEVEL},
    "DC5": {"neck": "dc5", "anchors": ONE_LEVEL},
    "deformable": {"backbone": replace(SMALL_RESNET, deformable_stages=(3, 5))},
    "modulated, frozen norm": {
        "backbone": replace(SMALL_RESNET, deformable_stages=(4,), deformable_modulated=True, norm="frozen_batch_norm")
    },
}


def batch_with_points() -> Batch:
    """Two images, one of them empty; the first object has two of three points, the second none."""
    objects = [(1, (10, 10, 40, 40)), (0, (50, 20, 90, 60))]
    batch = batch_of(sample_of(64, 96, objects), sample_of(60, 70, [], seed=1))  # type: ignore[arg-type]
    points = torch.zeros(*batch.targets.valid.shape, 3, 3)
    points[0, 0] = torch.tensor([[20.0, 21.0, 2.0], [39.0, 12.0, 1.0], [0.0, 0.0, 0.0]])
    return replace(batch, targets=replace(batch.targets, keypoints=points))


def network_of(name: str) -> MaskRCNN:
    return lively_network(network_config(**VARIANTS[name]))
