"""Holds images out of the training data, to judge a run by them."""

from __future__ import annotations

from collections.abc import Sequence

from maskrcnn.data.editing.split import split
from maskrcnn.structures.dataset import Dataset

FEWEST = 20  # images; a smaller data set needs all of them for training


def hold_out(
    dataset: Dataset, share: float, seed: int, together: Sequence[tuple[int, int]] = ()
) -> tuple[Dataset, Dataset | None]:
    """The training data, and the images held out: a share of every class. The same arguments give the same images.

    Args:
        share: of the images; 0 for none.
        together: pairs of images, by number, that stay together, such as equal pictures.

    Returns:
        The whole data set and None if there are fewer than `FEWEST` images.

    Raises:
        DataError: the groups of images that belong together leave none for one of the parts.
    """
    if not share or len(dataset) < FEWEST:
        return dataset, None
    divided = split(dataset, {"train": 1 - share, "val": share}, together=together, seed=seed)
    parts = [record.fields["split"] for record in divided.records]
    train, val = ([i for i, part in enumerate(parts) if part == name] for name in ("train", "val"))
    return dataset.subset(train), dataset.subset(val)
