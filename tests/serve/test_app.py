"""Every answer equals the direct prediction, and every refusal says why."""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from maskrcnn.ops.polygons import polygons_to_rle
from maskrcnn.predict import Predictor, to_coco_results
from maskrcnn.serve.app import build_app
from maskrcnn.serve.engine import InThread
from maskrcnn.serve.settings import Limits
from maskrcnn.structures.masks import RLE
from maskrcnn.visualise import draw

Encode = Callable[..., bytes]


def objects(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return answer.json()["objects"]


def expected(model: Predictor, image: np.ndarray, least: float = 0.0) -> list[dict[str, Any]]:
    found = model.predict(image)[0].with_score(least)
    entries = to_coco_results(found, 0)
    for entry, name in zip(entries, found.names, strict=True):
        del entry["image_id"]
        entry["category"] = name
    return json.loads(json.dumps(entries))


def picture_in(answer: Any) -> np.ndarray:
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


def test_objects_are_those_of_the_direct_prediction(
    client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    right = expected(model, picture)
    assert len(right) > 10
    answer = client.post("/v1/predict", content=encoded(picture))
    assert objects(answer) == right
    assert {name: answer.json()[name] for name in ("model", "width", "height")} == {
        "model": "shapes",
        "width": 80,
        "height": 64,
    }
    sent = {"image": ("a.webp", encoded(picture, "WEBP", lossless=True), "image/webp")}
    least = right[len(right) // 2]["score"]
    answer = client.post("/v1/predict?model=other", files=sent, data={"min_score": str(least)})
    assert objects(answer) == expected(model, picture, least)
    assert answer.json()["model"] == "other"


def test_photos_are_turned_upright(client: TestClient, model: Predictor, picture: np.ndarray) -> None:
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.fromarray(picture).save(out, format="PNG", exif=exif)
    answer = client.post("/v1/predict", content=out.getvalue())
    assert objects(answer) == expected(model, np.rot90(picture, -1).copy())


def test_polygons_hold_each_mask_without_its_holes(
    client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    found = model.predict(picture)[0]
    answer = client.post("/v1/predict?format=polygons", content=encoded(picture))
    size = picture.shape[:2]
    for entry, mask in zip(objects(answer), found.masks, strict=True):
        parts = [np.array(part).reshape(-1, 2) for part in entry["segmentation"]]
        filled = RLE(size, polygons_to_rle(parts, size)).dense() if parts else np.zeros(size, bool)
        assert (filled >= mask.dense()).all()
        assert filled.sum() >= mask.area
    whole = [bool(entry["segmentation"]) for entry in objects(answer)]
    assert any(whole)


def test_pictures_show_objects_of_a_score_of_a_half(
    client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    body, found = encoded(picture), model.predict(picture)[0]
    least = float(found.scores[3])
    shown = found.with_score(least)
    overlay = client.post(f"/v1/predict?format=overlay&min_score={least}", content=body)
    assert np.array_equal(picture_in(overlay), draw(picture, shown, min_score=0))
    labels = picture_in(client.post(f"/v1/predict?format=png&min_score={least}", content=body))
    masks = shown.masks.dense()
    best = np.where(masks.any(axis=0), masks.argmax(axis=0) + 1, 0)
    assert np.array_equal(labels, best)
    assert labels.any()
    assert found.scores[0] < 0.5
    assert not picture_in(client.post("/v1/predict?format=png", content=body)).any()


def test_csv_has_runs_that_count_from_one(
    client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    answer = client.post("/v1/predict?format=csv", content=encoded(picture))
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    found = model.predict(picture)[0]
    assert [row["class"] for row in rows] == list(found.names)
    assert np.allclose([[float(row[key]) for key in ("x1", "y1", "x2", "y2")] for row in rows], found.boxes, atol=1e-3)
    for row, mask in zip(rows, found.masks, strict=True):
        flat = np.zeros(mask.size[0] * mask.size[1], dtype=bool)
        numbers = list(map(int, row["EncodedPixels"].split()))
        for start, length in zip(numbers[::2], numbers[1::2], strict=True):
            flat[start - 1 : start - 1 + length] = True
        assert np.array_equal(flat.reshape(mask.size[::-1]).T, mask.dense())


def refusal(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["type"], bool(body["title"])) == (status, "about:blank", True)
    return body["detail"]


def test_bodies_that_are_no_image_are_refused(client: TestClient, picture: np.ndarray, encoded: Encode) -> None:
    def send(body: bytes) -> Any:
        return client.post("/v1/predict", content=body)

    assert "found an empty request" in refusal(send(b""), 400)
    assert "a file of another kind" in refusal(send(b"GET / HTTP/1.1"), 415)
    assert "a file of another kind" in refusal(send(encoded(picture, "GIF")), 415)
    assert "image file is truncated" in refusal(send(encoded(picture)[:-400]), 422)
    assert "500 x 401 pixels are more than the limit of 200000" in refusal(
        send(encoded(np.zeros((401, 500, 3), np.uint8))), 413
    )
    for side, words in ((12_000, "12000 x 12000 pixels"), (60_000, "3600000000 pixels")):
        bomb = bytearray(encoded(picture))
        bomb[16:24] = side.to_bytes(4, "big") * 2  # the size in the header; the pixels stay few
        bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
        assert words in refusal(send(bytes(bomb)), 413)
    assert "up to 0.3 MB" in refusal(send(bytes(300_001)), 413)
    assert "up to 0.3 MB" in refusal(client.post("/v1/predict", content=iter([bytes(200_000)] * 2)), 413)


def test_forms_and_options_are_checked(client: TestClient, picture: np.ndarray, encoded: Encode) -> None:
    body = encoded(picture)
    two = [("image", ("a.png", body)), ("image", ("b.png", body))]
    assert "up to 20 parts" in refusal(client.post("/v1/predict", files=two * 11), 400)
    assert "found 2" in refusal(client.post("/v1/predict", files=two), 400)
    assert "found 0" in refusal(client.post("/v1/predict", files={"a": (None, "b")}), 400)
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert refusal(client.post("/v1/predict", content=b"--y\r\n", headers=broken), 400)
    assert refusal(client.post("/v1/predict", content=b"--x", headers={"Content-Type": "multipart/form-data"}), 400)
    for query, word in (("min_score=2", "min_score"), ("min_score=nan", "min_score"), ("format=xml", "format")):
        assert word in refusal(client.post(f"/v1/predict?{query}", content=body), 400)
    assert "scor: Extra" in refusal(client.post("/v1/predict?scor=1", content=body), 400)
    assert "scor: Extra" in refusal(client.post("/v1/predict", files={"image": body}, data={"scor": "1"}), 400)
    assert "there are: shapes, other" in refusal(client.post("/v1/predict?model=cells", content=body), 404)
    assert refusal(client.get("/v1/predict"), 405) == "expected POST, found GET"
    assert refusal(client.get("/nothing"), 404) == "expected an address that /docs lists, found /nothing"


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 3000, 3), (3000, 1, 3), (2, 90_000, 3)])
def test_images_of_any_shape_are_answered(client: TestClient, encoded: Encode, shape: tuple[int, int, int]) -> None:
    answer = client.post("/v1/predict", content=encoded(np.zeros(shape, np.uint8)))
    assert answer.status_code == 200, answer.text


def test_the_model_describes_itself(client: TestClient) -> None:
    models = client.get("/v1/model").json()["models"]
    assert [entry["name"] for entry in models] == ["shapes", "other"]
    assert models[0]["categories"] == [{"id": 3, "name": "blue"}, {"id": 7, "name": "red"}]
    assert (models[0]["masks"], models[0]["keypoints"]) == (True, False)
    assert models[0]["thresholds"] == [0.5, 0.5]
    assert models[0]["precision"] == "fp32"


def test_health_metrics_and_the_reference_page(client: TestClient, picture: np.ndarray, encoded: Encode) -> None:
    assert client.get("/health/live").json() == {"status": "UP", "model_class": "maskrcnn"}
    client.post("/v1/predict", content=encoded(picture))
    assert client.get("/health/ready").json() == {"status": "ready"}
    client.get("/nothing")
    text = client.get("/metrics").text
    assert 'maskrcnn_requests_total{route="/v1/predict",status="200"}' in text
    assert 'maskrcnn_requests_total{route="none",status="404"}' in text
    assert 'maskrcnn_unanswered{model="shapes"} 0.0' in text
    assert 'maskrcnn_image_seconds_count{model="shapes"}' in text
    assert "/v1/predict" in client.get("/openapi.json").json()["paths"]
    page = client.get("/docs")
    assert "POST /v1/predict" in page.text
    assert "coco, polygons, png, overlay, csv (default: coco)" in page.text
    assert "<script" not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    client.app.state.service.draining = True
    try:
        assert "is ending" in refusal(client.get("/health/ready"), 503)
        assert client.get("/health/live").status_code == 200
        assert client.get("/v1/model").headers["connection"] == "close"
    finally:
        client.app.state.service.draining = False


def test_without_the_token_nothing_but_health_answers(model: Predictor, picture: np.ndarray, encoded: Encode) -> None:
    app = build_app({"m": InThread(model)}, Limits(), token="s3cret")
    with TestClient(app) as client:
        for path in ("/health", "/health/live", "/v2/health/live"):
            assert client.get(path).status_code == 200
        health = {"/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready"}
        paths = [route.path for route in app.routes if route.path not in health]
        assert {"/v1/predict", "/v1/model", "/metrics", "/docs", "/openapi.json"} <= set(paths)
        for path in (*paths, "/", "/nothing", "//v1/model", "/health/live/", "/health/../v1/model"):
            for method in ("GET", "POST", "OPTIONS"):
                answer = client.request(method, path)
                assert answer.status_code == 401, path
                assert answer.headers["www-authenticate"].startswith("Bearer, Basic realm=")
        for given in (
            "s3cret",
            "Bearer",
            "Bearer s3cre",
            "Bearer s3crett",
            "Basic s3cret",
            "Basic OnM=",
            "Digest s3cret",
            b"Basic \xe9",
        ):
            assert client.get("/v1/model", headers={"Authorization": given}).status_code == 401, given
        answer = client.post("/v1/predict", content=encoded(picture), headers={"Authorization": "Bearer s3cret"})
        assert len(objects(answer)) > 0
        assert client.get("/v1/model", auth=("anybody", "s3cret")).status_code == 200


def test_other_sites_get_no_permission(client: TestClient) -> None:
    answer = client.get("/v1/model", headers={"Origin": "https://elsewhere.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_client_that_has_gone_is_noted_and_no_failure(model: Predictor, picture: np.ndarray, encoded: Encode) -> None:
    """The application is called as a server does it, because clients of tests do not go away."""
    app, sent, body = build_app({"m": InThread(model)}, Limits()), list[Any](), encoded(picture)
    arriving = iter([{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}])
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/predict",
        "query_string": b"",
        "headers": [],
        "client": None,
    }

    async def receive() -> Any:
        return next(arriving)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "http_version": "1.1", "scheme": "http", "server": ("a", 80)}, receive, send))
    assert sent[0]["status"] == 499
    assert json.loads(sent[1]["body"])["title"] == "Client Closed Request"


def test_pictures_and_proposals_show_the_objects_that_the_model_shows(
    model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    found = model.predict(picture)[0]
    least = [float(found.scores[found.labels == label].mean()) for label in (0, 1)]
    tuned = replace(model, provenance={"thresholds": least})
    expected = found.with_score(tuned.thresholds)
    assert 0 < len(expected) < len(found)
    with TestClient(build_app({"m": InThread(tuned)}, Limits())) as client:
        overlay = client.post("/v1/predict?format=overlay", content=encoded(picture))
        assert np.array_equal(picture_in(overlay), draw(picture, expected, min_score=0))
        assert len(objects(client.post("/v1/predict", content=encoded(picture)))) == len(found)
        shapes = client.post("/cvat", json={"image": base64.b64encode(encoded(picture)).decode()}).json()
        assert [shape["confidence"] for shape in shapes] == [
            str(float(score)) for score, mask in zip(expected.scores, expected.masks, strict=True) if mask.area
        ]
