"""Samples and batches: targets that fit their pixels, the same whatever the workers, resumable anywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch

from maskrcnn.config import AugmentConfig, Config, Conventions, ImageConfig
from maskrcnn.config.conventions import OURS, PixelRules
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.loading.loader import SLOTS, Batch, collate, training_batches
from maskrcnn.data.loading.samplers import GroupedBatchSampler
from maskrcnn.data.loading.transforms import random_frame, training_sample
from maskrcnn.errors import DataError, ImageError
from maskrcnn.ops.mask_targets import mask_targets
from maskrcnn.ops.resize import resize_image
from maskrcnn.predict import preprocess
from small_data import COLOURS, small_coco, small_config, write_small

EVERYTHING = AugmentConfig(
    scale_jitter=(0.5, 3.0), crop=(64, 64), flip_vertical=0.5, quarter_turns=True, brightness=0.1
)


PLAIN = AugmentConfig(flip_horizontal=0.0)
SMALL = ImageConfig(short_side=64, long_side=96)
SQUARE, DIVISOR = (replace(OURS, pixels=PixelRules(letterbox=kind)) for kind in ("square", "divisor"))


def equal(a: Batch, b: Batch) -> bool:
    assert a.targets.masks is not None
    assert b.targets.masks is not None
    pairs = [(a.images.pixels, b.images.pixels), (a.targets.boxes, b.targets.boxes)]
    pairs += [
        (a.targets.masks.pixels, b.targets.masks.pixels),
        (a.targets.masks.to_original, b.targets.masks.to_original),
    ]
    return a.image_ids == b.image_ids and all(x.shape == y.shape and torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small(tmp_path_factory.mktemp("data"), "train", 7)


def config(augment: AugmentConfig = EVERYTHING, **train: int) -> Config:
    return replace(small_config(batch_size=3, **train), augment=augment)


def test_a_turned_image_is_whole() -> None:
    turning = Config(image=SMALL, augment=replace(PLAIN, quarter_turns=True))
    sizes = {random_frame((40, 60), np.zeros((0, 4)), turning, np.random.default_rng(i)).input_hw for i in range(20)}
    assert sizes == {(64, 96), (96, 64)}


def test_letterbox_padding_is_on_both_sides_and_not_around_a_crop() -> None:
    square = Config(image=SMALL, augment=PLAIN, conventions=SQUARE)
    frame = random_frame((30, 60), np.zeros((0, 4)), square, np.random.default_rng(0))
    assert frame.input_hw == (96, 96)
    assert frame.window == (0, 24, 96, 72)
    cropped = replace(square, augment=replace(PLAIN, crop=(40, 50)))
    assert random_frame((30, 60), np.zeros((0, 4)), cropped, np.random.default_rng(0)).input_hw == (40, 50)


KERNELS = get_args(get_type_hints(PixelRules)["kernel"])


@pytest.mark.parametrize("letterbox", ["none", "square", "divisor"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_without_augmentation_training_sees_what_prediction_sees(data: Path, kernel: Any, letterbox: Any) -> None:
    dataset = read_dataset(data)
    rules = replace(OURS, pixels=PixelRules(letterbox=letterbox, kernel=kernel))
    plain = Config(image=ImageConfig(short_side=51, long_side=96), augment=PLAIN, conventions=rules)
    for index in range(3):
        sample = training_sample(dataset, index, plain, np.random.default_rng(0))
        expected = preprocess([dataset.read(index)], plain)
        assert torch.equal(sample.image, expected.pixels[0, :, : sample.image.shape[1], : sample.image.shape[2]])
        assert [list(sample.frame.input_hw)] == expected.sizes_hw.tolist()
        assert np.array_equal(sample.frame.matrix, expected.frames[0].matrix)
    assert expected.pixels.dtype == (torch.float32 if kernel == "bilinear" else torch.uint8)


@pytest.mark.parametrize("kernel", KERNELS)
def test_augmented_images_are_resized_by_the_kernel_of_the_model(data: Path, kernel: Any) -> None:
    """Jittered and flipped as a whole, an image is that of the kernel's own function, flipped."""
    dataset = read_dataset(data)
    augment = AugmentConfig(scale_jitter=(0.5, 2.0), flip_horizontal=1.0)
    jittered = Config(image=SMALL, augment=augment, conventions=replace(OURS, pixels=PixelRules(kernel=kernel)))
    for index in range(3):
        sample = training_sample(dataset, index, jittered, np.random.default_rng(index))
        pixels = torch.from_numpy(dataset.read(index)).permute(2, 0, 1)
        assert sample.frame.input_hw != tuple(pixels.shape[1:])
        assert torch.equal(sample.image, resize_image(pixels, sample.frame.input_hw, kernel).flip(2))


def test_colours_of_float_pixels_change_like_those_of_whole_ones(data: Path) -> None:
    augment = replace(PLAIN, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1)
    images = {}
    for kernel in ("antialias", "bilinear"):  # nothing is resized here, so both see the same image
        rules = replace(OURS, pixels=PixelRules(kernel=kernel))  # type: ignore[arg-type]
        settings = Config(image=SMALL, augment=augment, conventions=rules)
        images[kernel] = training_sample(read_dataset(data), 0, settings, np.random.default_rng(0)).image
    assert images["antialias"].dtype == torch.uint8
    assert images["bilinear"].dtype == torch.float32
    assert (images["antialias"].float() - images["bilinear"]).abs().max() < 8  # each of four steps rounds
    assert (
        images["antialias"] - torch.from_numpy(read_dataset(data).read(0)).permute(2, 0, 1)
    ).float().abs().mean() > 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("conventions", "augment"),
    [(OURS, EVERYTHING), (SQUARE, replace(EVERYTHING, crop=None)), (DIVISOR, replace(EVERYTHING, crop=None))],
    ids=["crop", "square", "divisor"],
)
def test_targets_fit_the_pixels_that_are_seen(data: Path, conventions: Conventions, augment: AugmentConfig) -> None:
    """Objects have a colour of their own: it must be where boxes and masks say, after any augmentation."""
    dataset = read_dataset(data)
    names = [category.name for category in dataset.categories]
    checked = 0
    for seed in range(60):
        index = seed % len(dataset)
        settings = Config(image=SMALL, augment=replace(augment, brightness=0.0), conventions=conventions)
        sample = training_sample(dataset, index, settings, np.random.default_rng(seed))
        batch = collate([sample], SMALL)
        bank = batch.targets.masks
        assert bank is not None
        h, w = sample.image.shape[1:]
        if conventions is SQUARE:
            assert (h, w) == (96, 96)
        image = sample.image.permute(1, 2, 0).numpy().astype(int)
        side = max(h, w)
        for j, box in enumerate(sample.boxes):
            assert (box >= 0).all()
            assert box[2] <= w
            assert box[3] <= h
            colour = np.array(COLOURS[names[sample.labels[j]]])
            frame = torch.tensor([[0.0, 0.0, side, side]])
            bitmap = bank.select(torch.tensor([0]), torch.tensor([j]))
            mask = mask_targets(frame, bitmap, size=side, sampling_ratio=1)[0, :h, :w].numpy()
            # Away from its edge, where resampling mixes it with the ground, the object has its pure colour.
            core = tuple(slice(*np.ceil([low + 2, high - 2]).astype(int)) for low, high in (box[1::2], box[::2]))
            assert np.abs(image[core] - colour).max(initial=0) <= 2
            assert (mask[core] > 0.99).all()
            painted = np.argwhere(mask >= 0.5)
            if len(painted) and (box[2:] - box[:2] > 4).all():
                tight = [*painted.min(axis=0)[::-1], *(painted.max(axis=0)[::-1] + 1)]
                assert np.abs(np.array(tight) - box).max() <= 1.5, (seed, j)
                checked += 1
    assert checked > 40


def test_crops_have_one_size_and_objects_that_vanish_are_dropped(data: Path) -> None:
    for batch in islice(training_batches(read_dataset(data), config()), 8):
        assert batch.images.pixels.shape == (3, 3, 64, 64)
        assert batch.images.pixels.dtype == torch.uint8
        sides = batch.targets.boxes[..., 2:] - batch.targets.boxes[..., :2]
        assert (sides[batch.targets.valid] >= 1).all()
        assert (sides[~batch.targets.valid] == 0).all()
        assert (batch.targets.labels[batch.targets.valid] >= 0).all()
        assert (batch.targets.labels[~batch.targets.valid] == -1).all()


def test_fixed_size_and_large_scale_jitter(data: Path) -> None:
    fixed = replace(config(AugmentConfig(scale_jitter=(0.1, 2.0))), image=ImageConfig(fixed_size=(64, 96)))
    sizes = set()
    for batch in islice(training_batches(read_dataset(data), fixed), 10):
        assert batch.images.pixels.shape == (3, 3, 64, 96)
        sizes |= {tuple(size) for size in batch.images.sizes_hw.tolist()}
    assert min(h for h, _ in sizes) < 20
    assert max(h for h, _ in sizes) == 64


def test_multi_scale_draws_sizes_between_the_bounds(data: Path) -> None:
    batches = training_batches(read_dataset(data), config(AugmentConfig(scale_jitter=(0.5, 1.0))))
    shorts = [int(size.min()) for batch in islice(batches, 20) for size in batch.images.sizes_hw]
    assert min(shorts) < 40
    assert max(shorts) <= 64
    assert max(shorts) > 56


@pytest.mark.slow
def test_batches_do_not_depend_on_workers_or_on_where_the_run_began(data: Path) -> None:
    dataset = read_dataset(data)
    everything = replace(EVERYTHING, rotation=20.0, copy_paste=0.5, blur=1.0, noise=0.05, contrast=0.2, hue=0.1)

    def config(**train: int) -> Config:
        return replace(small_config(batch_size=3, **train), augment=everything)

    alone = list(islice(training_batches(dataset, config(workers=0)), 6))
    for workers in (1, 2):
        assert all(map(equal, alone, islice(training_batches(dataset, config(workers=workers)), 6)))
    assert all(map(equal, alone[4:], islice(training_batches(dataset, config(workers=0), start_step=4), 2)))
    other = list(islice(training_batches(dataset, config(workers=0, seed=1)), 6))
    assert not any(map(equal, alone, other))


def test_batches_of_static_shapes_hold_the_same(data: Path) -> None:
    config = small_config(batch_size=2)
    static = replace(config, train=replace(config.train, compile=True))
    shapes = set()
    for plain, padded in islice(
        zip(*(training_batches(read_dataset(data), c) for c in (config, static)), strict=False), 6
    ):
        slots = plain.targets.boxes.shape[1]
        bank, wider = plain.targets.masks, padded.targets.masks
        assert bank is not None
        assert wider is not None
        height, width = plain.images.pixels.shape[2:]
        assert torch.equal(padded.images.pixels[:, :, :height, :width], plain.images.pixels)
        assert torch.equal(padded.images.sizes_hw, plain.images.sizes_hw)
        assert torch.equal(padded.targets.boxes[:, :slots], plain.targets.boxes)
        assert not padded.targets.valid[:, slots:].any()
        assert torch.equal(wider.pixels[: len(bank.pixels)], bank.pixels)
        assert torch.equal(wider.offsets[:, :slots], bank.offsets)
        assert (padded.targets.boxes.shape[1] % SLOTS, len(wider.pixels).bit_count()) == (0, 1)
        shapes.add((*padded.images.pixels.shape, padded.targets.boxes.shape[1]))
    assert len(shapes) <= 2


@pytest.mark.parametrize(("count", "sizes"), [(1, [3]), (2, [2, 1]), (3, [1, 1, 1]), (8, [1, 1, 1])])
def test_the_parts_of_a_batch_hold_its_images_and_masks(data: Path, count: int, sizes: list[int]) -> None:
    batch = next(iter(training_batches(read_dataset(data), config())))
    parts = batch.parts(count)
    assert [len(part.images) for part in parts] == sizes
    assert [len(part.images.frames) for part in parts] == sizes
    assert sum((part.image_ids for part in parts), ()) == batch.image_ids
    assert torch.equal(torch.cat([part.images.pixels for part in parts]), batch.images.pixels)
    assert torch.equal(torch.cat([part.targets.valid for part in parts]), batch.targets.valid)
    image, slot = batch.targets.valid.nonzero().unbind(1)
    masks = batch.targets.masks
    assert masks is not None
    last, own = parts[-1], image == len(batch.images) - 1
    assert last.targets.masks is not None
    first_of_last = len(batch.images) - sizes[-1]
    found = last.targets.masks.select(image[own] - first_of_last, slot[own])
    expected = masks.select(image[own], slot[own])
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_loading_leaves_the_global_generators_alone(data: Path) -> None:
    torch.manual_seed(3)
    np.random.seed(3)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(3)
    np.random.seed(3)
    next(training_batches(read_dataset(data), config(workers=0)))
    assert (torch.rand(1), np.random.rand()) == expected


def test_every_image_comes_once_an_epoch_and_batches_keep_to_one_orientation() -> None:
    landscape = np.array([True] * 8 + [False] * 4)
    sampler = iter(GroupedBatchSampler(landscape, batch_size=2, seed=0))
    epochs: list[list[int]] = []
    for _ in range(3):
        batches = [next(sampler) for _ in range(6)]
        assert all(len({bool(landscape[index]) for _, index in batch}) == 1 for batch in batches)
        epochs.append([index for batch in batches for _, index in batch])
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_images_left_over_are_not_lost() -> None:
    sampler = iter(GroupedBatchSampler(np.array([True] * 5), batch_size=2, seed=0))
    drawn = [key for _ in range(5) for key in next(sampler)]
    assert sorted(drawn) == sorted((epoch, index) for epoch in range(2) for index in range(5))


def test_crowds_and_objects_without_masks(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 1)
    content, _ = small_coco(1)
    content["annotations"] = [
        {"id": 1, "image_id": 1, "category_id": 3, "bbox": [10, 10, 20, 20]},
        {"id": 2, "image_id": 1, "category_id": 7, "bbox": [40, 10, 20, 20], "iscrowd": 1},
    ]
    path.write_text(json.dumps(content))
    plain = config(AugmentConfig(flip_horizontal=0.0), workers=0)
    plain = replace(plain, image=ImageConfig(short_side=64, long_side=96), train=replace(plain.train, batch_size=1))
    targets = next(training_batches(read_dataset(path), plain)).targets
    assert targets.valid.tolist() == [[True, False]]
    assert targets.crowd.tolist() == [[False, True]]
    assert targets.labels.tolist() == [[0, -1]]
    assert targets.boxes[0].tolist() == [[10, 10, 30, 30], [40, 10, 60, 30]]
    assert targets.masks is not None
    assert targets.masks.sizes_hw.tolist() == [[[0, 0], [0, 0]]]


def test_a_batch_of_images_without_objects(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 2)
    content, _ = small_coco(2)
    path.write_text(json.dumps(dict(content, annotations=[])))
    batch = next(training_batches(read_dataset(path), config(workers=0)))
    assert batch.targets.boxes.shape == (3, 1, 4)
    assert not batch.targets.valid.any()


def test_broken_files_are_reported_and_replaced(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 3)
    (tmp_path / "train" / "1.png").write_bytes(b"broken")
    dataset = read_dataset(path)
    batches = list(islice(training_batches(dataset, config(workers=0)), 4))
    assert {i for batch in batches for i in batch.image_ids} == {1, 3}
    assert {message for batch in batches for message in batch.skipped} == {
        f"{tmp_path / 'train' / '1.png'}: expected an image, found a file of another kind"
    }
    with pytest.raises(ImageError, match=r"1\.png"):
        list(islice(training_batches(dataset, config(workers=0), strict=True), 4))
    for i in (0, 2):
        (tmp_path / "train" / f"{i}.png").unlink()
    with pytest.raises(DataError, match=r"none of the 3 images can be read; .*\.png"):
        next(training_batches(dataset, config(workers=0)))


def test_one_image_that_can_be_read_among_many_is_always_found(tmp_path: Path) -> None:
    path = write_small(tmp_path, "train", 40)
    dataset = read_dataset(path)
    for image in sorted((tmp_path / "train").iterdir())[1:]:
        image.unlink()
    batches = list(islice(training_batches(dataset, config(workers=0)), 4))
    assert len({i for batch in batches for i in batch.image_ids}) == 1
