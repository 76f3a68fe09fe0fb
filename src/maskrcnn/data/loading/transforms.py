"""Training samples: a random frame is chosen, the image is resized once, objects are pasted, colours are changed.

Legend: N objects of the sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from maskrcnn.config import Config
from maskrcnn.data.loading.colour import blur_and_noise, jitter_colour
from maskrcnn.data.loading.copy_paste import pasted, some_with_masks
from maskrcnn.data.loading.sample import Sample
from maskrcnn.data.loading.visible import clipped, large_enough, visible_boxes, visible_keypoints
from maskrcnn.errors import ImageError
from maskrcnn.ops.resize_part import nearest_start
from maskrcnn.structures.annotations import Annotations
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.frame import Frame, letterboxed, resized_frame, transform_boxes
from maskrcnn.structures.images import resize_to_network, stretched

MOST_MASK_PIXELS = 1 << 27  # of all mask crops of a sample, one byte each


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
    if config.augment.copy_paste and rng.random() < config.augment.copy_paste:
        sample = _with_pasted(sample, dataset, config, rng)
    image = jitter_colour(sample.image, config.augment, rng)
    return replace(sample, image=blur_and_noise(image, config.augment, rng))


def _with_pasted(sample: Sample, dataset: Dataset, config: Config, rng: np.random.Generator) -> Sample:
    """The sample with some objects of a random image over its own. If that image is broken, the sample names it."""
    index = int(rng.choice(np.flatnonzero(dataset.records.counts)))
    record, annotations = dataset.records[index], dataset.annotations(index)
    frame = random_frame((record.height, record.width), annotations.boxes[~annotations.crowd], config, rng)
    room = config.train.max_objects - len(sample.boxes)

    def choose(annotations: Annotations, numbers: np.ndarray) -> np.ndarray:
        return within_limits(annotations, some_with_masks(annotations, numbers, rng), room, rng)

    try:
        return pasted(sample, framed_sample(dataset, index, frame, config, choose)) if room > 0 else sample
    except ImageError as error:
        return replace(sample, skipped=(*sample.skipped, str(error)))


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
    around = clipped(transform_boxes(annotations.boxes.astype(np.float64), frame.matrix), frame.input_hw)
    candidates = choose(annotations, np.flatnonzero(large_enough(around)))
    crops = annotations.crops(candidates)
    boxes = visible_boxes(annotations.boxes[candidates], crops, frame)
    seen = np.flatnonzero(large_enough(boxes))
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
    """The frame of a training sample: resized by a random factor, rotated, cropped to a random window, flipped and
    turned.

    Args:
        size_hw: height and width of the original image.
        boxes: (N, 4) objects in original pixels, of which a window may have to show a randomly chosen one.
    """
    augment = config.augment
    low, high = augment.scale_jitter
    factor = math.exp(rng.uniform(math.log(low), math.log(high)))
    frame = resized_frame(size_hw, config, factor)
    if augment.rotation:
        frame = frame.rotated(float(rng.uniform(-augment.rotation, augment.rotation)))
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
    if (out_h, out_w) != (height, width) and len(boxes) and rng.random() < config.augment.crop_object:
        x1, y1, x2, y2 = transform_boxes(boxes[rng.integers(len(boxes))][None].astype(np.float64), matrix)[0]
        target = (x1 + x2) / 2, (y1 + y2) / 2
    left: float = _random_start(width, out_w, target[0] if target else None, rng)
    top: float = _random_start(height, out_h, target[1] if target else None, rng)
    if (
        config.conventions.pixels.kernel == "antialias" and frame.is_upright
    ):  # `resize_part` needs such a start to resize the window alone
        left, top = nearest_start(int(left), matrix[0, 0]), nearest_start(int(top), matrix[1, 1])
    return frame.cropped(left, top, (out_h, out_w))


def _random_start(length: int, window: int, target: float | None, rng: np.random.Generator) -> int:
    """A random start of a window on one axis; if `target` is given, the window contains that coordinate."""
    low, high = 0, length - window
    if target is not None:
        low, high = max(low, math.ceil(target - window)), min(high, math.floor(target))
    return int(rng.integers(low, max(low, high) + 1))
