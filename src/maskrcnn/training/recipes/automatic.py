"""The automatic recipe: settings for fine-tuning on a data set and a machine.

Most rules are those of winners of competitions, published baselines and our own measurements on nuclei
(benchmarks/nuclei.md: 50 minutes on 2 cores). Lengths are in pixels of the network input unless a name says otherwise.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from maskrcnn.config import ResNetConfig
from maskrcnn.errors import counted
from maskrcnn.training.recipes.choices import Choices
from maskrcnn.training.recipes.data_figures import DataFigures
from maskrcnn.training.recipes.hardware import Hardware
from maskrcnn.training.recipes.rates import learning_rate_for

Start = Literal["random", "backbone", "detector"]  # what training begins from

_SMALL, _LARGE = 32, 64  # pixels: the typical object should lie between these
_SMALL_ON_CPU = 24  # pixels: 25 gave 0.63 AP on nuclei, and larger images cost time
_TINY = 16  # pixels: smaller objects are lost
_FEW, _MANY = 50, 2000  # images


def choose(choices: Choices, data: DataFigures, machine: Hardware, start: Start, budget: float | None) -> None:
    """Chooses all settings.

    Args:
        budget: seconds of the whole run; None leaves its length to the number of images.

    Raises:
        ConfigError: a choice and what is given exclude each other.
    """
    _parts(choices, data, machine, start)
    scale = _image_size(choices, data, machine)
    side = _crop(choices, data, machine, scale)
    _augmentation(choices, data)
    if start != "detector":
        _anchors(choices, data, scale)
    _limits(choices, data, machine, scale, side)
    _batch(choices, data, machine, scale, side)
    _optimiser(choices, data, machine)
    _length(choices, data, machine, start, budget)


def _parts(choices: Choices, data: DataFigures, machine: Hardware, start: Start) -> None:
    """Heads, norms and frozen stages."""
    if not data.masks:
        choices.set({"model.mask_head": None}, "no object has a mask")
    if data.keypoints and start != "detector":
        size = {"num_keypoints": data.keypoints, **({} if machine.has_gpu else {"convs": 4, "channels": 256})}
        choices.set({"model.keypoint_head": size}, f"objects have {data.keypoints} keypoints")
    if start == "random":
        backbone = choices.config.model.backbone
        if isinstance(backbone, ResNetConfig) and backbone.norm == "frozen_batch_norm":
            norms = ("model.backbone.norm", "model.fpn_norm", "model.mask_head.norm")
            choices.set(dict.fromkeys(norms, "group_norm"), "random weights need a norm that works with small batches")
        choices.set({"model.backbone.frozen_stages": 0}, "random weights: everything is trained")
    elif data.any_way_up:
        choices.set({"model.backbone.frozen_stages": 1}, "unlike photographs: only the stem stays as it was")
    elif data.images <= _FEW:
        choices.set({"model.backbone.frozen_stages": 3}, f"{data.images} images: few weights are trained")
    else:
        choices.set({"model.backbone.frozen_stages": 2}, "the default: stem and res2 stay as they were")


def _image_size(choices: Choices, data: DataFigures, machine: Hardware) -> np.ndarray:
    """The size of the network input. Returns (N,) float64, network-input pixels per pixel of each image."""
    usual, longest, smallest = (800, 4096, _SMALL) if machine.has_gpu else (512, 2048, _SMALL_ON_CPU)
    short, long = float(np.median(data.short_sides)), float(np.median(data.sizes_hw.max(axis=1)))
    by_image = data.sizes_follow_images
    relative = data.typical / data.short_sides[data.typical_image] * short
    object_side = float(np.median(relative if by_image else data.typical))
    side = float(usual)
    found = object_side * side / short
    if found < smallest:
        side = min(side * smallest / found, max(2.0 * usual, min(short, longest * short / long)))
    elif found > _LARGE and not machine.has_gpu:
        side = max(side * _LARGE / found, 256.0)
    side, image = max(64, 32 * round(side / 32)), choices.config.image
    side = image.short_side if choices.is_given("image.short_side") else side
    factor = round(side / short, 2)
    most = max(side, min(longest, max(side * 5 // 3, round(side * long / short))))
    if not by_image:
        most = max(side, min(longest, math.ceil(data.sizes_hw.max() * factor)))
    side = min(side, image.long_side) if choices.is_given("image.long_side") else side
    reason = f"the typical object of {object_side:.0f} px becomes {object_side * side / short:.0f} px"
    if object_side * side / short < _TINY:
        reason += ", which is very small: cut the images into tiles"
    size = {"image.short_side": side, "image.long_side": most}
    if by_image:
        choices.set(size, f"{reason}; objects are larger on larger images")
    else:
        choices.set(size | {"image.scale": factor}, f"{reason}; objects have one size on all images")
    return _scales(choices, data)


def _scales(choices: Choices, data: DataFigures) -> np.ndarray:
    """(N,) float64, network-input pixels per pixel of each image."""
    image, long = choices.config.image, data.sizes_hw.max(axis=1)
    if image.fixed_size is not None:
        return np.min(np.array(image.fixed_size) / data.sizes_hw, axis=1)
    scales = np.full(data.images, image.scale) if image.scale else image.short_side / data.short_sides
    return np.minimum(scales, image.long_side / long)


def _crop(choices: Choices, data: DataFigures, machine: Hardware, scale: np.ndarray) -> float:
    """Whether training sees crops. Returns the side of a square with as many pixels as a network input of training."""
    smallest, largest = (512, 1024) if machine.has_gpu else (320, 512)
    inputs = np.sqrt(data.sizes_hw.prod(axis=1)) * scale
    object_side = float(np.percentile(data.box_sides * scale[data.image], 95))
    wanted = max(smallest, 32 * math.ceil(2.5 * object_side / 32))
    whole = float(np.median(inputs))
    if wanted > largest or whole < 1.2 * wanted or choices.config.image.fixed_size is not None:
        jitter = (0.6, 1.2) if data.images < _MANY else (0.8, 1.0)
        why = "whole images: they are small" if wanted <= largest else "whole images: a crop would cut large objects"
        choices.set({"augment.crop": None, "augment.scale_jitter": jitter}, why)
    else:
        why = f"objects of up to {object_side:.0f} px fit into a crop, which is faster than whole images"
        choices.set({"augment.crop": (wanted, wanted), "augment.scale_jitter": (0.7, 1.4)}, why)
    crop = choices.config.augment.crop
    return whole if crop is None else min(whole, math.sqrt(crop[0] * crop[1]))


def _augmentation(choices: Choices, data: DataFigures) -> None:
    if data.any_way_up:
        turns = {"augment.flip_vertical": 0.5, "augment.quarter_turns": True}
        choices.set(turns, "objects are as often wide as tall, up as down")
    choices.set({"augment.brightness": 0.2, "augment.contrast": 0.2}, "mild changes of light")
    if data.images <= _FEW and data.masks:
        choices.set({"augment.copy_paste": 0.5}, f"{data.images} images: pasted objects make more of them")
    share = data.images_of_class[data.images_of_class > 0].min() / data.images
    if data.images >= 100 and share < 0.01:
        choices.set({"train.repeat_threshold": 0.01}, "a class is on fewer than 1 % of the images")


def _anchors(choices: Choices, data: DataFigures, scale: np.ndarray) -> None:
    """Sizes that double from level to level, chosen so that boxes overlap their best anchors most.

    An image counts once however many objects it has, as in training. Of nearly equal sets the one with the smallest
    sizes is chosen, because it reaches more of the small objects. Overlap decides, and not how alike the sizes are:
    anchors of 4 to 64 pixels have the sizes of more nuclei than anchors of 16 to 256, but with them a network reached
    a mask AP of 0.16 in place of 0.44 (benchmarks/small_data.md).
    """
    if choices.config.model.neck != "fpn":
        return
    sides = _quantiles(data.box_sides * scale[data.image], 1 / data.counts[data.image])
    overlaps = {start: mean_best_iou(sides, start) for start in (4, 8, 16, 32, 64)}
    best = next(start for start, overlap in overlaps.items() if overlap >= max(overlaps.values()) - 0.02)
    sizes = tuple((float(best * 2**level),) for level in range(5))
    choices.set({"model.anchors.sizes": sizes}, f"boxes and their best anchors have a mean IoU of {overlaps[best]:.2f}")


def _quantiles(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(500,) values that stand for any number of weighted ones."""
    order = np.argsort(values)
    shares = np.cumsum(weights[order]) / weights.sum()
    return values[order][np.searchsorted(shares, (np.arange(500) + 0.5) / 500)]


def mean_best_iou(sides: np.ndarray, smallest: int) -> float:
    """Mean IoU of square boxes with their best anchors, if the boxes lie anywhere between the centres of anchors.

    An anchor that is hardly larger than its stride overlaps few boxes well, even those of its own size.

    Args:
        sides: (N,) float64 sides of the boxes, pixels.
        smallest: side of the square anchors on the first of five levels, pixels. Sides double from level to level, and
            so do strides, from 4 pixels on.
    """
    offsets = (np.arange(4) + 0.5) / 8  # strides from the nearest anchor, on one axis
    best = np.zeros((4, 4, len(sides)))
    for level in range(5):
        anchor, away = smallest * 2**level, (4 * 2**level * offsets)[:, None]
        shared = ((sides + anchor) / 2 - away).clip(0, np.minimum(sides, anchor))
        both = shared[:, None] * shared
        best = np.maximum(best, both / (sides**2 + anchor**2 - both))
    return float(best.mean())


def _limits(choices: Choices, data: DataFigures, machine: Hardware, scale: np.ndarray, side: float) -> None:
    """Limits of detections, proposals and sampled RoIs."""
    most = int(data.counts.max())
    detections = min(3000, max(100, 10 * math.ceil(1.5 * most / 10)))
    choices.set({"model.detect.max_detections": detections}, f"1.5 times the {most} objects of the fullest image")
    proposals = max(1000, 100 * math.ceil(3 * most / 100))
    names = ("model.rpn.pre_nms_test", "model.rpn.post_nms_test")
    choices.set(dict.fromkeys(names, proposals), f"at least 3 proposals for each of {most} objects")
    pixels = data.sizes_hw.prod(axis=1) * scale**2
    seen = int(np.ceil(np.percentile(data.counts * np.minimum(1.0, side**2 / pixels), 95)))
    post = max(1000 if machine.has_gpu else 500, 100 * math.ceil(4 * seen / 100))
    limits = {"model.rpn.pre_nms_train": 2 * post, "model.rpn.post_nms_train": post}
    choices.set(limits, f"at least 4 proposals for each of {seen} objects in a training image")
    choices.set({"model.rpn.samples": max(256, 2 * seen)}, f"2 for each of {seen} objects, at least 256")
    if machine.has_gpu:
        rois = min(1024, max(512, 4 * seen))
        choices.set({"model.box_head.samples": rois}, f"4 for each of {seen} objects, at least 512")
    else:
        choices.set({"model.box_head.samples": 128, "model.mask_head.samples": 24}, "a CPU: fewer RoIs, more steps")


def _batch(choices: Choices, data: DataFigures, machine: Hardware, scale: np.ndarray, side: float) -> None:
    largest = 1.0 if choices.config.augment.crop else max(1.0, choices.config.augment.scale_jitter[1])
    most = max(1, min(16, data.images) // machine.processes)
    batch = machine.batch((side * largest) ** 2, most)
    choices.set({"train.batch_size": batch}, f"fits {machine.name}")
    workers = machine.cores // (2 * machine.processes) if machine.has_gpu else 1
    choices.set({"train.workers": max(1, min(8, workers))}, counted(machine.cores, "core"))


def _optimiser(choices: Choices, data: DataFigures, machine: Hardware) -> None:
    choices.set({"train.optimizer": "adamw", "train.schedule": "cosine"}, "learns faster than SGD in a short run")
    choices.set({"train.clip_norm": 5.0}, "keeps single images from spoiling the weights")
    adamw = choices.config.train.optimizer == "adamw"
    choices.set({"train.weight_decay": 0.05 if adamw else 1e-4}, f"usual for {choices.config.train.optimizer}")
    sgd = (0.0005, 1) if data.images < _MANY else (0.02, 16)  # Deep Retina, third at DSB 2018, and Detectron
    rate, reason = learning_rate_for(choices.config, machine.processes, sgd)
    choices.set({"train.learning_rate": rate}, reason)
    choices.set({"train.ema": True}, "the mean of the last weights is at least as good")


def _length(choices: Choices, data: DataFigures, machine: Hardware, start: Start, budget: float | None) -> None:
    """Steps, warm-up, evaluations and checkpoints."""
    if budget is not None:
        every = 3 if machine.has_gpu else 30  # seconds
        warm_up = round(min(500.0, max(10.0, budget / every)))
        choices.set({"train.warmup_steps": warm_up}, f"one step for {every} s of the budget")
        return
    views = max(2000 * math.sqrt(data.images), 12 * data.images if data.images >= _MANY else 0)
    reason = f"2000 times the root of {data.images} images" if data.images < _MANY else "at least 12 epochs"
    if start == "random":
        views, reason = 4 * views, f"{reason}, times 4 for random weights"
    if not machine.has_gpu:
        views, reason = views / 4, f"{reason}, a quarter of it on a CPU"
    steps = max(1, math.ceil(views / (choices.config.train.images_per_step * machine.processes)))
    choices.set({"train.steps": steps}, reason)
    steps = choices.config.train.steps
    choices.set({"train.warmup_steps": max(1, min(500, steps // 10))}, "a tenth of the steps, at most 500")
    choices.set({"train.evaluate_every": math.ceil(steps / 10)}, "10 evaluations")
    choices.set({"train.checkpoint_every": max(1, min(1000, math.ceil(steps / 20)))}, "at least 20 checkpoints")
