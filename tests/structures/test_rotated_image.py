"""An image that is turned by any angle: the same pixels, at the places where the frame puts them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskrcnn.config.conventions import PixelRules
from maskrcnn.structures.frame import frame_of_size, transform_points
from maskrcnn.structures.images import resize_to_network

RULES = PixelRules()


def test_a_right_angle_gives_the_pixels_of_a_quarter_turn() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    frame = frame_of_size((20, 20), (20, 20))
    nearly = resize_to_network(image, frame.rotated(90.0 - 1e-7), RULES)
    assert (nearly.int() - resize_to_network(image, frame.turned(), RULES).int()).abs().max() <= 1


@pytest.mark.parametrize("size", [(24, 36), (48, 72), (120, 180)], ids=["smaller", "the same", "larger"])
def test_a_disc_keeps_its_area_and_lies_where_the_frame_maps_it(size: tuple[int, int]) -> None:
    y, x = np.mgrid[:48, :72]
    image = np.zeros((48, 72, 3), dtype=np.uint8)
    image[(x + 0.5 - 42) ** 2 + (y + 0.5 - 21) ** 2 < 100] = 240
    frame = frame_of_size((48, 72), size).rotated(33.0)
    found = resize_to_network(image, frame, RULES)
    assert found.shape == (3, *size)
    assert found.dtype == torch.uint8
    mass = found[0].double().numpy() / 240
    assert mass.sum() == pytest.approx(frame.scale_xy.prod() * (image[..., 0] > 0).sum(), rel=0.02)
    rows, columns = np.mgrid[: size[0], : size[1]] + 0.5
    centre = [(columns * mass).sum() / mass.sum(), (rows * mass).sum() / mass.sum()]
    np.testing.assert_allclose(centre, transform_points(np.array([42.0, 21.0]), frame.matrix), atol=0.15)
