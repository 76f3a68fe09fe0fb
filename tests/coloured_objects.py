"""Images whose colours say which object each pixel belongs to, and a detector that reads them: it makes no mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from maskrcnn.config import Config
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks
from small_network import network_config

CPU = torch.device("cpu")


def coloured(ids: np.ndarray) -> np.ndarray:
    """(H, W) ids below 65,536 -> (H, W, 3) uint8; 0 is background."""
    return np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], axis=-1).astype(np.uint8)


@dataclass(frozen=True)
class ColourReader:
    """A detector of the objects of `coloured` images. An odd id has label 1 and an even one label 0."""

    config: Config = field(default_factory=network_config)
    device: torch.device = CPU
    masks: bool = True

    def prepare(self, image: np.ndarray) -> np.ndarray:
        return image

    def detect(self, prepared: Sequence[np.ndarray]) -> list[Instances]:
        return [self._read(image.astype(np.int64)) for image in prepared]

    def finish(self, found: list[Instances]) -> list[Instances]:
        return found

    def _read(self, image: np.ndarray) -> Instances:
        ids = image[..., 0] + 256 * image[..., 1]
        numbers = np.unique(ids[ids > 0])
        shapes = Masks([RLE.from_dense(ids == number) for number in numbers], (ids.shape[0], ids.shape[1]))
        found = Instances(
            (ids.shape[0], ids.shape[1]),
            shapes.boxes(),
            (0.5 + numbers / (1 << 18)).astype(np.float32),
            numbers % 2,
            shapes if self.masks else None,
        )
        return found.select(np.argsort(-found.scores, kind="stable"))
