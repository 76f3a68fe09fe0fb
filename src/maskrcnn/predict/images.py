"""Images into network input, and the network's answer back into their pixels. Legend: B images, K keypoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from maskrcnn.config import Config
from maskrcnn.ops.boxes import clip, trim, whole_images
from maskrcnn.ops.paste import paste_to_runs
from maskrcnn.ops.resize import resize_image
from maskrcnn.structures.detections import Detections, Instances
from maskrcnn.structures.images import ImageBatch, canvas_of, exact_scale, place, stack_images, with_bars
from maskrcnn.structures.keypoints import PIXEL_CENTRE
from maskrcnn.structures.masks import RLE, Masks


def preprocess(images: Sequence[np.ndarray], config: Config, *, few: bool = False) -> ImageBatch:
    """Resizes (H, W, 3) uint8 RGB arrays as `config` says and pads them to one batch."""
    return join([fit(image, config) for image in images], config, few=few)


def fit(image: np.ndarray, config: Config) -> tuple[torch.Tensor, tuple[int, int, int, int]]:
    """An (H, W, 3) uint8 RGB array as network input, (3, h, w), and the window x1 y1 x2 y2 of it in which it lies."""
    rules = config.conventions.pixels
    placed = place(image.shape[0], image.shape[1], config.image, rules)
    factor = exact_scale(image.shape[0], image.shape[1], config.image, rules)
    pixels = resize_image(torch.from_numpy(image).permute(2, 0, 1), placed.size_hw, rules.kernel, factor)
    return with_bars(pixels, placed), placed.window


def join(
    fitted: Sequence[tuple[torch.Tensor, tuple[int, int, int, int]]], config: Config, *, few: bool = False
) -> ImageBatch:
    """Pads what `fit` made to one batch, of one of few sizes if asked (`canvas_of`)."""
    pixels = [image for image, _ in fitted]
    size = config.image.fixed_size
    if few and size is None:
        size = canvas_of(max(i.shape[1] for i in pixels), max(i.shape[2] for i in pixels), config.image)
    batch = stack_images(pixels, config.image.divisor, size)
    if config.conventions.pixels.letterbox == "none":
        return batch
    return replace(batch, unbarred=torch.tensor([window for _, window in fitted]))


def postprocess(
    detections: Detections,
    windows: torch.Tensor,
    original_hw: Sequence[tuple[int, int]],
    config: Config,
    names: tuple[str, ...],
) -> list[Instances]:
    """Brings detections back to the pixels of the original images; masks become run lengths here.

    Args:
        windows: (B, 4) where the images lie in the network input.
        original_hw: height and width of each original image.
    """
    rules, box_rules = config.conventions, config.conventions.boxes
    original = torch.tensor(original_hw, dtype=torch.float32)
    origin, end = windows.cpu().to(torch.float32).split(2, dim=-1)
    # Boxes that end at the last pixel are stretched from the network's last pixel to that of the original.
    ratio = (original.flip(-1) - box_rules.trim) / (end - origin - box_rules.trim)
    if rules.pixels.exact_scale:
        scales = [exact_scale(*size, config.image, rules.pixels) or 1 for size in original_hw]
        ratio = torch.tensor([[1 / scale] * 2 for scale in scales])
    # Boxes of pixels are scaled as these pixels, and become edges after that.
    boxes = trim(detections.boxes.cpu() - origin.repeat(1, 2)[:, None], box_rules.roi_trim)
    boxes = boxes * ratio.repeat(1, 2)[:, None]
    boxes = clip(trim(boxes, -box_rules.trim - box_rules.roi_trim), whole_images(original))
    valid = detections.valid.cpu()
    if rules.detections.whole_pixels:
        boxes = boxes.round()
        valid = valid & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    probs = None if detections.mask_probs is None else detections.mask_probs.cpu()
    keypoints = _keypoints_in_original(detections, origin, ratio)
    result = []
    for i, (found, size) in enumerate(zip(valid, original_hw, strict=True)):
        masks = None
        if probs is not None:
            counts = paste_to_runs(
                probs[i][found].numpy(),
                trim(boxes[i][found], box_rules.roi_trim).numpy(),
                size,
                config.model.detect.mask_threshold,
                rules.masks.paste,
            )
            masks = Masks([RLE(size, c) for c in counts], size)
        labels = detections.labels[i].cpu()[found].numpy()
        result.append(
            Instances(
                image_hw=size,
                boxes=boxes[i][found].numpy(),
                scores=detections.scores[i].cpu()[found].numpy(),
                labels=labels,
                masks=masks,
                names=tuple(names[label] for label in labels) if names else (),
                keypoints=None if keypoints is None else keypoints[i][found].numpy(),
                categories=config.categories,
            )
        )
    return result


def _keypoints_in_original(detections: Detections, origin: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor | None:
    """(B, D, K, 3) on the CPU, x and y in original pixels; `origin` and `ratio` are (B, 2), x and y."""
    if detections.keypoints is None:
        return None
    points, scores = detections.keypoints.cpu().split([2, 1], dim=-1)
    return torch.cat([(points - origin[:, None, None]) * ratio[:, None, None], scores], dim=-1)


def to_coco_results(instances: Instances, image_id: int | str, config: Config) -> list[dict[str, Any]]:
    """COCO results of one image: image_id, category_id, bbox (x, y, width, height), score, segmentation (RLE) and
    keypoints (x, y, score of each in a row, x and y as COCO's indices of pixels) of categories that name some."""
    ids = [category.id for category in config.categories] or list(range(1, config.model.num_classes + 1))
    pointed = [bool(category.keypoints) for category in config.categories] or [True] * config.model.num_classes
    results = []
    for i in range(len(instances)):
        x1, y1, x2, y2 = (round(float(edge), 3) for edge in instances.boxes[i])
        entry: dict[str, Any] = {
            "image_id": image_id,
            "category_id": ids[int(instances.labels[i])],
            "bbox": [x1, y1, round(x2 - x1, 3), round(y2 - y1, 3)],
            "score": float(instances.scores[i]),
        }
        if instances.masks is not None:
            entry["segmentation"] = instances.masks[i].to_coco()
        if instances.keypoints is not None and pointed[int(instances.labels[i])]:
            points = instances.keypoints[i].astype(np.float64) - (PIXEL_CENTRE, PIXEL_CENTRE, 0)
            entry["keypoints"] = points.round(4).reshape(-1).tolist()
        results.append(entry)
    return results
