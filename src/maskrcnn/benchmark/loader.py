"""Compares our loading of training data with torchvision's: images and COCO JSON to samples with large scale jitter.

Legend: S side of a sample, N its objects.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maskrcnn.benchmark.generated_coco import repeat_annotations, write_coco
from maskrcnn.benchmark.measure import Comparison, Sitting, Track, no_track
from maskrcnn.benchmark.memory import Visitable, worker_memory
from maskrcnn.benchmark.settings import LoaderSettings, Timing
from maskrcnn.benchmark.their_loader import TheirData
from maskrcnn.benchmark.view import View, draw_view
from maskrcnn.config import Config, ImageConfig
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import Batch, collate
from maskrcnn.data.loading.sample import Sample
from maskrcnn.data.loading.transforms import framed_sample
from maskrcnn.errors import ConfigError
from maskrcnn.structures.dataset import Dataset

MAX_GREY_LEVELS = 4.0  # mean difference of the pixels: our windows begin up to a pixel earlier
MIN_MASK_IOU = 0.9  # of all masks together: torchvision resizes masks by the nearest pixel
MIN_MATCHED = 0.99  # fraction of our objects: a few may be at the size below which objects are left out
BOX_MARGIN_PX = 2.0  # our box may extend this far beyond torchvision's
CPU = torch.device("cpu")
CONFIG = Config()  # our own kernel


@dataclass(frozen=True)
class Likeness:
    """How well the samples of both sides agree on the same views.

    Attributes:
        images: the number of views.
        ours: the number of our objects.
        theirs: the number of torchvision's objects, including those whose box is visible but whose mask is not.
        matched: our objects inside a torchvision box of the same category, up to `BOX_MARGIN_PX`.
        grey_levels: mean absolute difference of the pixels, without padding.
        mask_iou: IoU of all masks together.
    """

    images: int
    ours: int
    theirs: int
    matched: int
    grey_levels: float
    mask_iou: float

    @property
    def agree(self) -> bool:
        enough_matched = self.matched >= MIN_MATCHED * self.ours > 0
        return enough_matched and self.grey_levels <= MAX_GREY_LEVELS and self.mask_iou >= MIN_MASK_IOU

    def line(self) -> str:
        return (
            f"{'samples agree' if self.agree else 'SAMPLES DIFFER'}: {self.matched} of our {self.ours} objects on "
            f"{self.images} images are among torchvision's {self.theirs}, IoU of the masks {self.mask_iou:.4f}, mean "
            f"difference of the pixels {self.grey_levels:.2f} of 255"
        )


@dataclass(frozen=True)
class LoaderReport:
    """
    Attributes:
        times: seconds per batch.
        images, annotations: numbers in the data.
        memory: side -> number of annotations -> bytes that a worker process shares with no other; empty if it was not
            measured.
    """

    settings: LoaderSettings
    environment: dict[str, Any]
    agreement: Likeness
    times: Comparison
    images: int
    annotations: int
    memory: dict[str, dict[int, int]]

    def images_per_second(self) -> dict[str, float]:
        """Images per second of each side on one core, from the median batch."""
        sides = {"ours": self.times.ours, "torchvision": self.times.theirs}
        return {side: self.settings.batch_size / float(np.median(seconds)) for side, seconds in sides.items()}

    def to_dict(self) -> dict[str, Any]:
        return {
            "bench": "loader",
            "environment": self.environment,
            "settings": asdict(self.settings),
            "data": {"images": self.images, "annotations": self.annotations},
            "agreement": {"agree": self.agreement.agree, **asdict(self.agreement)},
            "seconds": self.times.to_dict(),
            "images_per_second_per_core": self.images_per_second(),
            "worker_memory_bytes": {
                side: [{"annotations": count, "unique": size} for count, size in found.items()]
                for side, found in self.memory.items()
            },
        }


def bench_loader(data: Path | None, settings: LoaderSettings, timing: Timing, track: Track = no_track) -> LoaderReport:
    """Compares the loading of `data`, or of generated images with polygons if it is None.

    Raises:
        ConfigError: `timing` asks for another device than the CPU, bf16 or compilation, which have no meaning here.
        DataError: the data cannot be used.
        ImageError: an image cannot be read.
    """
    if timing.device not in (None, "cpu") or timing.precision != "fp32" or timing.compile:
        raise ConfigError("bench loader measures one core of the CPU: leave out --device, --precision and --compile")
    sitting = Sitting(timing, CPU, track)
    with tempfile.TemporaryDirectory(prefix="maskrcnn-bench-") as name:
        folder = Path(name)
        dataset = read_dataset(data or write_coco(folder, settings.count))
        theirs = TheirData(dataset.path, dataset.records[0].path.parent)
        with _one_thread():
            agreement = compare_samples(dataset, theirs, _views(dataset, settings, 0))
            times = sitting.in_turns(
                lambda number: our_batch(dataset, _views(dataset, settings, number)),
                lambda number: [theirs.sample(view) for view in _views(dataset, settings, number)],
            )
        annotations = int(dataset.records.counts.sum())
        memory = measure_workers(dataset, settings, folder) if timing.memory else {}
    return LoaderReport(settings, sitting.environment(), agreement, times, len(dataset), annotations, memory)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limits torch to one thread, as in a worker process of a loader."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _views(dataset: Dataset, settings: LoaderSettings, number: int) -> list[View]:
    """The random views of batch `number`; after the last image comes the first one again."""
    rng = np.random.default_rng(number)
    places = [(number * settings.batch_size + i) % len(dataset) for i in range(settings.batch_size)]
    sizes = [(dataset.records[i].height, dataset.records[i].width) for i in places]
    return [draw_view(i, size, settings.size, rng) for i, size in zip(places, sizes, strict=True)]


def our_batch(dataset: Dataset, views: list[View]) -> Batch:
    """A training batch: uint8 images padded to S x S, and ground truth with cropped masks."""
    samples = [framed_sample(dataset, view.index, view.frame, CONFIG) for view in views]
    return collate(samples, ImageConfig(), (views[0].side, views[0].side))


def compare_samples(dataset: Dataset, theirs: TheirData, views: list[View]) -> Likeness:
    """Compares the samples of both sides for the same views."""
    ours, others, matched, both, either = 0, 0, 0, 0, 0
    levels: list[float] = []
    for view in views:
        sample = framed_sample(dataset, view.index, view.frame, CONFIG)
        image, target = theirs.sample(view)
        height, width = view.out_hw
        seen = slice(view.side - width, None) if view.flipped else slice(width)  # torchvision flips after padding
        levels.append(float((sample.image - image[:, :height, seen] * 255).abs().mean()))
        boxes = target["boxes"].numpy() - np.array([seen.start or 0, 0] * 2)
        masks = target["masks"][:, :height, seen].numpy().astype(bool)
        free = np.ones(len(boxes), dtype=bool)
        objects = np.flatnonzero(~sample.crowd)
        for i in objects:
            box, mask = sample.boxes[i], dense_mask(sample, int(i))
            low, high = boxes[:, :2] - BOX_MARGIN_PX <= box[:2], boxes[:, 2:] + BOX_MARGIN_PX >= box[2:]
            named = target["labels"].numpy() == dataset.categories[sample.labels[i]].id
            close = np.flatnonzero(free & named & low.all(axis=1) & high.all(axis=1))
            if len(close) == 0:
                either += int(mask.sum())
                continue
            shared = (masks[close] & mask).sum(axis=(1, 2))
            partner = close[shared.argmax()]
            free[partner] = False
            matched, both = matched + 1, both + int(shared.max())
            either += int((masks[partner] | mask).sum())
        either += int(masks[free].sum())
        ours, others = ours + len(objects), others + len(boxes)
    return Likeness(len(views), ours, others, matched, float(np.mean(levels)), both / either if either else 1.0)


def dense_mask(sample: Sample, number: int) -> np.ndarray:
    """(h, w) bool, the mask of object `number`, sampled at the pixel centres of the sample."""
    bitmap, origin = sample.crops[number]
    height, width = sample.image.shape[1:]
    to_original = sample.frame.inverse
    y, x = np.mgrid[0:height, 0:width] + 0.5
    points = np.stack([x, y], axis=-1) @ to_original[:2, :2].T + to_original[:2, 2] - np.array(origin)
    column, row = np.floor(points).astype(int).transpose(2, 0, 1)
    inside = (row >= 0) & (column >= 0) & (row < bitmap.shape[0]) & (column < bitmap.shape[1])
    result = np.zeros((height, width), dtype=bool)
    result[inside] = bitmap[row[inside], column[inside]]
    return result


@dataclass(frozen=True)
class _Ours:
    """Our side, for `worker_memory`."""

    dataset: Dataset
    side: int

    def __len__(self) -> int:
        return len(self.dataset)

    def sample(self, index: int) -> object:
        record = self.dataset.records[index]
        view = draw_view(index, (record.height, record.width), self.side, np.random.default_rng(index))
        return framed_sample(self.dataset, index, view.frame, CONFIG)

    def visit(self, index: int) -> object:
        return self.dataset.annotations(index).masks()


@dataclass(frozen=True)
class _Theirs:
    """torchvision's side, for `worker_memory`."""

    data: TheirData
    side: int

    def __len__(self) -> int:
        return len(self.data.images)

    def sample(self, index: int) -> object:
        entry = self.data.images[index]
        view = draw_view(index, (entry["height"], entry["width"]), self.side, np.random.default_rng(index))
        return self.data.sample(view)

    def visit(self, index: int) -> object:
        return self.data.run_lengths(index)


def measure_workers(dataset: Dataset, settings: LoaderSettings, folder: Path) -> dict[str, dict[int, int]]:
    """The memory that a worker shares with no other, for at least `settings.annotations` annotations and for four times
    as many; the data set is repeated to get them. The result is as in `LoaderReport.memory`."""
    images = dataset.records[0].path.parent
    found: dict[str, dict[int, int]] = {"ours": {}, "torchvision": {}}
    for least in (settings.annotations, 4 * settings.annotations):
        path, count = repeat_annotations(dataset.path, folder / f"{least}.json", least)
        sides: tuple[tuple[str, Callable[[Path, Path, int], Visitable]], ...]
        sides = (("ours", _our_side), ("torchvision", _their_side))
        for side, make in sides:
            size = worker_memory(partial(make, path, images, settings.size), settings.workers)
            if size is not None:
                found[side][count] = size
    return found


def _our_side(path: Path, images: Path, side: int) -> _Ours:
    return _Ours(read_dataset(path, images), side)


def _their_side(path: Path, images: Path, side: int) -> _Theirs:
    return _Theirs(TheirData(path, images), side)
