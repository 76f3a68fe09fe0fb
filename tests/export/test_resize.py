"""The resizing of an exported graph, run operator by operator in ONNX Runtime, beside that of prediction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from onnxscript.tensor import Tensor as OnnxTensor

from maskrcnn.config import Config, ImageConfig
from maskrcnn.config.conventions import (
    DETECTRON,
    DETECTRON2,
    MASKRCNN_BENCHMARK,
    MMDETECTION,
    OURS,
    TORCHVISION,
)
from maskrcnn.export.resize import onnx_network_input
from maskrcnn.predict import preprocess
from small_network import network_config

SMALL = ImageConfig(short_side=64, long_side=96)


def photograph(height: int, width: int) -> np.ndarray:
    """Blocks with noise: (height, width, 3) uint8."""
    rng = np.random.default_rng(height)
    blocks = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    return np.clip(blocks + rng.integers(-20, 20, blocks.shape), 0, 255).astype(np.uint8)


def assert_as_in_prediction(image: np.ndarray, config: Config, tolerance: float) -> None:
    pixels, size, original, scale = (part.value for part in onnx_network_input(OnnxTensor(image), config))
    expected = preprocess([image], config)
    assert (size.tolist(), original.tolist()) == (expected.sizes_hw.tolist(), [list(image.shape[:2])])
    assert (pixels.shape, pixels.dtype) == (expected.pixels.shape, expected.pixels.numpy().dtype)
    np.testing.assert_allclose(pixels.astype(float), expected.pixels.numpy(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(scale[0], 1 / expected.frames[0].scale_xy, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rules", "tolerance"),
    [
        pytest.param(OURS, 0, id="antialias"),
        pytest.param(DETECTRON2, 0, id="pil"),
        pytest.param(MASKRCNN_BENCHMARK, 0, id="pil, rounded short side"),
        pytest.param(MMDETECTION, 0, id="opencv"),
        pytest.param(TORCHVISION, 0.01, id="bilinear"),
        pytest.param(DETECTRON, 0.01, id="bilinear, exact scale"),
    ],
)
def test_the_graph_resizes_as_prediction_does(rules: Any, tolerance: float) -> None:
    for height, width in ((150, 203), (61, 30)):  # one shrinks, the other grows
        image = photograph(height, width)
        assert_as_in_prediction(image, replace(network_config(), conventions=rules, image=SMALL), tolerance)


@pytest.mark.parametrize(
    "image",
    [
        replace(SMALL, scale=0.4),
        replace(SMALL, scale=3.0, divisor=64),
        replace(SMALL, fixed_size=(64, 96)),
    ],
    ids=["a scale", "a scale that the long side limits", "a fixed size"],
)
def test_the_graph_follows_the_settings_of_images(image: ImageConfig) -> None:
    assert_as_in_prediction(photograph(61, 90), replace(network_config(), image=image), 0)


def test_an_image_of_one_pixel_is_resized() -> None:
    assert_as_in_prediction(photograph(1, 1), replace(network_config(), image=SMALL), 0)
