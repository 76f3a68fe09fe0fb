"""Tracks objects by their boxes, with the ByteTrack of the package `trackers` (Zhang et al. 2022)."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from maskrcnn.errors import MissingPackageError
from maskrcnn.predict.tracking import TrackRules
from maskrcnn.structures.instances import Instances

_RATE = 30  # frames a second in which ByteTrack counts its patience


class BoxTracker:
    """Gives the objects of frame after frame the numbers of their tracks, from 1, as `predict.tracking.Tracker` does.

    Each class is tracked alone. ByteTrack gives an object its number in the second frame that shows it.

    Args:
        rules: those of scores and patience count; the others are about masks. As there, patience is in frames of the
            video, also if only some of them are predicted.

    Raises:
        MissingPackageError: `trackers` is not installed, or cannot be imported.
    """

    def __init__(self, rules: TrackRules | None = None) -> None:
        self.rules = rules or TrackRules()
        self._trackers = _trackers()
        self._of_classes: dict[int, Any] = {}
        self._numbers: dict[tuple[int, int], int] = {}  # label and number in its class -> number of the track

    @property
    def begun(self) -> int:
        """Tracks so far."""
        return len(self._numbers)

    def update(self, found: Instances, frame: int) -> np.ndarray:
        """The tracks of the objects of the next frame, (N,) int64; 0 for an object without a track.

        Args:
            frame: number of the frame, larger than the one before.
        """
        import supervision

        likely = found.scores >= min(self.rules.uncertain, self.rules.certain)
        numbers = np.zeros(len(found), dtype=np.int64)
        for label in sorted({*self._of_classes, *found.labels[likely].tolist()}):
            own = np.flatnonzero(likely & (found.labels == label))
            # The tracker changes the order, so the place of an object travels as its class.
            objects = supervision.Detections(
                xyxy=found.boxes[own].astype(np.float64).reshape(-1, 4), confidence=found.scores[own], class_id=own
            )
            tracked = self._tracker_of(label).update(objects, timestamp=frame / _RATE)
            for i, number in zip(tracked.class_id.tolist(), tracked.tracker_id.tolist(), strict=True):
                if number >= 0:
                    numbers[i] = self._numbers.setdefault((label, number), len(self._numbers) + 1)
        return numbers

    def _tracker_of(self, label: int) -> Any:
        if label not in self._of_classes:
            self._of_classes[label] = self._trackers.ByteTrackTracker(
                lost_track_buffer=self.rules.patience,
                frame_rate=_RATE,
                track_activation_threshold=self.rules.certain,
                high_conf_det_threshold=self.rules.certain,
                minimum_consecutive_frames=1,
            )
        return self._of_classes[label]


def _trackers() -> ModuleType:
    try:
        import trackers
    except ModuleNotFoundError:
        raise MissingPackageError(
            "tracks of boxes need the package trackers, which is missing: pip install 'maskrcnn[trackers]'"
        ) from None
    except ImportError as error:  # its OpenCV needs libraries of a desktop
        raise MissingPackageError(
            f"the package trackers cannot be imported ({error}); on a server without a desktop: "
            "pip install --force-reinstall --no-deps opencv-python-headless"
        ) from None
    return trackers
