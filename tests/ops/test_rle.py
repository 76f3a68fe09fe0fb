from __future__ import annotations

import tracemalloc
from random import Random

import hotcoco.mask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskrcnn.errors import DataError
from maskrcnn.ops.reference.masks import run_lengths, string_of_runs
from maskrcnn.ops.rle import (
    area,
    column_spans,
    count_pixels,
    crop_to_rle,
    decode_many,
    decode_runs,
    encode_many,
    encode_runs,
    rle_to_crop,
    runs_from_column_spans,
    runs_from_spans,
    spans_from_runs,
    to_box,
)

run_lists = st.lists(st.integers(0, 1 << 32), max_size=20)
bitmaps = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1))


def place(bitmap: np.ndarray, origin_xy: tuple[int, int], image_hw: tuple[int, int]) -> np.ndarray:
    image = np.zeros(image_hw, dtype=np.uint8)
    (x, y), (h, w) = origin_xy, bitmap.shape
    image[y : y + h, x : x + w] = bitmap
    return image


@given(run_lists)
def test_string_is_that_of_the_rule(runs: list[int]) -> None:
    assert encode_runs(np.array(runs, dtype=np.int64)) == string_of_runs(runs)


@given(run_lists)
def test_runs_survive_the_string(runs: list[int]) -> None:
    decoded = decode_runs(encode_runs(np.array(runs, dtype=np.int64)))
    assert decoded.tolist() == runs
    assert decoded.dtype == np.int64


@given(st.lists(run_lists, max_size=5))
def test_many_strings_are_those_of_each(masks: list[list[int]]) -> None:
    runs = np.array([run for mask in masks for run in mask], dtype=np.int64)
    sizes = np.array([len(mask) for mask in masks], dtype=np.int64)
    assert encode_many(runs, sizes) == [encode_runs(np.array(mask, dtype=np.int64)) for mask in masks]


@pytest.mark.parametrize(
    ("size", "runs", "counts"),
    [
        ((4, 5), [3, 2, 0, 7, 8], b"32058"),
        ((1000, 5), [0, 2000, 40, 1, 2959], b"0`n1X1aQNWk2"),
    ],
)
def test_strings_that_the_coco_api_gave(size: tuple[int, int], runs: list[int], counts: bytes) -> None:
    assert encode_runs(np.array(runs)) == counts
    assert decode_runs(counts).tolist() == runs


@pytest.mark.parametrize(
    ("counts", "says"),
    [
        (b"0 2", "position 1"),
        (b"0\x7f", "position 1"),
        (b"\xff0", "position 0"),
        (b"0`", "unfinished"),
        (b"o" * 5000, "unfinished"),
        (b"P" * 30 + b"0", "31"),
        (b"05O", "0 or more"),
        (string_of_runs([5, 3, 2]) + b"J", "0 or more"),
    ],
)
def test_malformed_strings_are_refused(counts: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        decode_runs(counts)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=40))
def test_any_bytes_are_decoded_or_refused(counts: bytes) -> None:
    try:
        runs = decode_runs(counts)
    except DataError:
        return
    assert len(runs) <= len(counts)
    assert (runs >= 0).all()


@given(bitmaps, st.integers(0, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))
def test_crop_gives_the_string_of_the_whole_image(bitmap: np.ndarray, x: int, y: int, right: int, below: int) -> None:
    hw = (y + bitmap.shape[0] + below, x + bitmap.shape[1] + right)
    image = place(bitmap, (x, y), hw)
    counts = crop_to_rle(bitmap, (x, y), hw)
    assert counts == string_of_runs(run_lengths(image))
    assert counts == hotcoco.mask.encode(np.asfortranarray(image))["counts"]

    runs = decode_runs(counts)
    assert area(runs) == image.sum()
    found, origin = rle_to_crop(counts, hw)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(place(found, origin, hw), image)
    ys, xs = np.nonzero(image)
    if len(ys):
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
        assert to_box(runs, hw[0]) == box
        assert (*origin, origin[0] + found.shape[1], origin[1] + found.shape[0]) == box
    else:
        assert to_box(runs, hw[0]) == (0, 0, 0, 0)
        assert (found.shape, origin) == ((0, 0), (0, 0))


@given(st.integers(1, 6), st.integers(1, 6), st.data())
def test_runs_of_others_with_empty_runs_inside(height: int, width: int, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, height * width), max_size=12).map(sorted))
    runs = np.diff([0, *cuts, height * width])
    image = np.repeat(np.arange(len(runs)) % 2, runs).reshape(width, height).T
    found, origin = rle_to_crop(encode_runs(runs), (height, width))
    np.testing.assert_array_equal(place(found, origin, (height, width)), image)
    assert area(runs) == image.sum()


def test_spans_that_touch_become_one_run_within_a_mask_only() -> None:
    starts, ends, owners = np.array([2, 5, 8, 10, 0]), np.array([5, 6, 10, 12, 3]), np.array([0, 0, 0, 2, 3])
    runs, sizes = runs_from_spans(starts, ends, owners, 5, 12)
    assert runs.tolist() == [2, 4, 2, 2, 2, 12, 10, 2, 0, 3, 9, 12]
    assert sizes.tolist() == [5, 1, 2, 3, 1]
    assert [part.tolist() for part in spans_from_runs(runs[:4])] == [[2, 8], [6, 10]]


@pytest.mark.parametrize("origin", [(-1, 0), (0, -1), (3, 0), (0, 4)])
def test_a_crop_outside_the_image_is_refused(origin: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="inside an image of 5 x 6"):
        crop_to_rle(np.ones((3, 3), dtype=bool), origin, (6, 5))


def test_cost_follows_the_crop_and_not_the_image() -> None:
    hw = (300_000, 400_000)  # 120 gigapixels
    bitmap = np.ones((50, 50), dtype=np.uint8)
    tracemalloc.start()
    try:
        counts = crop_to_rle(bitmap, (399_000, 299_000), hw)
        found, origin = rle_to_crop(counts, hw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert origin == (399_000, 299_000)
    np.testing.assert_array_equal(found, bitmap)
    assert peak < 200_000


@given(
    st.lists(st.one_of(st.lists(st.integers(0, 1 << 20), max_size=9).map(np.array).map(encode_runs), st.binary())),
    st.integers(1, 40),
)
def test_many_strings_are_decoded_as_each(strings: list[bytes], at_once: int) -> None:
    runs, sizes, sound = decode_many(strings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("maskrcnn.ops.rle._CHARACTERS_AT_ONCE", at_once)
        pixels, foreground = count_pixels(strings)
    assert len(runs) == sizes.sum()
    for i, own in enumerate(np.split(runs, np.cumsum(sizes)[:-1]) if strings else []):
        try:
            alone = decode_runs(strings[i])
        except DataError:
            assert not sound[i]
            assert pixels[i] == foreground[i] == -1
        else:
            assert sound[i]
            assert own.tolist() == alone.tolist()
            assert (pixels[i], foreground[i]) == (alone.sum(), area(alone))


@given(bitmaps, st.integers(-9, 9), st.integers(-9, 9), st.randoms(use_true_random=False))
def test_column_spans_are_the_foreground_column_by_column(bitmap: np.ndarray, x: int, y: int, random: Random) -> None:
    height = bitmap.shape[0]
    column, top, bottom = column_spans(decode_runs(crop_to_rle(bitmap, (0, 0), bitmap.shape)), height)
    painted = np.zeros_like(bitmap)
    for at, start, stop in zip(column, top, bottom, strict=True):
        assert 0 <= start < stop <= height
        painted[start:stop, at] = 1
    np.testing.assert_array_equal(painted, bitmap)
    order = random.sample(range(len(column)), len(column))
    moved = runs_from_column_spans(column[order] + x, top[order] + y, bottom[order] + y, (6, 7))
    expected = np.pad(bitmap, 20)[20 - y : 26 - y, 20 - x : 27 - x]
    assert encode_runs(moved) == crop_to_rle(expected, (0, 0), (6, 7))
