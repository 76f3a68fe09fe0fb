"""The server under load: many clients for some time, every answer compared with the direct prediction, and the speed
beside that of direct prediction on the same files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.client import HTTPConnection, HTTPException
from itertools import cycle, takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch

from maskrcnn.benchmark.measure import environment
from maskrcnn.benchmark.predict import generate_images
from maskrcnn.benchmark.settings import ServeSettings
from maskrcnn.errors import MaskRCNNError
from maskrcnn.files.images import read_image
from maskrcnn.predict import Predictor, load, stream, to_coco_results
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE
from maskrcnn.threads import threads_of_each

BOX_PX, SCORE = 0.01, 1e-4  # by which answers may differ, because threads add in another order
MASK_IOU = 0.99
REQUEST_SECONDS = 300.0  # for an answer: beyond the server's own time limits, so that only lost ones take so long
ALONE = 0.2  # share of the time for each of the two measurements of direct prediction
SETTLED = 0.2  # share of the time after which the memory is measured first


@dataclass
class Tally:
    """What the clients have met. `seconds` are those of the right answers, `refused` those of the answers 503."""

    seconds: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ServeReport:
    """
    Attributes:
        alone: images a second of direct prediction, before and after the load.
        served_seconds: the time in which the answers of `tally` arrived.
        memory: bytes of all processes of the server, when the load had settled and at its end; None where the system
            does not tell.
        exit_code: of the server, which was told to end under load.
    """

    settings: ServeSettings
    environment: dict[str, Any]
    tally: Tally
    alone: tuple[float, float]
    served_seconds: float
    memory: tuple[int, int] | None
    exit_code: int

    @property
    def agree(self) -> bool:
        """Whether no answer was lost or wrong, and the server ended as it should."""
        return bool(self.tally.seconds) and not (self.tally.wrong or self.tally.lost or self.exit_code)

    @property
    def served(self) -> float:
        """Images a second."""
        return len(self.tally.seconds) / self.served_seconds

    @property
    def ratio(self) -> float:
        """The rate of the server as a share of that of direct prediction."""
        return self.served / float(np.mean(self.alone))

    def line(self) -> str:
        found = self.tally
        problems = [f"{len(found.lost)} lost", f"{len(found.wrong)} wrong", *(found.lost[:1] + found.wrong[:1])]
        return f"{len(found.seconds)} answers, {len(found.refused)} refused with 503, {', '.join(problems)}" + (
            f"; the server ended with {self.exit_code}" if self.exit_code else ""
        )

    def to_dict(self) -> dict[str, Any]:
        found = self.tally
        return {
            "bench": "serve",
            "environment": self.environment,
            "settings": asdict(self.settings),
            "answers": {"right": len(found.seconds), "refused": len(found.refused), **_first(found)},
            "seconds": percentiles(found.seconds),
            "seconds_of_refusals": percentiles(found.refused),
            "images_per_second": {"served": self.served, "alone": self.alone, "ratio": self.ratio},
            "memory_bytes": self.memory,
            "exit_code": self.exit_code,
        }


def _first(found: Tally) -> dict[str, Any]:
    return {name: [len(texts), *texts[:1]] for name, texts in (("wrong", found.wrong), ("lost", found.lost))}


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile; nothing of no values."""
    return dict(zip(("p50", "p99"), np.percentile(seconds, [50, 99]).tolist(), strict=True)) if seconds else {}


def bench_serve(source: str, files: Sequence[Path], settings: ServeSettings, folder: Path) -> ServeReport:
    """Serves a model to many clients.

    Args:
        source: as in `maskrcnn.load`.
        files: images; if there are none, some are generated in `folder`.

    Raises:
        MaskRCNNError: the server does not start.
    """
    files = list(files) or generate_images(folder, settings.count, settings.size)
    right = _direct(source, files, settings)
    model = load(source, precision=settings.precision, threads=settings.threads)
    before = files_a_second(model, files, ALONE * settings.seconds)
    bodies = [file.read_bytes() for file in files]
    with _served(source, settings) as (server, host, port):
        tally, memory = _loaded(server, (host, port), list(zip(bodies, right, strict=True)), settings)
        exit_code = server.wait(REQUEST_SECONDS)
    alone = (before, files_a_second(model, files, ALONE * settings.seconds))
    found = environment(model.device, settings.precision)
    return ServeReport(settings, found, tally, alone, settings.seconds, memory, exit_code)


def _direct(source: str, files: Sequence[Path], settings: ServeSettings) -> list[list[dict[str, Any]]]:
    """The right answers: direct prediction with as many threads as a process of the server has, because in bf16 another
    number of threads gives other scores."""
    several = settings.threads is None and settings.processes > 1
    threads = threads_of_each(settings.processes) if several else settings.threads
    before = torch.get_num_threads()
    try:
        return [_entries(found) for found in load(source, precision=settings.precision, threads=threads).predict(files)]
    finally:
        torch.set_num_threads(before)


def files_a_second(model: Predictor, files: Sequence[Path], seconds: float) -> float:
    """Images a second of prediction from files to COCO results."""
    start = time.perf_counter()
    several = takewhile(lambda _: time.perf_counter() - start < seconds, cycle(files))
    images = sum(1 for _ in stream(model, several, read_image, lambda file, image, found: json.dumps(_entries(found))))
    return images / (time.perf_counter() - start)


@contextmanager
def _served(source: str, settings: ServeSettings) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """A server in a process of its own, which is ready."""
    words = [sys.executable, "-m", "maskrcnn", "serve", "--model", f"m={source}", "--port", "0"]
    flags = {"queue": settings.queue, "processes": settings.processes, "precision": settings.precision}
    words += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    words += ["--threads", str(settings.threads)] if settings.threads else []
    server = subprocess.Popen([*words, "--drain-delay", "1"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    lines = iter(server.stderr.readline, "")
    reader = threading.Thread(target=lambda: [None for _ in lines])  # the server would wait for one
    try:
        url = next((json.loads(line)["url"] for line in lines if '"url"' in line), None)
        reader.start()
        if url is None:
            raise MaskRCNNError(f"the server has ended with {server.wait()}: maskrcnn {' '.join(words[3:])}")
        parts = urlsplit(url)
        host, port = str(parts.hostname), int(parts.port or 0)
        while _ask(host, port, "GET", "/health/ready")[0] != 200:
            time.sleep(0.1)
        yield server, host, port
    finally:
        server.kill()
        server.wait()
        reader.join()
        server.stderr.close()


def _loaded(
    server: subprocess.Popen[str],
    address: tuple[str, int],
    images: list[tuple[bytes, list[dict[str, Any]]]],
    settings: ServeSettings,
) -> tuple[Tally, tuple[int, int] | None]:
    """Asks for all of the time, and tells the server to end while the clients still ask."""
    tally, ending = Tally(), threading.Event()
    known: list[set[bytes]] = [set() for _ in images]  # answers that were compared

    def client(number: int) -> None:
        while True:
            number = (number + 1) % len(images)
            body, right = images[number]
            start = time.perf_counter()
            try:
                status, retry_after, answer = _ask(*address, "POST", "/v1/predict", body)
            except ConnectionRefusedError:
                if not ending.is_set():
                    tally.lost.append("the server does not accept connections")
                return
            except (HTTPException, OSError) as error:
                tally.lost.append(f"{type(error).__name__}: {error}")
                continue
            seconds = time.perf_counter() - start
            if status == 503:
                tally.refused.append(seconds)
                ending.wait(retry_after)
            elif status != 200 or not (answer in known[number] or is_right(answer, right)):
                tally.wrong.append(f"{status} {answer[:200]!r}")
            else:
                known[number].add(answer)
                if not ending.is_set():
                    tally.seconds.append(seconds)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(settings.clients)]
    for thread in threads:
        thread.start()
    time.sleep(SETTLED * settings.seconds)
    first = resident_bytes(server.pid)
    time.sleep((1 - SETTLED) * settings.seconds)
    memory = (first, resident_bytes(server.pid)) if first else None
    ending.set()
    server.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    return tally, memory


def _ask(host: str, port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, float, bytes]:
    """The status, the seconds of Retry-After and the body of an answer, over a connection of its own."""
    connection = HTTPConnection(host, port, timeout=REQUEST_SECONDS)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, float(answer.headers.get("Retry-After", 0)), answer.read()
    finally:
        connection.close()


def _entries(found: Instances) -> list[dict[str, Any]]:
    return to_coco_results(found, 0)


def is_right(answer: bytes, right: Sequence[dict[str, Any]]) -> bool:
    """Whether an answer of the server holds the objects of the direct prediction."""
    try:
        objects = json.loads(answer)["objects"]
        return len(objects) == len(right) and all(map(_is_same, objects, right))
    except (ValueError, KeyError, TypeError):
        return False


def _is_same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if a["category_id"] != b["category_id"] or abs(a["score"] - b["score"]) > SCORE:
        return False
    masks = [RLE.from_coco(entry["segmentation"]) for entry in (a, b) if "segmentation" in entry]
    return bool(np.allclose(a["bbox"], b["bbox"], rtol=0, atol=BOX_PX)) and (not masks or _overlap(*masks) >= MASK_IOU)


def _overlap(a: RLE, b: RLE) -> float:
    if a == b:
        return 1.0
    both, either = a.dense() & b.dense(), a.dense() | b.dense()
    return float(both.sum() / max(1, either.sum()))


def resident_bytes(pid: int) -> int:
    """Bytes of a process and of those that it has started; 0 where the system does not tell."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        return 0
    status = Path(f"/proc/{pid}/status").read_text()
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0)
    children = {int(child) for task in tasks.glob("*/children") for child in task.read_text().split()}
    return own + sum(map(resident_bytes, children))
