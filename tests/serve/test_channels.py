"""A server of a model of channels."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient

from maskrcnn.config import Channel
from maskrcnn.models.build import build_model
from maskrcnn.predict import Predictor, TorchBackend
from maskrcnn.serve.app import build_app
from maskrcnn.serve.engine import InThread
from maskrcnn.serve.settings import Limits
from small_data import random_predictor

tifffile = pytest.importorskip("tifffile")


def test_tiffs_are_answered_and_other_channels_are_named(encoded: Callable[..., bytes]) -> None:
    config = random_predictor().config
    channels = tuple(Channel(name, "range", low=0, high=1000, mean=127, std=60) for name in ("a", "b", "c", "d", "e"))
    config = replace(config, image=replace(config.image, channels=channels))
    torch.manual_seed(0)
    model = Predictor(TorchBackend(build_model(config).eval()), config)
    values = np.random.default_rng(0).integers(0, 1000, (48, 64, 5)).astype(np.uint16)
    body = io.BytesIO()
    tifffile.imwrite(body, values, photometric="minisblack", planarconfig="contig")
    with TestClient(build_app({"bands": InThread(model)}, Limits())) as client:
        found = client.post("/v1/predict", content=body.getvalue())
        assert found.status_code == 200, found.text
        assert len(found.json()["objects"]) == len(model.predict(values)[0])
        assert client.post("/v1/predict?format=overlay", content=body.getvalue()).headers["content-type"] == "image/png"
        other = client.post("/v1/predict", content=encoded(values[..., :3].astype(np.uint8)))
        assert other.status_code == 422
        assert "expected the channels a, b, c, d, e, found 3 channels in place of 5" in other.text
