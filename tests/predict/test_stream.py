"""Streams of images: the same as one by one, in order, and never far ahead of whoever asks."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.predict import Predictor, stream
from maskrcnn.structures.detections import Instances
from small_data import random_predictor


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return random_predictor()


def picture(number: int) -> np.ndarray:
    """Landscape and portrait in turns; every fourth cannot be read."""
    if number % 4 == 3:
        raise ImageError(f"image {number} is broken")
    shape = (48, 64, 3) if number % 2 else (64, 48, 3)
    return np.random.default_rng(number).integers(0, 256, shape, dtype=np.uint8)


def both(item: int, image: np.ndarray, found: Instances) -> tuple[np.ndarray, Instances]:
    return image, found


@pytest.mark.parametrize("batch_size", [1, 2, 3, 20])
def test_every_item_comes_in_order_with_what_is_on_it(predictor: Predictor, batch_size: int) -> None:
    answers = list(stream(predictor, range(10), picture, both, batch_size=batch_size))
    assert [item for item, _ in answers] == list(range(10))
    for item, answer in answers:
        if item % 4 == 3:
            assert isinstance(answer, ImageError)
            continue
        assert not isinstance(answer, ImageError)
        image, found = answer
        assert np.array_equal(image, picture(item))
        alone = predictor.predict_arrays([image])[0]
        assert found.image_hw == alone.image_hw == image.shape[:2]
        assert len(found) > 0
        if batch_size == 1:
            assert np.array_equal(found.boxes, alone.boxes)
            assert found.masks == alone.masks


def test_nothing_and_nothing_that_can_be_read(predictor: Predictor) -> None:
    assert list(stream(predictor, [], picture, both)) == []
    answers = list(stream(predictor, [3, 7, 11], picture, both, batch_size=2))
    assert [item for item, answer in answers if isinstance(answer, ImageError)] == [3, 7, 11]


def test_batches_of_nothing_are_refused(predictor: Predictor) -> None:
    with pytest.raises(ConfigError, match="--batch-size 0"):
        list(stream(predictor, range(3), picture, both, batch_size=0))


def test_reading_waits_for_whoever_asks_and_ends_with_them(predictor: Predictor) -> None:
    read: list[int] = []

    def noted(number: int) -> np.ndarray:
        read.append(number)
        return picture(4 * number)

    before = threading.active_count()
    answers = stream(predictor, range(1000), noted, both)
    next(answers)
    time.sleep(0.3)
    assert len(read) < 12
    answers.close()
    assert threading.active_count() == before


def test_what_goes_wrong_afterwards_is_raised(predictor: Predictor) -> None:
    def fails(item: int, image: np.ndarray, found: Instances) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        list(stream(predictor, range(3), picture, fails))
