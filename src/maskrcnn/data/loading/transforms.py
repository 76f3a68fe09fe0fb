"""Training samples: a random frame is chosen, the image is resized once, then its colours are jittered.

Legend: N objects of the sample, K keypoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from torch import Tensor

from maskrcnn.config import AugmentConfig, Config
from maskrcnn.ops.resize_part import nearest_start
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.frame import Frame, letterboxed, resized_frame, transform_boxes, transform_points
from maskrcnn.structures.images import resize_to_network, stretched
from maskrcnn.structures.keypoints import swap_sides

MOST_MASK_PIXELS = 1 << 27  # of all mask crops of a sample, one byte each
SMALLEST_SIDE = 1.0  # network-input pixels; objects whose visible box has a shorter side are left out
OBJECT_IN_CROP = 0.5  # probability that a random crop must show a randomly chosen object


@dataclass(frozen=True)
class Sample:
    """One training image. Boxes are in pixels of `image`, mask crops in pixels of the original file.

    Attributes:
        image: (C, h, w), as `resize_to_network` gives it.
        boxes: (N, 4) float32 x1 y1 x2 y2.
        labels: (N,) int64, -1 for crowd regions.
        crowd: (N,) bool.
        crops: N pairs of (h, w) uint8 bitmap and (x, y) of its top left corner; the bitmap is (0, 0) without a mask.
        frame: maps pixels of the original to pixels of `image`, and back.
        image_id: the id in the annotation file.
        skipped: why images could not be read that this one replaces.
        remarks: what a person should know of reading the image, such as pages that are not read.
        keypoints: (N, K, 3) float32 x, y in pixels of `image` and visibility 0, 1 or 2; None if no category has any.
    """

    image: Tensor
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    crops: list[tuple[np.ndarray, tuple[int, int]]]
    frame: Frame
    image_id: int | str
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    keypoints: np.ndarray | None = None


def training_sample(dataset: Dataset, index: int, config: Config, rng: np.random.Generator) -> Sample:
    """Reads image number `index` and augments it as `config.augment` says.

    Without augmentation, the image is the network input of prediction.

    Raises:
        ImageError: the file cannot be read, or its size differs from the record.
    """
    record, annotations = dataset.records[index], dataset.annotations(index)
    objects = annotations.boxes[~annotations.crowd]
    frame = random_frame((record.height, record.width), objects, config, rng)
    choose = partial(within_limits, max_objects=config.train.max_objects, rng=rng)
    sample = framed_sample(dataset, index, frame, config, choose)
    return replace(sample, image=jitter_colour(sample.image, config.augment, rng))


def framed_sample(
    dataset: Dataset,
    index: int,
    frame: Frame,
    config: Config,
    choose: Callable[[Annotations, np.ndarray], np.ndarray] = lambda annotations, numbers: numbers,
) -> Sample:
    """Image number `index` and its annotations, mapped by a frame. Masks of objects outside it are not decoded.

    Args:
        choose: gets the annotations of the image and the numbers of those in the frame, and returns the numbers of
            those to keep.

    Raises:
        ImageError: the file cannot be read, or its size differs from the record.
    """
    remarks: list[str] = []
    stored = dataset.read(index, remarks.append, config.image.channel_names)
    image = resize_to_network(stretched(stored, config.image.channels), frame, config.conventions.pixels)
    annotations = dataset.annotations(index)
    clipped = _clipped(transform_boxes(annotations.boxes.astype(np.float64), frame.matrix), frame.input_hw)
    candidates = choose(annotations, np.flatnonzero(_large_enough(clipped)))
    crops = annotations.crops(candidates)
    boxes = visible_boxes(annotations.boxes[candidates], crops, frame)
    seen = np.flatnonzero(_large_enough(boxes))
    keep = candidates[seen]
    keypoints = annotations.keypoints
    if keypoints is not None:
        names = [dataset.categories[label].keypoints for label in annotations.labels[keep]]
        keypoints = visible_keypoints(keypoints[keep].astype(np.float32), names, frame)
    return Sample(
        image=image,
        boxes=boxes[seen].astype(np.float32),
        labels=np.where(annotations.crowd, -1, annotations.labels)[keep],
        crowd=annotations.crowd[keep],
        crops=[crops[i] for i in seen],
        frame=frame,
        image_id=dataset.records[index].image_id,
        remarks=tuple(remarks),
        keypoints=keypoints,
    )


def within_limits(
    annotations: Annotations, numbers: np.ndarray, max_objects: int, rng: np.random.Generator
) -> np.ndarray:
    """The given annotations of an image, or a random part of them if they are too many or their masks too large.

    Args:
        numbers: (n,) int64, ascending.
        max_objects: annotations to keep, at most. All their boxes together have at most `MOST_MASK_PIXELS` pixels,
            unless there is only one.

    Returns:
        (m,) int64, ascending.
    """
    boxes = annotations.boxes[numbers]
    pixels = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64).clip(0).prod(axis=1) * annotations.has_mask[numbers]
    if len(numbers) <= max_objects and pixels.sum() <= MOST_MASK_PIXELS:
        return numbers
    order = rng.permutation(len(numbers))[:max_objects]
    fits = np.cumsum(pixels[order]) <= MOST_MASK_PIXELS
    return np.sort(numbers[order[: max(1, int(fits.sum()))]])


def random_frame(size_hw: tuple[int, int], boxes: np.ndarray, config: Config, rng: np.random.Generator) -> Frame:
    """The frame of a training sample: resized by a random factor, cropped to a random window, flipped and turned.

    Args:
        size_hw: height and width of the original image.
        boxes: (N, 4) objects in original pixels; half of the windows must show a randomly chosen one.
    """
    augment = config.augment
    low, high = augment.scale_jitter
    factor = math.exp(rng.uniform(math.log(low), math.log(high)))
    frame = resized_frame(size_hw, config, factor)
    turns = int(rng.integers(4)) if augment.quarter_turns else 0
    window_hw = _window_hw(config)
    if window_hw is not None:
        frame = _random_window(frame, window_hw[::-1] if turns % 2 else window_hw, boxes, config, rng)
    if rng.random() < augment.flip_horizontal:
        frame = frame.flipped_horizontally()
    if rng.random() < augment.flip_vertical:
        frame = frame.flipped_vertically()
    for _ in range(turns):
        frame = frame.turned()
    # Letterbox padding around a random crop would black out parts of the image.
    return frame if augment.crop else letterboxed(frame, config)


def _window_hw(config: Config) -> tuple[int, int] | None:
    """Maximum height and width of a resized image before letterbox padding; None if there is no maximum."""
    side, letterbox = config.image.long_side, config.conventions.pixels.letterbox
    return config.augment.crop or config.image.fixed_size or ((side, side) if letterbox == "square" else None)


def _random_window(
    frame: Frame, window_hw: tuple[int, int], boxes: np.ndarray, config: Config, rng: np.random.Generator
) -> Frame:
    """The frame of a random crop of this height and width, or smaller where the resized image is smaller."""
    (height, width), matrix = frame.input_hw, frame.matrix
    out_h, out_w = min(height, window_hw[0]), min(width, window_hw[1])
    target = None
    if (out_h, out_w) != (height, width) and len(boxes) and rng.random() < OBJECT_IN_CROP:
        x1, y1, x2, y2 = transform_boxes(boxes[rng.integers(len(boxes))][None].astype(np.float64), matrix)[0]
        target = (x1 + x2) / 2, (y1 + y2) / 2
    left: float = _random_start(width, out_w, target[0] if target else None, rng)
    top: float = _random_start(height, out_h, target[1] if target else None, rng)
    if config.conventions.pixels.kernel == "antialias":  # `resize_part` needs such a start to resize the window alone
        left, top = nearest_start(int(left), matrix[0, 0]), nearest_start(int(top), matrix[1, 1])
    return frame.cropped(left, top, (out_h, out_w))


def visible_boxes(boxes: np.ndarray, crops: list[tuple[np.ndarray, tuple[int, int]]], frame: Frame) -> np.ndarray:
    """The boxes of the visible parts of objects.

    A box that extends beyond the network input shrinks to the visible part of its mask. It becomes empty if no part of
    the mask is visible.

    Args:
        boxes: (N, 4) x1 y1 x2 y2 in original pixels.
        crops: the N masks, as in `Sample.crops`.

    Returns:
        (N, 4) float64 x1 y1 x2 y2 in network-input pixels, clipped to the network input.
    """
    height, width = frame.original_hw
    network_input = np.array([[0.0, 0.0, frame.input_hw[1], frame.input_hw[0]]])
    window = np.clip(transform_boxes(network_input, frame.inverse)[0], 0, [width, height, width, height])
    seen = boxes.astype(np.float64)
    inside = (seen[:, :2] >= window[:2] - 1e-6).all(axis=1) & (seen[:, 2:] <= window[2:] + 1e-6).all(axis=1)
    for i in np.flatnonzero(~inside):
        bitmap, origin = crops[i]
        if bitmap.size:
            part = visible_box(bitmap, origin, window)
            seen[i] = np.tile(window[:2], 2) if part is None else part
    return _clipped(transform_boxes(seen, frame.matrix), frame.input_hw)


def visible_box(bitmap: np.ndarray, origin_xy: tuple[int, int], window: np.ndarray) -> np.ndarray | None:
    """The tight box of the part of a mask that lies in a window.

    Args:
        bitmap: (h, w) uint8 crop of the mask.
        origin_xy: the original pixel of its top left corner.
        window: (4,) x1 y1 x2 y2, original pixels.

    Returns:
        (4,) float64 x1 y1 x2 y2 in original pixels, clipped to the window; None if no part lies in the window.
    """
    x0, y0 = origin_xy
    low = np.maximum(np.floor(window[:2]).astype(int) - (x0, y0), 0)
    high = np.maximum(np.ceil(window[2:]).astype(int) - (x0, y0), 0)
    part = bitmap[low[1] : high[1], low[0] : high[0]]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if len(rows) == 0:
        return None
    start = np.array([x0, y0]) + low
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) + np.tile(start, 2)
    box = np.concatenate([np.maximum(box[:2], window[:2]), np.minimum(box[2:], window[2:])])
    return box if (box[2:] > box[:2]).all() else None


def _clipped(boxes: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    return np.clip(boxes, 0, [size_hw[1], size_hw[0], size_hw[1], size_hw[0]])


def _large_enough(boxes: np.ndarray) -> np.ndarray:
    """(N,) bool: boxes (N, 4) in network-input pixels whose sides are at least `SMALLEST_SIDE`."""
    return (boxes[:, 2:] - boxes[:, :2] >= SMALLEST_SIDE).all(axis=1)


def visible_keypoints(keypoints: np.ndarray, names: Sequence[tuple[str, ...]], frame: Frame) -> np.ndarray:
    """Maps keypoints to the network input. Left and right keypoints are swapped if the frame mirrors the image.

    Args:
        keypoints: (N, K, 3) float32 x, y, visibility, original pixels.
        names: for each of the N objects, the names of its keypoints; empty if its category has none.

    Returns:
        (N, K, 3) float32 x, y, visibility in network-input pixels; zeros for keypoints that are unlabelled or outside.
    """
    points = transform_points(keypoints[..., :2].astype(np.float64), frame.matrix)
    seen = (keypoints[..., 2] > 0) & (points >= 0).all(axis=-1) & (points <= frame.input_hw[::-1]).all(axis=-1)
    result = np.concatenate([points, keypoints[..., 2:]], axis=-1, dtype=np.float32) * seen[..., None]
    return swap_sides(result, names) if np.linalg.det(frame.matrix) < 0 else result


def jitter_colour(image: Tensor, augment: AugmentConfig, rng: np.random.Generator) -> Tensor:
    """Changes brightness, contrast, saturation and hue of a (C, h, w) image at random; uint8 or float32 in 0..255.

    Without three channels there is no hue and no saturation, and each channel has a contrast of its own.
    """
    from torchvision.transforms.v2 import functional as tf

    colours = ("saturation", "hue") if len(image) == 3 else ()
    strengths = {name: getattr(augment, name) for name in ("brightness", "contrast", *colours)}
    if not any(strengths.values()):
        return image
    pixels = image / 255 if image.is_floating_point() else image  # torchvision takes floats in 0..1
    if not colours:
        pixels = pixels[:, None]  # to torchvision, a batch of grey images
    hue = strengths.pop("hue", 0.0)
    for name, strength in strengths.items():
        if strength:
            pixels = getattr(tf, f"adjust_{name}")(pixels, float(rng.uniform(1 - strength, 1 + strength)))
    if hue:
        pixels = tf.adjust_hue(pixels, float(rng.uniform(-hue, hue)))
    pixels = pixels.reshape(image.shape)
    return pixels * 255 if image.is_floating_point() else pixels


def _random_start(length: int, window: int, target: float | None, rng: np.random.Generator) -> int:
    """A random start of a window on one axis; if `target` is given, the window contains that coordinate."""
    low, high = 0, length - window
    if target is not None:
        low, high = max(low, math.ceil(target - window)), min(high, math.floor(target))
    return int(rng.integers(low, max(low, high) + 1))
