"""What works a queue off: the pipeline of `predict`, around a model in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from maskrcnn.errors import ImageError
from maskrcnn.predict import Predictor
from maskrcnn.predict.pipeline import stream_taken
from maskrcnn.structures.instances import Instances

LOG = logging.getLogger("maskrcnn.serve")
WARM_UP_HW = (480, 640)


class Work(Protocol):
    """One image to compute."""

    @property
    def read(self) -> Callable[[], np.ndarray]:
        """Gives the image, (H, W, 3) uint8 RGB or (H, W, C) of a model of channels. Called in a thread."""

    @property
    def then(self) -> Callable[[np.ndarray, Instances], Any]:
        """Makes the answer from the image and what was found. Called in a thread."""


W = TypeVar("W", bound=Work)


class Queue(Protocol[W]):
    """Where a worker gets its work. All methods may be called in any thread."""

    @property
    def ended(self) -> bool:
        """Whether there is no work left, and none will come."""

    def started(self) -> None:
        """Notes that the worker is ready: the first image, which is slower than later ones, has passed the network."""

    def take(self, most: int, wait: bool) -> Sequence[W]:
        """The next work. Waits for some if it may; gives none then only if the queue has ended."""

    def is_wanted(self, work: W) -> bool:
        """Whether somebody still waits for the answer."""

    def give(self, work: W, answer: Any, objects: int) -> None:
        """Hands over an answer, and the number of objects that were found."""

    def fail(self, work: W, error: Exception) -> None:
        """Hands over the reason why there is no answer. Nothing happens if the work has its answer."""


@dataclass(frozen=True)
class Worker:
    """Images are read, resized, detected and encoded by `predict.pipeline` in its own threads."""

    model: Predictor
    queue: Queue[Any]
    batch_size: int

    def run(self) -> None:
        """Works until the queue has ended."""
        self.model.predict(np.zeros((*WARM_UP_HW, len(self.model.config.image.statistics[0])), np.uint8))
        self.queue.started()
        taken: set[Any] = set()

        def take(most: int, wait: bool) -> Sequence[Any]:
            work = self.queue.take(most, wait)
            taken.update(work)
            return work

        def then(work: Any, image: np.ndarray, found: Instances) -> None:
            try:
                self.queue.give(work, work.then(image, found), len(found))
            except Exception as error:
                self.queue.fail(work, error)

        while not self.queue.ended:
            try:
                for work, _ in stream_taken(self.model, take, self._read, then, batch_size=self.batch_size):
                    taken.discard(work)
            except Exception as error:  # the network failed, for example for lack of memory; the next image may pass
                LOG.exception("the pipeline failed")
                while taken:
                    self.queue.fail(taken.pop(), error)

    def _read(self, work: Any) -> np.ndarray:
        if not self.queue.is_wanted(work):
            raise ImageError("nobody waits for this image any more")
        try:
            image: np.ndarray = work.read()
        except Exception as error:
            self.queue.fail(work, error)
            raise ImageError(str(error)) from error
        return image
