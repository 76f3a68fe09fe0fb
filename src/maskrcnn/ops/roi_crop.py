"""TensorFlow's `crop_and_resize` over all levels of a pyramid in one call, as Matterport's Mask R-CNN uses it.

It uses the lookup of `ops.roi_align`, whose legend holds here; `ops.reference.rois.roi_crop` is the slow twin.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from maskrcnn.ops.roi_align import Axis, averages, in_cells, roi_maps, table_rows, to_maps

# The last sample of a RoI that ends at the border of the map may lie outside by so many cells, from rounding.
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
    """O x O bilinear samples of each RoI, the outer ones on its border.

    The centre of a map's first cell is the start of the image, and the centre of its last cell is the end. Samples
    outside the map are zero.

    Args:
        features: one (B, C, h, w) map a level, channels-last for speed; a map of stride s covers s * h x s * w pixels.
        boxes: (R, 4) float32, network-input pixels; not differentiated. A box that is not finite gives zeros.
        image_index: (R,) int64, which image of the batch a box belongs to.
        level: (R,) int64, index into `features`.
        strides: network-input pixels a cell of each level.
        output_size: O.
        trim: pixels by which boxes end before their edge, and so does the image: 1 where x2 is the last pixel.

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
    """One sample a bin from one end of a RoI to the other, on one axis.

    Args:
        low, high: (R,) edges divided by the stride; cells: (R,) int64 of the axis; stride: (R,).
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
