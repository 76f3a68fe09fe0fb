"""A model in processes of its own.

Requests are read and answered in the first process, which has one queue for all of them. So no process is busy while
another one has nothing to do, and the queue, the counts and the health are those of the server. Processes are started
anew and not forked, because a fork would break the threads of the network.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.config import Config
from maskrcnn.errors import MaskRCNNError
from maskrcnn.predict import Predictor
from maskrcnn.serve.engine import Engine, Job
from maskrcnn.serve.logs import log_as_json
from maskrcnn.serve.worker import Worker
from maskrcnn.structures.instances import Instances

LOG = logging.getLogger("maskrcnn.serve")
BATCHES_AT_ONCE = 3  # in one process: read, in the network, and encoded
LOOK_SECONDS = 0.5  # between two looks whether a process that has nothing to do still lives
END_SECONDS = 5.0  # for a process to end when its connection is closed
OpenModel = Callable[[], Predictor]


class NumberedWork(NamedTuple):
    """A job on its way to a process; `read` and `then` as in `worker.Work`."""

    number: int
    read: Callable[[], np.ndarray]
    then: Callable[[np.ndarray, Instances], Any]


class Reply(NamedTuple):
    number: int
    answer: Any
    objects: int
    error: Exception | None = None


class Card(NamedTuple):
    """What a process says of its model when it is ready."""

    config: Config
    provenance: dict[str, Any]
    thresholds: Sequence[float]
    precision: str


@dataclass(frozen=True)
class Child:
    """A process, and the connection to it."""

    process: SpawnProcess
    connection: Connection

    def speaks(self, is_wanted: Callable[[], bool]) -> bool:
        """Waits until the process says its first word. Ends it, and returns False, when it is not wanted any more."""
        while not self.connection.poll(LOOK_SECONDS):
            if not is_wanted():
                self.process.kill()
                return False
        return True

    def first_word(self) -> Card:
        """Waits until the process is ready.

        Raises:
            MaskRCNNError: the model cannot be opened, or the process has ended.
        """
        try:
            word: Card | MaskRCNNError = self.connection.recv()
        except (EOFError, OSError):
            raise MaskRCNNError(f"{self.end()} before it was ready; most likely memory ran out") from None
        if isinstance(word, MaskRCNNError):
            self.end()
            raise word
        return word

    def work(self, engine: Engine) -> bool:
        """Has the process compute the jobs of an engine. Returns True when the queue has ended, False when the process
        has."""
        numbers, sent, most = count(), dict[int, Job](), BATCHES_AT_ONCE * engine.limits.batch_size
        try:
            while sent or not engine.ended:
                alone = any(job.tries for job in sent.values())
                for job in () if alone else engine.take(most - len(sent), not sent, LOOK_SECONDS):
                    number = next(numbers)
                    sent[number] = job
                    self.connection.send(NumberedWork(number, job.read, job.then))
                if sent:
                    reply: Reply = self.connection.recv()
                    job = sent.pop(reply.number)
                    if reply.error is None:
                        engine.give(job, reply.answer, reply.objects)
                    else:
                        engine.fail(job, reply.error)
                elif not self.process.is_alive():
                    return False
        except (EOFError, OSError):
            engine.put_back(sent.values())
            return False
        return True

    def end(self) -> str:
        """Ends the process, and says how it ended."""
        self.connection.close()
        self.process.join(END_SECONDS)
        self.process.kill()
        self.process.join()
        code = self.process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"process {self.process.pid} has ended with {how}"


class Processes:
    """A crew of processes. Each has a thread here that keeps it busy, and replaces it when it ends."""

    def __init__(self, open_model: OpenModel, size: int, batch_size: int) -> None:
        """Starts the first process and waits for it; the others follow in `work`.

        Args:
            open_model: is called in each process. A function at the top level of a module, or a `partial` of one.
            batch_size: as in `Limits`.

        Raises:
            MaskRCNNError: the model cannot be opened.
        """
        self.size = size
        self._arguments = (open_model, batch_size)
        self._children: set[Child] = set()
        atexit.register(self._kill)  # also where the server ends without its threads
        first = self._start()
        self.config, self.provenance, self.thresholds, self.precision = first.first_word()
        self._ready = [first]

    def work(self, engine: Engine) -> None:
        while True:
            try:
                child = self._ready.pop()
            except IndexError:
                child = self._start()
                if not child.speaks(lambda: not engine.ended):
                    return
                child.first_word()
            engine.started()
            all_done = child.work(engine)
            engine.stopped()
            how = child.end()
            self._children.discard(child)
            if all_done:
                return
            LOG.error("a process is replaced", extra={"fields": {"reason": how}})

    def _start(self) -> Child:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, *self._arguments), daemon=True)
        process.start()
        theirs.close()  # so that our end is told when the process ends
        child = Child(process, ours)
        self._children.add(child)
        return child

    def _kill(self) -> None:
        for child in self._children:
            child.process.kill()


def _serve(connection: Connection, open_model: OpenModel, batch_size: int) -> None:
    """The life of a process. It ends with its connection, and not by signals, which may go to all processes of the
    server at once."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    log_as_json()
    try:
        model = open_model()
    except MaskRCNNError as error:
        connection.send(error)
        return
    arrivals = Arrivals(connection, Card(model.config, model.provenance, model.thresholds, model.precision))
    threading.Thread(target=arrivals.receive, daemon=True).start()
    Worker(model, arrivals, batch_size).run()


class Arrivals:
    """The queue of a process: what arrives at its connection."""

    def __init__(self, connection: Connection, card: Card) -> None:
        self.connection, self.card = connection, card
        self.ended = False
        self._arrived: queue.SimpleQueue[NumberedWork | None] = queue.SimpleQueue()
        self._sending = threading.Lock()

    def receive(self) -> None:
        """Runs in a thread of its own, so that the first process never waits for this one when it sends."""
        try:
            while True:
                self._arrived.put(self.connection.recv())
        except (EOFError, OSError):
            self._arrived.put(None)

    def started(self) -> None:
        self._send(self.card)

    def take(self, most: int, wait: bool) -> Sequence[NumberedWork]:
        some: list[NumberedWork] = []
        while len(some) < most and not self.ended:
            try:
                work = self._arrived.get(block=wait and not some)
            except queue.Empty:
                break
            if work is None:
                self.ended = True
            else:
                some.append(work)
        return some

    def is_wanted(self, work: NumberedWork) -> bool:
        return not self.ended

    def give(self, work: NumberedWork, answer: Any, objects: int) -> None:
        self._send(Reply(work.number, answer, objects))

    def fail(self, work: NumberedWork, error: Exception) -> None:
        if not isinstance(error, MaskRCNNError):  # it may be of any kind, and the traceback would be lost
            LOG.error("an image failed", exc_info=error)
            error = RuntimeError(f"{type(error).__name__}: {error}")
        self._send(Reply(work.number, None, 0, error))

    def _send(self, message: Card | Reply) -> None:
        with self._sending:
            try:
                self.connection.send(message)
            except OSError:  # the first process has ended
                self.ended = True
