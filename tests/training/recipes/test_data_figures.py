"""The figures of a data set from its flat arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest

from drawn_data import drawn
from maskrcnn.training.recipes.data_figures import measure


def test_figures_of_a_small_set() -> None:
    found = measure(drawn(10, 3, 20, (100, 160), classes=2))
    assert (found.images, found.objects, found.classes) == (10, 30, 2)
    assert found.images_of_class.tolist() == [10, 5]
    assert found.counts.tolist() == [3] * 10
    assert np.median(found.sides) == pytest.approx(20, rel=0.1)
    assert found.short_sides.tolist() == [100] * 10
    assert (found.masks, found.keypoints) == (1.0, 0)
    assert measure(drawn(3, 2, 20, masks=False)).masks == 0
    assert json.loads(json.dumps(found.figures()))["side_of_objects"]["median"] == pytest.approx(20, rel=0.1)


@pytest.mark.parametrize(
    ("stretch", "low", "objects", "expected"),
    [(1.0, False, 20, True), (2.0, False, 20, False), (1.0, True, 20, False), (1.0, False, 2, False)],
)
def test_objects_without_an_up_and_down_are_recognised(stretch: float, low: bool, objects: int, expected: bool) -> None:
    assert measure(drawn(20, objects, 12, stretch=stretch, low=low)).any_way_up == expected


def test_whether_objects_grow_with_their_images() -> None:
    natural = measure(drawn(30, 5, 20, grow=3.0))
    assert not natural.sizes_follow_images
    assert measure(drawn(30, 5, 20)).sizes_follow_images  # all images have one size: both say the same
    assert natural.typical == pytest.approx(np.full(30, 20), rel=0.25)


def test_an_image_counts_once_however_many_objects_it_has(shared) -> None:
    from maskrcnn.data.formats import read_dataset

    found = measure(read_dataset(shared / "data" / "nuclei" / "train.json"))
    assert found.any_way_up
    assert found.sizes_follow_images
    relative = found.typical / found.short_sides[found.typical_image]
    assert np.median(relative) > 1.05 * np.median(found.sides / found.short_sides[found.image])
