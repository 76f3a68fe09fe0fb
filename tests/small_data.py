"""A data set of a few coloured rectangles, written to disk in a moment, and a model that learns it in seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskrcnn.config import AnchorConfig, AugmentConfig, BoxHeadConfig, Category, Config, ImageConfig, MaskHeadConfig
from maskrcnn.config.presets import preset
from maskrcnn.models.build import build_model
from maskrcnn.predict import Predictor, TorchBackend

COLOURS = {"red": (200, 40, 40), "blue": (40, 60, 210)}


def small_coco(count: int, seed: int = 0, size: tuple[int, int] = (64, 80)) -> tuple[dict[str, Any], list[np.ndarray]]:
    """COCO content with category ids 7 and 3, and its (H, W, 3) images: one or two rectangles each."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 7, "name": "red"}, {"id": 3, "name": "blue"}],
    }
    images = []
    for i in range(count):
        image = np.full((*size, 3), 128, dtype=np.uint8) + rng.integers(0, 20, (*size, 3), dtype=np.uint8)
        content["images"].append({"id": i + 1, "file_name": f"{i}.png", "height": size[0], "width": size[1]})
        for j in range(int(rng.integers(1, 3))):
            w, h = (int(v) for v in rng.integers(14, 30, 2))
            x, y = int(rng.integers(0, 36 - w // 2)) + 36 * j, int(rng.integers(0, size[0] - h))
            x = min(x, size[1] - w)
            name = ("red", "blue")[int(rng.integers(2))]
            image[y : y + h, x : x + w] = COLOURS[name]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": i + 1,
                    "category_id": 7 if name == "red" else 3,
                    "iscrowd": 0,
                    "area": w * h,
                    "bbox": [x, y, w, h],
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        images.append(image)
    return content, images


def write_small(folder: Path, split: str, count: int, seed: int = 0) -> Path:
    """Writes `<folder>/<split>.json` and its images beside it; returns the JSON's path."""
    content, images = small_coco(count, seed)
    (folder / split).mkdir(parents=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / split / f"{i}.png")
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content))
    return path


def write_bands(folder: Path, split: str, count: int, channels: int, dtype: str = "uint16", seed: int = 0) -> Path:
    """`write_small` with `.npy` images of some channels in 0..4000: red, green, blue, red, ..."""
    content, images = small_coco(count, seed)
    (folder / split).mkdir(parents=True)
    for entry, image in zip(content["images"], images, strict=True):
        entry["file_name"] = f"{entry['id']}.npy"
        values = image[..., np.arange(channels) % 3].astype(np.float64) * (4000 / 255)
        np.save(folder / split / entry["file_name"], values.astype(dtype))
    path = folder / f"{split}.json"
    path.write_text(json.dumps(content))
    return path


def random_predictor() -> Predictor:
    """Random weights with a low threshold: many detections of no meaning."""
    torch.manual_seed(0)
    config = small_config()
    model = replace(config.model, num_classes=2, detect=replace(config.model.detect, score_threshold=0.01))
    config = replace(config, model=model, categories=(Category(3, "blue"), Category(7, "red")))
    return Predictor(TorchBackend(build_model(config).eval()), config)


def small_config(**train: Any) -> Config:
    """The tiny preset, smaller still."""
    base = preset("mask_rcnn_tiny")
    model = replace(
        base.model,
        backbone=replace(base.model.backbone, width=8),
        fpn_channels=32,
        anchors=AnchorConfig(sizes=((12.0,), (24.0,), (48.0,), (96.0,), (160.0,))),
        box_head=BoxHeadConfig(samples=32, hidden=64),
        mask_head=MaskHeadConfig(convs=1, channels=32, samples=8),
    )
    settings = {"steps": 6, "batch_size": 2, "warmup_steps": 2, "checkpoint_every": 2, "workers": 0, **train}
    return replace(
        base,
        model=model,
        image=ImageConfig(short_side=64, long_side=96),
        augment=AugmentConfig(scale_jitter=(0.9, 1.1)),
        train=replace(base.train, **settings),
    )
