"""A server in this process with a model of random weights, and the images that tests send to it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from maskrcnn.predict import Predictor
from maskrcnn.serve.app import build_app
from maskrcnn.serve.engine import InThread
from maskrcnn.serve.settings import Limits
from small_data import random_predictor, small_coco


@pytest.fixture(scope="package")
def model() -> Predictor:
    return random_predictor()


@pytest.fixture(scope="package")
def client(model: Predictor) -> Iterator[TestClient]:
    limits = Limits(max_megabytes=0.3, max_megapixels=0.2)
    with TestClient(
        build_app({"shapes": InThread(model), "other": InThread(model)}, limits), raise_server_exceptions=False
    ) as client:
        yield client


@pytest.fixture(scope="package")
def picture() -> np.ndarray:
    """(64, 80, 3) uint8."""
    return small_coco(1)[1][0]


@pytest.fixture(scope="package")
def encoded() -> Callable[..., bytes]:
    def encode(image: np.ndarray, form: str = "PNG", **options: object) -> bytes:
        out = io.BytesIO()
        Image.fromarray(image).save(out, format=form, **options)
        return out.getvalue()

    return encode
