from __future__ import annotations

import json
from pathlib import Path

import hotcoco.mask
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskrcnn.errors import DataError
from maskrcnn.ops.polygons import bridged, outline, polygon_area, polygons_to_rle
from maskrcnn.ops.rle import rle_to_crop

# Coordinates with few decimals fall on the rounding borders of the rule, as annotated ones do.
coordinates = st.one_of(st.integers(-30, 90).map(float), st.integers(-300, 900).map(lambda n: n / 10))
polygons = hnp.arrays(np.float64, st.tuples(st.integers(3, 8), st.just(2)), elements=coordinates)
sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


def dense(parts: list[np.ndarray], image_hw: tuple[int, int]) -> np.ndarray:
    bitmap, (x, y) = rle_to_crop(polygons_to_rle(parts, image_hw), image_hw)
    image = np.zeros(image_hw, dtype=np.uint8)
    image[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
    return image


def winding_and_distance(points: np.ndarray, image_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Whether each pixel centre is inside by the even-odd rule, and how far it is from the outline."""
    ys, xs = np.mgrid[: image_hw[0], : image_hw[1]] + 0.5
    inside = np.zeros(image_hw, dtype=bool)
    distance = np.full(image_hw, np.inf)
    for (x1, y1), (x2, y2) in zip(points, np.roll(points, -1, axis=0), strict=True):
        dx, dy = x2 - x1, y2 - y1
        if y1 != y2:
            crosses = (ys >= min(y1, y2)) & (ys < max(y1, y2)) & (xs < x1 + (ys - y1) * dx / dy)
            inside ^= crosses
        along = np.clip(((xs - x1) * dx + (ys - y1) * dy) / max(dx * dx + dy * dy, 1e-12), 0, 1)
        distance = np.minimum(distance, np.hypot(x1 + along * dx - xs, y1 + along * dy - ys))
    return inside, distance


@given(st.lists(polygons, min_size=1, max_size=3), sizes)
def test_equal_to_coco_on_the_whole_image(parts: list[np.ndarray], image_hw: tuple[int, int]) -> None:
    drawn = hotcoco.mask.fr_py_objects([part.ravel().tolist() for part in parts], *image_hw)
    expected = np.max([hotcoco.mask.decode(one) for one in drawn], axis=0)
    np.testing.assert_array_equal(dense(parts, image_hw), expected)


@given(polygons, sizes)
def test_near_to_the_pixels_whose_centres_are_inside(points: np.ndarray, image_hw: tuple[int, int]) -> None:
    inside, distance = winding_and_distance(points, image_hw)
    sure = distance > 1
    assume(sure.any())
    np.testing.assert_array_equal(dense([points], image_hw)[sure] > 0, inside[sure])


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        (
            [[1.5, 2.25, 9.7, 3.1, 6.3, 11.9], [8.0, 8.0, 14.0, 8.0, 14.0, 12.5, 8.0, 12.5]],
            b"j02:2O1N2N2NM3ML11M13400000",
        ),
        ([[-3.3, -2.7, 5.1, -4.9, 7.3, 20.6, -2.2, 9.9]], b"0X2:jMn1"),
    ],
)
def test_strings_that_the_coco_api_gave(parts: list[list[float]], counts: bytes) -> None:
    assert polygons_to_rle([np.array(part).reshape(-1, 2) for part in parts], (12, 13)) == counts


def test_whole_pixels_and_the_tight_crop() -> None:
    square = np.array([[3.0, 2.0], [8.0, 2.0], [8.0, 6.0], [3.0, 6.0]])
    bitmap, origin = rle_to_crop(polygons_to_rle([square], (3000, 4000)), (3000, 4000))
    assert origin == (3, 2)
    assert bitmap.shape == (4, 5)
    assert bitmap.all()
    assert bitmap.flags.c_contiguous


def test_outside_the_image_nothing_is_covered() -> None:
    triangle = np.array([[50.0, 50.0], [60.0, 50.0], [60.0, 70.0]])
    bitmap, origin = rle_to_crop(polygons_to_rle([triangle], (20, 30)), (20, 30))
    assert (bitmap.shape, origin) == ((0, 0), (0, 0))


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "found none"),
        ([np.zeros((4, 2)), np.zeros((2, 2))], r"part 1 has the shape \(2, 2\)"),
        ([np.zeros(6)], "part 0"),
        ([np.array([[1.0, 2.0], [np.nan, 3.0], [5.0, 1.0]])], "finite"),
    ],
)
def test_bad_parts_are_refused(parts: list[np.ndarray], says: str) -> None:
    with pytest.raises(DataError, match=says):
        polygons_to_rle(parts, (10, 10))


def test_area() -> None:
    triangle = np.array([[1000.0, 1000.0], [1004.0, 1000.0], [1000.0, 1003.0]])
    assert polygon_area(triangle) == 6
    assert polygon_area(triangle[::-1]) == 6
    assert polygon_area(np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0]])) == 0


def test_annotated_polygons(shared: Path) -> None:
    truth = json.loads((shared / "data/coco/val.json").read_text())
    sizes_hw = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    drawn = [one for one in truth["annotations"] if isinstance(one["segmentation"], list)][:100]
    assert drawn
    for one in drawn:
        hw = sizes_hw[one["image_id"]]
        parts = [np.array(part).reshape(-1, 2) for part in one["segmentation"]]
        expected = hotcoco.mask.decode(hotcoco.mask.merge(hotcoco.mask.fr_py_objects(one["segmentation"], *hw)))
        np.testing.assert_array_equal(dense(parts, hw), expected)


bitmaps = (
    st.tuples(st.integers(1, 12), st.integers(1, 12)).flatmap(lambda size: hnp.arrays(np.bool_, size)).filter(np.any)
)


@given(bitmaps, st.tuples(st.integers(0, 500), st.integers(0, 500)))
def test_the_coco_api_draws_the_same_pixels(bitmap: np.ndarray, corner_xy: tuple[int, int]) -> None:
    x, y = corner_xy
    image = np.zeros((y + bitmap.shape[0] + 3, x + bitmap.shape[1] + 2), dtype=bool)
    image[y : y + bitmap.shape[0], x : x + bitmap.shape[1]] = bitmap
    points = bridged(outline(bitmap)) + corner_xy
    np.testing.assert_array_equal(dense([points], image.shape), image)


@given(bitmaps, st.integers(1, 10**6), st.integers(1, 10**6))
def test_fractions_of_ten_digits_draw_the_same_pixels(bitmap: np.ndarray, width: int, height: int) -> None:
    scale = np.array([bitmap.shape[1] + width % 4000, bitmap.shape[0] + height % 4000])
    points = np.round(bridged(outline(bitmap)) / scale, 10) * scale
    np.testing.assert_array_equal(dense([points], bitmap.shape), bitmap)


@given(bitmaps)
def test_rings_are_closed_rectangular_walks_without_needless_corners(bitmap: np.ndarray) -> None:
    for ring in outline(bitmap):
        steps = np.roll(ring, -1, axis=0) - ring
        assert len(ring) >= 4
        assert ((steps == 0).sum(axis=1) == 1).all()
        assert ((steps[:, 0] == 0) != (np.roll(steps, -1, axis=0)[:, 0] == 0)).all()
    assert sum(map(polygon_area, outline(bitmap))) >= bitmap.sum()  # those of holes count twice too much


@pytest.mark.parametrize(
    ("picture", "corners"),
    [
        (["#"], [4]),
        (["##", "##"], [4]),
        (["#.", ".#"], [4, 4]),
        ([".#", "#."], [8]),
        (["###", "#.#", "###"], [4, 4]),
        (["#.#"], [4, 4]),
        (["##", "#."], [6]),
        (["#####", "#...#", "#.#.#", "#...#", "#####"], [4, 4, 4]),
    ],
)
def test_parts_and_holes_are_rings_of_their_own(picture: list[str], corners: list[int]) -> None:
    bitmap = np.array([[pixel == "#" for pixel in row] for row in picture])
    assert sorted(map(len, outline(bitmap))) == corners
    np.testing.assert_array_equal(dense([bridged(outline(bitmap))], bitmap.shape), bitmap)


def test_nothing_has_no_rings() -> None:
    assert outline(np.zeros((3, 4))) == []
