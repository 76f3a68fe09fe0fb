"""The one pipeline of prediction. Threads read and resize images ahead of the network and encode masks behind it.

Single images, folders, and evaluation during and after training all run on `stream`.
"""

from __future__ import annotations

import os
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import IOBase
from itertools import count, islice
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from PIL import Image

from maskrcnn.allocator import trim
from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.files.images import as_channels, as_rgb, read_image
from maskrcnn.ops.device import living_threads
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.values import is_int, short
from maskrcnn.threads import usable_cores

T = TypeVar("T")
R = TypeVar("R")
Prepared = TypeVar("Prepared")
Found = TypeVar("Found")
ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
AHEAD = 3  # batches of images that are read ahead; most images find enough others of their orientation among them
LARGEST_BATCH = 1 << 16
BEHIND = 2  # batches whose masks are still being encoded
TRIMMED = 64  # batches on a CPU after which freed memory goes back to the system, and once more at the end


class Detector(Protocol[Prepared, Found]):
    """Finds objects: images in, `Instances` out, in three steps that the pipeline calls.

    `Predictor` is a detector, and `predict.augmented.Augmented` one that calls the steps of another one.
    """

    @property
    def device(self) -> torch.device:
        """The device on which `detect` computes."""

    def prepare(self, image: np.ndarray) -> Prepared:
        """The input of `detect` for an image, (H, W, 3) uint8 RGB or (H, W, C). Called in several threads."""

    def detect(self, prepared: Sequence[Prepared]) -> Found:
        """What is found in a batch of prepared images. Called in the thread of the caller."""

    def finish(self, found: Found) -> list[Instances]:
        """The objects of each image of a batch, in pixels of that image. Called in several threads."""


def predict_images(
    detector: Detector[Prepared, Found],
    images: ImageLike | Iterable[ImageLike],
    batch_size: int = 1,
    channels: Sequence[str] = (),
) -> list[Instances]:
    """Finds objects in images of any size.

    Args:
        images: paths, PIL images or (H, W, 3) uint8 RGB arrays, one or several.
        batch_size: number of images that pass through the network together.
        channels: the names of the model's channels; empty for a model of RGB.

    Returns:
        One `Instances` for each image, in the order of the images.

    Raises:
        ConfigError: `batch_size` is no whole number from 1 to `LARGEST_BATCH`.
        ImageError: an image cannot be read, or something else is given.
    """

    def read(image: ImageLike) -> np.ndarray:
        if isinstance(image, str | os.PathLike):
            return read_image(image, warnings.warn, channels)
        return as_channels(image, channels) if channels else as_rgb(image)

    return collect(images, lambda several: stream(detector, several, read, _instances, batch_size=batch_size))


def collect(
    images: ImageLike | Iterable[ImageLike],
    run: Callable[[Iterable[ImageLike]], Generator[tuple[ImageLike, Instances | ImageError]]],
) -> list[Instances]:
    """The results that `run` gives for one image or several.

    Raises:
        ImageError: the first image that cannot be read.
    """
    one = _is_one(images)
    several: Iterable[ImageLike] = [images] if one else images  # type: ignore[assignment, list-item]
    found = []
    with closing(run(several)) as answers:
        for number, (_, answer) in enumerate(answers):
            if isinstance(answer, ImageError):
                raise answer if one else ImageError(f"{answer} (image {number} of the list)")
            found.append(answer)
    return found


def _is_one(images: object) -> bool:
    """Whether this is one image, or something that holds no images, rather than several."""
    if hasattr(images, "shape"):  # an array or a tensor: a list of paths has one axis, a stack of images has four
        return len(images.shape) not in (1, 4)
    single = str | bytes | os.PathLike | Image.Image | IOBase
    return isinstance(images, single) or not isinstance(images, Iterable)


def _instances(item: ImageLike, image: np.ndarray, found: Instances) -> Instances:
    return found


@dataclass(frozen=True)
class _Ready(Generic[T, Prepared]):
    """An item with its image.

    Attributes:
        image: (H, W, 3) uint8 RGB or (H, W, C), or the error that says why it cannot be read.
        prepared: the result of `Detector.prepare`; None if the image cannot be read.
    """

    item: T
    image: np.ndarray | ImageError
    prepared: Prepared | None

    @property
    def portrait(self) -> bool:
        return not isinstance(self.image, ImageError) and self.image.shape[0] > self.image.shape[1]


def stream(
    detector: Detector[Prepared, Found],
    items: Iterable[T],
    read: Callable[[T], np.ndarray],
    then: Callable[[T, np.ndarray, Instances], R],
    *,
    batch_size: int = 1,
) -> Generator[tuple[T, R | ImageError]]:
    """Predicts the images of `items`.

    Images of one orientation pass through the network together. Memory holds a few batches, however many items there
    are.

    Args:
        read: gives the image of an item, (H, W, 3) uint8 RGB or (H, W, C). Called in threads.
        then: makes the result from an item, its image and what was found. Called in threads.
        batch_size: number of images that pass through the network together.

    Yields:
        Each item in order, with its result or the error that says why its image cannot be read.

    Raises:
        ConfigError: `batch_size` is no whole number from 1 to `LARGEST_BATCH`.
    """
    iterator = iter(items)
    return stream_taken(detector, lambda most, wait: islice(iterator, most), read, then, batch_size=batch_size)


def stream_taken(
    detector: Detector[Prepared, Found],
    take: Callable[[int, bool], Iterable[T]],
    read: Callable[[T], np.ndarray],
    then: Callable[[T, np.ndarray, Instances], R],
    *,
    batch_size: int = 1,
) -> Generator[tuple[T, R | ImageError]]:
    """`stream` for items that arrive one by one, such as the requests to a server.

    Args:
        take: gives the next items. It is called with the most that are wanted, and with whether it may wait for one,
            because nothing is left to do. The stream ends when it gives none after it was allowed to wait.
    """
    if not is_int(batch_size) or not 1 <= batch_size <= LARGEST_BATCH:
        raise ConfigError(f"batch size: expected 1 to {LARGEST_BATCH} images, found {short(batch_size)}")
    threads = _threads(detector.device)
    with living_threads() as threads_of_torch:
        # torch's bilinear resize in float32 rounds differently with one thread than with several. On a CPU an image is
        # therefore resized with as many as the network has, and so to the same bits as by `preprocess`. The threads of
        # the pool change the number for later threads, too, until `living_threads` puts it back.
        in_pool = threads_of_torch if detector.device.type == "cpu" else 1
        pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(in_pool,))
        numbers, batches = count(), 0
        waiting: dict[int, Future[_Ready[T, Prepared]]] = {}
        finishing: deque[Future[dict[int, tuple[T, R | ImageError]]]] = deque()
        done: dict[int, tuple[T, R | ImageError]] = {}
        next_number = 0
        try:
            while True:
                for item in take(threads + AHEAD * batch_size - len(waiting), not waiting and not finishing):
                    waiting[next(numbers)] = pool.submit(_prepare, detector, item, read)
                if waiting:
                    batch = _next_batch(waiting, batch_size)
                    prepared = [ready.prepared for ready in batch.values() if ready.prepared is not None]
                    found = detector.detect(prepared) if prepared else None
                    finishing.append(pool.submit(_finish, detector, batch, found, then))
                    batches += 1
                    if batches % TRIMMED == 0 and detector.device.type == "cpu":
                        trim()
                elif not finishing:
                    break
                if len(finishing) > BEHIND or not waiting:
                    done |= finishing.popleft().result()
                while next_number in done:
                    yield done.pop(next_number)
                    next_number += 1
        finally:
            pool.shutdown(cancel_futures=True)
            if batches > TRIMMED and detector.device.type == "cpu":
                trim()  # what follows many images, such as an evaluation, takes much memory itself


def _prepare(detector: Detector[Prepared, Found], item: T, read: Callable[[T], np.ndarray]) -> _Ready[T, Prepared]:
    try:
        image = read(item)
        return _Ready(item, image, detector.prepare(image))
    except ImageError as error:
        return _Ready(item, error, None)


def _next_batch(waiting: dict[int, Future[_Ready[T, Prepared]]], batch_size: int) -> dict[int, _Ready[T, Prepared]]:
    """Removes from `waiting` the first image, the next ones of its orientation, and the broken ones between them."""
    batch: dict[int, _Ready[T, Prepared]] = {}
    orientations: list[bool] = []
    for number, future in waiting.items():
        ready = future.result()
        if ready.prepared is not None:
            if orientations and ready.portrait != orientations[0]:
                continue
            orientations.append(ready.portrait)
        batch[number] = ready
        if len(orientations) == batch_size:
            break
    for number in batch:
        del waiting[number]
    return batch


def _finish(
    detector: Detector[Prepared, Found],
    batch: dict[int, _Ready[T, Prepared]],
    found: Found | None,
    then: Callable[[T, np.ndarray, Instances], R],
) -> dict[int, tuple[T, R | ImageError]]:
    instances = iter(() if found is None else detector.finish(found))
    return {
        number: (
            ready.item,
            ready.image if isinstance(ready.image, ImageError) else then(ready.item, ready.image, next(instances)),
        )
        for number, ready in batch.items()
    }


def _threads(device: torch.device) -> int:
    """The number of threads: two beside a network on the CPU, which itself keeps the cores busy."""
    return 2 if device.type == "cpu" else max(2, min(16, len(usable_cores()) - 1))
