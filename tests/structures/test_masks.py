from __future__ import annotations

import json
import pickle
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskrcnn.errors import DataError
from maskrcnn.structures.masks import RLE, Masks, known_areas

bitmaps = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(bitmaps)
def test_rle_is_its_bitmap(bitmap: np.ndarray) -> None:
    mask = RLE.from_dense(bitmap)
    back = mask.dense()
    assert back.dtype == np.bool_
    np.testing.assert_array_equal(back, bitmap)
    assert mask.area == bitmap.sum()
    ys, xs = np.nonzero(bitmap)
    box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(ys) else [0, 0, 0, 0]
    assert mask.box.tolist() == box
    assert mask.box.dtype == np.float32
    np.testing.assert_array_equal(hotcoco.mask.decode(mask.to_coco()), bitmap)


@given(bitmaps)
def test_runs_along_columns_and_rows(bitmap: np.ndarray) -> None:
    mask = RLE.from_dense(bitmap)
    assert np.array_equal(mask.transposed().dense(), bitmap.T)
    flat = np.zeros(bitmap.size, dtype=bool)
    for start, length in zip(*mask.column_major_runs(), strict=True):
        assert not flat[start : start + length].any()
        flat[start : start + length] = True
    assert np.array_equal(flat, bitmap.T.ravel())


@given(bitmaps)
def test_coco_round_trip(bitmap: np.ndarray) -> None:
    mask = RLE.from_dense(bitmap)
    coco = json.loads(json.dumps(mask.to_coco()))
    assert RLE.from_coco(coco) == mask
    assert RLE.from_coco({"size": coco["size"], "counts": mask.counts}) == mask
    assert pickle.loads(pickle.dumps(mask)) == mask


@given(st.lists(st.integers(0, 6), min_size=1, max_size=10))
def test_list_of_runs(runs: list[int]) -> None:
    pixels = sum(runs)
    if pixels == 0:
        return
    mask = RLE.from_coco({"size": [1, pixels], "counts": runs})
    assert mask.dense()[0].tolist() == [bool(i % 2) for i, run in enumerate(runs) for _ in range(run)]
    assert RLE.from_coco({"size": (1, pixels), "counts": np.array(runs)}) == mask


GOOD = RLE.from_dense(np.eye(4, dtype=bool)).to_coco()


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        ({"size": [4, 4]}, "'counts'"),
        ([[1, 2, 3]], "'size' and 'counts'"),
        (None, "'size' and 'counts'"),
        ({**GOOD, "size": [4, 5]}, r"4 \* 5 = 20 .*found 16"),
        ({**GOOD, "size": [4]}, "height, width"),
        ({**GOOD, "size": 16}, "height, width"),
        ({**GOOD, "size": [4.0, 4.0]}, "two integers"),
        ({**GOOD, "size": ["4", "4"]}, "two integers"),
        ({**GOOD, "size": [True, 16]}, "two integers"),
        ({**GOOD, "size": [0, 4]}, "1 or more"),
        ({**GOOD, "size": [-4, -4]}, "1 or more"),
        ({**GOOD, "size": [1 << 62, 1 << 62]}, "pixels"),
        ({**GOOD, "counts": GOOD["counts"][:-1]}, "found"),
        ({**GOOD, "counts": GOOD["counts"] + "é"}, "ASCII"),
        ({**GOOD, "counts": GOOD["counts"] + " "}, "expected characters"),
        ({**GOOD, "counts": ""}, "found 0"),
        ({**GOOD, "counts": 16}, "string or a list"),
        ({**GOOD, "counts": None}, "string or a list"),
        ({**GOOD, "counts": []}, "found 0"),
        ({**GOOD, "counts": [16.0]}, "integers"),
        ({**GOOD, "counts": ["16"]}, "integers"),
        ({**GOOD, "counts": [[16]]}, "flat list"),
        ({**GOOD, "counts": [[16], 2]}, "flat list"),
        ({**GOOD, "counts": [20, -4]}, "from 0 to 16"),
        ({**GOOD, "counts": [(1 << 63) + 1, 1 << 63]}, "from 0 to 16"),
        ({**GOOD, "counts": [1 << 80, 16]}, "integers"),
        ({**GOOD, "counts": [8, 7]}, "found 15"),
    ],
)
def test_bad_segmentations_are_refused_in_one_line(segmentation: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        RLE.from_coco(segmentation)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(st.text(alphabet=[chr(c) for c in range(48, 112)], max_size=30))
def test_any_string_is_read_or_refused(counts: str) -> None:
    try:
        mask = RLE.from_coco({"size": [3, 4], "counts": counts})
    except DataError:
        return
    assert mask.dense().sum() == mask.area


def test_masks_are_a_sequence() -> None:
    dense = np.random.default_rng(0).random((5, 6, 7)) > 0.5
    masks = Masks([RLE.from_dense(one) for one in dense])
    np.testing.assert_array_equal(masks.dense(), dense)
    np.testing.assert_array_equal(masks.areas(), dense.sum((1, 2)))
    np.testing.assert_array_equal(masks.boxes(), np.stack([mask.box for mask in masks]))
    assert masks[-1] == masks[np.int64(4)] == RLE.from_dense(dense[4])
    for index in (slice(1, 4), np.array([3, 0, 3]), [2, -1], dense[:, 0, 0], np.array([], dtype=np.int64), []):
        chosen = masks[index]
        assert isinstance(chosen, Masks)
        expected = dense[np.array(index, dtype=np.int64) if isinstance(index, list) else index]
        np.testing.assert_array_equal(chosen.dense(), expected)
    assert masks[[0, 1]] == Masks([masks[0], masks[1]])
    with pytest.raises(IndexError):
        masks[5]
    with pytest.raises(IndexError):
        masks[np.array([5])]


def test_no_masks() -> None:
    assert Masks([]).dense().shape == (0, 0, 0)
    assert Masks([], (6, 7)).dense().shape == (0, 6, 7)
    assert Masks([]).areas().shape == (0,)
    assert Masks([]).boxes().shape == (0, 4)


def test_masks_of_two_images_are_refused() -> None:
    with pytest.raises(DataError, match="mask 1"):
        Masks([RLE.from_dense(np.ones((2, 3))), RLE.from_dense(np.ones((3, 2)))])


def test_areas_of_what_is_sound_and_nothing_else() -> None:
    bitmaps = [np.eye(4, 5), np.zeros((4, 5)), np.ones((2, 3))]
    sound = [RLE.from_dense(bitmap.astype(bool)).to_coco() for bitmap in bitmaps]
    broken = [
        {**sound[0], "size": [4, 6]},
        {**sound[0], "size": [4]},
        {**sound[0], "counts": sound[0]["counts"] + "~"},
        {**sound[0], "counts": "\u00e9"},
        {**sound[0], "counts": [20]},
        {"counts": "0"},
        [[1, 2, 3]],
        None,
    ]
    assert known_areas([sound[0], *broken, *sound[1:]]).tolist() == [4, *[-1] * len(broken), 0, 6]
    assert known_areas([]).tolist() == []
    assert RLE.from_coco(sound[0], sound=True) == RLE.from_coco(sound[0])


@given(st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(lambda size: hnp.arrays(np.bool_, (3, *size))))
def test_a_pixel_belongs_to_the_first_of_masks_without_overlaps(bitmaps: np.ndarray) -> None:
    apart = Masks([RLE.from_dense(bitmap) for bitmap in bitmaps]).without_overlaps().dense()
    first = np.argmax(bitmaps, axis=0)
    np.testing.assert_array_equal(apart, bitmaps & (np.arange(3)[:, None, None] == first))


def test_crops_of_many_masks_are_those_of_each() -> None:
    bitmaps = np.random.default_rng(0).random((5, 7, 9)) > np.array([0.2, 0.5, 0.9, 1.0, 0.0])[:, None, None]
    masks = Masks(map(RLE.from_dense, bitmaps))
    for number, (bitmap, place) in enumerate(masks.crops()):
        alone, origin = masks[number].crop()
        assert place == origin
        np.testing.assert_array_equal(bitmap, alone)
    assert Masks([], (7, 9)).crops() == []
