"""Bodies that nobody would send by accident get 4xx: no failure of the server, and it still answers afterwards."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from starlette.testclient import TestClient

Encode = Callable[..., bytes]
FORMS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")


def mutated(body: bytes, rng: np.random.Generator) -> bytes:
    """A body with some bytes changed, cut, doubled or moved."""
    data = bytearray(body)
    for _ in range(int(rng.integers(1, 6))):
        at = int(rng.integers(0, len(data) + 1))
        stop = min(len(data), at + int(rng.integers(1, 40)))
        match rng.integers(0, 5):
            case 0:
                data[at:stop] = rng.bytes(stop - at)
            case 1:
                del data[at:stop]
            case 2:
                data[at:at] = data[at:stop]
            case 3:
                data[at:stop] = b"\xff" * (stop - at)
            case _:
                data = data[: max(at, 1)]
    return bytes(data)


@pytest.mark.parametrize("form", FORMS)
def test_mutated_images(client: TestClient, picture: np.ndarray, encoded: Encode, form: str) -> None:
    rng, body = np.random.default_rng(FORMS.index(form)), encoded(picture[:20, :24], form)
    for _ in range(30):
        answer = client.post("/v1/predict", content=mutated(body, rng))
        assert answer.status_code in (200, 413, 415, 422), answer.text
        assert answer.status_code == 200 or answer.json()["detail"]
    assert client.post("/v1/predict", content=body).status_code == 200


def test_mutated_forms(client: TestClient, picture: np.ndarray, encoded: Encode) -> None:
    rng, image = np.random.default_rng(0), encoded(picture[:20, :24])
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    body = head + image + b'\r\n--x\r\nContent-Disposition: form-data; name="min_score"\r\n\r\n0.5\r\n--x--\r\n'
    kinds = {"Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/v1/predict", content=body, headers=kinds).status_code == 200
    for _ in range(60):
        answer = client.post("/v1/predict", content=mutated(body, rng), headers=kinds)
        assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/mixed; boundary=x", "multipart/form-data; boundary=\xff", "a" * 5000]
)
def test_odd_types_of_content(client: TestClient, kind: str) -> None:
    answer = client.post("/v1/predict", content=b"--x\r\n\r\n", headers={"Content-Type": kind.encode("latin-1")})
    assert 400 <= answer.status_code < 500, answer.text
