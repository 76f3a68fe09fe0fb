"""CVAT's requests to a nuclio function, through the handler that the documentation gives."""

from __future__ import annotations

import base64
import io
import json
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from starlette.testclient import TestClient

from maskrcnn.predict import Predictor

Encode = Callable[..., bytes]
PAGE = (Path(__file__).parents[3] / "docs" / "cvat.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    return found


def test_shapes_are_the_prediction(client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode) -> None:
    sent = {"image": base64.b64encode(encoded(picture)).decode(), "threshold": 0.0}
    shapes = client.post("/cvat", json=sent).json()
    found = model.predict(picture)[0]
    shown = [i for i in range(len(found)) if found.masks[i].area]
    assert [shape["label"] for shape in shapes] == [found.names[i] for i in shown]
    assert [shape["confidence"] for shape in shapes] == [str(float(found.scores[i])) for i in shown]
    for shape, i in zip(shapes, shown, strict=True):
        assert shape["type"] == "mask"
        *pixels, x1, y1, x2, y2 = shape["mask"]
        drawn = np.zeros(picture.shape[:2], dtype=bool)
        drawn[y1 : y2 + 1, x1 : x2 + 1] = np.reshape(pixels, (y2 - y1 + 1, x2 - x1 + 1))
        assert np.array_equal(drawn, found.masks[i].dense())
        points = np.reshape(shape["points"], (-1, 2))
        assert (points >= [x1, y1]).all()
        assert (points <= [x2 + 1, y2 + 1]).all()
    least = float(found.scores[shown[2]])
    assert len(client.post("/cvat", json={**sent, "threshold": least}).json()) == 3
    del sent["threshold"]
    assert client.post("/cvat", json=sent).json() == []  # scores of random weights are below the default


def test_the_handler_of_the_page_forwards(
    client: TestClient, picture: np.ndarray, encoded: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def urlopen(request: urllib.request.Request, timeout: float) -> io.BytesIO:
        assert request.full_url == "http://maskrcnn:8000/cvat"
        assert request.headers["Authorization"] == "Bearer t"
        answer = client.post("/cvat", content=request.data)
        assert answer.status_code == 200
        return io.BytesIO(answer.content)

    class Context:
        def Response(self, **answer: Any) -> dict[str, Any]:  # noqa: N802
            return answer

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setenv("MASKRCNN_URL", "http://maskrcnn:8000")
    monkeypatch.setenv("MASKRCNN_TOKEN", "t")
    scope: dict[str, Any] = {}
    exec(block("python"), scope)
    sent = {"image": base64.b64encode(encoded(picture)).decode(), "threshold": 0.0}
    answer = scope["handler"](Context(), SimpleNamespace(body=sent))
    assert (answer["status_code"], answer["content_type"]) == (200, "application/json")
    assert json.loads(answer["body"]) == client.post("/cvat", json=sent).json()


def test_the_spec_of_the_page_has_the_labels(client: TestClient) -> None:
    function = yaml.safe_load(block("yaml"))
    spec = json.loads(function["metadata"]["annotations"]["spec"])
    assert [list(label) for label in spec] == [["id", "name", "type"]] * len(spec)
    assert client.get("/cvat/labels").json() == [
        {"id": 0, "name": "blue", "type": "mask"},
        {"id": 1, "name": "red", "type": "mask"},
    ]


@pytest.mark.parametrize("sent", [{}, {"image": "%"}, {"image": 3}, {"image": "", "threshold": 2}, []])
def test_what_cannot_be_answered_is_said(client: TestClient, sent: Any) -> None:
    answer = client.post("/cvat", json=sent)
    assert answer.status_code == 400
    assert answer.json()["detail"]
