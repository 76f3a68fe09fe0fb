"""Large images: the detector sees one tile after another, and the objects of all tiles are merged."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import Any, Generic, TypeVar

import numpy as np

from maskrcnn.allocator import trim
from maskrcnn.config import Config
from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.files.images import as_channels, as_rgb
from maskrcnn.files.media.windows import Pixels, open_pixels
from maskrcnn.predict.augmented import Augmented
from maskrcnn.predict.pipeline import TRIMMED, Detector, ImageLike, collect, stream
from maskrcnn.predict.predictor import SHORT_SIDE, Predictor
from maskrcnn.predict.seams import Piece, Tile, merge, piece_of
from maskrcnn.structures.frame import network_frame
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.values import is_int

T = TypeVar("T")
R = TypeVar("R")
Track = Callable[[Iterable[Any], int], Iterable[Any]]
SMALLEST = 32  # pixels: the stride of the coarsest features
SIMILAR = 1.5  # objects of up to so many times another size are still known to a network


def untracked(items: Iterable[Any], total: int) -> Iterable[Any]:
    return items


@dataclass(frozen=True)
class Tiling:
    """How an image is cut into tiles that overlap.

    Attributes:
        size: side of a tile in pixels of the image. Each tile is resized as an image of its size.
        overlap: pixels that neighbours share at least; None: a quarter of the size. The largest object should fit
            inside.

    Raises:
        ConfigError: a tile is too small, or the overlap leaves no way forward.
    """

    size: int = 1024
    overlap: int | None = None

    def __post_init__(self) -> None:
        if self.size < SMALLEST:
            raise ConfigError(f"tiles: expected a side of {SMALLEST} pixels or more, found {self.size}")
        if not 2 <= self.shared < self.size:
            raise ConfigError(f"overlap of tiles: expected 2 to {self.size - 1} pixels, found {self.overlap}")

    @property
    def shared(self) -> int:
        """Pixels that neighbours share at least."""
        return self.size // 4 if self.overlap is None else self.overlap

    def tiles(self, image_hw: tuple[int, int]) -> list[Tile]:
        """The tiles of an image, row by row. All have the same size, and lie at equal distances."""
        (tops, height), (lefts, width) = (self._starts(side) for side in image_hw)
        owned_y, owned_x = _owned(tops, height, image_hw[0]), _owned(lefts, width, image_hw[1])
        return [
            Tile((x, y, x + width, y + height), (x1, y1, x2, y2), image_hw)
            for y, (y1, y2) in zip(tops, owned_y, strict=True)
            for x, (x1, x2) in zip(lefts, owned_x, strict=True)
        ]

    def _starts(self, length: int) -> tuple[list[int], int]:
        """The starts of the tiles along a side of an image, and their length."""
        if length <= self.size:
            return [0], length
        count = -(-(length - self.shared) // (self.size - self.shared))
        return np.linspace(0, length - self.size, count).astype(int).tolist(), self.size


def _owned(starts: Sequence[int], size: int, length: int) -> list[tuple[float, float]]:
    """The part of a side that each tile owns: it ends in the middle of what it shares with its neighbour."""
    middles = [(start + size + following) / 2 for start, following in pairwise(starts)]
    return list(zip([0.0, *middles], [*middles, float(length)], strict=True))


@dataclass(frozen=True)
class Tiled:
    """A model, with test-time augmentation or without, for images that are cut into tiles.

    Limits of the model hold for each tile, so that an image may have more objects.

    Attributes:
        remark: called with a sentence about objects that are larger than a tile.
    """

    model: Predictor | Augmented
    tiling: Tiling = Tiling()
    remark: Callable[[str], None] = warnings.warn

    @property
    def config(self) -> Config:
        return self.model.config

    def with_detections(self, most: int) -> Tiled:
        """The same with another limit of detections a tile."""
        return replace(self, model=self.model.with_detections(most))

    def most_detections(self, image_hw: tuple[int, int]) -> int:
        """The most detections that an image can have: the limit of the model for each of its tiles."""
        return self.config.model.detect.max_detections * len(self.tiling.tiles(image_hw))

    def predict(self, images: ImageLike | Iterable[ImageLike], batch_size: int = 1) -> list[Instances]:
        """As `Predictor.predict`. `batch_size` is the number of tiles that pass through the network together."""
        channels = self.config.image.channel_names

        def read(image: ImageLike) -> Pixels:
            if isinstance(image, str | os.PathLike):
                return open_pixels(image, warnings.warn, channels)
            return as_channels(image, channels) if channels else as_rgb(image)

        return collect(images, lambda several: stream_tiles(self, several, read, _found, batch_size=batch_size))

    def merged(self, pieces: Sequence[Piece]) -> Instances:
        """The objects of an image from those of all its tiles."""
        spanning = sum(piece.spanning for piece in pieces)
        if spanning:
            height, width = pieces[0].tile.image_hw
            self.remark(
                f"objects that reach through a whole tile of {self.tiling.size} pixels are cut, {spanning} in the "
                f"image of {width} x {height} pixels: choose larger tiles"
            )
        if len(pieces) > TRIMMED:
            trim()  # merging takes much memory itself
        return merge(pieces, self.config.model.detect.nms_iou)


def remark_on_size(model: Predictor, tiling: Tiling) -> str | None:
    """A sentence if the network sees objects in tiles much smaller or larger than in training. None if it does not, or
    if the model file does not say which images it was trained on."""
    side = model.provenance.get(SHORT_SIDE)
    if not is_int(side) or side < 1:
        return None
    of_tiles, of_training = (
        network_frame((length, length), model.config).matrix[0, 0] for length in (tiling.size, side)
    )
    ratio = float(of_tiles / of_training)
    if 1 / SIMILAR <= ratio <= SIMILAR:
        return None
    return (
        f"the network sees objects in tiles of {tiling.size} pixels {ratio:.2g} times as large as in training, where "
        f"the short side of images was {side} pixels: choose tiles of about {side} pixels"
    )


def _found(item: ImageLike, image: Pixels, found: Instances) -> Instances:
    return found


@dataclass(frozen=True)
class _Job(Generic[T]):
    """One of the `count` tiles of an item's image, or the error that says why the image cannot be read."""

    item: T
    image: Pixels | ImageError
    tile: Tile
    number: int
    count: int


def stream_images(
    detector: Detector[Any, Any] | Tiled,
    items: Sequence[T],
    read: Callable[[T], Any],
    then: Callable[[T, Any, Instances], R],
    *,
    batch_size: int = 1,
    track: Track = untracked,
) -> Generator[tuple[T, R | ImageError]]:
    """`predict.pipeline.stream` for images that are cut into tiles or not.

    Args:
        read: gives the image of an item as for `stream`, or for `Tiled` any `Pixels`.
        track: wraps the images with their number, or the tiles of a single image, for a progress bar.
    """
    if isinstance(detector, Tiled):
        single = len(items) == 1
        with closing(
            stream_tiles(detector, items, read, then, batch_size=batch_size, track=track if single else untracked)
        ) as done:
            yield from done if single else track(done, len(items))
    else:
        with closing(stream(detector, items, read, then, batch_size=batch_size)) as found:
            yield from track(found, len(items))


def stream_tiles(
    tiled: Tiled,
    items: Iterable[T],
    read: Callable[[T], Pixels],
    then: Callable[[T, Pixels, Instances], R],
    *,
    batch_size: int = 1,
    track: Track = untracked,
) -> Generator[tuple[T, R | ImageError]]:
    """The objects of large images. The tiles of all images are one stream, and memory holds a few of them.

    Args:
        read: gives the pixels of an item. Called in the thread of the caller, as `then` is.
        track: wraps the tiles with their number if there is only one image.

    Yields:
        As `stream`.
    """
    jobs = _jobs(items, read, tiled.tiling)
    first = list(islice(jobs, 1))
    detector: Detector[Any, Any] = tiled.model
    pieces: list[Piece] = []
    fault: ImageError | None = None
    with closing(stream(detector, chain(first, jobs), _pixels, _piece, batch_size=batch_size)) as done:
        for job, piece in track(done, first[0].count if first else 0):
            if isinstance(piece, ImageError):
                fault = fault or piece
            else:
                pieces.append(piece)
            if job.number < job.count:
                continue
            if fault or isinstance(job.image, ImageError):
                yield job.item, fault or job.image
            else:
                yield job.item, then(job.item, job.image, tiled.merged(pieces))
            pieces, fault = [], None


def _jobs(items: Iterable[T], read: Callable[[T], Pixels], tiling: Tiling) -> Iterator[_Job[T]]:
    for item in items:
        try:
            image = read(item)
            tiles = tiling.tiles((image.shape[0], image.shape[1]))
        except ImageError as error:
            yield _Job(item, error, Tile((0, 0, 0, 0), (0, 0, 0, 0), (0, 0)), 1, 1)
            continue
        for number, tile in enumerate(tiles, start=1):
            yield _Job(item, image, tile, number, len(tiles))


def _pixels(job: _Job[Any]) -> np.ndarray:
    if isinstance(job.image, ImageError):
        raise job.image
    x1, y1, x2, y2 = job.tile.box
    return job.image[y1:y2, x1:x2]


def _piece(job: _Job[Any], image: np.ndarray, found: Instances) -> Piece:
    return piece_of(job.tile, found)
