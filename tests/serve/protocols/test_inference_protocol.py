"""The Open Inference Protocol: the requests of its clients, and answers equal to the direct prediction."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from maskrcnn.predict import Predictor
from maskrcnn.structures.masks import RLE
from served_process import served

Encode = Callable[..., bytes]


def request_for(body: bytes, **more: Any) -> dict[str, Any]:
    data = base64.b64encode(body).decode()
    return {"id": "7", "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [data]}], **more}


def test_tensors_hold_the_direct_prediction(
    client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    answer = client.post("/v2/models/shapes/infer", json=request_for(encoded(picture)))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["model_name"], body["id"]) == ("shapes", "7")
    tensors = {tensor["name"]: tensor for tensor in body["outputs"]}
    found = model.predict(picture)[0]
    assert tensors["size"]["data"] == [64, 80]
    assert tensors["boxes"]["shape"] == [len(found), 4]
    assert np.array_equal(np.array(tensors["boxes"]["data"], np.float32).reshape(-1, 4), found.boxes)
    assert np.array_equal(np.array(tensors["scores"]["data"], np.float32), found.scores)
    assert tensors["labels"]["data"] == found.labels.tolist()
    assert tensors["names"]["data"] == list(found.names)
    assert [RLE((64, 80), text.encode()) for text in tensors["masks"]["data"]] == list(found.masks)
    specified = {tensor["name"]: tensor["datatype"] for tensor in client.get("/v2/models/shapes").json()["outputs"]}
    assert {name: tensor["datatype"] for name, tensor in tensors.items()} == specified


def test_outputs_and_scores_can_be_chosen(
    client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    least = float(model.predict(picture)[0].scores[4])
    more = {"parameters": {"min_score": least}, "outputs": [{"name": "scores"}]}
    body = client.post("/v2/models/shapes/infer", json=request_for(encoded(picture), **more)).json()
    assert [(tensor["name"], tensor["shape"]) for tensor in body["outputs"]] == [("scores", [5])]


def test_the_server_and_its_models_answer(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "maskrcnn"
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").status_code == 200
    assert client.get("/v2/models/other/ready").json() == {"name": "other", "ready": True}
    assert client.get("/v2/models/shapes").json()["platform"] == "pytorch"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"inputs": []}, 400),
        ({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": ["a"]}]}, 400),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["%"]}]}, 400),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["\u00e9"]}]}, 400),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}]}, 415),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1]}]}, 400),
        (
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 4}}]},
            400,
        ),
        ({"parameters": {"min_score": 3}}, 400),
    ],
)
def test_errors_are_texts(
    client: TestClient, picture: np.ndarray, encoded: Encode, change: dict[str, Any], status: int
) -> None:
    answer = client.post("/v2/models/shapes/infer", json={**request_for(encoded(picture)), **change})
    assert (answer.status_code, list(answer.json())) == (status, ["error"])


def test_other_models_and_other_bodies_are_errors(client: TestClient) -> None:
    assert client.post("/v2/models/none/infer", json={}).status_code == 404
    assert client.get("/v2/models/none/ready").json() == {"error": "no model 'none'; there are: shapes, other"}
    assert client.post("/v2/models/shapes/infer", content=b"[" * 100_000).status_code == 400


@pytest.mark.parametrize(
    ("length", "body"),
    [
        ("x", b"{}"),
        ("3", b"{}"),
        ("-1", b"{}"),
        ("9" * 5000, b"{}"),
        (None, b"\x00\x00\x00\x00aaaa"),
        (None, b"\x01\x00"),
        (None, b""),
    ],
)
def test_bytes_that_do_not_fit_are_refused(client: TestClient, length: str | None, body: bytes) -> None:
    """`length` as header, or the JSON of a right request before values of another length."""
    content = b'{"inputs":[{"name":"image","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":6}}]}'
    headers = {"Inference-Header-Content-Length": length or str(len(content))}
    answer = client.post("/v2/models/shapes/infer", content=(b"" if length else content) + body, headers=headers)
    assert (answer.status_code, list(answer.json())) == (400, ["error"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what gevent says about other threads
def test_the_client_of_triton(model: Predictor, picture: np.ndarray, encoded: Encode, tmp_path: Path) -> None:
    from tritonclient import http

    found, body = model.predict(picture)[0], encoded(picture)
    with served(model, tmp_path) as running:
        client = http.InferenceServerClient(running.url.removeprefix("http://"))
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("shapes")
        assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
        names = [tensor["name"] for tensor in client.get_model_metadata("shapes")["outputs"]]
        image = http.InferInput("image", [1], "BYTES")
        for as_bytes, value in ((True, body), (False, base64.b64encode(body))):
            image.set_data_from_numpy(np.array([value], dtype=object), binary_data=as_bytes)
            for outputs in ([http.InferRequestedOutput(name, binary_data=as_bytes) for name in names], None):
                result = client.infer("shapes", [image], outputs=outputs, request_id="7")
                assert result.get_response()["id"] == "7"
                assert result.as_numpy("size").tolist() == [64, 80]
                # The process may have other threads, which add in another order.
                assert np.allclose(result.as_numpy("boxes"), found.boxes, atol=1e-4)
                assert np.allclose(result.as_numpy("scores"), found.scores, atol=1e-6)
                assert np.array_equal(result.as_numpy("labels"), found.labels)
                texts = [text if isinstance(text, bytes) else text.encode() for text in result.as_numpy("masks")]
                assert [RLE((64, 80), text) for text in texts] == list(found.masks)
        image.set_data_from_numpy(np.array([b"no image"], dtype=object))
        with pytest.raises(http.InferenceServerException, match="a file of another kind"):
            client.infer("shapes", [image])
        client.close()
