"""TensorFlow's `crop_and_resize` over all levels of a pyramid in one call, as in Matterport's Mask R-CNN.

It uses the lookup and the legend of `ops.roi_align`. The slow twin is `ops.reference.rois.roi_crop`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn.ops.roi_align import Axis, averages, in_cells, roi_maps, table_rows, to_maps

# Cells by which rounding may move the last sample of a RoI outside the map.
_SLACK = 1e-3


def roi_crop(
    features: Sequence[Tensor],
    boxes: Tensor,
    image_index: Tensor,
    level: Tensor,
    *,
    strides: Sequence[float],
    output_size: int,
    trim: float = 0.0,
) -> Tensor:
    """O x O bilinear samples of each RoI. The outermost samples are on the border of the RoI.

    The first cell's centre of a map is at the start of the image, and the last cell's centre at its end. A map of
    stride s belongs to an image of s * h x s * w pixels. Samples outside the map are zero.

    Args:
        features: one (B, C, h, w) map per level, channels-last for speed.
        boxes: (R, 4) float32, network-input pixels; not differentiated. A box that is not finite gives zeros.
        image_index: (R,) int64, the image of the batch that each box belongs to.
        level: (R,) int64, index into `features`.
        strides: network-input pixels per cell of each level.
        output_size: O.
        trim: pixels by which boxes and image end before their right and lower edges: 1 if x2 is the last pixel.

    Returns:
        (R, C, O, O) in the dtype of `features`, channels-last in memory.
    """
    maps = roi_maps(features, image_index, level)
    if len(boxes) == 0:
        return to_maps(maps.table[:0], 0, output_size)
    with torch.no_grad():
        edges = in_cells(boxes, level, strides)
        stride = boxes.new_tensor([float(s) for s in strides])[level]
        x, y = (
            _border_to_border(edges[:, axis], edges[:, axis + 2], cells, stride, output_size, trim)
            for axis, cells in ((0, maps.width), (1, maps.height))
        )
        rows = Axis(table_rows(maps, y.cells), y.weights, y.number)
    return to_maps(averages(maps.table, rows, x), len(boxes), output_size)


def _border_to_border(low: Tensor, high: Tensor, cells: Tensor, stride: Tensor, bins: int, trim: float) -> Axis:
    """One sample per bin on one axis, evenly spaced from one end of a RoI to the other.

    Args:
        low, high: (R,) edges divided by the stride.
        cells: (R,) int64, cells of the axis.
        stride: (R,) network-input pixels per cell.
    """
    last = (cells - 1).to(low.dtype)[:, None, None]
    to_cells = last[:, 0, 0] * stride / (cells * stride - trim)
    step = torch.linspace(0, 1, bins, device=low.device) if bins > 1 else low.new_tensor([0.5])
    at = ((low + (high - low) * step[:, None]).T * to_cells[:, None])[..., None]  # (R, O, 1)
    inside = (at >= -_SLACK) & (at <= last + _SLACK)
    at = torch.minimum(at.clamp(min=0.0), last)
    before = at.floor()
    fraction = at - before
    weights = torch.stack([1 - fraction, fraction], dim=-1) * inside[..., None]
    both = torch.stack([before, torch.minimum(before + 1, last)], dim=-1).to(torch.int64)
    return Axis(both, weights, torch.ones_like(both[..., 0, 0]))
