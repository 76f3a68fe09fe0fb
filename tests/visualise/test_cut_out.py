"""The part of an image that a report shows."""

from __future__ import annotations

import numpy as np

from maskrcnn.visualise.cut_out import window_around


def test_the_window_of_a_picture_lies_in_the_image() -> None:
    assert window_around(np.array([[10.0, 20, 30, 40]]), (100, 200)) == (0, 0, 78, 88)
    assert window_around(np.array([[10.0, 20, 10, 40]]), (100, 200)) == (0, 0, 200, 100)
