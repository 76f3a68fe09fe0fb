"""Matching candidates with ground truth, and drawing the sample of the loss."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from maskrcnn.ops.matching import match, sample, uniform
from maskrcnn.ops.reference import boxes as boxes_reference

# Whole numbers: overlaps are exact fractions, so ties and thresholds mean the same in float32 and float64.
edge = st.integers(0, 10)
side = st.integers(1, 10)
box = st.builds(lambda x, y, w, h: [float(x), float(y), float(x + w), float(y + h)], edge, edge, side, side)
kind = st.sampled_from(["object", "crowd", "empty"])
image = st.tuples(st.lists(box, min_size=1, max_size=12), st.lists(st.tuples(box, kind), max_size=5))
thresholds = st.sampled_from([(0.7, 0.3), (0.5, 0.5), (0.5, 0.4)])


@given(
    st.lists(image, min_size=1, max_size=3),
    thresholds,
    st.sampled_from([None, 0.0, 0.3]),
    st.sampled_from(["highest_iou", "own"]),
)
def test_equal_to_the_twin(
    images: list[tuple[list[list[float]], list[tuple[list[float], str]]]],
    iou: tuple[float, float],
    low_quality_iou: float | None,
    low_quality_target: Literal["highest_iou", "own"],
) -> None:
    count = min(len(candidates) for candidates, _ in images)
    slots = max(1, *(len(truth) for _, truth in images))
    candidates = torch.tensor([found[:count] for found, _ in images])
    boxes = torch.zeros(len(images), slots, 4)
    valid, crowd = torch.zeros(2, len(images), slots, dtype=torch.bool)
    for i, (_, truth) in enumerate(images):
        for j, (edges, what) in enumerate(truth):
            if what != "empty":
                boxes[i, j] = torch.tensor(edges)
            valid[i, j], crowd[i, j] = what == "object", what == "crowd"
    options: dict[str, Any] = {
        "positive_iou": iou[0],
        "negative_iou": iou[1],
        "low_quality_iou": low_quality_iou,
        "low_quality_target": low_quality_target,
    }
    label, matched = match(candidates, boxes, valid, crowd, **options)
    for i in range(len(images)):
        expected = boxes_reference.match(
            candidates[i].tolist(), boxes[i].tolist(), valid[i].tolist(), crowd[i].tolist(), **options
        )
        assert label[i].tolist() == expected[0]
        assert matched[i].tolist() == expected[1]


def test_equal_to_torchvision_where_every_image_has_objects() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 80
    boxes = torch.cat([corner, corner + 5 + 30 * torch.rand(300, 2, generator=generator)], dim=1)
    truth, candidates = boxes[:6], boxes[6:]
    theirs = Matcher(0.7, 0.3, allow_low_quality_matches=True)(box_iou(truth, candidates))
    everything = torch.ones(1, 6, dtype=torch.bool)
    label, matched = match(
        candidates[None],
        truth[None],
        everything,
        ~everything,
        positive_iou=0.7,
        negative_iou=0.3,
        low_quality_iou=0.0,
    )
    assert label[0].eq(1).tolist() == (theirs >= 0).tolist()
    assert label[0].eq(0).tolist() == (theirs == Matcher.BELOW_LOW_THRESHOLD).tolist()
    assert matched[0][theirs >= 0].tolist() == theirs[theirs >= 0].tolist()
    assert set(label[0].tolist()) == {-1, 0, 1}


def plain_match(
    candidates: list[list[float]],
    truth: list[list[float]],
    valid: list[bool],
    crowd: list[bool],
    best: bool = True,
    iou: tuple[float, float] = (0.7, 0.3),
) -> list[int]:
    label, _ = match(
        torch.tensor([candidates]),
        torch.tensor([truth]).reshape(1, -1, 4),
        torch.tensor([valid], dtype=torch.bool),
        torch.tensor([crowd], dtype=torch.bool),
        positive_iou=iou[0],
        negative_iou=iou[1],
        low_quality_iou=0.0 if best else None,
    )
    return label[0].tolist()


def test_candidates_left_out_are_as_if_they_were_not_there() -> None:
    """The best of those that remain takes the place of a better one."""
    candidates = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 4]])
    truth, valid = torch.tensor([[[0.0, 0, 10, 10]]]), torch.ones(1, 1, dtype=torch.bool)
    out = torch.tensor([[True, False, False], [False, True, False]])
    label, _ = match(
        candidates[None],
        truth.expand(2, -1, -1),
        valid.expand(2, -1),
        ~valid.expand(2, -1),
        positive_iou=0.9,
        negative_iou=0.3,
        low_quality_iou=0.0,
        left_out=out,
    )
    assert label.tolist() == [[-1, 1, -1], [1, -1, -1]]


def test_the_last_object_takes_the_candidate_that_is_best_for_several() -> None:
    """MMDetection's `MaxIoUAssigner`: even one that overlaps another object more."""
    candidate = torch.tensor([[[0.0, 0, 10, 10]]])
    truth = torch.tensor([[[0.0, 0, 10, 9], [0, 0, 10, 4], [0, 0, 10, 2]]])
    valid = torch.ones(1, 3, dtype=torch.bool)
    for low_quality_iou, aims, expected in (
        (0.3, "own", 1),
        (0.0, "own", 2),
        (0.3, "highest_iou", 0),
        (0.95, "own", 0),
    ):
        _, matched = match(
            candidate,
            truth,
            valid,
            ~valid,
            positive_iou=0.5,
            negative_iou=0.5,
            low_quality_iou=low_quality_iou,
            low_quality_target=aims,
        )
        assert matched.item() == expected


CELL, HALF, FAR = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 5.0], [50.0, 50.0, 60.0, 60.0]


def test_an_image_without_objects_is_all_negative() -> None:
    assert plain_match([CELL, FAR], [[0.0] * 4], [False], [False]) == [0, 0]


def test_the_best_candidate_of_an_object_is_positive_however_little_it_overlaps() -> None:
    assert plain_match([HALF, FAR], [CELL], [True], [False]) == [1, 0]
    assert plain_match([HALF, FAR], [CELL], [True], [False], best=False) == [-1, 0]
    # Ties all count; an object that nothing touches makes nothing positive.
    assert plain_match([HALF, HALF], [CELL], [True], [False]) == [1, 1]
    assert plain_match([HALF, CELL], [FAR], [True], [False]) == [0, 0]


def test_candidates_inside_a_crowd_are_left_out_but_objects_in_it_are_learned() -> None:
    crowd = [0.0, 0.0, 20.0, 20.0]
    small = [2.0, 2.0, 5.0, 5.0]
    straddling = [15.0, 0.0, 25.0, 10.0]  # half inside: still a negative
    assert plain_match([small, straddling, FAR], [crowd, FAR], [False, True], [True, False]) == [-1, 0, 1]
    assert plain_match([small, FAR], [crowd, small], [False, True], [True, False]) == [1, 0]


def test_thresholds_belong_to_the_upper_side() -> None:
    seven = [0.0, 0.0, 7.0, 10.0]  # IoU 0.7 with CELL
    assert plain_match([seven], [CELL], [True], [False], best=False) == [1]
    three = [0.0, 0.0, 3.0, 10.0]
    assert plain_match([three], [CELL], [True], [False], best=False) == [-1]


labels = st.lists(st.sampled_from([1, 0, -1]), min_size=1, max_size=30)


@given(labels, labels, st.integers(1, 40), st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.integers(0, 99))
def test_sample_draws_each_at_most_once_and_fills_with_negatives(
    first: list[int], second: list[int], count: int, fraction: float, seed: int
) -> None:
    width = min(len(first), len(second))
    label = torch.tensor([first[:width], second[:width]])
    torch.manual_seed(seed)
    drawn = sample(label, count, fraction)
    size = min(count, width)
    assert drawn.chosen.shape == drawn.positive.shape == drawn.valid.shape == (2, size)
    assert drawn.chosen.min() >= 0
    assert drawn.chosen.max() < width
    for i in range(2):
        chosen = drawn.chosen[i][drawn.valid[i]].tolist()
        assert len(chosen) == len(set(chosen))
        truth = [bool(label[i, n] == 1) for n in chosen]
        assert truth == drawn.positive[i][drawn.valid[i]].tolist()
        assert all(label[i, n] >= 0 for n in chosen)
        assert bool((drawn.valid[i] | ~drawn.positive[i]).all())
        positives, negatives = int((label[i] == 1).sum()), int((label[i] == 0).sum())
        taken = min(positives, int(size * fraction))
        assert sum(truth) == taken
        assert len(chosen) - taken == min(negatives, size - taken)


def test_sample_is_uniform() -> None:
    draws = 4000
    label = torch.tensor([1] * 8 + [0] * 12 + [-1] * 4).repeat(draws, 1)
    torch.manual_seed(0)
    drawn = sample(label, 10, 0.4)
    counts = torch.bincount(drawn.chosen[drawn.valid], minlength=24).double()
    for part, size, taken in ((slice(0, 8), 8, 4), (slice(8, 20), 12, 6)):
        expected = draws * taken / size
        sigma = (draws * taken / size * (1 - taken / size)) ** 0.5
        assert ((counts[part] - expected).abs() < 5 * sigma).all(), counts[part]
    assert not counts[20:].any()
    # Pairs too: two of the positives together as often as 4 of 8 without replacement says.
    both = ((drawn.chosen == 0) & drawn.valid).any(1) & ((drawn.chosen == 1) & drawn.valid).any(1)
    chance = 4 / 8 * 3 / 7
    assert abs(float(both.double().mean()) - chance) < 5 * (chance * (1 - chance) / draws) ** 0.5


def test_sample_repeats_with_its_seed_only() -> None:
    label = torch.randint(-1, 2, (2, 500), generator=torch.Generator().manual_seed(1))
    drawn = []
    for seed in (2, 2, 3):
        torch.manual_seed(seed)
        drawn.append(sample(label, 64, 0.5))
    a, b, c = drawn
    assert torch.equal(a.chosen, b.chosen)
    assert not torch.equal(a.chosen, c.chosen)


@pytest.mark.parametrize("value", [1, 0, -1])
def test_sample_of_one_kind_only(value: int) -> None:
    drawn = sample(torch.full((1, 20), value), 8, 0.5)
    assert drawn.positive.sum() == (4 if value == 1 else 0)
    assert drawn.valid.sum() == {1: 4, 0: 8, -1: 0}[value]


SEEDS = torch.tensor([5, -7, 2**62, 5])


def test_a_row_depends_on_its_seed_and_stream_alone() -> None:
    whole = uniform(torch.empty(4, 1000), SEEDS, 0)
    assert torch.equal(whole[1:2], uniform(torch.empty(1, 1000), SEEDS[1:2], 0))
    assert torch.equal(whole[:, :10], uniform(torch.empty(4, 10), SEEDS, 0)), "a longer row begins with the shorter one"
    assert torch.equal(whole[0], whole[3])
    assert not torch.equal(whole[0], whole[1])
    assert not torch.equal(whole, uniform(torch.empty(4, 1000), SEEDS, 1))


def test_every_stream_is_another_one() -> None:
    rows = [uniform(torch.empty(1, 50), SEEDS[:1], stream) for stream in range(6)]
    assert len({tuple(row.flatten().tolist()) for row in rows}) == 6


def test_numbers_are_uniform_and_independent_of_their_neighbours() -> None:
    numbers = uniform(torch.empty(64, 4096), torch.arange(-32, 32), 2)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = torch.histc(numbers, 16, 0, 1) / numbers.numel()
    assert (counts - 1 / 16).abs().max() < 2e-3
    for a, b in ((numbers[:-1], numbers[1:]), (numbers[:, :-1], numbers[:, 1:])):  # seeds and places in a row
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.01


def test_without_seeds_the_generator_of_torch_decides() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2, 5)
    torch.manual_seed(3)
    assert torch.equal(uniform(torch.empty(2, 5), None, 1), expected)
