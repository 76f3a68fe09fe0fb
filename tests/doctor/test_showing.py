"""What is chosen to be shown, and training samples as pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.config import AugmentConfig
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.doctor import examine
from maskrcnn.doctor.showing import of_size, sample_instances, sample_picture, with_fault
from maskrcnn.errors import ConfigError, DataError
from planted import faulty, sound, written
from small_data import small_config


@pytest.mark.parametrize("turns", [False, True])
def test_the_objects_of_a_sample_lie_on_its_picture(tmp_path: Path, turns: bool) -> None:
    content, pictures = sound()
    dataset = read_dataset(written(tmp_path, content, pictures))
    augment = AugmentConfig(scale_jitter=(0.8, 1.6), crop=(64, 64), flip_vertical=0.5, quarter_turns=turns)
    config = replace(small_config(), augment=augment)
    shown = 0
    for seed in range(8):
        sample = training_sample(dataset, seed % 6, config, np.random.default_rng(seed))
        found, picture = sample_instances(sample, ["leaf", "stone"]), sample_picture(sample)
        assert picture.shape == (*sample.frame.input_hw, 3)
        assert found.masks is not None
        for mask, box in zip(found.masks, found.boxes, strict=True):
            assert np.abs(mask.box - box).max() <= 1.5
            inside = picture[mask.dense()]
            assert (np.abs(inside.astype(int) - (250, 20, 20)).max(axis=1) < 60).mean() > 0.8  # all objects are red
            shown += 1
    assert shown > 5


def test_sizes_divide_the_objects(tmp_path: Path) -> None:
    dataset = read_dataset(faulty(tmp_path))
    parts = [len(of_size(dataset, size).columns["labels"]) for size in ("small", "medium", "large")]
    assert sum(parts) == len(dataset.columns["labels"])
    assert parts[0] > 0


def test_images_with_a_fault_keep_only_what_has_it(tmp_path: Path) -> None:
    diagnosis = examine(read_dataset(faulty(tmp_path)))
    twice = with_fault(diagnosis, "duplicate-object")
    assert [(record.image_id, record.count) for record in twice.records] == [(1, 2)]
    broken = with_fault(diagnosis, "unreadable-image")
    assert [(record.image_id, record.count) for record in broken.records] == [(6, 2)]
    with pytest.raises(DataError, match="no image has the fault speck"):
        with_fault(diagnosis, "speck")
    with pytest.raises(ConfigError, match=r"--fault: expected one of left-out, .*, found specks"):
        with_fault(diagnosis, "specks")
