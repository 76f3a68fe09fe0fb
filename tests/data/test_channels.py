"""Channels are measured from the data, and the network gets the same input in training and prediction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn.config import AugmentConfig, Channel, Config, ImageConfig
from maskrcnn.config.presets import preset
from maskrcnn.data.channels import measured_channels, said
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.colour import jitter_colour
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.errors import ConfigError, DataError
from maskrcnn.models.build import build_model
from maskrcnn.predict import Predictor, TorchBackend, preprocess
from maskrcnn.structures.dataset import Dataset
from small_data import small_config, write_bands, write_small

STILL = AugmentConfig(flip_horizontal=0)


def all_values(dataset: Dataset, names: tuple[str, ...]) -> np.ndarray:
    return np.concatenate([dataset.read(i, channels=names).reshape(-1, len(names)) for i in range(len(dataset))])


def test_percentiles_mean_and_deviation_of_the_training_images(tmp_path: Path) -> None:
    dataset = read_dataset(write_bands(tmp_path, "train", 4, 5))
    image = measured_channels(ImageConfig(), dataset)
    values = all_values(dataset, image.channel_names).astype(np.float64)
    assert len(image.channels) == 5
    for channel, part in zip(image.channels, values.T, strict=True):
        assert (channel.low, channel.high) == pytest.approx(np.percentile(part, (0.5, 99.5)))
        assert channel.low is not None
        assert channel.high is not None
        after = np.clip((part - channel.low) / (channel.high - channel.low), 0, 1) * 255
        assert (channel.mean, channel.std) == pytest.approx((after.mean(), after.std()), rel=1e-5)
    assert measured_channels(ImageConfig(), dataset) == image
    assert measured_channels(image, dataset) is not None
    assert "become 0 to 255, mean" in said(image.channels[0])


def test_what_is_given_is_not_measured(tmp_path: Path) -> None:
    dataset = read_dataset(write_bands(tmp_path, "train", 2, 3))
    given = (Channel("a", "none"), Channel("b", "range", low=0, high=2000), Channel("c", mean=3, std=4))
    asked: list[int] = []

    def track(items: Any, total: int) -> Any:
        asked.append(total)
        return items

    stored, fixed, partly = measured_channels(ImageConfig(channels=given), dataset, track).channels
    assert asked == [2]
    assert (stored.low, stored.high) == (None, None)
    assert stored.mean == pytest.approx(all_values(dataset, ("a", "b", "c"))[:, 0].mean())
    assert (fixed.low, fixed.high) == (0, 2000)
    assert (partly.mean, partly.std) == (3, 4)
    assert partly.high is not None
    whole = ImageConfig(channels=(stored, fixed, partly))
    assert measured_channels(whole, dataset, track) == whole
    assert asked == [2]


def test_grey_and_rgb_images_stay_rgb(tmp_path: Path) -> None:
    dataset = read_dataset(write_small(tmp_path, "train", 2))
    assert measured_channels(ImageConfig(), dataset) == ImageConfig()
    Image.fromarray(np.arange(64 * 80, dtype=np.uint16).reshape(64, 80)).save(dataset.records[0].path)
    assert measured_channels(ImageConfig(), dataset) == ImageConfig()
    one = measured_channels(ImageConfig(channels=(Channel("thermal"),)), dataset)
    assert len(one.statistics[0]) == 1


def test_broken_and_other_images_are_left_out(tmp_path: Path) -> None:
    dataset = read_dataset(write_bands(tmp_path, "train", 4, 4, "float32"))
    paths = [record.path for record in dataset.records]
    paths[0].write_bytes(b"broken")
    np.save(paths[3], np.zeros((64, 80, 2)))
    values = np.load(paths[2])
    values[:32] = np.nan  # no data
    np.save(paths[2], values)
    image = measured_channels(ImageConfig(), dataset)
    assert len(image.channels) == 4
    kept = np.concatenate([values[32:].reshape(-1, 4), np.load(paths[1]).reshape(-1, 4)])
    assert [channel.high for channel in image.channels] == pytest.approx(np.percentile(kept, 99.5, axis=0).tolist())
    with pytest.raises(DataError, match=r"none of 4 images has the channels x, y, z; first: .*1\.npy"):
        measured_channels(ImageConfig(channels=tuple(map(Channel, "xyz"))), dataset)


def test_a_channel_without_contrast_can_be_measured(tmp_path: Path) -> None:
    dataset = read_dataset(write_bands(tmp_path, "train", 1, 4))
    np.save(dataset.records[0].path, np.full((64, 80, 4), 7))
    channel = measured_channels(ImageConfig(), dataset).channels[0]
    assert (channel.low, channel.high, channel.mean, channel.std) == (7, 8, 0, 1)


@pytest.mark.parametrize("channels", [1, 4, 5])
def test_training_and_prediction_have_the_same_input(tmp_path: Path, channels: int) -> None:
    dataset = read_dataset(write_bands(tmp_path, "train", 2, channels))
    names = tuple(Channel(f"c{i}") for i in range(channels))
    config = replace(small_config(), augment=STILL)
    config = replace(config, image=measured_channels(replace(config.image, channels=names), dataset))
    sample = training_sample(dataset, 0, config, np.random.default_rng(0))
    stored = dataset.read(0, channels=config.image.channel_names)
    batch = preprocess([stored], config)
    height, width = sample.image.shape[1:]
    assert torch.equal(batch.pixels[0, :, :height, :width], sample.image)
    torch.manual_seed(0)
    network = build_model(config).eval()
    normal = network.normalise(batch)[0, :, :height, :width]
    assert normal.shape[0] == channels
    assert normal.mean().abs() < 0.5
    assert 0.5 < normal.std() < 2
    predictor = Predictor(TorchBackend(network), config)
    path = dataset.records[0].path
    for image in (path, stored):
        assert np.array_equal(predictor.predict(image)[0].boxes, predictor.predict([stored])[0].boxes)


def test_colour_jitter_of_other_channels_changes_brightness_and_contrast_only() -> None:
    image = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    rng = np.random.default_rng(0)
    assert torch.equal(jitter_colour(image, AugmentConfig(saturation=0.5, hue=0.1), rng), image)
    for settings in (AugmentConfig(brightness=0.5), AugmentConfig(contrast=0.5)):
        found = jitter_colour(image, settings, rng)
        assert (found.shape, found.dtype) == (image.shape, image.dtype)
        assert not torch.equal(found, image)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stretch": "range"}, "image.channels a: stretch range needs low and high"),
        ({"low": 5, "high": 5}, "image.channels a: expected low < high"),
        ({"percentiles": (50, 50)}, "image.channels a: expected percentiles low < high"),
        ({"std": 0}, "image.channels a.std must be a number"),
    ],
)
def test_channels_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Channel("a", **given)


def test_channels_need_names_of_their_own_and_a_network_needs_their_statistics() -> None:
    with pytest.raises(ConfigError, match=r"image\.channels needs different names"):
        ImageConfig(channels=(Channel("a"), Channel("a")))
    base = preset("mask_rcnn_tiny")
    config: Config = replace(base, image=replace(base.image, channels=(Channel("a"), Channel("b", "none"))))
    with pytest.raises(ConfigError, match=r"found none of a, b; training measures them"):
        build_model(config)
