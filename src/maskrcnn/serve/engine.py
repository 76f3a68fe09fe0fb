"""The queue in front of a model, and the thread in which the pipeline of `predict` works it off."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from maskrcnn.errors import ImageError
from maskrcnn.predict import Predictor
from maskrcnn.predict.pipeline import stream_taken
from maskrcnn.serve.problems import RefusalError
from maskrcnn.serve.settings import Limits
from maskrcnn.structures.instances import Instances

LOG = logging.getLogger("maskrcnn.serve")
WARM_UP_HW = (480, 640)
SMOOTHING = 0.1  # weight of the newest time in the mean


@dataclass(eq=False)
class Job:
    """One image that somebody waits for.

    Attributes:
        read: gives the image, (H, W, 3) uint8 RGB or (H, W, C) of a model of channels. Called in a thread.
        then: makes the answer from the image and what was found. Called in a thread.
        answer: gets the answer or the error. It is done early when nobody waits any more.
        arrived: `time.monotonic` of its arrival.
    """

    read: Callable[[], np.ndarray]
    then: Callable[[np.ndarray, Instances], Any]
    answer: asyncio.Future[Any]
    arrived: float


class Engine:
    """Answers requests for one model, at most `limits.queue` at a time.

    Everything but the queue belongs to the thread of the event loop. Images are read, resized, detected and encoded by
    `predict.pipeline` in its own threads.
    """

    def __init__(self, model: Predictor, limits: Limits, observe: Callable[[int, float], None]) -> None:
        """
        Args:
            observe: is told the number of objects and the seconds of each computed image, in a thread.
        """
        self.model, self.limits, self.observe = model, limits, observe
        self.ready = False  # the first image, which is slower than later ones, has passed the network
        self.unanswered = 0
        self.mean_seconds = 1.0  # of an image, between two answers
        self._jobs: deque[Job] = deque()
        self._taken: set[Job] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._last_answer = 0.0
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread after the jobs that wait."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    async def ask(self, read: Callable[[], np.ndarray], then: Callable[[np.ndarray, Instances], Any]) -> Any:
        """What `then` makes of the image that `read` gives.

        Raises:
            RefusalError: 503 when the queue is full, 504 when the answer takes too long, and those of `read`.
        """
        if self.unanswered >= self.limits.queue:
            wait = max(1, math.ceil(self.unanswered * self.mean_seconds))
            raise RefusalError(503, f"{self.unanswered} requests wait; try again", {"Retry-After": str(wait)})
        job = Job(read, then, asyncio.get_running_loop().create_future(), time.monotonic())
        self.unanswered += 1
        with self._changed:
            self._jobs.append(job)
            self._changed.notify_all()
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await job.answer
        except TimeoutError:
            raise RefusalError(504, f"no answer within {self.limits.timeout:g} s; the server is busy") from None
        finally:
            self.unanswered -= 1
            with self._changed, suppress(ValueError):
                self._jobs.remove(job)

    def _run(self) -> None:
        self.model.predict(np.zeros((*WARM_UP_HW, len(self.model.config.image.statistics[0])), np.uint8))
        self.ready = True
        while not self._closing or self._jobs:
            try:
                for _ in stream_taken(
                    self.model, self._take, self._read, self._then, batch_size=self.limits.batch_size
                ):
                    pass
            except Exception as error:  # the network failed, for example for lack of memory; the next image may pass
                LOG.exception("the pipeline failed")
                for job in list(self._taken):
                    self._give(job, error=error)

    def _take(self, most: int, wait: bool) -> Sequence[Job]:
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._jobs or self._closing)
                if self.limits.batch_size > 1:
                    self._changed.wait_for(
                        lambda: len(self._jobs) >= self.limits.batch_size or self._closing, self.limits.max_wait
                    )
            jobs = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
        self._taken.update(jobs)
        return jobs

    def _read(self, job: Job) -> np.ndarray:
        if job.answer.done():
            self._taken.discard(job)
            raise ImageError("nobody waits for this image any more")
        try:
            return job.read()
        except Exception as error:
            self._give(job, error=error)
            raise ImageError(str(error)) from error

    def _then(self, job: Job, image: np.ndarray, found: Instances) -> None:
        try:
            self._give(job, job.then(image, found))
        except Exception as error:
            self._give(job, error=error)
        now = time.monotonic()
        seconds = now - max(job.arrived, self._last_answer)
        self._last_answer = now
        self.mean_seconds += SMOOTHING * (seconds - self.mean_seconds)
        self.observe(len(found), seconds)

    def _give(self, job: Job, answer: Any = None, error: Exception | None = None) -> None:
        """Hands over an answer or an error from any thread."""

        def give() -> None:
            if job.answer.done():
                return
            if error is None:
                job.answer.set_result(answer)
            else:
                job.answer.set_exception(error)

        self._taken.discard(job)
        with suppress(RuntimeError):  # the event loop is closed: the server was told twice to end
            job.answer.get_loop().call_soon_threadsafe(give)
