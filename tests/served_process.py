"""The command `maskrcnn serve` in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from maskrcnn.predict import Predictor


@dataclass
class Running:
    process: subprocess.Popen[str]
    url: str
    lines: list[str]

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port


@contextmanager
def served(model: Predictor, folder: Path, *flags: str, **environment: str) -> Iterator[Running]:
    """A ready server; its log lines are collected."""
    model.save(folder / "shapes.safetensors")
    words = [sys.executable, "-m", "maskrcnn", "serve", "--model", str(folder / "shapes.safetensors"), "--port", "0"]
    process = subprocess.Popen(
        [*words, "--precision", "fp32", *flags],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", **environment},
    )
    assert process.stderr is not None
    running = Running(process, json.loads(process.stderr.readline())["url"], [])
    reader = threading.Thread(target=lambda: running.lines.extend(process.stderr or ()))
    reader.start()
    try:
        while httpx2.get(f"{running.url}/health/ready").status_code != 200:
            time.sleep(0.05)
        yield running
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()
