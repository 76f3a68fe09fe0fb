"""Measures the channels of a data set: the range of each, and its mean and standard deviation after the stretch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from maskrcnn.config import Channel, ImageConfig
from maskrcnn.errors import DataError, ImageError
from maskrcnn.files.images import count_channels
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.images import stretched

FIRST = 10  # images that are asked for the number of their channels, until one can be read
MOST_IMAGES = 200  # to measure, evenly spread over the data set
MOST_VALUES = 1 << 25  # of all these images and channels together; 256 MB


def measured_channels(
    image: ImageConfig,
    dataset: Dataset,
    track: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> ImageConfig:
    """The settings with everything about the channels that they leave open.

    Without `image.channels`, images with 1 or 3 channels are RGB, and nothing is measured. Others get as many channels
    as the first image that can be read. The same data set always gives the same numbers.

    Args:
        track: wraps the images with their number, for a progress bar.

    Raises:
        DataError: none of the images to measure can be read.
    """
    channels = image.channels or _channels_of(dataset)
    if all(channel.measured for channel in channels):
        return replace(image, channels=channels)
    values = _sample(dataset, [channel.name for channel in channels], track)
    return replace(
        image, channels=tuple(_measured(channel, part) for channel, part in zip(channels, values.T, strict=True))
    )


def _channels_of(dataset: Dataset) -> tuple[Channel, ...]:
    """A channel for each one of the first image that can be read; none for grey and RGB images."""
    for record in dataset.records[:FIRST]:
        try:
            number = count_channels(record.path)
        except ImageError:
            continue
        return () if number == 3 else tuple(Channel(f"channel {place}") for place in range(1, number + 1))
    return ()


def _sample(dataset: Dataset, names: Sequence[str], track: Callable[[Iterable[Any], int], Iterable[Any]]) -> np.ndarray:
    """Values (N, C) float64 from a grid of pixels of evenly spread images."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, MOST_IMAGES).astype(int)).tolist()
    pixels = max(1, MOST_VALUES // (len(chosen) * len(names)))
    found, faults = [], []
    for index in track(chosen, len(chosen)):
        try:
            image = dataset.read(index, channels=names)
        except ImageError as error:
            faults.append(str(error))
            continue
        step = math.ceil(math.sqrt(image.shape[0] * image.shape[1] / pixels))
        start = (min(step, *image.shape[:2]) - 1) // 2
        found.append(image[start::step, start::step].reshape(-1, len(names)).astype(np.float64))
    if not found:
        raise DataError(
            f"{dataset.path}: none of {len(chosen)} images has the channels {', '.join(names)}; first: {faults[0]}"
        )
    return np.concatenate(found)


def _measured(channel: Channel, values: np.ndarray) -> Channel:
    """The channel with what it leaves open, from the values (N,) of many pixels. What is not finite is left out."""
    values = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
    if not channel.stretched:
        low, high = (_rounded(value) for value in np.percentile(values, channel.percentiles))
        channel = replace(channel, low=low, high=high if high > low else low + 1.0)
    result = stretched(values[None, :, None], [channel]).astype(np.float64)
    mean, std = _rounded(result.mean()), _rounded(result.std())
    return replace(
        channel,
        mean=mean if channel.mean is None else channel.mean,
        std=(std if std > 0 else 1.0) if channel.std is None else channel.std,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.9g}")


def said(channel: Channel) -> str:
    """What a person should know of a measured channel, in one line."""
    span = "as stored" if channel.stretch == "none" else f"{channel.low:.6g} to {channel.high:.6g} become 0 to 255"
    return f"{channel.name}: {span}, mean {channel.mean:.4g}, standard deviation {channel.std:.4g}"
