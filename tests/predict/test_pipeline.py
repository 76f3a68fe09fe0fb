"""Streams of images: the same as one by one, in order, and never far ahead of whoever asks."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from maskrcnn.config import DetectConfig, ImageConfig
from maskrcnn.config.conventions import TORCHVISION
from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.predict import Backend, Predictor, pipeline, preprocess, stream
from maskrcnn.structures.detections import Detections
from maskrcnn.structures.frame import Frame
from maskrcnn.structures.images import ImageBatch
from maskrcnn.structures.instances import Instances
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


@pytest.mark.parametrize(("images", "returned"), [(2, 1), (3, 2), (5, 3)])
def test_freed_memory_returns_to_the_system_during_many_images(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch, images: int, returned: int
) -> None:
    """After each two batches here, and once more after the last if there were more than two."""
    calls: list[None] = []
    monkeypatch.setattr(pipeline, "TRIMMED", 2)
    monkeypatch.setattr(pipeline, "trim", lambda: calls.append(None))
    assert len(list(stream(predictor, [0] * images, picture, both))) == images
    assert len(calls) == returned


@pytest.mark.slow
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
        alone = predictor.predict(image)[0]
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
    for size in (0, -1):
        with pytest.raises(ConfigError, match=f"batch size: expected 1 to 65536 images, found {size}"):
            list(stream(predictor, range(3), picture, both, batch_size=size))
        with pytest.raises(ConfigError, match="expected 1 to 65536 images"):
            predictor.predict(picture(0), size)


@pytest.mark.parametrize("batch_size", [2, 3])
def test_images_of_one_orientation_pass_together(predictor: Predictor, batch_size: int) -> None:
    backend = Noted(predictor.backend, [], [])
    items = [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 14, 16]
    noted = replace(predictor, backend=backend)
    answers = list(stream(noted, items, picture, both, batch_size=batch_size))
    assert [item for item, _ in answers] == items
    for frames in backend.batches:
        assert len({height > width for height, width in (frame.original_hw for frame in frames)}) == 1
    assert len(backend.batches) == -(-3 // batch_size) + -(-9 // batch_size)
    assert sorted(len(frames) for frames in backend.batches)[-1] == batch_size


def test_a_rare_orientation_does_not_hold_the_others_back(predictor: Predictor) -> None:
    """One landscape among many portraits is not kept until it finds a partner: memory would grow meanwhile."""
    read: list[int] = []

    def noted(number: int) -> np.ndarray:
        read.append(number)
        return picture(1 if number == 0 else 0)

    with closing(stream(predictor, range(1000), noted, both, batch_size=2)) as answers:
        assert next(answers)[0] == 0
        assert len(read) < 20


def test_the_threads_of_the_process_stay_as_they_were(predictor: Predictor) -> None:
    def here_and_in_a_new_thread() -> list[int]:
        counts = [torch.get_num_threads()]
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return counts

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        predictor.predict([picture(0), picture(1)])
        assert here_and_in_a_new_thread() == [2, 2]
    finally:
        torch.set_num_threads(before)


def test_images_are_resized_to_the_bits_of_the_callers_thread(predictor: Predictor) -> None:
    """torch's float32 resize rounds differently with one thread than with several."""
    config = replace(predictor.config, image=ImageConfig(short_side=800), conventions=TORCHVISION)
    backend = Noted(predictor.backend, [], [])
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = preprocess([image], config).pixels
        Predictor(backend, config).predict(image)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(backend.pixels[0], expected)


@dataclass(frozen=True)
class Noted:
    """A backend that notes the frames and the pixels of each batch."""

    backend: Backend
    batches: list[tuple[Frame, ...]]
    pixels: list[torch.Tensor]

    @property
    def device(self) -> torch.device:
        return self.backend.device

    @property
    def computes_in(self) -> str:
        return self.backend.computes_in

    @property
    def static_shapes(self) -> bool:
        return self.backend.static_shapes

    def detect(self, images: ImageBatch, settings: DetectConfig) -> Detections:
        self.batches.append(images.frames)
        self.pixels.append(images.pixels)
        return self.backend.detect(images, settings)


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
