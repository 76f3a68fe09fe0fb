"""Training that goes on from a real checkpoint of another framework."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from maskrcnn.config import Config
from maskrcnn.training.loop import train
from maskrcnn.weights.model_file import open_model
from maskrcnn.weights.open import open_weights


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

    theirs, (_, found, provenance) = open_weights(source)[1], open_model(tmp_path / "model.safetensors")
    assert provenance["initial_weights"] == f"weights of {source}, class layers new"
    assert [category.name for category in found.categories] == ["nucleus"]
    assert found.image == replace(theirs.image, short_side=128, long_side=192)
    assert found.model == replace(theirs.model, num_classes=1)
