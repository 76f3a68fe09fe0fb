"""Pictures: what is drawn where, in which colour, in how much memory."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from maskrcnn.config import Category
from maskrcnn.errors import DataError
from maskrcnn.ops.rle import crop_to_rle
from maskrcnn.structures.instances import Instances
from maskrcnn.structures.masks import RLE, Masks
from maskrcnn.visualise import contact_sheet, draw, picture_sheet

NAMES = ("circle", "star", "ring")


def rectangles(
    boxes: list[tuple[int, int, int, int]],
    labels: list[int],
    scores: list[float],
    hw: tuple[int, int] = (240, 320),
    *,
    masks: bool = True,
) -> Instances:
    bitmaps = [np.ones((y2 - y1, x2 - x1), dtype=np.uint8) for x1, y1, x2, y2 in boxes]
    rles = [RLE(hw, crop_to_rle(b, (x1, y1), hw)) for b, (x1, y1, *_) in zip(bitmaps, boxes, strict=True)]
    return Instances(
        image_hw=hw,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        scores=np.array(scores, dtype=np.float32),
        labels=np.array(labels, dtype=np.int64),
        masks=Masks(rles, hw) if masks else None,
        names=tuple(NAMES[label] for label in labels),
    )


def grey(hw: tuple[int, int] = (240, 320)) -> np.ndarray:
    return np.full((*hw, 3), 128, dtype=np.uint8)


def test_image_itself_stays_as_it_was() -> None:
    image = grey()
    picture = draw(image, rectangles([(40, 60, 140, 160)], [0], [0.9]))
    assert picture.shape == (240, 320, 3)
    assert picture.dtype == np.uint8
    assert (image == 128).all()
    assert not np.array_equal(picture, image)


def test_mask_is_filled_to_its_edges_and_not_beyond() -> None:
    found = rectangles([(40, 60, 140, 160)], [0], [0.9])
    changed = (draw(grey(), found) != 128).any(axis=2)
    inside = np.zeros((240, 320), dtype=bool)
    inside[60:160, 40:140] = True
    assert changed[inside].all()
    label = changed & ~inside
    rows, columns = np.nonzero(label)
    assert rows.max() < 60, "outside the box is only the label above it"
    assert (columns.min(), rows.max()) == (40, 59)


def test_fill_is_transparent_and_the_outline_is_not() -> None:
    picture = draw(grey(), rectangles([(40, 60, 140, 160)], [0], [0.9])).astype(int)
    fill, outline = np.abs(picture[110, 90] - 128).sum(), np.abs(picture[110, 40] - 128).sum()
    assert 0 < fill < 0.6 * outline


def test_mask_is_not_its_box() -> None:
    bitmap = np.zeros((240, 320), dtype=bool)
    bitmap[60:160, 40:60] = True
    found = Instances(
        image_hw=(240, 320),
        boxes=np.array([[40, 60, 140, 160]], dtype=np.float32),
        scores=np.array([0.9], dtype=np.float32),
        labels=np.array([0]),
        masks=Masks([RLE.from_dense(bitmap)]),
    )
    picture = draw(grey(), found)
    assert (picture[110, 50] != 128).any()
    assert (picture[110, 100] == 128).all()
    assert (picture[110, 139] != 128).any(), "the right edge of the box is the last pixel inside it"
    assert (picture[110, 140] == 128).all()


def test_low_scores_are_left_out() -> None:
    found = rectangles([(40, 60, 140, 160), (180, 60, 280, 160)], [0, 1], [0.9, 0.4])
    picture = draw(grey(), found)
    assert (picture[:, 170:] == 128).all()
    assert (draw(grey(), found, min_score=0.3)[:, 170:] != 128).any()
    assert np.array_equal(draw(grey(), found, min_score=0.95), grey())


def test_colour_is_by_class_and_by_instance_where_there_is_one_class() -> None:
    boxes = [(20, 60, 110, 160), (110, 60, 200, 160), (210, 60, 300, 160)]

    def colours(labels: list[int], **options: object) -> list[tuple[int, ...]]:
        picture = draw(grey(), rectangles(boxes, labels, [0.9, 0.8, 0.7]), **options)  # type: ignore[arg-type]
        return [tuple(picture[110, x].tolist()) for x in (65, 155, 255)]

    one, two, three = colours([0, 0, 1])
    assert one == two != three
    assert len(set(colours([2, 2, 2]))) == 3
    assert len(set(colours([2, 2, 2], colour_by="class"))) == 1
    assert len(set(colours([0, 0, 1], colour_by="instance"))) == 3
    assert colours([0, 1, 0])[0] == one, "a class has one colour in all pictures"


def test_small_objects_stay_visible_on_large_ones() -> None:
    boxes = [(100, 80, 120, 100), (20, 20, 300, 220)]
    expected = draw(
        draw(grey(), rectangles(boxes[1:], [1], [0.8]), colour_by="class"), rectangles(boxes[:1], [0], [0.9])
    )
    for order in (1, -1):
        found = rectangles(boxes[::order], [0, 1][::order], [0.9, 0.8])
        assert np.array_equal(draw(grey(), found)[90, 110], expected[90, 110])


def test_without_masks_there_are_boxes_and_labels() -> None:
    picture = draw(grey(), rectangles([(40, 60, 140, 160)], [0], [0.9], masks=False))
    assert (picture[110, 90] == 128).all()
    assert (picture[110, 40] != 128).any()


def test_labels_stay_inside_the_picture_and_do_not_cover_each_other() -> None:
    # Three objects at one place in the corner: three labels of one size, all to be seen whole.
    boxes = [(300, 0, 320, 20)] * 3
    alone = [draw(grey(), rectangles(boxes[:1], [label], [0.9], masks=False)) for label in range(3)]
    colours = [tuple(picture[19, 310].tolist()) for picture in alone]
    together = draw(grey(), rectangles(boxes, [0, 1, 2], [0.9, 0.9, 0.9], masks=False))
    for colour, picture in zip(colours, alone, strict=True):
        size = (picture == colour).all(axis=2).sum() - 76  # without the rim of the box
        assert (together == colour).all(axis=2).sum() >= size


def test_names_with_line_feeds_are_drawn_in_one_line() -> None:
    found = rectangles([(40, 60, 140, 160)], [0], [0.9])
    picture = draw(grey(), replace(found, names=("a\r\nb",)))
    assert np.array_equal(picture, draw(grey(), replace(found, names=("a\\r\\nb",))))
    assert np.array_equal(picture_sheet([(grey(), "a\nb.png")]), picture_sheet([(grey(), "a\\nb.png")]))


def test_objects_at_the_border_and_empty_masks_are_drawn() -> None:
    hw = (40, 50)
    found = Instances(
        image_hw=hw,
        boxes=np.array([[-3, -3, 60, 60], [10, 10, 10, 10]], dtype=np.float32),
        scores=np.array([0.9, 0.8], dtype=np.float32),
        labels=np.array([0, 1]),
        masks=Masks([RLE.from_dense(np.ones(hw)), RLE.from_dense(np.zeros(hw))]),
    )
    for enlarge in (1, 3):
        picture = draw(grey(hw), found, enlarge=enlarge)
        assert picture.shape == (40 * enlarge, 50 * enlarge, 3)


def test_enlarged_mask_lies_where_the_object_is() -> None:
    found = rectangles([(40, 60, 140, 160)], [0], [0.9])
    changed = (draw(grey(), found, enlarge=3) != 128).any(axis=2)
    rows, columns = np.nonzero(changed[180:])  # below the top edge: no label
    assert (columns.min(), columns.max() + 1, rows.max() + 1) == (120, 420, 300)


def test_objects_of_another_image_are_refused() -> None:
    with pytest.raises(DataError, match=r"height, width \(100, 100\), found objects of \(240, 320\)"):
        draw(grey((100, 100)), rectangles([(40, 60, 140, 160)], [0], [0.9]))


@pytest.mark.slow
def test_memory_does_not_follow_the_number_of_objects() -> None:
    hw = (3000, 4000)
    rng = np.random.default_rng(0)
    corners = rng.integers(0, (3600, 2600), (300, 2))
    boxes = [(0, 0, 4000, 3000), *((x, y, x + 300, y + 300) for x, y in corners.tolist()[1:])]
    found = rectangles(boxes, [0] * 300, np.linspace(1, 0.5, 300).tolist(), hw)
    image = grey(hw)
    tracemalloc.start()
    draw(image, found)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 120e6, "300 image-sized masks would take 3.6 GB"


def test_contact_sheet_has_truth_beside_prediction() -> None:
    hw = (160, 160)
    truth = rectangles([(40, 60, 140, 150)], [0], [1], hw)
    found = rectangles([(60, 80, 100, 120), (0, 0, 9, 9)], [1, 0], [0.9, 0.2], hw)
    sheet = contact_sheet([(grey(hw), truth, found)] * 3, columns=2)
    assert sheet.dtype == np.uint8
    height, width = sheet.shape[:2]
    assert width > 4 * 320, "images of 160 are shown at twice their size"
    assert 2 * 320 < height < 2 * 400
    tile = np.flatnonzero((sheet[200] != 255).any(axis=1))
    first, second = tile[0], tile[0] + 320 + 4
    top = np.flatnonzero((sheet[:, first] != 255).any(axis=1))
    row = int(top[top > 26][0]) + 2 * 110  # a row through both objects
    changed = (sheet[row] != 128).any(axis=1)
    assert changed[first + 80 : first + 280].all()
    assert not changed[first + 1 : first + 79].any()
    assert changed[second + 120 : second + 200].all()
    assert not changed[second + 1 : second + 119].any()
    assert (sheet[-200:, width // 2 + 20 :] == 255).all(), "the fourth place is empty"


def test_contact_sheet_of_one_class_gives_a_found_object_the_colour_of_its_truth() -> None:
    truth = rectangles([(10, 60, 100, 160), (110, 60, 200, 160)], [0, 0], [1, 1])
    found = rectangles([(112, 62, 200, 160), (10, 60, 100, 160)], [0, 0], [0.9, 0.8])
    sheet = contact_sheet([(grey(), truth, found)])
    x = int(np.flatnonzero((sheet[100] != 255).any(axis=1))[0])
    y = 26 + 7 + 2 * 100
    right = x + 2 * 320 + 4
    for column in (2 * 50, 2 * 150):
        assert np.array_equal(sheet[y, x + column], sheet[y, right + column])
    assert not np.array_equal(sheet[y, x + 100], sheet[y, x + 300])


def test_contact_sheet_shrinks_large_images_and_takes_empty_ones() -> None:
    hw = (1000, 2000)
    nothing = rectangles([], [], [], hw)
    sheet = contact_sheet([(grey(hw), nothing, nothing)])
    assert sheet.shape[1] < 2 * 800 + 60
    with pytest.raises(DataError, match="expected one or more images"):
        contact_sheet([])


ORANGE, BLUE, WHITE = (255, 159, 28), (0, 187, 249), (250, 250, 250)
BODY = Category(1, "circle", ("head", "left_hand", "right_hand", "left_foot"), ((0, 1), (0, 2), (1, 2), (1, 3)))
JOINTS = [[100, 80, 0.9], [60, 120, 0.9], [140, 120, 0.9], [60, 150, 0.9]]


def posed(points: list[list[float]], *, label: int = 0, categories: tuple[Category, ...] = (BODY,)) -> Instances:
    found = rectangles([(40, 60, 160, 160)], [label], [1.0], masks=False)
    keypoints = np.array([points], dtype=np.float32)
    return replace(found, names=(), keypoints=keypoints, categories=categories)


def colour_at(picture: np.ndarray, x: float, y: float) -> tuple[int, ...]:
    return tuple(picture[int(y), int(x)].tolist())


def test_limbs_join_their_keypoints_in_the_colour_of_their_side() -> None:
    for enlarge in (1, 3):
        picture = draw(grey(), posed(JOINTS), enlarge=enlarge)
        for (x, y, _), colour in zip(JOINTS, (WHITE, ORANGE, BLUE, ORANGE), strict=True):
            assert colour_at(picture, x * enlarge, y * enlarge) == colour
        middles = {(80, 100): ORANGE, (120, 100): BLUE, (100, 120): WHITE, (60, 135): ORANGE}
        for (x, y), colour in middles.items():
            assert colour_at(picture, x * enlarge, y * enlarge) == colour
    assert colour_at(draw(grey(), posed(JOINTS)), 100, 135) == (128, 128, 128), "no limb joins the feet"


def test_a_keypoint_is_drawn_around_its_place() -> None:
    points = [[100.5, 80.5, 1.0]] + [[0.0, 0.0, 0.0]] * 3
    changed = (draw(grey(), posed(points)) != 128).any(axis=2)
    rows, columns = np.nonzero(changed[65:155, 45:155])
    assert (rows.mean() + 65, columns.mean() + 45) == (80, 100), "the centre of pixel 100, 80"


def test_keypoints_of_low_score_and_limbs_to_them_are_left_out() -> None:
    points = [list(point) for point in JOINTS]
    points[1][2] = 0.04
    picture = draw(grey(), posed(points))
    for x, y in ((60, 120), (80, 100), (100, 120), (60, 135)):
        assert colour_at(picture, x, y) == (128, 128, 128)
    assert colour_at(picture, 120, 100) == BLUE
    assert colour_at(draw(grey(), posed(points), min_keypoint_score=0.01), 80, 100) == ORANGE
    nothing = draw(grey(), posed([[x, y, 0.0] for x, y, _ in JOINTS]))
    assert np.array_equal(nothing, draw(grey(), replace(posed(JOINTS), keypoints=None)))


def test_keypoints_without_categories_are_points_and_of_classes_without_any_nothing() -> None:
    unknown = draw(grey(), posed(JOINTS, categories=()))
    assert colour_at(unknown, 60, 120) == WHITE
    assert colour_at(unknown, 80, 100) == (128, 128, 128)
    other = draw(grey(), posed(JOINTS, label=1, categories=(BODY, Category(2, "star"))))
    assert colour_at(other, 60, 120) == (128, 128, 128)


def test_contact_sheet_draws_keypoints_at_both_sides() -> None:
    sheet = contact_sheet([(grey(), posed(JOINTS), posed(JOINTS))])
    is_blue = np.flatnonzero((sheet == BLUE).all(axis=2).any(axis=0))
    assert is_blue.min() < sheet.shape[1] // 2 < is_blue.max()
