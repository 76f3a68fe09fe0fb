"""From images to instances: preprocessing, the network, and masks as run lengths.

Legend: B images, N instances of one image, D detection slots an image, K keypoints.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maskrcnn.config import Config
from maskrcnn.files.images import as_rgb, read_image
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.ops.device import Precision, compiled, in_precision
from maskrcnn.predict.images import postprocess, preprocess
from maskrcnn.structures.detections import Detections, Instances
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.tensors import map_tensors, to_device
from maskrcnn.weights.model_file import save_model
from maskrcnn.weights.open import open_weights

ImageLike = str | Path | Image.Image | np.ndarray


@dataclass
class Predictor:
    """A network with everything needed to use it: what `maskrcnn.load` returns.

    Attributes:
        network: in evaluation mode.
        config: thresholds and limits of `config.model.detect` are read at every call.
        provenance: how the weights came to be, from the model file.
        precision: of the network's arithmetic; `auto` is bf16 where the processor multiplies it faster.
        compile: compile the network for each size of a batch, of which there then are few (`canvas_of`); on CUDA its
            graphs are replayed.
    """

    network: MaskRCNN
    config: Config
    provenance: dict[str, Any] = field(default_factory=dict)
    precision: Precision = "fp32"
    compile: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(category.name for category in self.config.categories)

    @property
    def device(self) -> torch.device:
        return self.network.pixel_mean.device

    def with_detections(self, most: int) -> Predictor:
        """The same network with another limit of detections an image."""
        detect = replace(self.config.model.detect, max_detections=most)
        return replace(self, config=replace(self.config, model=replace(self.config.model, detect=detect)))

    def predict(self, images: Sequence[ImageLike], batch_size: int = 1) -> list[Instances]:
        """Finds objects in images of any size.

        Args:
            images: paths, PIL images, or (H, W, 3) uint8 RGB arrays.
            batch_size: how many pass through the network together.

        Raises:
            ImageError: an image cannot be read.
        """
        found: list[Instances] = []
        for start in range(0, len(images), batch_size):
            chunk = images[start : start + batch_size]
            arrays = [read_image(i) if isinstance(i, str | Path) else as_rgb(i) for i in chunk]
            found.extend(self.predict_arrays(arrays))
        return found

    def predict_arrays(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """As `predict`, for (H, W, 3) uint8 RGB arrays, all in one batch."""
        batch = preprocess(images, self.config, few=self.compile)
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        return postprocess(self.detect(batch), batch.windows, sizes, self.config, self.names)

    def detect(self, batch: ImageBatch) -> Detections:
        """The network's answer, on its device and in the pixels of the batch, which may lie elsewhere."""
        batch = to_device(batch, self.device)
        with in_precision(self.precision, self.device):
            if not self.compile:
                return self.network.detect(batch, self.config.model.detect)
            # Copies: what a replayed graph returns is overwritten by the next batch.
            return map_tensors(self._compiled(batch, self.config.model.detect), torch.clone)

    @cached_property
    def _compiled(self) -> Callable[..., Detections]:
        return compiled(self.network.detect, self.device)

    def save(self, path: Path | str) -> None:
        save_model(path, self.network, self.config, self.provenance)


def load(
    source: Path | str,
    device: str | torch.device | None = None,
    *,
    config_file: Path | str | None = None,
    allow_partial: bool = False,
    precision: Precision = "auto",
    compile: bool = False,
) -> Predictor:
    """Opens a model: our model file, or a checkpoint of another framework, which keeps that framework's rules.

    Args:
        source: a file, an address, or a name of `maskrcnn weights list`.
        device: where to run; by default the first GPU if there is one, else the CPU.
        config_file: of the framework that wrote the checkpoint; without it, shapes and what is usual decide, and
            `provenance["assumed"]` says what was taken for granted.
        allow_partial: accept a checkpoint that lacks tensors, which then are random, or holds others.
        precision, compile: as `Predictor` has them. Where bf16 is native, `fp32` gives the exact results.

    Raises:
        WeightsError: the file cannot be opened as a model.
        ConfigError: the config file cannot be followed.
    """
    network, config, provenance = open_weights(source, config_file, allow_partial=allow_partial)
    target = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Predictor(network.to(target), config, provenance, precision, compile)
