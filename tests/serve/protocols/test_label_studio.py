"""Label Studio's requests as it sends them, and regions that it shows and that our reader reads."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from maskrcnn.data.formats.annotation_files.label_studio import read
from maskrcnn.predict import Predictor
from maskrcnn.serve.app import build_app
from maskrcnn.serve.engine import InThread
from maskrcnn.serve.problems import RefusalError
from maskrcnn.serve.protocols import label_studio
from maskrcnn.serve.protocols.image_sources import ImageSources
from maskrcnn.serve.settings import Labelling, Limits
from maskrcnn.structures.masks import RLE

Encode = Callable[..., bytes]
CONFIG = """<View>
  <Image name="picture" value="$image" zoom="true"/>
  <Header value="cells"/>
  <KIND name="tag" toName="picture"><Label value="Red" background="#f00"/><Label value="blue"/></KIND>
</View>"""


class Studio(BaseHTTPRequestHandler):
    """Gives an image to whoever has the token, and redirects on demand. Notes what was asked."""

    image = b""
    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization")))
        if self.path.startswith(("/to/", "/raw/")):
            self.send_response(302)
            target = self.path.removeprefix("/to/")
            if self.path.startswith("/raw/"):  # as servers do that write UTF-8 into headers
                target = unquote(self.path.removeprefix("/raw")).encode().decode("latin-1")
            self.send_header("Location", target)
            self.end_headers()
            return
        self.send_response(200 if self.headers.get("Authorization") == "Token studio" else 401)
        if self.path == "/cut.png":
            self.send_header("Content-Length", str(len(self.image) + 30))
        self.end_headers()
        self.wfile.write(self.image)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def studio(picture: np.ndarray, encoded: Encode) -> Iterator[str]:
    Studio.image, Studio.asked = encoded(picture), []
    with HTTPServer(("127.0.0.1", 0), Studio) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def backend(model: Predictor, studio: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv(label_studio.TOKEN_VARIABLE, "studio")
    app = build_app({"shapes": InThread(model)}, Limits(), labelling=Labelling(studio, proposal_score=0.0))
    with TestClient(app) as client:
        yield client


def tasks(*addresses: str, kind: str = "BrushLabels") -> dict[str, Any]:
    """As Label Studio 1.x sends it: fields that are of no use to us, too."""
    return {
        "tasks": [
            {"id": 7 + i, "data": {"image": address}, "meta": {}, "is_labeled": False, "annotations": []}
            for i, address in enumerate(addresses)
        ],
        "model_version": "shapes",
        "project": "1.1695000000",
        "label_config": CONFIG.replace("KIND", kind),
        "params": {"login": None, "password": None, "context": None},
    }


def test_a_project_is_connected(backend: TestClient) -> None:
    assert backend.get("/health").json() == {"status": "UP", "model_class": "maskrcnn"}
    sent = {"project": "1.1695000000", "schema": CONFIG, "hostname": "http://studio", "access_token": "t"}
    connected = backend.post("/setup", json=sent).json()
    assert re.fullmatch(r"shapes-[0-9a-f]{8}", connected["model_version"])
    assert backend.get("/versions", params={"project": "1.1695000000"}).json() == {
        "versions": [connected["model_version"]]
    }
    event = {"action": "PROJECT_UPDATED", "project": {"id": 1}}
    assert backend.post("/webhook", json=event).status_code == 201


def test_another_training_is_another_version(model: Predictor) -> None:
    versions = [
        label_studio.version_of("m", InThread(replace(model, provenance=provenance)))
        for provenance in ({"step": 10}, {"step": 20}, {"step": 10})
    ]
    assert versions[0] == versions[2] != versions[1]


@pytest.mark.parametrize("kind", ["BrushLabels", "PolygonLabels", "RectangleLabels"])
def test_proposals_are_the_prediction(
    backend: TestClient, model: Predictor, picture: np.ndarray, tmp_path: Path, kind: str
) -> None:
    answer = backend.post("/predict", json=tasks("/data/upload/1/a.png", kind=kind))
    assert answer.status_code == 200, answer.text
    (result,) = answer.json()["results"]
    assert Studio.asked == [("/data/upload/1/a.png", "Token studio")]
    found = model.predict(picture)[0]
    shown = [i for i in range(len(found)) if kind == "RectangleLabels" or found.masks[i].area]
    if kind != "PolygonLabels":
        assert [entry["score"] for entry in result["result"]] == [float(found.scores[i]) for i in shown]
        labels = {"red": "Red", "blue": "blue"}
        names = [entry["value"][kind.lower()] for entry in result["result"]]
        assert names == [[labels[found.names[i]]] for i in shown]
    assert {(e["from_name"], e["to_name"], e["type"]) for e in result["result"]} == {("tag", "picture", kind.lower())}
    assert {(e["original_width"], e["original_height"], e["image_rotation"]) for e in result["result"]} == {(80, 64, 0)}
    assert result["model_version"] == backend.get("/versions").json()["versions"][0]
    assert result["score"] == pytest.approx(np.mean([entry["score"] for entry in result["result"]]))

    Image.fromarray(picture).save(tmp_path / "a.png")
    (tmp_path / "export.json").write_text(json.dumps([{"id": 1, "data": {"image": "a.png"}, "annotations": [result]}]))
    again = read(tmp_path / "export.json")
    if kind == "BrushLabels":
        assert again.annotations(0).masks() == [found.masks[i] for i in shown]
    if kind == "RectangleLabels":
        assert np.allclose(again.annotations(0).boxes, found.boxes, atol=1e-3)


def test_one_broken_task_costs_no_other(backend: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    answer = backend.post("/predict", json=tasks("/a.png", "http://elsewhere.example/a.png"))
    first, second = answer.json()["results"]
    assert len(first["result"]) > 0
    assert second.keys() == {"error", "model_version"}, "a result without objects would be stored as a proposal"
    assert "allow the host with --image-hosts" in second["error"]
    assert "task failed" in caplog.text
    answer = backend.post("/predict", json=tasks("http://elsewhere.example/a.png"))
    assert answer.status_code == 403
    assert "allow the host with --image-hosts" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label_config": "<View>"}, "label_config: not XML"),
        ({"label_config": '<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>'}, "without a document type"),
        ({"label_config": '<View><Image name="i" value="$image"/></View>'}, "expected BrushLabels"),
        (
            {"label_config": CONFIG.replace("KIND", "BrushLabels").replace("Red", "car").replace("blue", "bus")},
            "car, bus",
        ),
        ({"tasks": [{"id": 1, "data": {"text": "a"}}]}, "task 1: expected the address of an image as image"),
        ({"tasks": 3}, "tasks"),
    ],
)
def test_what_cannot_be_proposed_is_said(backend: TestClient, change: dict[str, Any], words: str) -> None:
    answer = backend.post("/predict", json={**tasks("/a.png"), **change})
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["detail"]


def test_only_allowed_hosts_are_asked_and_only_home_gets_the_token(studio: str, encoded: Encode) -> None:
    other = studio.replace("127.0.0.1", "localhost")
    place = other.removeprefix("http://")
    sources = ImageSources(studio, "studio", (), Limits())
    assert sources.fetch("/a.png") == Studio.image == sources.fetch(f"{studio}/a.png")
    assert sources.fetch(f"/to/{studio}/b.png") == Studio.image
    data = base64.b64encode(b"abc").decode()
    assert sources.fetch(f"data:image/png;base64,{data}") == b"abc"
    for address, status in (
        (f"{other}/a.png", 403),
        (f"//{place}/a.png", 403),
        (f"http://127.0.0.1:{studio.rpartition(':')[2]}@evil.example/", 403),
        ("http://169.254.169.254/latest", 403),
        (f"/to/{other}/a.png", 403),
        ("file:///etc/passwd", 400),
        ("ftp://127.0.0.1/a", 400),
        ("http://[::1", 400),
        ("http://127.0.0.1:x/", 400),
        ("/to/http://[::1", 502),
        ("data:image/png,abc", 400),
        ("data:image/png;base64,%%%", 400),
        ("/to/" * 5 + "a", 502),
    ):
        with pytest.raises(RefusalError) as refused:
            sources.fetch(address)
        assert refused.value.status == status, address
    allowed = ImageSources(studio, "studio", (place,), Limits())
    Studio.asked.clear()
    with pytest.raises(RefusalError, match="answers 401"):
        allowed.fetch(f"/to/{other}/a.png")
    assert [token for _, token in Studio.asked] == ["Token studio", None]
    with pytest.raises(RefusalError, match=r"up to 0\.001 MB"):
        ImageSources(studio, "studio", (), Limits(max_megabytes=0.001)).fetch("/a.png")
    with pytest.raises(RefusalError) as refused:
        ImageSources(None, None, (), Limits()).fetch("/a.png")
    assert refused.value.status == 400


def test_addresses_may_have_umlauts_and_spaces(studio: str) -> None:
    sources = ImageSources(studio, "studio", (), Limits())
    for address, path in (
        ("/data/upload/1/bäume.png", "/data/upload/1/b%C3%A4ume.png"),
        ("/data/local-files/?d=my folder/a.png", "/data/local-files/?d=my%20folder/a.png"),
        (f"{studio}/b%C3%A4ume%20a.png", "/b%C3%A4ume%20a.png"),
        ("/raw/b%C3%A4ume a.png", "/b%C3%A4ume%20a.png"),
    ):
        assert sources.fetch(address) == Studio.image
        assert Studio.asked[-1] == (path, "Token studio")
    with pytest.raises(RefusalError) as refused:
        sources.fetch("/\ud800.png")
    assert refused.value.status == 400


def test_an_image_that_is_cut_off_on_its_way_is_not_called_broken(backend: TestClient) -> None:
    answer = backend.post("/predict", json=tasks("/cut.png"))
    assert answer.status_code == 502, answer.text
    assert "30 bytes are missing" in answer.json()["detail"]


def test_tasks_of_a_client_that_has_gone_are_left_alone(
    model: Predictor, studio: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The application is called as a server does it, because clients of tests do not go away."""
    monkeypatch.setenv(label_studio.TOKEN_VARIABLE, "studio")
    app = build_app({"shapes": InThread(model)}, Limits(timeout=1), labelling=Labelling(studio))
    body, sent = json.dumps(tasks("/a.png", "/b.png", "/c.png")).encode(), list[Any]()
    arriving = iter([{"type": "http.request", "body": body, "more_body": False}])
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b"", "headers": [], "client": None}

    async def receive() -> Any:
        return next(arriving, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app({**scope, "http_version": "1.1", "scheme": "http", "server": ("a", 80)}, receive, send))
    assert sent[0]["status"] == 499
    assert [path for path, _ in Studio.asked] == ["/a.png"]


def test_the_brush_is_what_label_studio_draws(model: Predictor) -> None:
    """Decoded by the rule of Label Studio's own converter, value by value."""
    mask = np.zeros((9, 13), dtype=bool)
    mask[2:5, 3:9] = mask[7, 0] = mask[8, 12] = True
    bits = "".join(f"{code:08b}" for code in label_studio.brush_codes(RLE.from_dense(mask)))
    at = 0

    def number(width: int) -> int:
        nonlocal at
        at += width
        return int(bits[at - width : at], 2)

    count, word = number(32), number(5) + 1
    sizes = [number(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < count:
        repeated = number(1)
        length = number(sizes[number(2)]) + 1
        values += [number(word)] * length if repeated else [number(word) for _ in range(length)]
    assert np.array_equal(np.array(values).reshape(9, 13, 4), np.repeat(mask[..., None], 4, axis=2) * 255)
    assert len(bits) - at < 8
