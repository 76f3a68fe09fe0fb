"""A file of weights is read once, and one network is built, whatever asks for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import maskrcnn
from maskrcnn.config import Category, Config
from maskrcnn.errors import TrainingError
from maskrcnn.files import arrays
from maskrcnn.models import build
from maskrcnn.training import checkpoint
from maskrcnn.training.loop import train
from maskrcnn.weights import initialise, open
from maskrcnn.weights.frameworks.torchvision import Torchvision
from maskrcnn.weights.frameworks.torchvision.settings import with_rules
from maskrcnn.weights.model_file import save_model
from small_data import write_small
from small_network import lively_network, network_config


class Counter:
    """How often a function was called."""

    def __init__(self, function: Callable[..., Any], count: Callable[[], bool] = lambda: True) -> None:
        self.function, self.count, self.calls = function, count, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += self.count()
        return self.function(*args, **kwargs)


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Counter:
    """Networks that were built, except for those that hold shapes alone."""
    counter = Counter(build.MaskRCNN, lambda: torch.get_default_device().type != "meta")
    monkeypatch.setattr(build, "MaskRCNN", counter)
    return counter


def config_of(**model: Any) -> Config:
    config = replace(network_config(num_classes=2, **model), categories=(Category(3, "blue"), Category(7, "red")))
    return replace(config, train=replace(config.train, steps=1, workers=0, batch_size=1))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    config = config_of()
    save_model(tmp_path / "own.safetensors", lively_network(config), config, {})
    return tmp_path / "own.safetensors"


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    config = with_rules(config_of().model)
    torch.save(Torchvision().export_state(config, lively_network(config).state_dict()), tmp_path / "theirs.pth")
    return tmp_path / "theirs.pth"


def test_a_model_file_is_read_once_to_be_opened(own: Path, networks: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Counter(arrays.safe_open)
    monkeypatch.setattr(arrays, "safe_open", reads)
    maskrcnn.load(own, "cpu")
    assert (reads.calls, networks.calls) == (1, 1)


def test_a_foreign_file_is_read_once_to_be_opened(
    theirs: Path, networks: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Counter(open.read_checkpoint)
    monkeypatch.setattr(open, "read_checkpoint", reads)
    maskrcnn.load(theirs, "cpu")
    assert (reads.calls, networks.calls) == (1, 1)


def test_a_file_with_holes_is_read_once(theirs: Path, networks: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holes take a second network, with the random values."""
    tensors = torch.load(theirs)
    del tensors["roi_heads.mask_predictor.conv5_mask.bias"]
    torch.save(tensors, theirs)
    reads = Counter(open.read_checkpoint)
    monkeypatch.setattr(open, "read_checkpoint", reads)
    model = maskrcnn.load(theirs, "cpu", allow_partial=True)
    assert model.provenance["new"] == ["roi_heads.mask.heads.0.upsample.bias"]
    assert (reads.calls, networks.calls) == (1, 2)


def test_training_reads_a_model_file_once(
    own: Path, networks: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Counter(arrays.safe_open)
    monkeypatch.setattr(arrays, "safe_open", reads)
    train(config_of(), write_small(tmp_path, "train", 2), out=tmp_path / "run", weights=own)
    assert (reads.calls, networks.calls) == (1, 1)


def test_training_reads_a_foreign_file_once_and_resumes_without_it(
    theirs: Path, networks: Counter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_small(tmp_path, "train", 2)
    reads, states = Counter(initialise.read_checkpoint), Counter(checkpoint.read_torch)
    monkeypatch.setattr(initialise, "read_checkpoint", reads)
    monkeypatch.setattr(checkpoint, "read_torch", states)
    config = config_of()
    default = replace(config, model=Config().model, categories=())  # so that the architecture comes from the weights
    first = train(default, data, out=tmp_path / "run", weights=theirs)
    assert (reads.calls, states.calls, networks.calls) == (1, 0, 1)
    theirs.unlink()
    # The settings of the weights are in the checkpoint: a resumed run needs no file to know them.
    again = train(default, data, out=tmp_path / "run", weights=theirs, resume=True)
    assert (reads.calls, states.calls, networks.calls) == (1, 1, 2)
    assert again.steps == first.steps
    other = replace(default, image=replace(default.image, short_side=48))
    with pytest.raises(TrainingError, match=r"image\.short_side was .* and is 48"):
        train(other, data, out=tmp_path / "run", weights=theirs, resume=True)
