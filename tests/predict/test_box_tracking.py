"""Tracks of boxes by ByteTrack."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from maskrcnn.errors import MissingPackageError
from maskrcnn.predict.box_tracking import BoxTracker
from maskrcnn.predict.tracking import TrackRules
from maskrcnn.structures.instances import Instances


def boxes_of(step: int, labels: tuple[int, ...], scores: tuple[float, ...]) -> Instances:
    """Squares of 20 pixels on rows of their own that move to the right, 3 pixels a frame."""
    places = np.array([[10 + 3 * step, 10 + 40 * row] for row in range(len(labels))], np.float32).reshape(-1, 2)
    boxes = np.concatenate([places, places + 20], axis=1)
    return Instances((200, 200), boxes, np.array(scores, np.float32), np.array(labels, np.int64), None)


def test_objects_keep_their_numbers_in_any_order() -> None:
    tracker = BoxTracker()
    labels, scores = (0, 1, 0, 1), (0.9, 0.8, 0.7, 0.2)
    assert tracker.update(boxes_of(0, labels, scores), 1).tolist() == [0, 0, 0, 0]  # ByteTrack waits for a second frame
    first = tracker.update(boxes_of(1, labels, scores), 2)
    assert sorted(first.tolist()) == [0, 1, 2, 3]
    assert first[3] == 0  # its score is too low to begin a track
    order = np.array([2, 0, 3, 1])
    for step in range(2, 6):
        assert tracker.update(boxes_of(step, labels, scores).select(order), step + 1).tolist() == first[order].tolist()
    assert tracker.begun == 3


def test_a_track_outlives_frames_without_objects_but_not_its_patience() -> None:
    tracker = BoxTracker(TrackRules(patience=5))
    for step in range(3):
        before = tracker.update(boxes_of(step, (0,), (0.9,)), step + 1)
    for step in range(3, 6):
        assert len(tracker.update(boxes_of(step, (), ()), step + 1)) == 0
    assert tracker.update(boxes_of(6, (0,), (0.9,)), 7).tolist() == before.tolist() == [1]
    for step in range(7, 20):
        tracker.update(boxes_of(step, (), ()), step + 1)
    found = [tracker.update(boxes_of(20 + step, (0,), (0.9,)), 21 + step).tolist() for step in range(2)]
    assert found == [[0], [2]]


def test_patience_is_in_frames_of_the_video() -> None:
    """With every fifth frame, five predicted frames without the object are 25 frames of the video."""
    for patience, kept in ((40, True), (20, False)):
        tracker = BoxTracker(TrackRules(patience=patience))
        for step in range(3):
            before = tracker.update(boxes_of(step, (0,), (0.9,)), 1 + 5 * step)
        for step in range(3, 8):
            tracker.update(boxes_of(step, (), ()), 1 + 5 * step)
        assert before.tolist() == [1]
        assert (tracker.update(boxes_of(8, (0,), (0.9,)), 41).tolist() == [1]) == kept


def test_a_package_that_cannot_be_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackers", None)
    with pytest.raises(MissingPackageError, match=r"need the package trackers, which is missing: pip install"):
        BoxTracker()
    monkeypatch.delitem(sys.modules, "trackers")
    (tmp_path / "trackers.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=r"cannot be imported \(libGL.so.1.*opencv-python-headless"):
        BoxTracker()
