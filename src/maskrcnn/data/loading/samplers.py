"""The images of each training batch. They depend on the seed and the step alone, so that a run can resume anywhere."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class GroupedBatchSampler(Sampler[list[tuple[int, int]]]):
    """Endless batches of (epoch, index), shuffled in every epoch. All images of a batch have the same orientation.

    Every image comes once per epoch. Images that do not fill a batch wait for the next epoch.

    Args:
        landscape: (N,) bool, the orientation of each image.
        batch_size: images per batch.
        seed: seed of the shuffles.
        start_step: batches to skip.
    """

    def __init__(self, landscape: np.ndarray, batch_size: int, seed: int, start_step: int = 0) -> None:
        self.landscape = np.asarray(landscape, dtype=np.bool_)
        self.batch_size = batch_size
        self.seed = seed
        self.start_step = start_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step = 0
        waiting: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
        epoch = 0
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.landscape))
            for index in order.tolist():
                group = waiting[bool(self.landscape[index])]
                group.append((epoch, index))
                if len(group) == self.batch_size:
                    if step >= self.start_step:
                        yield list(group)
                    step += 1
                    group.clear()
            epoch += 1
