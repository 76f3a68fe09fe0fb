"""Several processes behind one address: the same answers, and none lost when a process ends."""

from __future__ import annotations

import base64
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing import Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import numpy as np
import pytest
from starlette.testclient import TestClient

from maskrcnn.predict import Predictor
from maskrcnn.serve.app import build_app
from maskrcnn.serve.engine import Engine, InThread
from maskrcnn.serve.processes import Arrivals, Card, Child
from maskrcnn.serve.settings import Labelling, Limits
from maskrcnn.serve.worker import Worker
from served_process import Running, served
from small_data import small_coco

Encode = Callable[..., bytes]
BRUSH = (
    '<View><Image name="i" value="$image"/><BrushLabels name="b" toName="i"><Label value="red"/></BrushLabels></View>'
)


class AtTheOtherEnd(InThread):
    """What happens in a process happens in a thread, with everything sent through a connection as between processes."""

    def work(self, engine: Engine) -> None:
        ours, theirs = Pipe()
        arrivals = Arrivals(theirs, Card(self.config, self.provenance, self.thresholds, self.precision))
        worker = Worker(self.model, arrivals, engine.limits.batch_size)
        threads = [threading.Thread(target=run) for run in (arrivals.receive, worker.run)]
        for thread in threads:
            thread.start()
        process: Any = SimpleNamespace(is_alive=lambda: True)
        child = Child(process, ours)
        assert child.speaks(lambda: True)
        assert child.first_word().config == self.config
        engine.started()
        assert child.work(engine)
        ours.close()
        for thread in threads:
            thread.join()
        theirs.close()


@pytest.mark.slow
def test_every_answer_passes_between_processes(
    client: TestClient, model: Predictor, picture: np.ndarray, encoded: Encode
) -> None:
    image = encoded(picture)
    text = base64.b64encode(image).decode()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}
    task = {"id": 1, "data": {"image": f"data:image/png;base64,{text}"}}
    requests: list[tuple[str, dict[str, Any]]] = [
        *((f"/v1/predict?format={form}", {"content": image}) for form in ("coco", "polygons", "png", "overlay", "csv")),
        ("/v1/predict", {"content": b"no image"}),
        ("/v1/predict", {"content": image[:-300]}),
        ("/v1/predict", {"content": encoded(np.zeros((500, 500, 3), np.uint8))}),
        ("/v2/models/shapes/infer", {"json": {"inputs": [tensor]}}),
        ("/cvat", {"json": {"image": text, "threshold": 0.0}}),
        ("/predict", {"json": {"tasks": [task], "label_config": BRUSH}}),
    ]
    app = build_app({"shapes": AtTheOtherEnd(model)}, client.app.state.service.limits)
    with TestClient(app) as other:
        for path, sent in requests:
            expected, answer = client.post(path, **sent), other.post(path, **sent)
            assert (answer.status_code, answer.content) == (expected.status_code, expected.content), path


def test_a_failure_in_a_process_is_the_failure_of_one_request(
    model: Predictor, picture: np.ndarray, encoded: Encode, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = build_app({"shapes": AtTheOtherEnd(model)}, Limits(), labelling=Labelling(proposal_score=0.0))
    with TestClient(app, raise_server_exceptions=False) as client:
        assert client.post("/v1/predict?format=overlay&min_score=0", content=encoded(picture)).status_code == 200
        monkeypatch.setattr("maskrcnn.serve.answers.draw", lambda *_, **__: 1 / 0)
        failed = client.post("/v1/predict?format=overlay&min_score=0", content=encoded(picture))
        assert (failed.status_code, failed.json()["title"]) == (500, "Internal Server Error")
        assert client.post("/v1/predict", content=encoded(picture)).status_code == 200


def test_an_end_does_not_wait_for_a_process_that_starts() -> None:
    killed: list[bool] = []
    process: Any = SimpleNamespace(kill=lambda: killed.append(True))
    ours, theirs = Pipe()
    with ours, theirs:
        assert not Child(process, ours).speaks(lambda: False)
    assert killed == [True]


def processes_of(running: Running) -> list[int]:
    """The processes that compute, which are children of any thread of the server."""
    tasks = Path(f"/proc/{running.process.pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for_workers(running: Running, count: int) -> None:
    while f'maskrcnn_workers{{model="shapes"}} {count}.0' not in httpx2.get(f"{running.url}/metrics").text:
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes in /proc")
def test_killed_processes_are_replaced_and_no_request_is_lost(
    model: Predictor, tmp_path: Path, encoded: Encode
) -> None:
    images = small_coco(4)[1]
    bodies = [encoded(image) for image in images]
    answers: list[tuple[int, httpx2.Response]] = []
    lost: list[Exception] = []
    told = threading.Event()

    def ask(number: int) -> None:
        with httpx2.Client(timeout=120) as client:
            while not told.is_set():
                number = (number + 1) % len(images)
                try:
                    answers.append((number, client.post(f"{running.url}/v1/predict", content=bodies[number])))
                except httpx2.ConnectError:  # the socket is closed
                    return
                except httpx2.HTTPError as error:
                    lost.append(error)

    with served(model, tmp_path, "--processes", "2", "--drain-delay", "0.5") as running:
        wait_for_workers(running, 2)
        first = processes_of(running)
        assert len(first) == 2
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        while len(answers) < 5:
            time.sleep(0.05)
        os.kill(first[0], signal.SIGKILL)
        while not any("a process is replaced" in line for line in running.lines):
            time.sleep(0.05)
        assert httpx2.get(f"{running.url}/health/ready").status_code == 200  # the other one still works
        wait_for_workers(running, 2)
        second = processes_of(running)
        assert len(second) == 2
        assert first[0] not in second
        for child in second:  # as a terminal or systemd does, which tell all processes of a group
            os.kill(child, signal.SIGTERM)
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(120) == 0
        told.set()
        for thread in threads:
            thread.join(120)
        assert not [child for child in second if Path(f"/proc/{child}").exists()]
    assert lost == []
    right = [len(found) for found in model.predict(images)]
    for number, answer in answers:
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["objects"]) == right[number]
    (replaced,) = [json.loads(line) for line in running.lines if "a process is replaced" in line]
    assert replaced["reason"] == f"process {first[0]} has ended with SIGKILL"
