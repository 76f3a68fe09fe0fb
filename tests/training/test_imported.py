"""Training that continues from a real checkpoint of another framework."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from maskrcnn.config import AugmentConfig, Config
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import Batch
from maskrcnn.predict import load, preprocess
from maskrcnn.training import run
from maskrcnn.training.loop import train
from maskrcnn.training.step import train_step
from maskrcnn.weights.open import open_weights


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "kernel"),
    [
        ("detectron2/r50_fpn/model_final.pkl", "pil"),
        ("mmdet/r50_caffe_fpn/epoch_12.pth", "opencv"),
        ("matterport/resnet50/mask_rcnn_fx.h5", "truncated"),
    ],
)
def test_training_resizes_as_the_framework_that_made_the_model(
    file: str, kernel: str, shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without augmentation, a step of training sees the bits that the trained model sees in prediction."""
    batches: list[Batch] = []

    def noted(sums_of: Any, state: Any, parts: Sequence[Batch], *args: Any) -> Any:
        batches.extend(parts)
        return train_step(sums_of, state, parts, *args)

    monkeypatch.setattr(run, "train_step", noted)
    own = Config()
    own = replace(
        own,
        image=replace(own.image, short_side=150, long_side=192),
        augment=AugmentConfig(flip_horizontal=0.0),
        train=replace(own.train, steps=2, batch_size=1, workers=0),
    )
    data = shared / "data" / "nuclei" / "train.json"
    train(own, data, out=tmp_path, weights=shared / "fixtures" / file, limit=2)
    predictor, dataset = load(tmp_path / "model.safetensors", "cpu", precision="fp32"), read_dataset(data)
    assert predictor.config.conventions.pixels.kernel == kernel
    numbers = {record.image_id: number for number, record in enumerate(dataset.records)}
    assert len(batches) == 2
    for batch in batches:
        image = dataset.read(numbers[batch.image_ids[0]])
        expected = preprocess([image], predictor.config)
        assert image.shape[:2] != batch.images.frames[0].resized_hw
        assert torch.equal(batch.images.pixels, expected.pixels)
        assert torch.equal(batch.images.windows, expected.windows)
        assert torch.equal(predictor.network.normalise(batch.images), predictor.network.normalise(expected))


@pytest.mark.slow
def test_a_detectron2_model_learns_nuclei_and_keeps_its_rules(shared: Path, tmp_path: Path) -> None:
    """50 steps: the loss falls, and what differs between the frameworks is in the saved file as it was imported."""
    source = shared / "fixtures" / "detectron2" / "r50_fpn" / "model_final.pkl"
    own = Config()
    own = replace(
        own,
        image=replace(own.image, short_side=128, long_side=192),
        augment=replace(own.augment, crop=(128, 128)),
        train=replace(
            own.train,
            steps=50,
            batch_size=2,
            optimizer="adamw",
            learning_rate=1e-3,
            schedule="cosine",
            warmup_steps=5,
            workers=0,
            evaluate_every=0,
        ),
    )
    train(own, shared / "data" / "nuclei" / "train.json", out=tmp_path, weights=source)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    first, *_, last = (line["loss"] for line in lines)  # means of 20 steps, and of the last ten
    assert last < 0.8 * first

    theirs, (_, found, provenance) = open_weights(source)[1], open_weights(tmp_path / "model.safetensors")
    assert provenance["initial_weights"] == f"weights of {source}, class layers new"
    assert [category.name for category in found.categories] == ["nucleus"]
    assert found.image == replace(theirs.image, short_side=128, long_side=192)
    assert found.model == replace(theirs.model, num_classes=1)
