"""The automatic recipe: what it chooses for kinds of data sets and machines."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drawn_data import drawn
from maskrcnn.config import Config
from maskrcnn.data.join import concatenated
from maskrcnn.structures.dataset import Dataset
from maskrcnn.training.recipes.automatic import Start, mean_best_iou
from maskrcnn.training.recipes.hardware import Hardware
from maskrcnn.training.recipes.recipe import Recipe, plan

LAPTOP, GPU = Hardware("cpu", 2), Hardware("cuda", 16, 24.0)


def chosen(dataset: Dataset, machine: Hardware = LAPTOP, start: Start = "backbone", **given: Any) -> Config:
    recipe = Recipe(given={name.replace("__", "."): value for name, value in given.items()})
    return plan(recipe, recipe.start(machine), dataset, machine, "resnet18", start).config


def test_microscopy_gets_what_was_tuned_by_hand_for_nuclei(shared) -> None:
    from maskrcnn.data.formats import read_dataset

    recipe = Recipe(budget=3000)
    dataset = read_dataset(shared / "data" / "nuclei" / "train.json")
    config = plan(recipe, recipe.start(LAPTOP), dataset, LAPTOP, "resnet18", "backbone").config
    model, augment, train = config.model, config.augment, config.train
    assert model.resnet.depth == 18
    assert model.resnet.frozen_stages == 1
    assert config.image.short_side == 512
    assert config.image.long_side >= 800
    assert (augment.crop, augment.scale_jitter) == ((320, 320), (0.7, 1.4))
    assert (augment.flip_horizontal, augment.flip_vertical, augment.quarter_turns) == (0.5, 0.5, True)
    assert (augment.brightness, augment.contrast) == (0.2, 0.2)
    assert model.anchors.sizes == ((16,), (32,), (64,), (128,), (256,))
    assert (model.rpn.pre_nms_train, model.rpn.post_nms_train) == (1000, 500)
    assert model.mask_head is not None
    assert (model.box_head.samples, model.mask_head.samples) == (128, 24)
    assert model.detect.max_detections >= 375
    assert (train.batch_size, train.optimizer, train.learning_rate) == (2, "adamw", 3e-4)
    assert (train.schedule, train.weight_decay, train.clip_norm, train.warmup_steps) == ("cosine", 0.05, 5, 100)


def test_photographs_keep_their_way_up_and_large_objects_their_whole_image() -> None:
    photographs = drawn(60, 5, 200, (480, 640), stretch=2.0)
    config = chosen(photographs)
    assert not config.augment.quarter_turns
    assert config.augment.flip_vertical == 0
    assert config.augment.crop is None
    assert config.image.short_side == 256  # large objects need no large images, and a CPU is slow
    assert chosen(photographs, GPU).image.short_side == 800
    assert config.model.resnet.frozen_stages == 2
    assert chosen(photographs.subset(range(30))).model.resnet.frozen_stages == 3


def test_small_objects_are_enlarged_and_get_small_anchors() -> None:
    small = chosen(drawn(30, 8, 6))
    assert small.image.short_side == 1024
    assert small.model.anchors.sizes[0] == (16,)
    tiny = plan(Recipe(), Recipe().start(LAPTOP), drawn(30, 8, 2), LAPTOP, "resnet18", "backbone")
    assert any("cut the images into tiles" in row.reason for row in tiny.choices)


def test_anchors_follow_images_and_not_the_objects_of_one_crowded_image() -> None:
    usual, crowded = drawn(19, 5, 70), drawn(1, 600, 7, seed=1)
    both = concatenated([usual, crowded], range(1, 21), range(1, 19 * 5 + 600 + 1), Path("both.json"))
    smallest = [chosen(data, image__short_side=256).model.anchors.sizes[0] for data in (usual, crowded, both)]
    assert smallest == [(32,), (8,), (32,)]


@given(st.lists(st.floats(1, 1000), min_size=1, max_size=5), st.sampled_from([4, 8, 16, 32, 64]))
def test_the_mean_best_iou_is_that_of_squares_at_all_offsets(sides: list[float], smallest: int) -> None:
    best = []
    for side, right, down in itertools.product(sides, range(-4, 4), range(-4, 4)):
        ious = []
        for level in range(5):
            stride, anchor = 4 * 2**level, smallest * 2**level
            shared = 1.0
            for eighths in (right, down):  # of a stride, at the middle of each eighth
                centre = (eighths + 0.5) / 8 * stride
                low, high = max(-side / 2, centre - anchor / 2), min(side / 2, centre + anchor / 2)
                shared *= max(0.0, high - low)
            ious.append(shared / (side**2 + anchor**2 - shared))
        best.append(max(ious))
    assert mean_best_iou(np.array(sides), smallest) == pytest.approx(np.mean(best), rel=1e-9)


def test_objects_of_one_natural_size_are_scaled_by_one_factor() -> None:
    config = chosen(drawn(40, 10, 20, grow=3.0))
    assert config.image.scale == pytest.approx(1.6, rel=0.3)
    assert config.image.long_side >= 1000 * config.image.scale


def test_crowded_images_raise_the_limits() -> None:
    config = chosen(drawn(20, 400, 10), GPU)
    assert config.model.detect.max_detections == 600
    assert config.model.rpn.post_nms_test == 1200
    assert config.model.box_head.samples > 512
    assert chosen(drawn(20, 5, 10)).model.detect.max_detections == 100


def test_the_rate_follows_the_batch_and_its_optimiser() -> None:
    data = drawn(50, 5, 30)
    base = chosen(data).train
    assert chosen(data, train__batch_size=8).train.learning_rate == pytest.approx(2 * base.learning_rate)
    sgd = chosen(data, train__optimizer="sgd").train
    assert (sgd.learning_rate, sgd.weight_decay) == (0.001, 1e-4)
    assert chosen(data, train__optimizer="sgd", train__accumulate=4).train.learning_rate == 0.004
    assert chosen(data, train__batch_size=8).train.steps == pytest.approx(base.steps / 4, abs=1)


def test_the_weights_decide_about_norms_anchors_and_steps() -> None:
    data = drawn(50, 5, 10)
    scratch, tuned = chosen(data, start="random"), chosen(data, start="detector")
    assert (scratch.model.resnet.norm, scratch.model.resnet.frozen_stages) == ("group_norm", 0)
    assert scratch.train.steps == 4 * chosen(data).train.steps
    assert tuned.model.anchors == Config().model.anchors


def test_heads_follow_the_annotations() -> None:
    assert chosen(drawn(5, 3, 30, masks=False)).model.mask_head is None
    assert chosen(drawn(5, 3, 30)).model.mask_head is not None


def test_rare_classes_come_more_often() -> None:
    data = drawn(400, 3, 30, classes=200)
    assert chosen(data).train.repeat_threshold == 0.01
    assert chosen(drawn(400, 3, 30, classes=2)).train.repeat_threshold == 0


@pytest.mark.parametrize("dataset", [drawn(1, 1, 30), drawn(2, 1, 3, (4, 4)), drawn(3, 2, 500, (3000, 600))])
@pytest.mark.parametrize("machine", [LAPTOP, GPU, Hardware("cuda", 4, 8.0, processes=4)])
def test_odd_data_sets_get_settings(dataset: Dataset, machine: Hardware) -> None:
    config = chosen(dataset, machine)
    assert config.train.batch_size <= max(1, len(dataset))
    assert config.image.short_side <= config.image.long_side


def test_given_sizes_are_kept_together() -> None:
    config = chosen(drawn(10, 2, 30), image__long_side=900)
    assert (config.image.long_side, config.image.short_side <= 900) == (900, True)
    assert chosen(drawn(10, 2, 30), image__short_side=900).image.long_side >= 900
    assert chosen(drawn(10, 2, 30), image__fixed_size=[512, 512]).augment.crop is None
