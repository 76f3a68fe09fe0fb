"""What the names of keypoints tell."""

from __future__ import annotations

from maskrcnn.structures.keypoints import flip_pairs, side

_PAIRED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO = ("nose", *(f"{side}_{part}" for part in _PAIRED for side in ("left", "right")))


def test_pairs_of_coco_people_are_neighbours() -> None:
    assert flip_pairs(COCO) == tuple((i, i + 1) for i in range(1, 17, 2))


def test_pairs_go_by_name_and_not_by_place() -> None:
    assert flip_pairs(("tail", "right_paw", "Left Ear", "left_paw", "Right Ear")) == ((2, 4), (3, 1))
    assert flip_pairs(("front_left_leg", "back_left_leg", "back_right_leg", "front_right_leg")) == ((0, 3), (1, 2))
    assert flip_pairs(("left_horn", "tip", "right_wing")) == ()
    assert flip_pairs(()) == ()


def test_sides() -> None:
    assert [side(name) for name in ("nose", "left_eye", "Right Ear")] == ["middle", "left", "right"]
