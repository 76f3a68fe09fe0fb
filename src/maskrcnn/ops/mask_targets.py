"""Mask targets of RoIs, sampled directly from cropped ground-truth bitmaps in original pixels.

Legend: R RoIs, M side of a target, S samples per cell and axis, P points per RoI.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

_GROUP = 16  # adaptive sampling processes this number of RoIs at a time


class MaskCrops(NamedTuple):
    """The ground-truth masks of R RoIs, each cropped to its own box, in pixels of its original image.

    Attributes:
        pixels: (T,) uint8, all crops one after another, row by row.
        offsets: (R,) int64, the position in `pixels` at which each crop starts.
        sizes_hw: (R, 2) int64, height and width of each crop.
        origins_xy: (R, 2) int64, the original pixel of each crop's top left corner.
        to_original: (R, 2, 3) float32, maps network-input pixels (x, y, 1) to original pixels.
        image_hw: (R, 2) int64, size of the original image.
    """

    pixels: Tensor
    offsets: Tensor
    sizes_hw: Tensor
    origins_xy: Tensor
    to_original: Tensor
    image_hw: Tensor

    def select(self, index: Tensor) -> MaskCrops:
        """The masks at the positions (R',) int64, which share the pixels."""
        return MaskCrops(self.pixels, *(part[index] for part in self[1:]))


def sample_bitmaps(masks: MaskCrops, points_xy: Tensor) -> Tensor:
    """Bilinear samples of R cropped bitmaps at P points each. Pixels outside a crop are zero.

    Args:
        points_xy: (R, P, 2) float32, continuous original pixels. A point up to a pixel outside the outermost pixel
            centres is moved to them; further outside the sample is zero.

    Returns:
        (R, P) float32 in 0..1.
    """
    at = points_xy - 0.5  # a pixel's value is at its centre
    last = masks.image_hw.flip(-1)[:, None].to(at.dtype) - 1
    inside = ((at >= -1) & (at <= last + 1)).all(-1)
    # A diverging network gives coordinates that are not finite. They are not inside and must not become indices.
    at = torch.minimum(at.where(inside[..., None], 0.0).clamp(min=0), last)
    first = at.floor()
    x_fraction, y_fraction = (at - first).unbind(-1)
    x0, y0 = (first.to(torch.int64) - masks.origins_xy[:, None]).unbind(-1)
    result = torch.zeros_like(x_fraction)
    for y, y_weight in ((y0, 1 - y_fraction), (y0 + 1, y_fraction)):
        for x, x_weight in ((x0, 1 - x_fraction), (x0 + 1, x_fraction)):
            result += _look_up(masks, x, y) * (y_weight * x_weight)
    return torch.where(inside, result, 0)


def sample_resized(masks: MaskCrops, points_xy: Tensor, *, corner: bool = False) -> Tensor:
    """Bilinear samples of the bitmaps, as if nearest-neighbour interpolation had resized them with the image.

    A pixel of the network input has the value of the original pixel under its centre. Pixels outside the image repeat
    its border.

    Args:
        points_xy: (R, P, 2) float32, continuous network-input pixels.
        corner: a pixel has the value of the original pixel under its top left corner instead, as with OpenCV's
            INTER_NEAREST (MMDetection).

    Returns:
        (R, P) float32 in 0..1.
    """
    at = (points_xy - 0.5).nan_to_num(0.0)  # a diverging network gives NaN
    first = at.floor()
    fraction = at - first
    linear, shift = masks.to_original[:, :, :2].transpose(1, 2), masks.to_original[:, None, :, 2]
    if corner:
        # The corner is half a pixel before the centre, even in a flipped image; 1e-4 undoes rounding below an integer.
        shift = shift - linear.abs().sum(1)[:, None] / 2 + 1e-4
    last = masks.image_hw.flip(-1)[:, None].to(at.dtype) - 1
    result = torch.zeros_like(fraction[..., 0])
    for dy in (0, 1):
        for dx in (0, 1):
            centre = torch.stack([first[..., 0] + (dx + 0.5), first[..., 1] + (dy + 0.5)], dim=-1)
            # No matrix product, because autocast would round it to bfloat16.
            original = (centre[..., None] * linear[:, None]).sum(2) + shift
            pixel = torch.minimum(original.floor().clamp(min=0), last).to(torch.int64)
            x, y = (pixel - masks.origins_xy[:, None]).unbind(-1)
            weight = (fraction if dx else 1 - fraction)[..., 0] * (fraction if dy else 1 - fraction)[..., 1]
            result += _look_up(masks, x, y) * weight
    return result


def _look_up(masks: MaskCrops, x: Tensor, y: Tensor) -> Tensor:
    """Values (R, P) float32 of R crops at their columns x and rows y, (R, P) int64; 0 outside the crop."""
    height, width = masks.sizes_hw[:, None, 0], masks.sizes_hw[:, None, 1]
    hit = (x >= 0) & (y >= 0) & (x < width) & (y < height)
    index = torch.where(hit, masks.offsets[:, None] + y * width + x, 0)
    return torch.where(hit, masks.pixels[index].to(torch.float32), 0)


def mask_targets(
    boxes: Tensor,
    masks: MaskCrops,
    *,
    size: int,
    sampling_ratio: int = 2,
    aligned: bool = True,
    threshold: float | None = None,
    pixels: Literal["original", "network", "network_corner"] = "original",
    crop_and_resize: bool = False,
) -> Tensor:
    """The M x M target of each RoI: the object's bitmap averaged over S x S samples per cell (paper section 3.1).

    Args:
        boxes: (R, 4) float32, network-input pixels.
        masks: the ground-truth masks of the R matched objects.
        size: M.
        sampling_ratio: S; 0 takes ceil(RoI side / M) for each RoI and axis, as torchvision and Detectron2 do.
        aligned: False samples half a pixel further, and RoIs are at least one pixel wide (RoIAlign's older rule).
        threshold: targets are 1 if the average is at least this, otherwise 0; None keeps the averages.
        pixels: `original` samples the bitmap itself; `network` and `network_corner` sample it as `sample_resized` does.
        crop_and_resize: whether there is one sample per cell, the outermost ones on the border of the RoI, whose edges
            then are pixel indices (TensorFlow's crop_and_resize). `sampling_ratio` and `aligned` have no effect then.

    Returns:
        (R, M, M) float32.
    """
    if len(boxes) == 0:
        return boxes.new_zeros((0, size, size))
    if crop_and_resize:
        # The M samples span M - 1 steps. They are the centres of M cells, which reach half a step further out.
        grow = (boxes[:, 2:] - boxes[:, :2]) / (2 * max(size - 1, 1))
        boxes, sampling_ratio, aligned = torch.cat([boxes[:, :2] - grow, boxes[:, 2:] + grow], 1) + 0.5, 1, True
    start, length = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    if not aligned:
        start, length = start + 0.5, length.clamp(min=1.0)
    cell = length / size
    if sampling_ratio:
        counts = torch.full_like(cell, sampling_ratio)
        groups: Sequence[Tensor] = [torch.arange(len(boxes), device=boxes.device)]
        largest = [[sampling_ratio] * 2]
    else:
        counts = cell.ceil().clamp(min=1)
        # A group has RoIs of similar size, because all of them take as many samples as the largest needs.
        groups = counts.amax(1).argsort().split(_GROUP)
        # The host waits for the device once and not for every group.
        largest = torch.stack([counts[group].amax(0) for group in groups]).to(torch.int64).tolist()
    targets = boxes.new_empty((len(boxes), size, size))
    for group, slots in zip(groups, largest, strict=True):
        targets[group] = _averages(
            start[group], cell[group], counts[group], slots, masks.select(group), size=size, pixels=pixels
        )
    return targets if threshold is None else (targets >= threshold).to(targets.dtype)


def _averages(
    start: Tensor,
    cell: Tensor,
    counts: Tensor,
    slots: Sequence[int],
    masks: MaskCrops,
    *,
    size: int,
    pixels: Literal["original", "network", "network_corner"],
) -> Tensor:
    """Averages (R, M, M) over the samples of each cell.

    Args:
        start, cell: (R, 2) float32 x, y: top left corner of the RoI and sides of a cell, network-input pixels.
        counts: (R, 2) float32, samples per cell in x and y.
        slots: the largest counts in x and y.
    """
    x, x_weights = _axis(start[:, 0], cell[:, 0], counts[:, 0], slots[0], size)
    y, y_weights = _axis(start[:, 1], cell[:, 1], counts[:, 1], slots[1], size)
    samples = _at_points(x[:, None, :], y[:, :, None], masks, pixels)
    # No einsum, because autocast would round its matrix product to bfloat16.
    targets = (samples.view(-1, size, slots[1], size, slots[0]) * x_weights[:, None, None, None, :]).sum(4)
    return (targets * y_weights[:, None, :, None]).sum(2)


def _axis(start: Tensor, cell: Tensor, counts: Tensor, slots: int, size: int) -> tuple[Tensor, Tensor]:
    """Positions (R, M * S) of the samples on one axis, and weights (R, S) of the samples of a cell; S = slots."""
    step = torch.arange(slots, device=start.device, dtype=start.dtype)
    cells = torch.arange(size, device=start.device, dtype=start.dtype)
    within = (step + 0.5) / counts[:, None]  # fraction of a cell
    at = start[:, None, None] + (cells[:, None] + within[:, None, :]) * cell[:, None, None]
    return at.flatten(1), (step < counts[:, None]) / counts[:, None]


def _at_points(
    x: Tensor, y: Tensor, masks: MaskCrops, pixels: Literal["original", "network", "network_corner"]
) -> Tensor:
    """Samples (R, H * W) at the grid of columns x (R, 1, W) and rows y (R, H, 1), network-input pixels."""
    if pixels != "original":
        points = torch.stack(torch.broadcast_tensors(x, y), dim=-1)
        return sample_resized(masks, points.flatten(1, 2), corner=pixels == "network_corner")
    linear, shift = masks.to_original[:, :, :2], masks.to_original[:, :, 2]
    points = torch.stack(
        [linear[:, i, 0, None, None] * x + linear[:, i, 1, None, None] * y + shift[:, i, None, None] for i in (0, 1)],
        dim=-1,
    )
    return sample_bitmaps(masks, points.flatten(1, 2))
