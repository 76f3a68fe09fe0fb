"""The algebra of instances: selecting, shifting, flipping and joining agree with the dense masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.structures.instances import Instances, join_instances
from maskrcnn.structures.masks import RLE, Masks

PERSON = Category(1, "person", ("nose", "left_hand", "right_hand"))
CATEGORIES = (PERSON, Category(2, "chair"))
SIZE = (11, 17)


def objects(seed: int, image_hw: tuple[int, int] = SIZE) -> Instances:
    """Up to five objects at quarters of a pixel, with masks, keypoints and names."""
    rng = np.random.default_rng(seed)
    count, (height, width) = int(rng.integers(0, 6)), image_hw
    corners = np.sort(rng.integers(0, 4 * np.array([width, height]) + 1, (count, 2, 2)), axis=1) / 4
    labels = rng.integers(0, 2, count)
    dense = rng.random((count, height, width)) < rng.choice([0.05, 0.5, 0.97])
    points = np.concatenate([rng.integers(0, 40, (count, 3, 2)) / 4, rng.random((count, 3, 1))], axis=-1)
    return Instances(
        image_hw,
        corners.reshape(-1, 4).astype(np.float32),
        np.sort(rng.random(count).astype(np.float32))[::-1],
        labels,
        Masks([RLE.from_dense(mask) for mask in dense], image_hw),
        tuple(CATEGORIES[label].name for label in labels),
        points.astype(np.float32),
        CATEGORIES,
    )


def same(a: Instances, b: Instances) -> bool:
    assert a.keypoints is not None
    assert b.keypoints is not None
    arrays = ((a.boxes, b.boxes), (a.scores, b.scores), (a.labels, b.labels), (a.keypoints, b.keypoints))
    equal = all(x.dtype == y.dtype and np.array_equal(x, y) for x, y in arrays)
    return equal and (a.image_hw, a.names, a.masks, a.categories) == (b.image_hw, b.names, b.masks, b.categories)


def dense(instances: Instances) -> np.ndarray:
    assert instances.masks is not None
    return instances.masks.dense()


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_flips_mirror_masks_boxes_and_sides(seed: int) -> None:
    found = objects(seed)
    for axis, flip in ((0, Instances.flipped_horizontally), (1, Instances.flipped_vertically)):
        mirrored = flip(found)
        assert np.array_equal(dense(mirrored), np.flip(dense(found), 2 - axis))
        side = SIZE[1 - axis]
        assert np.array_equal(mirrored.boxes[:, axis], side - found.boxes[:, axis + 2])
        assert np.array_equal(mirrored.boxes[:, 1 - axis], found.boxes[:, 1 - axis])
        assert found.keypoints is not None
        assert mirrored.keypoints is not None
        for label, before, after in zip(found.labels, found.keypoints, mirrored.keypoints, strict=True):
            expected = before[[0, 2, 1]] if CATEGORIES[label].keypoints else before
            assert np.array_equal(after[:, axis], side - expected[:, axis])
            assert np.array_equal(after[:, [1 - axis, 2]], expected[:, [1 - axis, 2]])
        assert same(flip(mirrored), found)


@given(seeds, st.integers(0, 30), st.integers(0, 30))
def test_shifted_into_a_larger_image_and_back(seed: int, x: int, y: int) -> None:
    found = objects(seed)
    size = SIZE[0] + y + 3, SIZE[1] + x + 2
    moved = found.shifted((x, y), size)
    expected = np.zeros((len(found), *size), dtype=bool)
    expected[:, y : y + SIZE[0], x : x + SIZE[1]] = dense(found)
    assert np.array_equal(dense(moved), expected)
    assert np.array_equal(moved.boxes, found.boxes + np.float32([x, y, x, y]))
    assert same(moved.shifted((-x, -y), SIZE), found)


@given(seeds, st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 20), st.integers(1, 20))
def test_what_lies_outside_the_other_image_is_cut_off(seed: int, x: int, y: int, height: int, width: int) -> None:
    found = objects(seed)
    moved = found.shifted((x, y), (height, width))
    far = np.pad(dense(found), ((0, 0), (20, 20), (20, 20)))[:, 20 - y :, 20 - x :][:, :height, :width]
    expected = np.zeros((len(found), height, width), dtype=bool)
    expected[:, : far.shape[1], : far.shape[2]] = far
    assert np.array_equal(dense(moved), expected)
    assert (moved.boxes >= 0).all()
    assert (moved.boxes <= [width, height, width, height]).all()


@given(seeds, st.data())
def test_selecting(seed: int, data: st.DataObject) -> None:
    found = objects(seed)
    chosen = data.draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    by_bool, by_index = found.select(np.array(chosen, dtype=bool)), found.select(np.flatnonzero(chosen))
    assert same(by_bool, by_index)
    assert len(by_bool) == sum(chosen)
    assert np.array_equal(dense(by_bool), dense(found)[np.array(chosen, dtype=bool)])
    assert same(found.select(slice(1, 3)), found.select(list(range(len(found)))[1:3]))
    assert same(found.select(slice(None)), found)
    best = found.with_score(0.5)
    assert (best.scores >= 0.5).all()
    assert len(best) == (found.scores >= 0.5).sum()
    least = np.linspace(0.1, 0.9, 1 + found.labels.max(initial=0), dtype=np.float32)
    of_classes = found.with_score(least.tolist())
    assert same(of_classes, found.select([i for i in range(len(found)) if found.scores[i] >= least[found.labels[i]]]))


@given(seeds, seeds)
def test_joined_parts_are_found_again(seed: int, other: int) -> None:
    a, b = objects(seed), objects(other)
    both = join_instances([a, b])
    assert len(both) == len(a) + len(b)
    assert (np.diff(both.scores) <= 0).all()
    order = np.argsort(-np.concatenate([a.scores, b.scores]), kind="stable")
    for part, first in ((a, 0), (b, len(a))):
        places = [int(np.flatnonzero(order == first + i)[0]) for i in range(len(part))]
        assert same(both.select(places), part)
    assert same(join_instances([a]), a)


@given(seeds, seeds)
def test_flipping_joins_as_it_selects(seed: int, other: int) -> None:
    a, b = objects(seed), objects(other)
    flipped = join_instances([a, b]).flipped_horizontally()
    assert same(flipped, join_instances([a.flipped_horizontally(), b.flipped_horizontally()]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_hw": (3, 3)}, r"\(11, 17\).* part 1 with .*\(3, 3\)"),
        ({"masks": None}, "part 1 with .*no masks"),
        ({"keypoints": None}, "part 1 with .*no keypoints"),
        ({"categories": ()}, r"part 1 with .*categories \[\]"),
    ],
)
def test_parts_of_another_kind_are_refused(change: dict[str, object], words: str) -> None:
    a = objects(3)
    with pytest.raises(DataError, match=words):
        join_instances([a, replace(a, **change)])  # type: ignore[arg-type]
    with pytest.raises(DataError, match="found none"):
        join_instances([])


def test_without_masks_keypoints_and_names() -> None:
    bare = replace(objects(3), masks=None, keypoints=None, names=(), categories=())
    assert len(bare) > 1
    for changed in (
        bare.flipped_horizontally(),
        bare.shifted((1, 2), (30, 30)),
        bare.select([0]),
        join_instances([bare]),
    ):
        assert (changed.masks, changed.keypoints, changed.names) == (None, None, ())


def test_a_large_image_is_flipped_without_dense_masks() -> None:
    """A mask of a gigapixel image: a dense one would take a gigabyte."""
    size = (30_000, 40_000)
    small = RLE.from_dense(np.eye(9, dtype=bool))
    mask = small.shifted((39_000, 20_000), size)
    assert mask.area == 9
    assert mask.flipped_horizontally().box.tolist() == [991, 20_000, 1000, 20_009]
    assert mask.flipped_vertically().box.tolist() == [39_000, 9_991, 39_009, 10_000]
    assert mask.flipped_vertically().shifted((-39_000, -9_991), (9, 9)).flipped_vertically() == small


def test_objects_without_names_are_called_by_their_numbers() -> None:
    boxes, scores, labels = np.zeros((2, 4), np.float32), np.ones(2, np.float32), np.array([4, 0])
    nameless = Instances((8, 8), boxes, scores, labels, None)
    assert nameless.class_names == ("5", "1")
    assert replace(nameless, names=("b", "a")).class_names == ("b", "a")
