"""Many images one after another: reading and resizing run ahead of the network, what follows it runs behind."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.predict.images import fit, join, postprocess
from maskrcnn.predict.predictor import Predictor
from maskrcnn.structures.detections import Detections, Instances
from maskrcnn.structures.images import ImageBatch

T = TypeVar("T")
R = TypeVar("R")
BEHIND = 2  # batches whose detections are still being brought back


class Ready(NamedTuple):
    """An (H, W, 3) image as it was read, and as `fit` made it."""

    image: np.ndarray
    fitted: tuple[Tensor, tuple[int, int, int, int]]


def stream(
    predictor: Predictor,
    items: Iterable[T],
    read: Callable[[T], np.ndarray],
    then: Callable[[T, np.ndarray, Instances], R],
    *,
    batch_size: int = 1,
) -> Generator[tuple[T, R | ImageError]]:
    """Predicts `items` in their order, and gives with each what `then` made of it, or why it cannot be read.

    Memory holds a few batches, however many items there are.

    Args:
        read: an item's image, (H, W, 3) uint8 RGB; called in threads.
        then: of the item, its image and what was found; called in threads.
        batch_size: how many pass through the network together; the best batches are of one orientation.

    Raises:
        ConfigError: `batch_size` is not positive.
    """
    if batch_size < 1:
        raise ConfigError(f"expected a batch of 1 image or more, found --batch-size {batch_size}")
    remaining = iter(items)
    threads = _threads(predictor.device)
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    ahead: deque[tuple[T, Future[Ready | ImageError]]] = deque()
    behind: deque[Future[list[tuple[T, R | ImageError]]]] = deque()
    try:
        while True:
            wanted = islice(remaining, threads + 2 * batch_size - len(ahead))
            ahead.extend((item, pool.submit(_prepare, item, read, predictor)) for item in wanted)
            if not ahead:
                break
            batch = [(item, future.result()) for item, future in islice(_drained(ahead), batch_size)]
            good = [ready.fitted for _, ready in batch if isinstance(ready, Ready)]
            images = join(good, predictor.config, few=predictor.compile) if good else None
            detections = None if images is None else predictor.detect(images)
            behind.append(pool.submit(_finish, batch, images, detections, then, predictor))
            if len(behind) > BEHIND:
                yield from behind.popleft().result()
        for future in _drained(behind):
            yield from future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _prepare(item: T, read: Callable[[T], np.ndarray], predictor: Predictor) -> Ready | ImageError:
    try:
        image = read(item)
    except ImageError as error:
        return error
    return Ready(image, fit(image, predictor.config))


def _finish(
    batch: list[tuple[T, Ready | ImageError]],
    images: ImageBatch | None,
    detections: Detections | None,
    then: Callable[[T, np.ndarray, Instances], R],
    predictor: Predictor,
) -> list[tuple[T, R | ImageError]]:
    found: Iterator[Instances] = iter(())
    if images is not None and detections is not None:
        sizes = [(ready.image.shape[0], ready.image.shape[1]) for _, ready in batch if isinstance(ready, Ready)]
        found = iter(postprocess(detections, images.windows, sizes, predictor.config, predictor.names))
    return [
        (item, then(item, ready.image, next(found)) if isinstance(ready, Ready) else ready) for item, ready in batch
    ]


def _drained(queue: deque[T]) -> Iterator[T]:
    while queue:
        yield queue.popleft()


def _threads(device: torch.device) -> int:
    """On a CPU the network itself keeps the cores busy."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 2 if device.type == "cpu" else max(2, min(16, cores - 1))
