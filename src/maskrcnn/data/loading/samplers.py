"""The images of each training batch. They depend on the seed and the step alone, so that a run can resume anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy

# Epoch and position of an image, and the number of its earlier occurrences in the epoch if there are any. All random
# choices of a sample follow from it.
Key = tuple[int, ...]


class GroupedBatchSampler(Sampler[list[Key]]):
    """Endless batches of keys, shuffled in every epoch. All images of a batch have the same orientation.

    Images that do not fill a batch wait for the next epoch.

    Args:
        landscape: (N,) bool, the orientation of each image.
        batch_size: images per batch.
        seed: seed of the shuffles.
        start_step: batches to skip.
        repeats: (N,) float64, how often each image comes in an epoch on average, at least 1; None: once.
    """

    def __init__(
        self,
        landscape: np.ndarray,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        repeats: np.ndarray | None = None,
    ) -> None:
        self.landscape = np.asarray(landscape, dtype=np.bool_)
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step
        self.repeats = repeats

    def __iter__(self) -> Iterator[list[Key]]:
        step = 0
        waiting: dict[bool, list[Key]] = {False: [], True: []}
        epoch = 0
        while True:
            for key in self._epoch(epoch):
                group = waiting[bool(self.landscape[key[1]])]
                group.append(key)
                if len(group) == self.batch_size:
                    if step >= self.start_step:
                        yield list(group)
                    step += 1
                    group.clear()
            epoch += 1

    def _epoch(self, epoch: int) -> list[Key]:
        rng = np.random.default_rng((self.seed, epoch))
        if self.repeats is None:
            return [(epoch, index) for index in rng.permutation(len(self.landscape)).tolist()]
        whole = np.floor(self.repeats)
        counts = (whole + (rng.random(len(whole)) < self.repeats - whole)).astype(np.int64)
        index = np.repeat(np.arange(len(counts)), counts)
        occurrence = np.arange(len(index)) - np.repeat(counts.cumsum() - counts, counts)
        order = rng.permutation(len(index))
        drawn = zip(index[order].tolist(), occurrence[order].tolist(), strict=True)
        return [(epoch, i, number) if number else (epoch, i) for i, number in drawn]


def repeat_factors(dataset: Dataset, threshold: float) -> np.ndarray:
    """How often each image should come in an epoch (Gupta et al. 2019, section 5.1), (N,) float64 of at least 1.

    A class that a share f of the images shows asks for max(1, sqrt(threshold / f)). An image follows its rarest class.
    """
    records = dataset.records
    rows = records.rows
    labels, crowd = (as_numpy(dataset.columns[name])[rows] for name in ("labels", "crowd"))
    image = np.repeat(np.arange(len(records)), records.counts)
    shown = np.unique(np.stack([image, labels])[:, ~crowd], axis=1)
    share = np.bincount(shown[1], minlength=len(dataset.categories)) / len(records)
    factors = np.ones(len(records))
    np.maximum.at(factors, shown[0], np.sqrt(threshold / share[shown[1]]))
    return factors
