"""Random weights of Matterport's network with few channels, by their paths in a Keras file."""

from __future__ import annotations

import torch
from torch import Tensor


def layer(tensors: dict[str, Tensor], name: str, *shape: int) -> None:
    group = "rpn_model" if name.startswith("rpn") else name
    tensors[f"{group}/{name}/kernel:0"] = torch.randn(shape)
    tensors[f"{group}/{name}/bias:0"] = torch.randn(shape[2] if "deconv" in name else shape[-1])


def norm(tensors: dict[str, Tensor], name: str, channels: int) -> None:
    for part in ("gamma", "beta", "moving_mean", "moving_variance"):
        tensors[f"{name}/{name}/{part}:0"] = torch.rand(channels) + 0.5


def weights(classes: int = 3, blocks: int = 6, anchors: int = 3, wide: int = 4) -> dict[str, Tensor]:
    """Random tensors by the names of a file: ResNet-50 or -101 with few channels."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    layer(tensors, "conv1", 7, 7, 3, 6)
    norm(tensors, "bn_conv1", 6)
    read = 6
    for stage, count in zip(range(2, 6), (3, 4, blocks, 3), strict=True):
        inner = wide * 2 ** (stage - 2)
        for block in range(count):
            base = f"{stage}{chr(ord('a') + block)}_branch"
            parts = [("2a", 1, read, inner), ("2b", 3, inner, inner), ("2c", 1, inner, 4 * inner)]
            for branch, side, low, high in parts + [("1", 1, read, 4 * inner)] * (block == 0):
                layer(tensors, f"res{base}{branch}", side, side, low, high)
                norm(tensors, f"bn{base}{branch}", high)
            read = 4 * inner
        layer(tensors, f"fpn_c{stage}p{stage}", 1, 1, read, 8)
        layer(tensors, f"fpn_p{stage}", 3, 3, 8, 8)
    layer(tensors, "rpn_conv_shared", 3, 3, 8, 12)
    layer(tensors, "rpn_class_raw", 1, 1, 12, 2 * anchors)
    layer(tensors, "rpn_bbox_pred", 1, 1, 12, 4 * anchors)
    for i, shape in ((1, (7, 7, 8, 10)), (2, (1, 1, 10, 10))):
        layer(tensors, f"mrcnn_class_conv{i}", *shape)
        norm(tensors, f"mrcnn_class_bn{i}", 10)
    layer(tensors, "mrcnn_class_logits", 10, classes)
    layer(tensors, "mrcnn_bbox_fc", 10, 4 * classes)
    for i in range(1, 5):
        layer(tensors, f"mrcnn_mask_conv{i}", 3, 3, 8 if i == 1 else 9, 9)
        norm(tensors, f"mrcnn_mask_bn{i}", 9)
    layer(tensors, "mrcnn_mask_deconv", 2, 2, 9, 9)
    layer(tensors, "mrcnn_mask", 1, 1, 9, classes)
    return tensors
