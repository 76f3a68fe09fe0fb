"""Pasted objects lie over those below: pixels, masks and boxes agree, whatever the frames of both images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from maskrcnn.config import AugmentConfig, Config, ImageConfig
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.copy_paste import pasted, some_with_masks
from maskrcnn.data.loading.loader import TrainingData, collate
from maskrcnn.data.loading.sample import Sample
from maskrcnn.data.loading.transforms import training_sample
from maskrcnn.errors import ImageError
from maskrcnn.ops.mask_targets import mask_targets
from maskrcnn.structures.frame import frame_of_size
from small_data import COLOURS, small_config, write_small
from small_network import sample_of

SMALL = ImageConfig(short_side=64, long_side=96)
PASTE = AugmentConfig(copy_paste=1.0, scale_jitter=(0.7, 1.6), quarter_turns=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"), "train", 6)


def masks_of(sample: Sample) -> np.ndarray:
    """(N, h, w) the masks of a sample as training sees them, in pixels of the network input."""
    bank = collate([sample], SMALL).targets.masks
    assert bank is not None
    h, w = sample.image.shape[1:]
    side, count = max(h, w), len(sample.boxes)
    frame = torch.tensor([[0.0, 0.0, side, side]]).expand(count, 4)
    chosen = bank.select(torch.zeros(count, dtype=torch.int64), torch.arange(count))
    found: np.ndarray = mask_targets(frame, chosen, size=side, sampling_ratio=1)[:, :h, :w].numpy()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("augment", [PASTE, replace(PASTE, rotation=45.0), replace(PASTE, crop=(64, 64))])
def test_every_mask_lies_on_the_colour_of_its_object(data: Path, augment: AugmentConfig) -> None:
    """The colour tells the class, also where an object of the other class lies over it or under it."""
    dataset = read_dataset(data)
    names = [category.name for category in dataset.categories]
    config = Config(image=SMALL, augment=augment)
    overlaps = 0
    for seed in range(25):
        sample = training_sample(dataset, seed % 6, config, np.random.default_rng(seed))
        image, masks = sample.image.permute(1, 2, 0).numpy().astype(int), masks_of(sample)
        assert (masks.sum(axis=0) <= 2.01).all(), "two objects of one image may overlap"
        overlaps += len(sample.pasted_frames) < len(sample.boxes) and len(sample.pasted_frames) > 0
        for mask, box, label in zip(masks, sample.boxes, sample.labels, strict=True):
            inner = (mask > 0.99) & (np.roll(mask, 2, 0) > 0.99) & (np.roll(mask, -2, 0) > 0.99)
            inner &= (np.roll(mask, 2, 1) > 0.99) & (np.roll(mask, -2, 1) > 0.99)
            colour = np.array(COLOURS[names[label]])
            wrong = (np.abs(image[inner] - colour).max(axis=-1, initial=0) > 12).mean() if inner.any() else 0.0
            assert wrong < 0.02, seed
            rows, columns = np.nonzero(mask >= 0.5)
            if len(rows):
                assert (box[:2] <= (columns.min() + 1, rows.min() + 1)).all(), "the box holds the mask"
                assert (box[2:] >= (columns.max(), rows.max())).all()
            rows, columns = np.nonzero(mask > 0.02)
            tight = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.abs(tight - box).max() < 4, "and little more; bilinear samples reach a pixel of the file further"
    assert overlaps > 10


def test_what_is_covered_loses_its_part_and_what_is_hidden_is_dropped() -> None:
    below = sample_of(
        64, 96, [(0, (10, 10, 30, 30)), (1, (40, 10, 60, 30)), (0, (70, 10, 90, 30)), (-1, (0, 40, 9, 60))]
    )
    donor = sample_of(64, 96, [(1, (20, 5, 35, 35)), (0, (38, 8, 62, 32))], seed=1)
    for bitmap, _ in (*below.crops, *donor.crops):
        bitmap[:] = 1
    found = pasted(below, donor)
    assert found.labels.tolist() == [0, 0, -1, 1, 0]
    assert found.boxes.tolist() == [
        [10, 10, 20, 30],
        [70, 10, 90, 30],
        [0, 40, 9, 60],
        [20, 5, 35, 35],
        [38, 8, 62, 32],
    ]
    assert [int(bitmap.sum()) for bitmap, _ in found.crops] == [200, 400, 0, 450, 576]
    assert torch.equal(found.image[:, 5:35, 20:35], donor.image[:, 5:35, 20:35])
    assert torch.equal(found.image[:, 40:], below.image[:, 40:])
    assert below.crops[0][0].all(), "the sample itself does not change"
    assert found.pasted_frames == (donor.frame, donor.frame)


def test_a_box_without_a_mask_is_dropped_only_where_it_is_hidden() -> None:
    below = sample_of(64, 96, [(0, (10, 10, 30, 30)), (0, (40, 10, 60, 30))], with_masks=False)
    donor = sample_of(64, 96, [(1, (20, 5, 35, 35)), (1, (38, 8, 62, 32))])
    for bitmap, _ in donor.crops:
        bitmap[:] = 1
    assert pasted(below, donor).boxes[:-2].tolist() == [[10, 10, 30, 30]]


def test_a_larger_donor_is_cut_off_and_covered_keypoints_are_hidden() -> None:
    keypoints = np.array([[[12.0, 12, 2], [28, 28, 2]]], dtype=np.float32)
    below = replace(sample_of(64, 96, [(0, (10, 10, 30, 30))]), keypoints=keypoints)
    donor = replace(sample_of(90, 128, [(1, (25, 20, 120, 80))]), keypoints=np.zeros((1, 2, 3), dtype=np.float32))
    donor.crops[0][0][:] = 1
    found = pasted(below, donor)
    assert found.boxes[1].tolist() == [25, 20, 96, 64]
    assert found.image.shape == below.image.shape
    assert found.keypoints is not None
    assert found.keypoints[0, :, 2].tolist() == [2, 1]
    assert below.keypoints is keypoints
    assert keypoints[0, 1, 2] == 2


def test_keypoints_of_a_larger_donor_end_at_the_network_input() -> None:
    below = replace(sample_of(64, 96, []), keypoints=np.zeros((0, 4, 3), dtype=np.float32))
    points = [[30.0, 30, 2], [96, 64, 1], [110, 30, 2], [30, 70, 2]]
    donor = replace(sample_of(90, 128, [(1, (25, 20, 120, 80))]), keypoints=np.array([points], dtype=np.float32))
    found = pasted(below, donor).keypoints
    assert found is not None
    assert found.dtype == np.float32
    assert found[0].tolist() == [[30, 30, 2], [96, 64, 1], [0, 0, 0], [0, 0, 0]]


def test_a_donor_with_nothing_to_see_changes_nothing() -> None:
    below = sample_of(32, 32, [(0, (1, 1, 30, 30))])
    beyond = replace(sample_of(64, 96, [(1, (40, 40, 60, 60))]), frame=frame_of_size((64, 96), (64, 96)))
    assert pasted(below, beyond) is below


def test_half_of_the_objects_with_masks_are_pasted(data: Path) -> None:
    annotations = read_dataset(data).annotations(0)
    numbers = np.arange(len(annotations))
    counts = [len(some_with_masks(annotations, numbers, np.random.default_rng(i))) for i in range(40)]
    assert min(counts) >= 1
    assert len(some_with_masks(annotations, numbers[:0], np.random.default_rng(0))) == 0


def test_a_broken_donor_is_named_and_not_pasted(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 2)
    (tmp_path / "train" / "1.png").write_bytes(b"")
    dataset = read_dataset(path)
    config = small_config()
    config = replace(config, augment=replace(config.augment, copy_paste=1.0))
    samples = [TrainingData(dataset, config, strict=False)[epoch, 0] for epoch in range(8)]
    named = [sample for sample in samples if sample.skipped]
    assert 0 < len(named) < 8
    assert all("1.png" in sample.skipped[0] and not sample.pasted_frames for sample in named)
    epoch = next(number for number, sample in enumerate(samples) if sample.skipped)
    with pytest.raises(ImageError, match=r"1\.png"):
        TrainingData(dataset, config, strict=True)[epoch, 0]
