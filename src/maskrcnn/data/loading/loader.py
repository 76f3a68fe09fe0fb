"""Batches for training, made ahead of their use by worker processes.

Legend: B images, G ground-truth slots per image, K keypoints, T bytes of all mask crops of the batch.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from maskrcnn.config import AugmentConfig, Config, ImageConfig
from maskrcnn.data.loading.processes import ordered_results
from maskrcnn.data.loading.sample import Sample
from maskrcnn.data.loading.samplers import GroupedBatchSampler, Key, repeat_factors
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.errors import DataError, ImageError
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.frame import pad_size
from maskrcnn.structures.images import ImageBatch, batch_size_hw, collate_images
from maskrcnn.structures.targets import MaskBank, Targets
from maskrcnn.structures.tensors import map_tensors

SLOTS = 32  # with static shapes, the number of ground-truth slots per image is a multiple of this


@dataclass(frozen=True)
class Batch:
    """A batch of images with their ground truth.

    Attributes:
        image_ids: ids in the annotation file, for messages.
        skipped: why images of the batch could not be read. Randomly chosen images replace them.
        remarks: what a person should know of reading the images, such as pages that are not read.
    """

    images: ImageBatch
    targets: Targets
    image_ids: tuple[int | str, ...]
    skipped: tuple[str, ...]
    remarks: tuple[str, ...]

    def parts(self, count: int) -> list[Batch]:
        """The batch divided into at most `count` batches of about the same number of images.

        They share the pixels of the masks, and are padded as the whole batch.
        """
        size = -(-len(self.images) // count)
        if size == len(self.images):
            return [self]
        return [self._part(slice(first, first + size)) for first in range(0, len(self.images), size)]

    def _part(self, part: slice) -> Batch:
        images, targets = map_tensors(self.images, itemgetter(part)), map_tensors(self.targets, itemgetter(part))
        images = replace(images, frames=self.images.frames[part])
        if targets.masks is not None and self.targets.masks is not None:
            targets = replace(targets, masks=replace(targets.masks, pixels=self.targets.masks.pixels))
        return replace(self, images=images, targets=targets, image_ids=self.image_ids[part])

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory, so that copies to a device are asynchronous."""
        return map_tensors(self, Tensor.pin_memory)


class TrainingData:
    """Training samples by key. The seed and the key alone determine all random choices of a sample."""

    def __init__(self, dataset: Dataset, config: Config, strict: bool) -> None:
        self.dataset = dataset
        self.config = config
        self.strict = strict

    def __getitem__(self, key: Key) -> Sample:
        index = key[1]
        rng = np.random.default_rng((self.config.train.seed, *key))
        skipped: list[str] = []
        for candidate in self._candidates(index, rng):
            try:
                sample = training_sample(self.dataset, candidate, self.config, rng)
                if self.strict and sample.skipped:
                    raise ImageError(sample.skipped[0])
                return replace(sample, skipped=(*skipped, *sample.skipped))
            except ImageError as error:
                if self.strict:
                    raise
                skipped.append(str(error))
        raise DataError(
            f"{self.dataset.path}: none of the {len(self.dataset)} images can be read; check the image folder; first: "
            f"{skipped[0]}"
        )

    def _candidates(self, index: int, rng: np.random.Generator) -> Iterator[int]:
        """The image itself, then all others in random order, for as long as none can be read."""
        yield index
        for other in rng.permutation(len(self.dataset)).tolist():
            if other != index:
                yield other


def training_batches(
    dataset: Dataset,
    config: Config,
    *,
    start_step: int = 0,
    strict: bool = False,
    rank: int = 0,
    processes: int = 1,
) -> Generator[Batch]:
    """Endless batches of `config.train.batch_size` augmented images. `close` ends the worker processes.

    The images of a step, `config.train.accumulate` batches in each process, do not depend on how they are divided into
    batches and processes. They depend neither on the number of worker processes nor on the step at which a run was
    resumed.

    Args:
        start_step: steps to skip, without loading their images.
        strict: raise if an image cannot be read, instead of replacing it and naming it in `Batch.skipped`.
        rank, processes: the part of each step that is made here, if several processes train together.

    Raises:
        ImageError: an image cannot be read and `strict` is set.
        DataError: no image of the data set can be read.
        TrainingError: a worker process was killed or stopped, or found no shared memory.
    """
    heights, widths = dataset.records.sizes_hw.T
    landscape = widths >= heights
    if config.augment.crop or config.image.fixed_size:
        landscape[:] = True  # every batch has the same size
    settings, size = config.train, config.train.batch_size
    repeats = repeat_factors(dataset, settings.repeat_threshold) if settings.repeat_threshold else None
    own = settings.images_per_step
    steps = GroupedBatchSampler(landscape, own * processes, settings.seed, start_step, repeats)
    batches = (images[i : i + size] for images in steps for i in range(rank * own, (rank + 1) * own, size))
    yield from _loaded(dataset, config, batches, strict)


def validation_batches(dataset: Dataset, config: Config) -> Generator[Batch]:
    """All images of a data set once, as prediction sees them, in batches of `config.train.batch_size`.

    Raises:
        DataError, TrainingError: as for `training_batches`.
    """
    plain = replace(config, augment=AugmentConfig(flip_horizontal=0.0))
    keys, size = [(0, index) for index in range(len(dataset))], config.train.batch_size
    yield from _loaded(dataset, plain, (keys[i : i + size] for i in range(0, len(keys), size)), strict=False)


def _loaded(dataset: Dataset, config: Config, batches: Iterable[Sequence[Key]], strict: bool) -> Generator[Batch]:
    """The batches of samples with these keys, made by `config.train.workers` processes."""
    load = _Load(TrainingData(dataset, config, strict), config)
    prepare = Batch.pin_memory if torch.cuda.is_available() else _same
    if config.train.workers == 0:
        yield from map(prepare, map(load, batches))
    else:
        with closing(ordered_results(load, batches, config.train.workers, prepare)) as loaded:
            yield from loaded


@dataclass(frozen=True)
class _Load:
    """Makes a batch of the samples with the given keys. Worker processes can receive it."""

    data: TrainingData
    config: Config

    def __call__(self, keys: Sequence[Key]) -> Batch:
        image, crop = self.config.image, self.config.augment.crop
        size = pad_size(*crop, image.divisor) if crop else None
        samples = [self.data[key] for key in keys]
        return collate(samples, image, size, static_shapes=self.config.train.compile)


def _same(batch: Batch) -> Batch:
    return batch


def collate(
    samples: Sequence[Sample],
    config: ImageConfig,
    size_hw: tuple[int, int] | None = None,
    *,
    static_shapes: bool = False,
) -> Batch:
    """Makes a batch: pads images to one size and ground truth to G slots, and concatenates all mask crops.

    Args:
        size_hw: height and width of the batch; default: `batch_size_hw`.
        static_shapes: limit the number of different shapes: images as in `batch_size_hw`, G a multiple of `SLOTS`, and
            T a power of two.
    """
    frames = [sample.frame for sample in samples]
    size_hw = size_hw or batch_size_hw([frame.input_hw for frame in frames], config, static_shapes=static_shapes)
    images = collate_images([sample.image for sample in samples], frames, size_hw)
    slots = max(1, *(len(sample.boxes) for sample in samples)) if samples else 1
    if static_shapes:
        slots = -(-slots // SLOTS) * SLOTS
    shape = (len(samples), slots)
    boxes = np.zeros((*shape, 4), dtype=np.float32)
    labels = np.full(shape, -1, dtype=np.int64)
    valid, crowd = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.bool_)
    sizes, origins = np.zeros((*shape, 2), dtype=np.int64), np.zeros((*shape, 2), dtype=np.int64)
    to_original = np.zeros((*shape, 2, 3), dtype=np.float32)
    image_hw = np.ones((*shape, 2), dtype=np.int64)
    bitmaps: list[np.ndarray] = []
    for i, sample in enumerate(samples):
        to_original[i], image_hw[i] = sample.frame.inverse[:2], sample.frame.original_hw
        for j, frame in enumerate(sample.pasted_frames, start=len(sample.boxes) - len(sample.pasted_frames)):
            to_original[i, j], image_hw[i, j] = frame.inverse[:2], frame.original_hw
        n = len(sample.boxes)
        boxes[i, :n], labels[i, :n], crowd[i, :n] = sample.boxes, sample.labels, sample.crowd
        valid[i, :n] = ~sample.crowd
        for j, (bitmap, origin) in enumerate(sample.crops):
            sizes[i, j], origins[i, j] = bitmap.shape, origin
            bitmaps.append(bitmap.reshape(-1))
    areas = sizes.prod(axis=-1).reshape(-1)
    # The first byte is a 0 that belongs to no crop: mask sampling reads it for points outside a crop.
    offsets = (1 + np.cumsum(areas) - areas).reshape(shape)
    length = int(1 + areas.sum())
    pixels = np.zeros(1 << (length - 1).bit_length() if static_shapes else length, dtype=np.uint8)
    np.concatenate([np.zeros(1, dtype=np.uint8), *bitmaps], out=pixels[:length])
    bank = MaskBank(
        pixels=torch.from_numpy(pixels),
        offsets=torch.from_numpy(offsets),
        sizes_hw=torch.from_numpy(sizes),
        origins_xy=torch.from_numpy(origins),
        to_original=torch.from_numpy(to_original),
        image_hw=torch.from_numpy(image_hw),
    )
    targets = Targets(
        torch.from_numpy(boxes),
        torch.from_numpy(labels),
        torch.from_numpy(valid),
        torch.from_numpy(crowd),
        bank,
        _collate_keypoints(samples, slots),
    )
    skipped = tuple(message for sample in samples for message in sample.skipped)
    remarks = tuple(message for sample in samples for message in sample.remarks)
    return Batch(images, targets, tuple(sample.image_id for sample in samples), skipped, remarks)


def _collate_keypoints(samples: Sequence[Sample], slots: int) -> Tensor | None:
    """(B, G, K, 3) float32, or None if the data set has no keypoints."""
    unpadded = [sample.keypoints for sample in samples if sample.keypoints is not None]
    if not unpadded:
        return None
    padded = np.zeros((len(unpadded), slots, *unpadded[0].shape[1:]), dtype=np.float32)
    for row, keypoints in zip(padded, unpadded, strict=True):
        row[: len(keypoints)] = keypoints
    return torch.from_numpy(padded)
