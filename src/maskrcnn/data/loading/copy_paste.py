"""Simple copy-paste (Ghiasi et al. 2021): objects of another image are pasted over those of an image.

Legend: H and W of the network input, N objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from maskrcnn.data.loading.sample import Sample
from maskrcnn.data.loading.visible import large_enough, visible_boxes
from maskrcnn.structures.annotations import Annotations, Crop
from maskrcnn.structures.frame import Frame, transform_points


def some_with_masks(annotations: Annotations, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random half of the given objects that have a mask, at least one if there is one; (n,) int64, ascending."""
    usable = numbers[annotations.has_mask[numbers] & ~annotations.crowd[numbers]]
    chosen = usable[rng.random(len(usable)) < 0.5]
    return chosen if len(chosen) else usable[rng.integers(len(usable))][None] if len(usable) else usable


def pasted(sample: Sample, donor: Sample) -> Sample:
    """The sample with all objects of the donor, which all have masks, over its own.

    What they cover is cut out of the masks below. Boxes follow the rest, and an object of which nothing is left is
    dropped. The donor is laid on the top left corner, and what lies beyond the network input of the sample is cut off.
    Every object keeps the mask of its own image and the frame that maps it, so no mask is resampled.
    """
    size_hw = sample.frame.input_hw
    seen = np.ones(donor.frame.input_hw, dtype=np.bool_)
    crops = [_part(crop, seen, donor.frame, outside=False) for crop in donor.crops]
    boxes = visible_boxes(_tight_boxes(crops), crops, replace(donor.frame, input_hw=size_hw))
    boxes = np.minimum(boxes, np.tile(donor.frame.input_hw[::-1], 2))
    kept = np.flatnonzero(large_enough(boxes))
    cover = np.zeros(size_hw, dtype=np.bool_)
    for i in kept:
        _paint(cover, crops[i], boxes[i], donor.frame)
    if not cover.any():
        return sample
    below = _uncovered(sample, cover)
    height, width = (min(ours, theirs) for ours, theirs in zip(size_hw, donor.frame.input_hw, strict=True))
    image = sample.image.clone()
    part = torch.from_numpy(cover[:height, :width])
    image[:, :height, :width] = torch.where(part, donor.image[:, :height, :width], image[:, :height, :width])
    keypoints = below.keypoints
    if keypoints is not None and donor.keypoints is not None:
        keypoints = np.concatenate([keypoints, _inside(donor.keypoints[kept], size_hw)])
    return replace(
        below,
        image=image,
        boxes=np.concatenate([below.boxes, boxes[kept].astype(np.float32)]),
        labels=np.concatenate([below.labels, donor.labels[kept]]),
        crowd=np.concatenate([below.crowd, donor.crowd[kept]]),
        crops=[*below.crops, *(crops[i] for i in kept)],
        pasted_frames=(donor.frame,) * len(kept),
        keypoints=keypoints,
    )


def _uncovered(sample: Sample, cover: np.ndarray) -> Sample:
    """The sample without the covered (H, W) bool part of its objects."""
    crops = [_part(crop, ~cover, sample.frame, outside=True) for crop in sample.crops]
    changed = [i for i, crop in enumerate(crops) if crop is not sample.crops[i]]
    boxes = sample.boxes.copy()
    if changed:
        rest = [crops[i] for i in changed]
        boxes[changed] = visible_boxes(_tight_boxes(rest), rest, sample.frame)
    for i, (x1, y1, x2, y2) in enumerate(sample.boxes):
        if not crops[i][0].size and not sample.crowd[i]:  # without a mask, the box alone tells what is covered
            inside = cover[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
            boxes[i, 2:] = boxes[i, :2] if inside.all() else boxes[i, 2:]
    kept = np.flatnonzero(large_enough(boxes))
    keypoints = None if sample.keypoints is None else _hidden(sample.keypoints[kept], cover)
    return replace(
        sample,
        boxes=boxes[kept],
        labels=sample.labels[kept],
        crowd=sample.crowd[kept],
        crops=[crops[i] for i in kept],
        keypoints=keypoints,
    )


def _paint(cover: np.ndarray, crop: Crop, box: np.ndarray, frame: Frame) -> None:
    """Sets the pixels of an (H, W) bool picture of the network input whose centre lies in a mask.

    Args:
        box: (4,) the visible box of the mask, network-input pixels.
        frame: the frame of the mask.
    """
    bitmap, origin = crop
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    y, x = np.mgrid[top:bottom, left:right] + 0.5
    at = np.floor(transform_points(np.stack([x, y], axis=-1), frame.inverse)).astype(int) - origin
    inside = ((at >= 0) & (at < bitmap.shape[::-1])).all(axis=-1)
    at = np.where(inside[..., None], at, 0)
    cover[top:bottom, left:right] |= inside & (bitmap[at[..., 1], at[..., 0]] > 0)


def _part(crop: Crop, seen: np.ndarray, frame: Frame, *, outside: bool) -> Crop:
    """The mask with only the pixels whose centre is seen; the same crop if all are.

    Args:
        seen: (H, W) bool picture of the network input.
        outside: whether what lies outside of the network input stays in the mask.
    """
    bitmap, origin = crop
    rows, columns = np.nonzero(bitmap)
    centres = np.stack([columns, rows], axis=1) + (np.array(origin) + 0.5)
    at = np.floor(transform_points(centres, frame.matrix)).astype(int)
    inside = ((at >= 0) & (at < seen.shape[::-1])).all(axis=1)
    kept = np.full(len(rows), outside)
    kept[inside] = seen[at[inside, 1], at[inside, 0]]
    if kept.all():
        return crop
    rest = np.zeros_like(bitmap)
    rest[rows[kept], columns[kept]] = 1
    return rest, origin


def _tight_boxes(crops: Sequence[Crop]) -> np.ndarray:
    """(N, 4) float64 x1 y1 x2 y2 of the foreground of each crop, original pixels; zeros for an empty one."""
    boxes = np.zeros((len(crops), 4))
    for box, (bitmap, origin) in zip(boxes, crops, strict=True):
        rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
        if len(rows):
            box[:] = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + np.tile(origin, 2)
    return boxes


def _inside(keypoints: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Keypoints (N, K, 3) with zeros for those beyond a network input, as `visible_keypoints` has them."""
    inside: np.ndarray = keypoints * (keypoints[..., :2] <= size_hw[::-1]).all(axis=-1, keepdims=True)
    return inside


def _hidden(keypoints: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """Keypoints (N, K, 3) of which the covered ones are no longer visible, but hidden."""
    last = np.array(cover.shape[::-1]) - 1
    x, y = np.moveaxis(np.clip(keypoints[..., :2].astype(int), 0, last), -1, 0)
    result = keypoints.copy()
    result[..., 2] = np.where(cover[y, x], np.minimum(keypoints[..., 2], 1), keypoints[..., 2])
    return result
