"""Statistics of batch norm that are computed anew are those of the present weights."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from maskrcnn.config import Config
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import training_batches
from maskrcnn.models.build import build_model
from maskrcnn.models.mask_rcnn import MaskRCNN
from maskrcnn.training.checkpoint import load_checkpoint
from maskrcnn.training.loop import train
from maskrcnn.training.statistics import estimate_statistics
from small_data import small_config, write_small


def with_batch_norm(frozen_stages: int, **settings: object) -> Config:
    config = small_config(precision="fp32", **settings)
    backbone = replace(config.model.resnet, norm="batch_norm", frozen_stages=frozen_stages)
    return replace(config, model=replace(config.model, backbone=backbone, num_classes=2))


def test_they_are_the_means_over_the_images_whatever_they_were(tmp_path: Path) -> None:
    dataset = read_dataset(write_small(tmp_path, "train", 5))
    config = with_batch_norm(0, batch_norm_images=5, batch_size=2)
    torch.manual_seed(0)
    network = build_model(config)
    with torch.no_grad():
        network.backbone.stem.norm.running_mean.fill_(100.0)
    estimate_statistics(network, dataset, config)
    outputs = [
        network.backbone.stem.conv(network.normalise(batch.images))
        for batch in islice(training_batches(dataset, config), 3)  # 5 images fill three batches of 2
    ]
    expected = torch.stack([output.mean((0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(network.backbone.stem.norm.running_mean, expected, rtol=1e-3, atol=1e-4)
    assert network.backbone.stem.norm.momentum == 0.1
    assert not network.training


def test_frozen_stages_keep_theirs(tmp_path: Path) -> None:
    dataset = read_dataset(write_small(tmp_path, "train", 2))
    config = with_batch_norm(1, batch_norm_images=2)
    network = build_model(config)
    before = network.backbone.stem.norm.running_mean.clone()
    moved = network.backbone.res2[0].conv1.norm.running_mean.clone()
    estimate_statistics(network, dataset, config)
    assert torch.equal(network.backbone.stem.norm.running_mean, before)
    assert not torch.equal(network.backbone.res2[0].conv1.norm.running_mean, moved)


@pytest.mark.slow
@pytest.mark.parametrize("ema", [False, True])
def test_the_last_model_of_a_run_has_them(tmp_path: Path, ema: bool) -> None:
    data = write_small(tmp_path, "train", 4)
    config = with_batch_norm(0, batch_norm_images=4, steps=3, ema=ema, ema_decay=0.5)
    plain = replace(config, train=replace(config.train, batch_norm_images=0))
    mean, weight = "backbone.res5.0.conv1.norm.running_mean", "backbone.res5.0.conv1.conv.weight"
    found, lagging = (
        load_checkpoint(train(c, data, out=tmp_path / name).out).state["model" if ema else "network"]
        for name, c in (("new", config), ("plain", plain))
    )
    assert torch.equal(found[weight], lagging[weight])
    assert not torch.equal(found[mean], lagging[mean])


def test_a_failure_leaves_the_momentum_of_the_norms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(MaskRCNN, "loss_sums", broken)
    network = build_model(with_batch_norm(0, batch_norm_images=2))
    dataset = read_dataset(write_small(tmp_path, "train", 2))
    with pytest.raises(RuntimeError, match="no memory"):
        estimate_statistics(network, dataset, with_batch_norm(0, batch_norm_images=2))
    assert network.backbone.stem.norm.momentum == 0.1
