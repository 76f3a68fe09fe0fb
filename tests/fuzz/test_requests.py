"""Changed requests of every kind to the server: each is answered or refused with a reason, and none with 500.

`pytest -m fuzz` sends 2,000 of them, always the same ones; the fast tests send a few. `FUZZ_SEED=3 pytest -m fuzz`
sends others. The application runs in this process, and a signal ends what hangs.
"""

from __future__ import annotations

import base64
import os
import random
import signal
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from encoded_pictures import encoded_pictures
from maskrcnn.serve.app import build_app
from maskrcnn.serve.engine import InThread
from maskrcnn.serve.settings import Limits
from mutations import mutated_bytes, mutated_json
from small_data import random_predictor

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow warns about odd values
SEED = os.environ.get("FUZZ_SEED", "0")
SECONDS, GROWTH = 30, 200 << 20  # bytes: what the allocator keeps, and no leak of 2,000 requests
CONFIG = """<View><Image name="image" value="$image"/>
<BrushLabels name="tag" toName="image"><Label value="red"/><Label value="blue"/></BrushLabels></View>"""
Request = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def server() -> Iterator[TestClient]:
    limits = Limits(max_megabytes=1, max_megapixels=0.1)
    with TestClient(
        build_app({"shapes": InThread(random_predictor())}, limits), raise_server_exceptions=False
    ) as client:
        yield client


def image(rng: random.Random) -> Request:
    return "/v1/predict", {"content": mutated_bytes(rng.choice(encoded_pictures()), rng)}


def bomb(rng: random.Random) -> Request:
    """A PNG of many pixels in few bytes, whose header may say another size."""
    side, told = rng.choice((200, 1000, 8000)), rng.choice((None, 1, 300, 70_000, 2**31 - 1))
    header = struct.pack(
        ">IIBBBBB", told or side, told or side, rng.choice((1, 8, 16)), rng.choice((0, 2, 3, 6)), 0, 0, 0
    )
    pixels = zlib.compress(bytes(min(side * side, 4_000_000)), 9)
    chunks = ((b"IHDR", header), (b"iTXt", zlib.compress(bytes(1_000_000))), (b"IDAT", pixels), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return "/v1/predict", {"content": b"\x89PNG\r\n\x1a\n" + b"".join(parts)}


def form(rng: random.Random) -> Request:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    field = b'\r\n--x\r\nContent-Disposition: form-data; name="min_score"\r\n\r\n0.5\r\n--x--\r\n'
    body = mutated_bytes(head + rng.choice(encoded_pictures())[:3000] + field, rng)
    kinds = (
        "multipart/form-data; boundary=x",
        'multipart/form-data; boundary="x"',
        "multipart/form-data",
        "multipart/mixed; boundary=x",
    )
    return "/v1/predict", {"content": body, "headers": {"Content-Type": rng.choice(kinds[:1] * 5 + kinds)}}


def options(rng: random.Random) -> Request:
    words = (
        "",
        "nan",
        "-1",
        "2",
        "1e400",
        "coco",
        "png",
        "csv",
        "overlay",
        "polygons",
        "\u00e9",
        "a" * 5000,
        "%00",
        "../x",
    )
    query = "&".join(
        f"{rng.choice(('min_score', 'format', 'model', 'x', ''))}={rng.choice(words)}" for _ in range(rng.randint(0, 3))
    )
    return f"/v1/predict?{query}", {"content": encoded_pictures()[0]}


def inference(rng: random.Random) -> Request:
    text = base64.b64encode(rng.choice(encoded_pictures())).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    sent = {"id": "7", "parameters": {"min_score": 0.3}, "inputs": [tensor], "outputs": [{"name": "masks"}]}
    return "/v2/models/shapes/infer", {"content": mutated_json(sent, rng)}


def binary_inference(rng: random.Random) -> Request:
    picture = encoded_pictures()[0]
    values = len(picture).to_bytes(4, "little") + picture
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(values)}}
    content = mutated_json({"inputs": [tensor], "parameters": {"binary_data_output": True}}, rng)
    length = rng.choice((str(len(content)), str(len(content)), "0", "-1", "9" * 30, "x", ""))
    body = content + (mutated_bytes(values, rng) if rng.random() < 0.5 else values)
    return "/v2/models/shapes/infer", {"content": body, "headers": {"Inference-Header-Content-Length": length}}


def label_studio(rng: random.Random) -> Request:
    text = base64.b64encode(rng.choice(encoded_pictures())).decode()
    tasks = [{"id": 1, "data": {"image": f"data:image/png;base64,{text}"}, "annotations": []}]
    config = mutated_bytes(CONFIG.encode(), rng).decode("utf-8", "replace") if rng.random() < 0.3 else CONFIG
    sent = {"tasks": tasks, "label_config": config, "project": "1.1", "params": {"context": None}}
    return rng.choice(("/predict", "/predict", "/setup", "/webhook")), {"content": mutated_json(sent, rng)}


def cvat(rng: random.Random) -> Request:
    text = base64.b64encode(rng.choice(encoded_pictures())).decode()
    return "/cvat", {"content": mutated_json({"image": text, "threshold": 0.2}, rng)}


def elsewhere(rng: random.Random) -> Request:
    """A right body at a changed address, or with changed headers."""
    path = mutated_bytes(rng.choice((b"/v1/predict", b"/v2/models/shapes/infer", b"/cvat", b"/")), rng)
    quoted = "/" + "".join(f"%{byte:02x}" if byte < 48 or byte > 122 else chr(byte) for byte in path.lstrip(b"/"))
    names = ("Content-Type", "Content-Length-X", "Authorization", "Accept", "Expect", "Content-Encoding", "Retry-After")
    values = (
        "",
        "gzip",
        "x" * 4000,
        "Bearer \xff",
        "multipart/",
        "image/png; charset=\x80",
        "application/json",
        "100-continue",
    )
    headers = {rng.choice(names): rng.choice(values).encode("latin-1") for _ in range(2)}
    return quoted, {"content": encoded_pictures()[0], "headers": headers}


KINDS: dict[str, tuple[Callable[[random.Random], Request], int]] = {
    "image": (image, 500),
    "bomb": (bomb, 60),
    "form": (form, 300),
    "options": (options, 140),
    "inference": (inference, 300),
    "binary inference": (binary_inference, 150),
    "Label Studio": (label_studio, 250),
    "CVAT": (cvat, 200),
    "elsewhere": (elsewhere, 100),
}


def hangs(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def send(server: TestClient, kind: Callable[[random.Random], Request], count: int) -> None:
    """Fails with the seeds of all requests that got an answer other than a result or a reason, and those that hang."""
    bad: dict[str, list[int]] = {}
    ends: Counter[int] = Counter()
    for seed in range(count):
        path, sent = kind(random.Random(f"{SEED} {seed}"))
        old = signal.signal(signal.SIGALRM, hangs)
        signal.alarm(SECONDS)
        try:
            answer = server.post(path, **sent)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, old)
        ends[answer.status_code] += 1
        if answer.status_code >= 500 or (answer.is_client_error and not answer.text):
            bad.setdefault(f"{answer.status_code}: {answer.text[:100]}", []).append(seed)
    assert not bad, "\n".join(f"{what} (seeds {seeds[:5]})" for what, seeds in bad.items())
    assert count < 50 or len(ends) > 1, ends


@pytest.mark.parametrize("name", KINDS)
def test_a_few_changed_requests(server: TestClient, name: str) -> None:
    send(server, KINDS[name][0], 5)


@pytest.mark.fuzz
def test_thousands_of_changed_requests(server: TestClient) -> None:
    for kind, count in KINDS.values():  # fills the caches of the libraries
        send(server, kind, count // 10)
    before = resident()
    for kind, count in KINDS.values():
        send(server, kind, count)
    assert resident() - before < GROWTH
    assert server.post("/v1/predict", content=encoded_pictures()[0]).status_code == 200
    assert 'maskrcnn_unanswered{model="shapes"} 0.0' in server.get("/metrics").text


def resident() -> int:
    """Bytes of this process; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    return next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmRSS"))
