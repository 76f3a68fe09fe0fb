"""What of an object a training sample shows, and how many objects it holds."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn.config import AugmentConfig
from maskrcnn.data import doubts
from maskrcnn.data.doubts import limited_images
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading import transforms
from maskrcnn.data.loading.loader import training_batches
from maskrcnn.data.loading.transforms import within_limits
from maskrcnn.structures.dataset import Dataset
from small_data import small_config

SIDE = 200


def crowded(folder: Path, count: int, size: int = SIDE) -> Dataset:
    """One image whose objects all cover `size` x `size` pixels, with masks."""
    Image.new("RGB", (SIDE, SIDE)).save(folder / "a.png")
    counts = [0, size, *([SIDE - size, size] * (size - 1)), SIDE * SIDE - (size - 1) * SIDE - size]
    if size == SIDE:
        counts = [0, SIDE * SIDE]
    mask = {"size": [SIDE, SIDE], "counts": counts}
    annotations = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": [0, 0, size, size], "segmentation": mask, "iscrowd": 0}
        for i in range(count)
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": SIDE, "width": SIDE}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "leaf"}],
    }
    (folder / "a.json").write_text(json.dumps(content))
    return read_dataset(folder / "a.json")


def test_a_batch_of_an_image_with_very_many_objects_is_small(tmp_path: Path) -> None:
    dataset = crowded(tmp_path, 500)
    config = small_config(batch_size=1, max_objects=50)
    config = replace(config, augment=AugmentConfig(flip_horizontal=0.0))
    batches = list(islice(training_batches(dataset, config), 2))
    for batch in batches:
        assert batch.targets.boxes.shape == (1, 50, 4)
        assert batch.targets.masks is not None
        assert batch.targets.masks.pixels.nbytes == 1 + 50 * SIDE * SIDE, "2 MB; all objects have 20"
    (note,) = limited_images(dataset, 50)
    assert "1 of 1 images hold up to 500 annotations; a step learns at most 50 of an image" in note


def test_the_chosen_part_differs_from_time_to_time_and_is_repeatable(tmp_path: Path) -> None:
    annotations = crowded(tmp_path, 50, size=10).annotations(0)
    numbers = np.arange(50)
    first, again, other = (within_limits(annotations, numbers, 20, np.random.default_rng(i)) for i in (1, 1, 2))
    assert len(first) == len(set(first.tolist())) == 20
    assert (np.diff(first) > 0).all()
    assert (first == again).all()
    assert (first != other).any()
    rng = np.random.default_rng(3)
    assert within_limits(annotations, numbers, 50, rng) is numbers
    assert rng.random() == np.random.default_rng(3).random(), "no random number is used where all are kept"


def test_masks_of_few_objects_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (transforms, doubts):
        monkeypatch.setattr(module, "MOST_MASK_PIXELS", 5 * SIDE * SIDE)
    dataset = crowded(tmp_path, 8)
    kept = within_limits(dataset.annotations(0), np.arange(8), 1000, np.random.default_rng(0))
    assert len(kept) == 5
    assert "1 of 1 images hold up to 8 annotations" in limited_images(dataset, 1000)[0]
    monkeypatch.setattr(transforms, "MOST_MASK_PIXELS", 10)
    assert len(within_limits(dataset.annotations(0), np.arange(8), 1000, np.random.default_rng(0))) == 1


def test_usual_images_are_whole_and_not_mentioned(tmp_path: Path) -> None:
    assert limited_images(crowded(tmp_path, 90, size=100), 1000) == []
