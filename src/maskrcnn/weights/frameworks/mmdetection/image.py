"""Converts MMDetection's settings of the image and its augmentation to ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from maskrcnn.config import AugmentConfig, ImageConfig
from maskrcnn.config.conventions import MMDETECTION, PixelRules
from maskrcnn.weights.frameworks.mmdetection.config_file import steps
from maskrcnn.weights.frameworks.settings import RESIZED, Assumed, jitter_of, pixel_statistics, setting, unsupported


def image_of(settings: Mapping[str, Any]) -> tuple[ImageConfig, bool, Assumed]:
    """The settings of the image, whether the network reads BGR, and the assumptions."""
    resize = _resize(steps(settings, "test"))
    for name, supported in (("keep_ratio", True), ("interpolation", "bilinear")):
        if resize.get(name, supported) != supported:
            raise unsupported(f"Resize.{name}", resize[name], [supported])
    sides = _sides(resize)
    assumed: Assumed = ()
    if not sides:
        sides = [(800, 1333)]
        assumed = (f"{RESIZED} (Resize)",)
    other = _sides(_resize(setting(settings, "test_dataloader.dataset.pipeline", [])))
    if other and other != sides:
        assumed = (f"the image size is that of test_pipeline, {sides}; that of test_dataloader, {other}, is ignored",)
    source = setting(settings, "model.data_preprocessor")  # in MMDetection 2 it is a step of the pipeline
    if source is None:
        by_type = {step.get("type"): step for step in steps(settings, "test")}
        normal = by_type.get("Normalize") or setting(settings, "img_norm_cfg") or {}
        to_rgb = normal.get("to_rgb", True)
    else:
        normal = source
        to_rgb = bool(source.get("bgr_to_rgb"))
    mean, std = normal.get("mean") or [0.0] * 3, normal.get("std") or [1.0] * 3
    short, long = sides[0]
    image = ImageConfig(
        short_side=short,
        long_side=long,
        divisor=divisor_of(settings),
        **pixel_statistics(mean, std, bgr=not to_rgb),
    )
    return image, not to_rgb, assumed


def divisor_of(settings: Mapping[str, Any]) -> int:
    """The number to whose multiples the sides of an image are padded."""
    source = setting(settings, "model.data_preprocessor")
    if source is not None:
        return int(source.get("pad_size_divisor", 1))
    pads = [step for step in steps(settings, "test") if step.get("type") == "Pad"]
    return int(pads[0].get("size_divisor") or 1) if pads else 32


def pixels_of(settings: Mapping[str, Any]) -> PixelRules:
    """The rules for pixels. `Resize` chooses the kernel."""
    pillow = _resize(steps(settings, "test")).get("backend") == "pillow"
    return replace(MMDETECTION.pixels, kernel="pil") if pillow else MMDETECTION.pixels


def _resize(pipeline: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next(iter(_resizes(pipeline)), {})


def _resizes(pipeline: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [step for step in pipeline if step.get("type") in ("Resize", "RandomChoiceResize", "RandomResize")]


def _sides(resize: Mapping[str, Any]) -> list[tuple[int, int]]:
    """(short, long) of every size that a step may choose. Empty if it has a scale factor instead of sizes."""
    scale = resize.get("scales") or resize.get("scale") or resize.get("img_scale")
    scales = [scale] if isinstance(scale, tuple | list) and scale and isinstance(scale[0], int) else scale
    return [(min(one), max(one)) for one in scales] if isinstance(scales, tuple | list) else []


def augment_of(settings: Mapping[str, Any], image: ImageConfig) -> AugmentConfig:
    """The settings of the augmentation in the training pipeline."""
    pipeline = steps(settings, "train")
    shorts = [short for step in _resizes(pipeline) for short, _ in _sides(step)] or [image.short_side]
    flips = [step for step in pipeline if step.get("type") == "RandomFlip"]
    flip = next((step.get("prob", step.get("flip_ratio", 0.5)) for step in flips), 0.0 if pipeline else 0.5)
    return AugmentConfig(
        scale_jitter=jitter_of(shorts, image.short_side),
        flip_horizontal=flip if isinstance(flip, int | float) else 0.0,
    )
