"""Other backends and detectors, added as docs/architecture.md says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter

from maskrcnn.config import DetectConfig
from maskrcnn.errors import ConfigError
from maskrcnn.predict import Backend, Detector, Predictor, TorchBackend, predict_files, predict_images, preprocess
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.instances import Instances
from small_data import random_predictor, write_small

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Fixed:
    """A backend that finds one object in the middle of every image."""

    device: torch.device
    static_shapes: bool = False

    def detect(self, images: ImageBatch, settings: DetectConfig) -> Detections:
        start, end = images.windows.float().split(2, dim=1)
        boxes = torch.cat([start + (end - start) / 4, end - (end - start) / 4], dim=1)[:, None]
        ones = torch.ones(len(images), 1)
        return Detections(boxes, 0.9 * ones, 0 * ones.long(), ones > 0, torch.ones(len(images), 1, 28, 28))


@dataclass(frozen=True)
class Mirrored:
    """A detector around another one, to which it shows every image mirrored."""

    inner: Detector[Any, Any]

    @property
    def device(self) -> torch.device:
        return self.inner.device

    def prepare(self, image: np.ndarray) -> Any:
        return self.inner.prepare(image[:, ::-1])

    def detect(self, prepared: Sequence[Any]) -> Any:
        return self.inner.detect(prepared)

    def finish(self, found: Any) -> list[Instances]:
        return [instances.flipped_horizontally() for instances in self.inner.finish(found)]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return random_predictor()


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_new_backend_serves_the_predictor(predictor: Predictor) -> None:
    backend: Backend = Fixed(CPU)
    fixed = replace(predictor, backend=backend)
    for found, (height, width) in zip(
        fixed.predict([picture(40, 80), picture(100, 40)], batch_size=2), [(40, 80), (100, 40)], strict=True
    ):
        assert found.image_hw == (height, width)
        np.testing.assert_allclose(found.boxes, [[width / 4, height / 4, 3 * width / 4, 3 * height / 4]], rtol=1e-6)
        assert found.names == ("blue",)
        assert found.masks is not None
        assert found.masks[0].area == pytest.approx(height * width / 4, rel=0.01)


def test_only_a_network_can_be_saved(predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a TorchBackend, found a Fixed"):
        replace(predictor, backend=Fixed(CPU)).save(tmp_path / "model.safetensors")
    assert isinstance(predictor.backend, TorchBackend)


def test_a_detector_around_another_one_runs_on_the_pipeline(predictor: Predictor, tmp_path: Path) -> None:
    mirrored = Mirrored(predictor)
    image = picture(60, 80)
    (expected,), (found,) = predictor.predict(image), predict_images(mirrored, image[:, ::-1])
    assert len(found) > 3
    np.testing.assert_allclose(found.flipped_horizontally().boxes, expected.boxes, atol=1e-4)
    assert found.flipped_horizontally().masks == expected.masks
    write_small(tmp_path, "images", 2)
    summary = predict_files(mirrored, sorted((tmp_path / "images").iterdir()), tmp_path / "out", batch_size=2)
    assert summary.images == 2
    (back,) = predict_images(Mirrored(mirrored), image)
    np.testing.assert_allclose(back.boxes, expected.boxes, atol=1e-4)


def test_frames_do_not_make_a_compiled_network_anew(predictor: Predictor) -> None:
    """Each image has its own frame: the compiler must not look at it."""
    counter = CompileCounter()
    normalise = torch.compile(predictor.network.normalise, backend=counter, dynamic=False, fullgraph=True)
    for width in (80, 83, 90):
        images = preprocess([picture(60, width)], predictor.config, static_shapes=True)
        assert images.pixels.shape == (1, 3, 64, 96)
        normalise(images)
    assert counter.frame_count == 1
