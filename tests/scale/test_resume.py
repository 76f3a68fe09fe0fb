"""Runs that are killed, and continued by the same command."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from maskrcnn.cli import main
from maskrcnn.predict import load
from maskrcnn.scale import parts, processes
from maskrcnn.scale.manifest import Manifest, Share
from maskrcnn.scale.on_ray import on_ray
from maskrcnn.scale.parts import PartWriter
from maskrcnn.scale.run import write_parts
from small_data import random_predictor, write_small

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")]


def arguments(out: str, *flags: object) -> list[str]:
    return ["predict", "images", "--model", "m.safetensors", "--precision", "fp32", "--out", out, *map(str, flags)]


def rows(folder: str) -> list[dict[str, object]]:
    return pq.read_table(folder).to_pylist()


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Writes a number of images, and the rows of an unbroken run to the folder `whole`."""
    monkeypatch.chdir(tmp_path)
    random_predictor().save("m.safetensors")

    def write(count: int) -> None:
        write_small(tmp_path, "images", count)
        Path("images/0b.png").write_bytes(b"no image")
        assert main(arguments("whole", "--shard-size", 4, "--threads", 1)) == 0
        assert [row["error"] is None for row in rows("whole")].count(False) == 1

    return write


def in_child(work: Callable[[], object]) -> multiprocessing.process.BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def dying(module: object, name: str, call: int, *, after: bool) -> None:
    """Lets a function of a module kill this process at one of its calls, before or after its work."""
    work, calls = getattr(module, name), []

    def counted(*given: object, **named: object) -> object:
        calls.append(given)
        if len(calls) == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = work(*given, **named)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(module, name, counted)


def test_killed_at_any_moment_a_run_goes_on(images, capsys):
    images(10)
    moments = (
        ("the manifest is complete, without its name", os, "replace", 1, False),
        ("the second image", parts, "read_image", 2, False),
        ("the first part is complete, without its name", os, "replace", 2, False),
        ("the second part has its name", os, "replace", 3, True),
        ("the last image", parts, "read_image", 11, True),
    )

    def run(*moment):
        dying(*moment[:3], after=moment[3])
        main(arguments("o", "--shard-size", 4, "--threads", 1))

    for _, *moment in moments:
        child = in_child(partial(run, *moment))
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert main(arguments("o", "--shard-size", 4, "--threads", 1)) == 0
        assert rows("o") == rows("whole")
        # What is left of a manifest stays, because other tasks may be writing theirs.
        assert [name for name in os.listdir("o") if name.startswith(".part")] == []
        for name in os.listdir("o"):
            os.remove(f"o/{name}")


def test_a_worker_that_is_killed_is_replaced(images, monkeypatch, capsys):
    images(10)
    told, killed = processes._told, []

    def watched(worker):
        answer = told(worker)
        if answer is processes._Told.IMAGE and len(killed) < 1:
            worker.process.kill()
            killed.append(worker.shard.file_name)
        return answer

    monkeypatch.setattr(processes, "_told", watched)
    flags = ("--shard-size", 4, "--workers", 2, "--threads", 1)
    assert main(arguments("o", *flags)) == 0
    assert f"{killed[0]}: the process that writes it ended with SIGKILL" in capsys.readouterr().err
    assert rows("o") == rows("whole")
    assert multiprocessing.active_children() == []


def test_workers_end_with_the_command(images):
    images(8)
    child = in_child(lambda: main(arguments("o", "--shard-size", 1, "--workers", 2, "--threads", 1)))
    wait_for_parts(child, 1)
    workers = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    child.kill()
    child.join()
    end = time.monotonic() + 60
    while any(Path("/proc", worker).exists() for worker in workers):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert len(workers) >= 2


def wait_for_parts(child, count):
    while len(list(Path("o").glob("part-*"))) < count:
        assert child.is_alive()
        time.sleep(0.02)


class Mortal:
    """A detector whose process is killed at its fifth batch, once."""

    def __init__(self, model, flag):
        self.model, self.flag, self.batches = model, flag, 0
        self.config, self.device = model.config, model.device
        self.prepare, self.finish = model.prepare, model.finish

    def detect(self, prepared):
        self.batches += 1
        if self.batches == 5 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.model.detect(prepared)


@pytest.mark.filterwarnings("default")  # Ray warns of its own code
def test_ray_writes_every_image_once(images, tmp_path):
    from ray import cloudpickle

    images(40)
    child = in_child(lambda: main(arguments("o", "--shard-size", 4, "--ray", "--workers", 2, "--threads", 1)))
    wait_for_parts(child, 2)
    child.kill()
    child.join()
    kept = len(list(Path("o").glob("part-*")))
    assert 2 <= kept < 11
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import this file
    manifest = Manifest(**settings_of("o"))
    model, flag = tmp_path / "m.safetensors", tmp_path / "killed"
    writer = PartWriter(
        Path("o"),
        manifest.fingerprint,
        lambda threads: Mortal(load(model, precision="fp32", threads=threads), flag),
        threads=1,
    )
    summary = write_parts(manifest, writer, Share(), partial(on_ray, address="local", workers=2))
    assert (summary.kept, summary.written, summary.images, summary.errors) == (kept, 11 - kept, 41, 1)
    assert flag.exists()
    assert rows("o") == rows("whole")


def settings_of(folder):
    """The arguments of a manifest that was written."""
    table = pq.read_table(f"{folder}/_manifest.parquet")
    settings = json.loads(table.schema.metadata[b"maskrcnn"])
    size = int(settings.pop("--shard-size"))
    return {"paths": tuple(table.column("path").to_pylist()), "shard_size": size, "settings": settings}
