"""Tracks of objects whose masks are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coloured_objects import ColourReader, coloured
from maskrcnn.predict import predict_images
from maskrcnn.predict.tracking import Tracker, TrackRules
from maskrcnn.structures.instances import Instances

SIZE = (110, 160)


def scene(places: np.ndarray, radii: np.ndarray) -> Instances:
    """Discs at (N, 2) places x, y; the last one lies on top. Label 0; `scores` tell which is which."""
    ids = np.zeros(SIZE, dtype=np.int64)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    for number, ((centre_x, centre_y), radius) in enumerate(zip(places, radii, strict=True), start=1):
        ids[(x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2] = 2 * number
    return predict_images(ColourReader(), coloured(ids))[0]


def names_of(found: Instances) -> list[int]:
    return ((found.scores - 0.5) * (1 << 17)).round().astype(int).tolist()


def identities(frames: list[Instances], every: int = 1) -> dict[int, set[int]]:
    """The tracks that each object had."""
    tracker, seen = Tracker(), {}
    for number, found in list(enumerate(frames, start=1))[::every]:
        tracks = tracker.update(found, number).tolist()
        assert len({t for t in tracks if t}) == len([t for t in tracks if t])  # no track twice in a frame
        for name, track in zip(names_of(found), tracks, strict=True):
            seen.setdefault(name, set()).add(track)
    return seen


def crossing(count: int, steps: int, seed: int) -> tuple[list[Instances], set[int]]:
    """Discs that move on straight lines through each other, and those that no other disc ever touches."""
    rng = np.random.default_rng(seed)
    radii = rng.uniform(4, 8, count)
    start, end = rng.uniform((10, 10), (150, 100), (2, count, 2))
    frames, lonely = [], set(range(1, count + 1))
    for step in range(steps):
        places = start + (end - start) * step / (steps - 1)
        apart = np.linalg.norm(places[:, None] - places[None], axis=-1) - radii[:, None] - radii[None]
        np.fill_diagonal(apart, 1)
        lonely -= {int(i) + 1 for i in np.flatnonzero((apart <= 0).any(axis=1))}
        frames.append(scene(places, radii))
    return frames, lonely


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_objects_that_never_touch_keep_their_tracks(every: int) -> None:
    total = 0
    for seed in range(3):
        frames, lonely = crossing(10, 20, seed)
        seen = identities(frames, every)
        for name in lonely:
            assert len(seen[name]) == 1
            assert all(seen[name].isdisjoint(tracks) for other, tracks in seen.items() if other != name)
        total += len(lonely)
    assert total > 3


def test_most_crossing_objects_keep_their_tracks() -> None:
    frames, _ = crossing(10, 40, 7)
    assert sum(len(tracks) for tracks in identities(frames).values()) <= 13


def test_a_fast_object_is_followed_without_overlap() -> None:
    frames = [scene(np.array([[10.0 + 15 * step, 50]]), np.array([7.0])) for step in range(10)]
    assert identities(frames) == {1: {1}}


def test_an_object_comes_back_from_behind_another() -> None:
    radii = np.array([8.0, 24.0])
    frames = [scene(np.array([[10.0 + 4 * step, 50], [80.0, 50]]), radii) for step in range(36)]
    assert any(len(found) == 1 for found in frames)
    assert sorted(map(sorted, identities(frames).values())) == [[1], [2]]


def test_scores_decide_what_begins_and_what_continues_a_track() -> None:
    one = scene(np.array([[50.0, 60]]), np.array([10.0]))
    weak, none = (replace(one, scores=np.array([score], dtype=np.float32)) for score in (0.2, 0.05))
    tracker = Tracker(TrackRules(patience=5))
    assert [tracker.update(found, number).tolist() for number, found in enumerate((weak, one, weak, none), 1)] == [
        *([0], [1], [1], [0])
    ]
    assert tracker.update(one, 9).tolist() == [2]  # after six frames without the object
    assert tracker.update(one.select([]), 10).tolist() == []


def test_classes_have_their_own_tracks() -> None:
    one = scene(np.array([[50.0, 60]]), np.array([10.0]))
    tracker = Tracker()
    assert tracker.update(one, 1).tolist() == [1]
    assert tracker.update(replace(one, labels=one.labels + 1), 2).tolist() == [2]
