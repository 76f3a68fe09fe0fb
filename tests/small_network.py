"""Small networks and batches for the tests of the model: made in memory, in milliseconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from maskrcnn.config import Config, Conventions, DetectConfig, ImageConfig
from maskrcnn.config.conventions import OURS
from maskrcnn.data.loading.loader import Batch, collate
from maskrcnn.data.loading.sample import Sample
from maskrcnn.files.checkpoint import read_checkpoint
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.structures.frame import frame_of_size
from maskrcnn.weights.backbones import fill_backbone, read_backbone
from maskrcnn.weights.named import initial_file
from small_data import small_config

Objects = list[tuple[int, tuple[int, int, int, int]]]  # label (-1 is a crowd) and box


def network_config(conventions: Conventions = OURS, **model: Any) -> Config:
    """The smallest config, with fields of its `ModelConfig` replaced."""
    base = small_config()
    settings: dict[str, Any] = {"detect": DetectConfig(score_threshold=0.02), **model}
    return replace(base, model=replace(base.model, **settings), conventions=conventions)


def load_backbone(backbone: nn.Module, source: Path | str) -> str:
    """Fills a ResNet from a file or name, as training does."""
    return fill_backbone(backbone, read_backbone(read_checkpoint(initial_file(source))), source)


def lively_network(config: Config, seed: int = 0) -> MaskRCNN:
    """Random weights whose predictions spread over boxes and classes; fresh ones say the same of everything."""
    torch.manual_seed(seed)
    network = build_model(config)
    scale = {"objectness": 10, "deltas": 10, "class_logits": 100, "predictor": 1000}
    with torch.no_grad():
        for name, module in network.named_modules():
            module_name = name.rpartition(".")[2]
            if module_name in scale and not name.startswith("roi_heads.keypoint."):
                module.weight *= scale[module_name]  # type: ignore[operator]
    return network


def sample_of(height: int, width: int, objects: Objects, *, seed: int = 0, with_masks: bool = True) -> Sample:
    """A noisy image with rectangles; a mask fills its box but for one corner."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (3, height, width), dtype=np.uint8)
    crops: list[tuple[np.ndarray, tuple[int, int]]] = []
    for label, (x1, y1, x2, y2) in objects:
        image[:, y1:y2, x1:x2] = rng.integers(60, 256, (3, 1, 1), dtype=np.uint8)
        bitmap = np.ones((y2 - y1, x2 - x1), dtype=np.uint8)
        bitmap[: (y2 - y1) // 2, : (x2 - x1) // 2] = 0
        crops.append((bitmap, (x1, y1)) if with_masks and label >= 0 else (np.zeros((0, 0), dtype=np.uint8), (0, 0)))
    return Sample(
        image=torch.from_numpy(image),
        boxes=np.array([box for _, box in objects], dtype=np.float32).reshape(-1, 4),
        labels=np.array([label for label, _ in objects], dtype=np.int64),
        crowd=np.array([label < 0 for label, _ in objects], dtype=bool),
        crops=crops,
        frame=frame_of_size((height, width), (height, width)),
        image_id=seed,
    )


def batch_of(*samples: Sample) -> Batch:
    return collate(samples, ImageConfig())
