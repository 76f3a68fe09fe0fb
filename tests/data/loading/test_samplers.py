"""How often images come, and that no two samples of an epoch draw the same random numbers."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.samplers import GroupedBatchSampler, repeat_factors
from small_data import small_coco, write_small


def test_factors_are_those_of_the_rarest_class_of_an_image(tmp_path: Path) -> None:
    """Class 3 is on one of eight images and class 7 on six, one is empty, and a crowd region counts for nothing."""
    path = write_small(tmp_path, "train", 8)
    content, _ = small_coco(8)
    shown = [[3, 7], [7, 7], [7], [7], [7], [7], [], [(3, 1)]]
    content["annotations"] = [
        {"id": 10 * i + j, "image_id": i + 1, "bbox": [1, 1, 9, 9], "category_id": label, "iscrowd": crowd}
        for i, objects in enumerate(shown)
        for j, (label, crowd) in enumerate(entry if isinstance(entry, tuple) else (entry, 0) for entry in objects)
    ]
    path.write_text(json.dumps(content))
    found = repeat_factors(read_dataset(path), 0.5)
    assert found.tolist() == pytest.approx([2.0, 1, 1, 1, 1, 1, 1, 1])  # sqrt(0.5 / 0.125)


def test_repeats_are_met_on_average_and_every_sample_has_its_own_key() -> None:
    repeats = np.array([1.0, 2.5, 1.25, 1.0])
    sampler = GroupedBatchSampler(np.ones(4, dtype=bool), 1, seed=0, repeats=repeats)
    drawn = [key for (key,) in islice(sampler, 5000)]
    assert len(set(drawn)) == len(drawn)
    epochs = drawn[-1][0]
    counts = np.bincount([key[1] for key in drawn], minlength=4) / epochs
    assert counts.tolist() == pytest.approx(repeats.tolist(), abs=0.07)


def test_a_run_with_repeats_resumes_anywhere() -> None:
    repeats = np.array([1.0, 2.5, 1.25])
    landscape = np.array([True, True, False])
    whole = list(islice(GroupedBatchSampler(landscape, 2, seed=3, repeats=repeats), 30))
    assert list(islice(GroupedBatchSampler(landscape, 2, 3, 11, repeats), 19)) == whole[11:]


def test_repeats_of_one_change_only_the_order() -> None:
    drawn = [key for batch in islice(GroupedBatchSampler(np.ones(6, bool), 3, 0, 0, np.ones(6)), 2) for key in batch]
    assert sorted(drawn) == [(0, index) for index in range(6)]
