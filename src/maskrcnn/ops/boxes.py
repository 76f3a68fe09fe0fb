"""Boxes as tensors (..., 4) of continuous edges x1 y1 x2 y2, and the offsets by which a network moves them.

Inputs and results are float32, whatever the precision of the network. Legend: B images, N boxes, G ground-truth boxes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

# Bound of log(w / w_a) in predictions: an anchor of 16 pixels grows to 1000 (Detectron's BBOX_XFORM_CLIP).
MAX_LOG_SCALE = math.log(1000.0 / 16)


def area(boxes: Tensor) -> Tensor:
    """Areas: (..., 4) -> (...), square pixels. Negative sides are not clamped."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Pairwise intersection areas: (..., G, 4) and (..., N, 4) -> (..., G, N)."""
    a, b = a[..., :, None, :], b[..., None, :, :]
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp_(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp_(min=0)
    return width.mul_(height)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union: (..., G, 4) and (..., N, 4) -> (..., G, N), 0 where both are empty."""
    shared = intersection(a, b)
    union = (area(a)[..., :, None] + area(b)[..., None, :]).sub_(shared)
    return shared.div_(union.clamp_(min=1e-9))


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU minus the fraction of the enclosing box that neither box covers (Rezatofighi et al. 2019): (..., 4) -> (...).

    It is between -1 for distant boxes and 1 for equal ones, and has a gradient even where boxes do not touch.
    """
    shared = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    union = area(a) + area(b) - shared
    enclosing = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    return shared / union.clamp(min=1e-9) - (enclosing - union) / enclosing.clamp(min=1e-9)


def clip(boxes: Tensor, windows: Tensor) -> Tensor:
    """Clips (B, N, 4) boxes to (B, 4) windows x1 y1 x2 y2."""
    low, high = windows.to(boxes.dtype)[:, None].split(2, dim=-1)
    return torch.minimum(torch.maximum(boxes, low.repeat(1, 1, 2)), high.repeat(1, 1, 2))


def whole_images(sizes_hw: Tensor) -> Tensor:
    """Heights and widths of images (B, 2) -> their boxes (B, 4), which begin at the origin."""
    wh = sizes_hw.flip(-1)
    return torch.cat([torch.zeros_like(wh), wh], dim=-1)


def trim(boxes: Tensor, pixels: float) -> Tensor:
    """Subtracts a number of pixels from x2 and y2 of (..., 4) boxes."""
    return torch.cat([boxes[..., :2], boxes[..., 2:] - pixels], dim=-1) if pixels else boxes


def unit_box(like: Tensor) -> Tensor:
    """The box 0 0 1 1, (4,), in the dtype and on the device of `like`, made without a copy that the host waits for."""
    return (torch.arange(4, device=like.device) >= 2).to(like.dtype)


def encode(boxes: Tensor, anchors: Tensor, weights: tuple[float, float, float, float]) -> Tensor:
    """Offsets (t_x, t_y, t_w, t_h) that turn `anchors` into `boxes`, times `weights` (Girshick 2014, appendix C).

    Args:
        boxes, anchors: (..., 4) with positive sides.

    Returns:
        (..., 4).
    """
    anchor_wh = anchors[..., 2:] - anchors[..., :2]
    box_wh = boxes[..., 2:] - boxes[..., :2]
    anchor_centre = anchors[..., :2] + 0.5 * anchor_wh
    box_centre = boxes[..., :2] + 0.5 * box_wh
    offsets = torch.cat([(box_centre - anchor_centre) / anchor_wh, torch.log(box_wh / anchor_wh)], dim=-1)
    return torch.stack([offset * weight for offset, weight in zip(offsets.unbind(-1), weights, strict=True)], dim=-1)


def decode(
    deltas: Tensor,
    anchors: Tensor,
    weights: tuple[float, float, float, float],
    growth_bound: Literal["above", "both", "none"] = "above",
) -> Tensor:
    """The inverse of `encode`. Shapes broadcast to (..., 4).

    Args:
        growth_bound: `above` caps log(w / w_a) and log(h / h_a) at `MAX_LOG_SCALE`; `both` also bounds them from below
            by its negative (MMDetection's `delta2bbox`); `none` does not bound them (Matterport).
    """
    deltas = torch.stack([delta / weight for delta, weight in zip(deltas.unbind(-1), weights, strict=True)], dim=-1)
    anchor_wh = anchors[..., 2:] - anchors[..., :2]
    centre = deltas[..., :2] * anchor_wh + anchors[..., :2] + 0.5 * anchor_wh
    growth = deltas[..., 2:]
    if growth_bound != "none":
        growth = growth.clamp(-MAX_LOG_SCALE if growth_bound == "both" else None, MAX_LOG_SCALE)
    half = 0.5 * torch.exp(growth) * anchor_wh
    return torch.cat([centre - half, centre + half], dim=-1)
