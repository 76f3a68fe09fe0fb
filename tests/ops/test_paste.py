from __future__ import annotations

import tracemalloc
import warnings
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from maskrcnn.ops import paste
from maskrcnn.ops.paste import paste_to_runs
from maskrcnn.ops.reference.masks import paste_expanded_box, paste_pixel_centres, paste_whole_box
from maskrcnn.ops.rle import area, decode_runs, rle_to_crop

Rule = Literal["pixel_centres", "expanded_box", "whole_box"]
RULES: tuple[Rule, ...] = ("pixel_centres", "expanded_box", "whole_box")
ORACLES = {"pixel_centres": paste_pixel_centres, "expanded_box": paste_expanded_box, "whole_box": paste_whole_box}
HW = (70, 90)


def dense(counts: bytes, image_hw: tuple[int, int] = HW) -> np.ndarray:
    image = np.zeros(image_hw, dtype=bool)
    bitmap, (x, y) = rle_to_crop(counts, image_hw)
    image[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
    return image


def smooth_and_rough(rng: np.random.Generator, number: int, side: int) -> np.ndarray:
    """Blobs as a network gives them, and every third one noise: many crossings a column."""
    coarse = torch.from_numpy(rng.normal(size=(number, 1, 5, 5)).astype(np.float32) * 3)
    probs = torch.sigmoid(F.interpolate(coarse, size=(side, side), mode="bicubic"))[:, 0].numpy()
    probs[::3] = rng.random(probs[::3].shape)
    return probs


def boxes_in_and_out(rng: np.random.Generator, number: int) -> np.ndarray:
    size = np.exp(rng.uniform(np.log(0.3), np.log(150), (number, 2)))
    centre = rng.uniform(-0.2, 1.2, (number, 2)) * [HW[1], HW[0]]
    return np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)


def assert_like_oracle(probs: np.ndarray, boxes: np.ndarray, rule: Rule, threshold: float) -> None:
    pasted = paste_to_runs(probs, boxes, HW, threshold, rule)
    assert len(pasted) == len(boxes)
    oracle = ORACLES[rule]
    for mask, box, counts in zip(probs, boxes, pasted, strict=True):
        assert decode_runs(counts).sum() == HW[0] * HW[1]
        expected = oracle(mask, box, HW)
        sure = np.abs(expected - threshold) > 1e-4
        np.testing.assert_array_equal(dense(counts)[sure], expected[sure] > threshold, err_msg=str(box))


@pytest.mark.parametrize("side", [1, 14, 28, 56])
@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.8])
@pytest.mark.parametrize("rule", RULES)
def test_equal_to_the_oracle(rule: Rule, threshold: float, side: int) -> None:
    rng = np.random.default_rng(side)
    assert_like_oracle(smooth_and_rough(rng, 60, side), boxes_in_and_out(rng, 60), rule, threshold)


edges = st.floats(-60, 160, width=32)


@given(st.tuples(edges, edges, edges, edges), st.sampled_from(RULES), st.integers(0, 99))
def test_any_box(box: tuple[float, float, float, float], rule: Rule, seed: int) -> None:
    probs = np.random.default_rng(seed).random((1, 7, 7)).astype(np.float32)
    assert_like_oracle(probs, np.array([box], dtype=np.float32), rule, 0.5)


def test_pixel_centres_is_what_grid_sample_gives() -> None:
    rng = np.random.default_rng(1)
    probs, boxes = smooth_and_rough(rng, 40, 28), boxes_in_and_out(rng, 40)
    ys, xs = (torch.arange(n, dtype=torch.float64) + 0.5 for n in HW)
    inputs = zip(probs, boxes, paste_to_runs(probs, boxes, HW, 0.5, "pixel_centres"), strict=True)
    for mask, (x1, y1, x2, y2), counts in inputs:
        grid_y = (ys - float(y1)) / (float(y2) - float(y1)) * 2 - 1
        grid_x = (xs - float(x1)) / (float(x2) - float(x1)) * 2 - 1
        grid = torch.stack(torch.meshgrid(grid_x, grid_y, indexing="xy"), dim=-1)[None]
        values = F.grid_sample(torch.from_numpy(mask).double()[None, None], grid, align_corners=False)[0, 0].numpy()
        sure = np.abs(values - 0.5) > 1e-4
        np.testing.assert_array_equal(dense(counts)[sure], values[sure] >= 0.5)


def test_expanded_box_is_what_torchvision_pastes() -> None:
    rng = np.random.default_rng(2)
    probs, boxes = smooth_and_rough(rng, 200, 28), boxes_in_and_out(rng, 200)
    # torchvision cannot paste where nothing of the box is in the image
    seen = (boxes[:, 2:] > 1).all(axis=1) & (boxes[:, :2] < [HW[1] - 1, HW[0] - 1]).all(axis=1)
    probs, boxes = probs[seen], boxes[seen]
    assert len(boxes) > 50
    values = paste_masks_in_image(torch.from_numpy(probs)[:, None], torch.from_numpy(boxes), HW)[:, 0].numpy()
    for value, counts in zip(values, paste_to_runs(probs, boxes, HW, 0.5, "expanded_box"), strict=True):
        sure = np.abs(value - 0.5) > 1e-4
        np.testing.assert_array_equal(dense(counts)[sure], value[sure] > 0.5)


def test_what_stands_exactly_at_the_threshold() -> None:
    probs = np.full((1, 4, 4), 0.5, dtype=np.float32)
    box = np.array([[10.0, 20.0, 18.0, 28.0]], dtype=np.float32)
    at_least = dense(paste_to_runs(probs, box, HW, 0.5, "pixel_centres")[0])
    # Pixel centres between the outer cells' centres (a cell is two pixels) are at 0.5; further out it fades.
    assert at_least[21:27, 11:17].all()
    assert at_least.sum() == 36
    assert not dense(paste_to_runs(probs, box, HW, 0.5, "expanded_box")[0]).any()


def test_a_crossing_exactly_at_a_pixel_centre() -> None:
    probs = np.array([[[0.5, 1.0], [1.0, 0.5]]], dtype=np.float32)
    # Both boxes put each cell's centre on the centre of one pixel: (9, 9), (10, 9), (9, 10), (10, 10).
    whole = np.array([[9.0, 9.0, 11.0, 11.0]], dtype=np.float32)
    assert np.argwhere(dense(paste_to_runs(probs, whole, HW, 0.5, "pixel_centres")[0])).tolist() == [
        [9, 9],
        [9, 10],
        [10, 9],
        [10, 10],
    ]
    small = np.array([[9.25, 9.25, 10.75, 10.75]], dtype=np.float32)  # grown and truncated: pixels 8 to 11
    assert np.argwhere(dense(paste_to_runs(probs, small, HW, 0.5, "expanded_box")[0])).tolist() == [[9, 10], [10, 9]]


def test_crossings_that_rounding_makes_equal_do_not_overlap() -> None:
    threshold = np.float32(1e-6)
    probs = np.ones((1, 3, 3), dtype=np.float32)
    probs[0, 1] = np.nextafter(threshold, np.float32(0))
    box = np.array([[0.0, 3000.0, 3.0, 3003.0]], dtype=np.float32)
    runs = decode_runs(paste_to_runs(probs, box, (3500, 3), float(threshold))[0])
    assert (runs >= 0).all()
    assert runs.sum() == 3500 * 3


@pytest.mark.parametrize("rule", RULES)
def test_many_cells_exactly_at_the_threshold_give_valid_runs(rule: Rule) -> None:
    rng = np.random.default_rng(5)
    levels = np.array([0, 0.5, 1, np.nextafter(np.float32(0.5), np.float32(0))], dtype=np.float32)
    probs = rng.choice(levels, (300, 8, 8))
    low = rng.integers(-10, 60, (300, 2)) / 2
    boxes = np.concatenate([low, low + rng.integers(1, 60, (300, 2))], axis=1).astype(np.float32)
    for counts in paste_to_runs(probs, boxes, HW, 0.5, rule):
        runs = decode_runs(counts)
        assert (runs[1:] > 0).all()
        assert runs.sum() == HW[0] * HW[1]
    assert_like_oracle(probs, boxes, rule, 0.5)


@pytest.mark.parametrize("rule", RULES)
def test_boxes_without_pixels(rule: Rule) -> None:
    boxes = np.array(
        [
            [200, 10, 240, 40],
            [-50, 10, -20, 40],
            [10, 200, 40, 240],
            [np.nan, 10, 30, 40],
            [10, 10, np.inf, 40],
            [-np.inf, -np.inf, np.inf, np.inf],
        ],
        dtype=np.float32,
    )
    for counts in paste_to_runs(np.ones((len(boxes), 28, 28), dtype=np.float32), boxes, HW, 0.5, rule):
        assert decode_runs(counts).tolist() == [HW[0] * HW[1]]


def test_boxes_without_area() -> None:
    boxes = np.array([[10, 10, 10, 40], [10, 40, 30, 40], [30, 10, 10, 40], [5, 5, 5, 5]], dtype=np.float32)
    probs = np.ones((4, 14, 14), dtype=np.float32)
    assert [area(decode_runs(c)) for c in paste_to_runs(probs, boxes, HW, 0.5, "pixel_centres")] == [0, 0, 0, 0]
    assert_like_oracle(probs, boxes, "expanded_box", 0.5)  # gives them one pixel


@pytest.mark.parametrize("rule", RULES)
def test_huge_boxes_and_broken_probabilities_do_no_harm(rule: Rule) -> None:
    probs = np.ones((3, 28, 28), dtype=np.float32)
    probs[1, 10] = np.nan
    boxes = np.array([[-1e30, -1e30, 1e30, 1e30], [5, 5, 60, 60], [-3e6, -3e6, 4e6, 4e6]], dtype=np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pasted = paste_to_runs(probs, boxes, HW, 0.5, rule)
    assert dense(pasted[0]).all()
    assert dense(pasted[1]).any()
    assert dense(pasted[2]).all()


@pytest.mark.parametrize("rule", RULES)
def test_no_masks(rule: Rule) -> None:
    assert paste_to_runs(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), HW, 0.5, rule) == []


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan")])
def test_thresholds_out_of_range_are_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="above 0 and below 1"):
        paste_to_runs(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), HW, threshold)


@pytest.mark.parametrize("rule", RULES)
def test_chunks_change_nothing(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    probs, boxes = smooth_and_rough(rng, 50, 28), boxes_in_and_out(rng, 50)
    whole = paste_to_runs(probs, boxes, HW, 0.5, rule)
    for values in (1, 30 * 40, 30 * 200):
        monkeypatch.setattr(paste, "_CHUNK_VALUES", values)
        assert paste_to_runs(probs, boxes, HW, 0.5, rule) == whole


@pytest.mark.parametrize("rule", RULES)
def test_three_hundred_masks_on_twelve_megapixels_cost_megabytes(rule: Rule) -> None:
    rng = np.random.default_rng(4)
    hw, probs = (3000, 4000), smooth_and_rough(rng, 30, 28).repeat(10, axis=0)
    size, centre = rng.uniform(50, 2500, (300, 2)), rng.random((300, 2)) * [4000, 3000]
    boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1).astype(np.float32)
    tracemalloc.start()
    try:
        pasted = paste_to_runs(probs, boxes, hw, 0.5, rule)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(pasted) == 300
    assert peak < 60e6  # one mask as an image of float32 alone is 48 MB


def test_a_mask_above_the_threshold_fills_its_whole_box() -> None:
    probs = np.full((1, 28, 28), 0.6, dtype=np.float32)
    (counts,) = paste_to_runs(probs, np.array([[10.4, 4.6, 70.0, 66.0]], dtype=np.float32), HW, 0.5, "whole_box")
    expected = np.zeros(HW, dtype=bool)
    expected[5:66, 10:70] = True  # larger than the mask, so that its outermost pixels would fade
    np.testing.assert_array_equal(dense(counts), expected)
