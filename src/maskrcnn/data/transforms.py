"""From a record to a training sample: geometry as one matrix, one resampling, then colour.

Legend: N objects of the sample, K keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from maskrcnn.config import AugmentConfig, Config
from maskrcnn.data.coco import CocoDataset
from maskrcnn.data.geometry import (
    horizontal_flip,
    quarter_turn,
    scaling,
    transform_boxes,
    transform_points,
    translation,
    vertical_flip,
    visible_box,
    warp_image,
    window_start,
)
from maskrcnn.structures.images import Placement, exact_scale, place, size_with_bars
from maskrcnn.structures.keypoints import flip_pairs

SMALLEST_SIDE = 1.0  # network-input pixels; objects whose visible part is thinner are left out
OBJECT_IN_CROP = 0.5  # share of crops that are placed so as to show a chosen object


@dataclass(frozen=True)
class Sample:
    """One training image. Boxes are in pixels of `image`, mask crops in pixels of the original file.

    Attributes:
        image: (3, h, w) uint8.
        boxes: (N, 4) float32.
        labels: (N,) int64, -1 for crowd regions.
        crowd: (N,) bool.
        crops: N pairs of (h, w) uint8 bitmap and (x, y) of its top left corner; the bitmap is (0, 0) without a mask.
        to_original: (2, 3) float32, network-input (x, y, 1) to original pixels.
        image_hw: size of the original.
        image_id: as in the data set.
        skipped: images that were drawn first and could not be read, and why.
        keypoints: (N, K, 3) float32 x, y in pixels of `image` and visibility 0, 1 or 2; None when the data have none.
    """

    image: Tensor
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    crops: list[tuple[np.ndarray, tuple[int, int]]]
    to_original: np.ndarray
    image_hw: tuple[int, int]
    image_id: int | str
    skipped: tuple[str, ...] = ()
    keypoints: np.ndarray | None = None


def training_sample(dataset: CocoDataset, index: int, config: Config, rng: np.random.Generator) -> Sample:
    """Reads image number `index` and changes it as `config.augment` says, with the draws of `rng`.

    Raises:
        ImageError: the file cannot be read or has another size than its record.
    """
    record, annotations = dataset.records[index], dataset.annotations(index)
    objects = annotations.boxes[~annotations.crowd]
    matrix, out_hw = draw_matrix((record.height, record.width), objects, config, rng)
    sample = transformed_sample(dataset, index, matrix, out_hw)
    return replace(sample, image=jitter_colour(sample.image, config.augment, rng))


def transformed_sample(dataset: CocoDataset, index: int, matrix: np.ndarray, out_hw: tuple[int, int]) -> Sample:
    """Image number `index` and its annotations through a matrix; masks of objects out of sight are never drawn.

    Args:
        matrix: original to network-input pixels, as `warp_image` takes it.
        out_hw: height and width of the network input.

    Raises:
        ImageError: the file cannot be read or has another size than its record.
    """
    image = warp_image(dataset.read(index), matrix, out_hw)
    record, annotations = dataset.records[index], dataset.annotations(index)
    size = record.height, record.width
    inverse = np.linalg.inv(matrix)
    whole = _clipped(transform_boxes(annotations.boxes.astype(np.float64), matrix), out_hw)
    near = np.flatnonzero(_thick(whole))
    crops = dataset.crops(index, near)
    boxes = visible_boxes(annotations.boxes[near], crops, matrix, inverse, size, out_hw)
    seen = np.flatnonzero(_thick(boxes))
    keep = near[seen]
    keypoints = dataset.keypoints(index)
    if keypoints is not None:
        named = [dataset.categories[label].keypoints for label in annotations.labels[keep]]
        keypoints = visible_keypoints(keypoints[keep], named, matrix, out_hw)
    return Sample(
        image=image,
        boxes=boxes[seen].astype(np.float32),
        labels=np.where(annotations.crowd, -1, annotations.labels)[keep],
        crowd=annotations.crowd[keep],
        crops=[crops[i] for i in seen],
        to_original=inverse[:2].astype(np.float32),
        image_hw=size,
        image_id=record.image_id,
        keypoints=keypoints,
    )


def draw_matrix(
    size_hw: tuple[int, int],
    boxes: np.ndarray,
    config: Config,
    rng: np.random.Generator,
) -> tuple[np.ndarray, tuple[int, int]]:
    """The matrix from original to network-input pixels, and the height and width of the result.

    Args:
        size_hw: of the original.
        boxes: (N, 4) objects in original pixels; half of all crops show a random one of them.
    """
    image_config, augment, rules = config.image, config.augment, config.conventions.pixels
    height, width = place(*size_hw, image_config, rules).size_hw
    low, high = augment.scale_jitter
    factor = math.exp(rng.uniform(math.log(low), math.log(high)))
    height, width = max(1, round(height * factor)), max(1, round(width * factor))
    exact = exact_scale(*size_hw, image_config, rules)
    matrix = (
        scaling(width / size_hw[1], height / size_hw[0]) if exact is None else scaling(exact * factor, exact * factor)
    )
    turns = int(rng.integers(4)) if augment.quarter_turns else 0

    square = (image_config.long_side, image_config.long_side) if rules.letterbox == "square" else None
    window = augment.crop or image_config.fixed_size or square
    if window is None:
        window = height, width
    elif turns % 2:  # it is turned with the image
        window = window[1], window[0]
    out_h, out_w = min(height, window[0]), min(width, window[1])
    target = None
    if (out_h, out_w) != (height, width) and len(boxes) and rng.random() < OBJECT_IN_CROP:
        x1, y1, x2, y2 = transform_boxes(boxes[rng.integers(len(boxes))][None].astype(np.float64), matrix)[0]
        target = (x1 + x2) / 2, (y1 + y2) / 2
    left = window_start(_draw_start(width, out_w, target[0] if target else None, rng), matrix[0, 0])
    top = window_start(_draw_start(height, out_h, target[1] if target else None, rng), matrix[1, 1])
    matrix = translation(-left, -top) @ matrix

    if rng.random() < augment.flip_horizontal:
        matrix = horizontal_flip(out_w) @ matrix
    if rng.random() < augment.flip_vertical:
        matrix = vertical_flip(out_h) @ matrix
    for _ in range(turns):
        matrix = quarter_turn(out_h) @ matrix
        out_h, out_w = out_w, out_h
    if augment.crop:  # bars around a window would show what lies outside of it
        return matrix, (out_h, out_w)
    placed = Placement((out_h, out_w), size_with_bars((out_h, out_w), image_config, rules))
    return translation(*placed.origin_xy) @ matrix, placed.input_hw


def visible_boxes(
    boxes: np.ndarray,
    crops: list[tuple[np.ndarray, tuple[int, int]]],
    matrix: np.ndarray,
    inverse: np.ndarray,
    size_hw: tuple[int, int],
    out_hw: tuple[int, int],
) -> np.ndarray:
    """(N, 4) float64 boxes in network-input pixels, clipped to the output; those that are cut by it shrink to what
    is seen of their mask, and are empty where nothing is."""
    frame = np.array([[0.0, 0.0, out_hw[1], out_hw[0]]])
    window = transform_boxes(frame, inverse)[0]
    window = np.clip(window, 0, [size_hw[1], size_hw[0], size_hw[1], size_hw[0]])
    seen = boxes.astype(np.float64)
    inside = (seen[:, :2] >= window[:2] - 1e-6).all(axis=1) & (seen[:, 2:] <= window[2:] + 1e-6).all(axis=1)
    for i in np.flatnonzero(~inside):
        bitmap, origin = crops[i]
        if bitmap.size:
            part = visible_box(bitmap, origin, window)
            seen[i] = np.tile(window[:2], 2) if part is None else part
    return _clipped(transform_boxes(seen, matrix), out_hw)


def _clipped(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    return np.clip(boxes, 0, [size_hw[1], size_hw[0], size_hw[1], size_hw[0]])


def _thick(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool, which boxes are not too thin to be learnt."""
    return (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(axis=1)


def visible_keypoints(
    keypoints: np.ndarray, names: Sequence[tuple[str, ...]], matrix: np.ndarray, out_hw: tuple[int, int]
) -> np.ndarray:
    """Keypoints in the network input. What the matrix moves out of it is not labelled there.

    A mirrored left hand looks like a right one: where the matrix mirrors, left and right change places.

    Args:
        keypoints: (N, K, 3) float32 x, y, visibility, original pixels.
        names: of the K keypoints of each of the N objects; empty for one without keypoints.
        matrix: original to network-input pixels.
        out_hw: height and width of the network input.

    Returns:
        (N, K, 3) float32; zeros where nothing is labelled.
    """
    points = transform_points(keypoints[..., :2].astype(np.float64), matrix)
    seen = (keypoints[..., 2] > 0) & (points >= 0).all(axis=-1) & (points <= out_hw[::-1]).all(axis=-1)
    result = np.concatenate([points, keypoints[..., 2:]], axis=-1, dtype=np.float32) * seen[..., None]
    if np.linalg.det(matrix) < 0:
        order = np.tile(np.arange(keypoints.shape[1]), (len(keypoints), 1))
        for row, own in zip(order, names, strict=True):
            for left, right in flip_pairs(own):
                row[[left, right]] = right, left
        result = np.take_along_axis(result, order[..., None], axis=1)
    return result


def jitter_colour(image: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """Random brightness, contrast, saturation and hue of a (3, h, w) uint8 image."""
    from torchvision.transforms.v2 import functional as tf

    for name in ("brightness", "contrast", "saturation"):
        strength = getattr(augment, name)
        if strength:
            image = getattr(tf, f"adjust_{name}")(image, float(rng.uniform(1 - strength, 1 + strength)))
    if augment.hue:
        image = tf.adjust_hue(image, float(rng.uniform(-augment.hue, augment.hue)))
    return image


def _draw_start(length: int, window: int, target: float | None, rng: np.random.Generator) -> int:
    """Where a window begins on one axis, uniformly among the places that show `target`."""
    low, high = 0, length - window
    if target is not None:
        low, high = max(low, math.ceil(target - window)), min(high, math.floor(target))
    return int(rng.integers(low, max(low, high) + 1))
