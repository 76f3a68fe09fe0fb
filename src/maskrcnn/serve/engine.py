"""The queue in front of a model."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Any, Protocol

import numpy as np

from maskrcnn.config import Config
from maskrcnn.errors import MaskRCNNError
from maskrcnn.predict import Predictor
from maskrcnn.serve.problems import RefusalError
from maskrcnn.serve.settings import Limits
from maskrcnn.serve.worker import Worker
from maskrcnn.structures.instances import Instances

SMOOTHING = 0.1  # weight of the newest time in the mean
MOST_TRIES = 2  # of an image whose process has ended
ENDING = "the server is ending"


@dataclass(eq=False)
class Job:
    """One image that somebody waits for; `read` and `then` as in `worker.Work`.

    Attributes:
        answer: gets the answer or the error. It is done early when nobody waits any more.
        arrived: `time.monotonic` of its arrival.
        tries: how many processes have ended while they had it.
    """

    read: Callable[[], np.ndarray]
    then: Callable[[np.ndarray, Instances], Any]
    answer: asyncio.Future[Any]
    arrived: float
    tries: int = field(default=0, init=False)


class Crew(Protocol):
    """A model, and who computes it: `InThread`, or `processes.Processes`."""

    @property
    def config(self) -> Config: ...

    @property
    def provenance(self) -> dict[str, Any]: ...

    @property
    def thresholds(self) -> Sequence[float]:
        """As `Predictor.thresholds`."""

    @property
    def precision(self) -> str:
        """As `Predictor.precision`."""

    @property
    def size(self) -> int:
        """The number of threads in which `work` is called."""

    def work(self, engine: Engine) -> None:
        """Works the queue of an engine off; returns when it has ended.

        Raises:
            MaskRCNNError: this cannot go on.
        """


@dataclass(frozen=True)
class InThread:
    """The model in a thread of this process."""

    model: Predictor
    size: int = 1

    @property
    def config(self) -> Config:
        return self.model.config

    @property
    def provenance(self) -> dict[str, Any]:
        return self.model.provenance

    @property
    def thresholds(self) -> Sequence[float]:
        return self.model.thresholds

    @property
    def precision(self) -> str:
        return self.model.precision

    def work(self, engine: Engine) -> None:
        Worker(self.model, engine, engine.limits.batch_size).run()


class Engine:
    """Answers requests for one model, at most `limits.queue` at a time.

    `ask` belongs to the thread of the event loop, everything else to those in which the crew works.
    """

    def __init__(self, crew: Crew, limits: Limits, observe: Callable[[int, float], None]) -> None:
        """
        Args:
            observe: is told the number of objects and the seconds of each computed image, in a thread.
        """
        self.crew, self.limits, self.observe = crew, limits, observe
        self.working = 0  # workers that are ready
        self.unanswered = 0
        self.mean_seconds = 1.0  # of an image, between two answers
        self.failure: MaskRCNNError | None = None  # why the crew cannot go on
        self._jobs: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._last_answer = 0.0
        self._threads = [threading.Thread(target=self._work, name="engine", daemon=True) for _ in range(crew.size)]

    @property
    def ready(self) -> bool:
        return self.working > 0 and self.failure is None

    @property
    def ended(self) -> bool:
        return self._closing and not self._jobs

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads after the jobs that wait."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    async def ask(self, read: Callable[[], np.ndarray], then: Callable[[np.ndarray, Instances], Any]) -> Any:
        """What `then` makes of the image that `read` gives.

        Raises:
            RefusalError: 503 when the queue is full or nobody can work it off, 504 when the answer takes too long, and
                those of `read`.
        """
        if self.unanswered >= self.limits.queue:
            wait = max(1, math.ceil(self.unanswered * self.mean_seconds))
            raise RefusalError(503, f"{self.unanswered} requests wait; try again", {"Retry-After": str(wait)})
        job = Job(read, then, asyncio.get_running_loop().create_future(), time.monotonic())
        with self._changed:
            # What is in the queue when the last worker fails is refused by that worker, what comes later is here.
            if self.failure is not None and self.working == 0:
                raise RefusalError(503, ENDING)
            self._jobs.append(job)
            self._changed.notify_all()
        self.unanswered += 1
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await job.answer
        except TimeoutError:
            raise RefusalError(504, f"no answer within {self.limits.timeout:g} s; the server is busy") from None
        finally:
            self.unanswered -= 1
            with self._changed:
                if job in self._jobs:  # asked first, because the error of `remove` would print the image
                    self._jobs.remove(job)

    def started(self) -> None:
        with self._changed:
            self.working += 1

    def stopped(self) -> None:
        with self._changed:
            self.working -= 1

    def take(self, most: int, wait: bool, seconds: float | None = None) -> Sequence[Job]:
        """As `worker.Queue`. With `seconds` it waits no longer than that, and may then give none.

        A job that was with a process when it ended is given alone, to those who have nothing else and may therefore
        wait: it may be the reason, and must not cost others their answers.
        """
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._jobs or self._closing, seconds)
                if self.limits.batch_size > 1:
                    self._changed.wait_for(
                        lambda: len(self._jobs) >= self.limits.batch_size or self._closing, self.limits.max_wait
                    )
            if self._jobs and self._jobs[0].tries:
                return [self._jobs.popleft()] if wait else []
            sound = takewhile(lambda job: job.tries == 0, self._jobs)
            return [self._jobs.popleft() for _ in list(islice(sound, most))]

    def is_wanted(self, job: Job) -> bool:
        return not job.answer.done()

    def put_back(self, jobs: Iterable[Job]) -> None:
        """Lets others compute the jobs of a process that has ended. One that was with several such is given up."""
        for job in reversed(list(jobs)):
            job.tries += 1
            if job.tries == MOST_TRIES:
                self.fail(job, RefusalError(500, f"the processes that computed the image have ended ({MOST_TRIES})"))
            elif self.is_wanted(job):
                with self._changed:
                    self._jobs.appendleft(job)
                    self._changed.notify_all()

    def give(self, job: Job, answer: Any, objects: int) -> None:
        self._tell(job, lambda: job.answer.set_result(answer))
        now = time.monotonic()
        seconds = now - max(job.arrived, self._last_answer)
        self._last_answer = now
        self.mean_seconds += SMOOTHING * (seconds - self.mean_seconds)
        self.observe(objects, seconds)

    def fail(self, job: Job, error: Exception) -> None:
        self._tell(job, lambda: job.answer.set_exception(error))

    def _tell(self, job: Job, tell: Callable[[], None]) -> None:
        """Calls `tell` in the thread of the event loop if somebody still waits."""
        with suppress(RuntimeError):  # the event loop is closed: the server was told twice to end
            job.answer.get_loop().call_soon_threadsafe(lambda: None if job.answer.done() else tell())

    def _work(self) -> None:
        try:
            self.crew.work(self)
        except MaskRCNNError as error:
            self.failure = error
            while self.working == 0 and (jobs := self.take(1, wait=True, seconds=0)):
                self.fail(jobs[0], RefusalError(503, ENDING))
