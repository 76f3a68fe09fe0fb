"""Training, evaluation and prediction with images of other channels than RGB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import maskrcnn
from maskrcnn.config import Channel
from small_data import small_config, write_bands

pytestmark = pytest.mark.slow


def test_five_channels_from_training_to_prediction(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    train, val = write_bands(tmp_path, "train", 4, 5), write_bands(tmp_path, "val", 2, 5, seed=1)
    other = tmp_path / "train" / "2.npy"
    np.save(other, np.zeros((64, 80, 3), dtype=np.uint16))
    config = small_config(steps=4)
    summary = maskrcnn.train(config, train, val=val, out=tmp_path / "run")
    said = capfd.readouterr().err
    assert "channel 5: " in said
    assert "2.npy: expected the channels channel 1, channel 2, " in said
    model = maskrcnn.load(summary.model)
    assert len(model.config.image.channels) == 5
    assert summary.report is not None
    assert maskrcnn.evaluate(model, val).figures == summary.report.figures
    files = sorted((tmp_path / "val").iterdir())
    for path, found in zip(files, model.predict(files), strict=True):
        assert np.array_equal(model.predict(np.load(path))[0].boxes, found.boxes)
    resumed = maskrcnn.train(config, train, val=val, out=tmp_path / "run", resume=True)
    assert resumed.steps == 4


def test_a_model_of_one_channel_begins_from_one_of_five(tmp_path: Path) -> None:
    train = write_bands(tmp_path, "train", 2, 1, "float32")
    config = small_config(steps=2)
    five = replace(config, image=replace(config.image, channels=tuple(map(Channel, "abcde"))))
    first = maskrcnn.train(five, write_bands(tmp_path, "five", 2, 5), out=tmp_path / "a")
    one = replace(config, image=replace(config.image, channels=(Channel("thermal", "range", low=0, high=4000),)))
    second = maskrcnn.train(one, train, out=tmp_path / "b", weights=first.model)
    channel = maskrcnn.load(second.model).config.image.channels[0]
    assert (channel.name, channel.low, channel.high) == ("thermal", 0, 4000)
