"""Writes parts in several processes of one machine. A part whose process is killed is written by a new one."""

from __future__ import annotations

import multiprocessing
import signal
import sys
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from maskrcnn.data.loading.processes import STOP_SIGNALS, exit_in_words, without_main
from maskrcnn.errors import MaskRCNNError, TrainingError
from maskrcnn.scale.manifest import Shard
from maskrcnn.scale.parts import PartWriter
from maskrcnn.threads import threads_of_each

ATTEMPTS = 3  # a part whose process is lost so often ends the run


class _Told(Enum):
    """What a process tells of its part."""

    IMAGE = "an image is finished"
    PART = "the part is written"
    NOTHING = "the process has ended without a word"


@dataclass
class _Worker:
    """A process, and the part that it writes.

    Attributes:
        images: the number of images of the part that it has finished.
    """

    process: BaseProcess
    pipe: Connection
    shard: Shard
    images: int = 0

    def take(self, shard: Shard) -> None:
        self.shard, self.images = shard, 0
        with suppress(OSError):  # a process that has ended: the next look at its pipe says so
            self.pipe.send(shard)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def in_processes(writer: PartWriter, shards: Sequence[Shard], workers: int) -> Iterator[None]:
    """Writes parts in several processes, and yields after each image. Each process has its share of the cores.

    Raises:
        TrainingError: a part was tried several times, and its process was lost each time.
        Exception: what `PartWriter.write` raises in a process.
    """
    workers = min(workers, len(shards))  # more would have nothing to do
    if workers and writer.threads is None:
        writer = replace(writer, threads=threads_of_each(workers))
    waiting, lost, shown, numbers = deque(shards), Counter[int](), Counter[int](), count()
    running: dict[Any, _Worker] = {}  # by their pipes
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                worker = _start(writer, next(numbers) % workers, waiting.popleft())
                running[worker.pipe] = worker
            for pipe in wait(list(running)):
                worker, number = running[pipe], running[pipe].shard.number
                told = _told(worker)
                if isinstance(told, Exception):
                    raise told
                if told is _Told.IMAGE:
                    worker.images += 1
                    if worker.images > shown[number]:  # a lost process may have finished this image before
                        shown[number] += 1
                        yield
                elif told is _Told.PART and waiting:
                    worker.take(waiting.popleft())
                else:
                    del running[pipe]
                    worker.end()
                if told is _Told.NOTHING:
                    lost[number] += 1
                    _say_lost(worker, lost[number])
                    waiting.appendleft(worker.shard)
    finally:
        for worker in running.values():
            worker.end()


def _told(worker: _Worker) -> _Told | Exception:
    try:
        told: _Told | Exception = worker.pipe.recv()
        return told
    except (EOFError, OSError):
        return _Told.NOTHING


def _say_lost(worker: _Worker, times: int) -> None:
    """Reports a process that has ended without an answer. Raises TrainingError if it was the last attempt."""
    code = worker.process.exitcode
    reason = "ended" if code is None else f"ended with {exit_in_words(code)}"
    what = f"{worker.shard.file_name}: the process that writes it {reason}"
    if times == ATTEMPTS:
        raise TrainingError(
            f"{what}, {times} times; choose fewer --workers or a smaller --batch-size, and repeat the command: "
            "finished parts stay"
        )
    print(f"note: {what}; another one begins it again", file=sys.stderr)


def _start(writer: PartWriter, number: int, shard: Shard) -> _Worker:
    """A process that writes a part. It is spawned, because the threads of torch do not live on in a forked process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(writer, number, theirs), daemon=True)
    with without_main():
        process.start()
    theirs.close()
    worker = _Worker(process, ours, shard)
    worker.take(shard)
    return worker


def _work(writer: PartWriter, number: int, pipe: Connection) -> None:
    """The life of a process: it writes the parts that it receives until the other end of its pipe is closed."""
    for kind in STOP_SIGNALS:  # a terminal sends Ctrl-C to all processes, and the first one ends the others
        signal.signal(kind, signal.SIG_IGN)
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    with suppress(EOFError, BrokenPipeError):
        while True:
            pipe.send(_written(writer, pipe.recv(), pipe))


def _written(writer: PartWriter, shard: Shard, pipe: Connection) -> _Told | Exception:
    try:
        for _ in writer.write(shard):
            pipe.send(_Told.IMAGE)
    except BrokenPipeError:
        raise
    except (MaskRCNNError, OSError) as error:
        return error
    except Exception:
        return RuntimeError(f"in a process that writes parts: {traceback.format_exc()}")
    return _Told.PART
