"""The command in a process of its own: real sockets, signals and slow senders."""

from __future__ import annotations

import json
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import numpy as np
import pytest

from maskrcnn.benchmark.load import resident_bytes
from maskrcnn.predict import Predictor, to_coco_results
from mutations import mutated_bytes
from served_process import served
from small_data import small_coco

pytestmark = pytest.mark.slow
Encode = Callable[..., bytes]


def test_term_under_load_loses_no_request(model: Predictor, tmp_path: Path, encoded: Encode) -> None:
    images = small_coco(6)[1]
    right = [
        [{k: v for k, v in entry.items() if k != "image_id"} for entry in to_coco_results(found, 0)]
        for found in model.predict(images)
    ]
    answers: list[tuple[int, httpx2.Response]] = []
    lost: list[Exception] = []
    refused = threading.Event()

    def ask(number: int) -> None:
        with httpx2.Client(timeout=30) as client:
            while not refused.is_set():
                number = (number + 1) % len(images)
                try:
                    answers.append((number, client.post(f"{running.url}/v1/predict", content=bodies[number])))
                except httpx2.ConnectError:  # the socket is closed
                    refused.set()
                except httpx2.HTTPError as error:
                    lost.append(error)

    bodies = [encoded(image) for image in images]
    with served(model, tmp_path, "--queue", "6", "--drain-delay", "1") as running:
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        time.sleep(1.5)
        before = len(answers)
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert httpx2.get(f"{running.url}/health/ready").status_code == 503
        assert running.process.wait(30) == 0
        for thread in threads:
            thread.join(30)
    assert lost == []
    assert len(answers) > before > 0
    statuses = {answer.status_code for _, answer in answers}
    assert statuses == {200, 503}
    assert all("Retry-After" in answer.headers for _, answer in answers if answer.status_code == 503)
    for number, answer in answers:
        if answer.status_code == 200:
            found = [{k: v for k, v in entry.items() if k != "category"} for entry in answer.json()["objects"]]
            expected = json.loads(json.dumps(right[number]))
            # In a batch, sums are added in another order.
            scores = [[entry.pop("score") for entry in entries] for entries in (found, expected)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-6)
            assert found == expected
    logged = [json.loads(line) for line in running.lines]
    assert sum(line["message"] == "request" and line["path"] == "/v1/predict" for line in logged) == len(answers)
    assert {line["level"] for line in logged} == {"info"}


def test_slow_and_endless_senders_are_cut_off(
    model: Predictor, tmp_path: Path, picture: np.ndarray, encoded: Encode
) -> None:
    head = b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t0ken\r\n"
    (tmp_path / "token").write_text("t0ken\n")
    flags = ("--timeout", "1", "--max-megabytes", "0.1", "--token-file", str(tmp_path / "token"))
    with served(model, tmp_path, *flags, MASKRCNN_TOKEN="not this one") as running:

        def status_of(*parts: bytes, pause: float = 0.0) -> int:
            with socket.create_connection(running.address, 10) as connection:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
                return int(connection.recv(100).split()[1])

        start = time.monotonic()
        assert status_of(head + b"Content-Length: 50\r\n\r\n", b"abc") == 408
        assert time.monotonic() - start < 4
        assert status_of(head + b"Content-Length: 5000000000\r\n\r\n") == 413
        chunk = b"8000\r\n" + bytes(0x8000) + b"\r\n"
        assert status_of(head + b"Transfer-Encoding: chunked\r\n\r\n", chunk * 5) == 413
        assert status_of(head + b"X: " + b"x" * 200_000) == 400
        assert status_of(b"\x16\x03\x01 nonsense\r\n\r\n") == 400
        assert status_of(head.replace(b"t0ken", b"other") + b"Content-Length: 50\r\n\r\n") == 401
        for _ in range(20):  # clients that go away
            with socket.create_connection(running.address, 10) as connection:
                connection.sendall(head + b"Content-Length: 50\r\n\r\nabc")
        body = encoded(picture)
        whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
        before = resident_bytes(running.process.pid)
        for seed in range(200):  # changed requests, of which the half is followed by the end of what the client sends
            with socket.create_connection(running.address, 10) as connection, suppress(OSError):
                connection.sendall(mutated_bytes(whole, random.Random(seed)))
                if seed % 2:
                    connection.shutdown(socket.SHUT_WR)
                connection.settimeout(0.02)
                answer = connection.recv(100)
                assert not answer or int(answer.split()[1]) < 500
        assert resident_bytes(running.process.pid) - before < 100e6
        with httpx2.Client(base_url=running.url, headers={"Authorization": "Bearer t0ken"}) as client:
            assert client.post("/v1/predict", content=encoded(picture)).status_code == 200
            assert "maskrcnn_requests_total" in client.get("/metrics").text
        assert httpx2.get(f"{running.url}/metrics").status_code == 401
        assert running.end(signal.SIGINT) == 0
    assert not [line for line in running.lines if '"error"' in line]


def test_two_signals_end_at_once(model: Predictor, tmp_path: Path) -> None:
    with served(model, tmp_path, "--drain-delay", "60") as running:
        running.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert running.process.poll() is None
        start = time.monotonic()
        assert running.end() == 0
        assert time.monotonic() - start < 5
