from __future__ import annotations

import numpy as np

from maskrcnn.structures.crops import Crop, centroid, part_of, shared_pixels, united

SIZE = 30


def random_crop(rng: np.random.Generator) -> Crop:
    x, y = (int(value) for value in rng.integers(0, SIZE - 12, 2))
    height, width = (int(value) for value in rng.integers(1, 12, 2))
    return rng.integers(0, 2, (height, width), dtype=np.uint8), (x, y)


def dense(crop: Crop) -> np.ndarray:
    bitmap, (x, y) = crop
    image = np.zeros((SIZE, SIZE), dtype=bool)
    image[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
    return image


def test_crops_are_counted_and_united_as_whole_images() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = random_crop(rng), random_crop(rng)
        assert shared_pixels(a, b) == (dense(a) & dense(b)).sum()
        np.testing.assert_array_equal(dense(united([a, b])), dense(a) | dense(b))
        assert part_of(a, (5, 8, 14, 11)).sum() == dense(a)[8:11, 5:14].sum()
        if a[0].any():
            rows, columns = np.nonzero(dense(a))
            np.testing.assert_allclose(centroid(a), (columns.mean() + 0.5, rows.mean() + 0.5))
