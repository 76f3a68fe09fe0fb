"""Sizes of batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maskrcnn.config import ImageConfig
from maskrcnn.config.conventions import OURS
from maskrcnn.structures.images import canvas_of, pad_size, place

CONFIG = ImageConfig(short_side=800, long_side=1333)
side = st.integers(1, 5000)


def test_every_image_of_a_config_fits_one_of_six_canvases() -> None:
    canvases = set()

    @given(side, side)
    def check(height: int, width: int) -> None:
        size = place(height, width, CONFIG, OURS.pixels).input_hw
        canvas = canvas_of(*size, CONFIG)
        assert all(room >= needed for room, needed in zip(canvas, size, strict=True))
        assert all(room % CONFIG.divisor == 0 for room in canvas)
        assert (canvas[0] > canvas[1]) == (size[0] > size[1])
        canvases.add(canvas)

    check()
    for size in ((800, 1066), (800, 1200), (800, 1333), (1066, 800), (1200, 800), (1333, 800)):  # 4:3, 3:2, longer
        canvases.add(canvas_of(*size, CONFIG))
    landscape = {(800, 1088), (800, 1216), (800, 1344)}
    assert canvases == landscape | {(width, height) for height, width in landscape}


def test_sizes_without_bounds_are_padded_as_ever() -> None:
    free = ImageConfig(scale=2.0)
    assert canvas_of(500, 700, free) == pad_size(500, 700, 32)
    assert canvas_of(2000, 900, CONFIG) == pad_size(2000, 900, 32)  # larger than the config makes an image
