"""Tracks objects through the frames of a video, by the overlap of their masks.

Each track moves its last mask by a constant velocity to where the object should be. Tracks and objects of one class
are then paired so that the sum of their IoUs is largest. As in ByteTrack (Zhang et al. 2022), certain objects come
first, and uncertain ones are paired with the tracks that are left. Legend: T tracks, N objects of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from maskrcnn.errors import MissingPackageError
from maskrcnn.structures.crops import Crop, centroid, shared_pixels
from maskrcnn.structures.instances import Instances

_HIDDEN = 0.8  # share of an object's usual pixels below which it is partly hidden
_FADING = 0.97  # by which the usual number of pixels shrinks in each frame then, because the object may have shrunk


@dataclass(frozen=True)
class TrackRules:
    """When an object continues a track.

    Attributes:
        certain: objects with at least this score begin tracks.
        uncertain: objects with at least this score continue them.
        iou: least IoU with the moved mask of the track.
        uncertain_iou: the same for uncertain objects.
        part: a smaller certain object continues a track without that IoU if it is nearer to the moved mask than this
            many of its diameters: the visible part of a hidden object.
        reach: without any overlap, a certain object continues a track whose moved mask is nearer than this many
            diameters and at most twice as large or small: a fast object in its first frames, whose velocity is unknown.
        patience: frames after which a track without objects ends.
    """

    certain: float = 0.5
    uncertain: float = 0.1
    iou: float = 0.2
    uncertain_iou: float = 0.5
    part: float = 0.75
    reach: float = 1.5
    patience: int = 30


@dataclass
class _Track:
    """An object through the frames.

    Attributes:
        crop: the last mask that was not partly hidden.
        frame: where that mask was seen.
        seen: the last frame with any part of the object.
        area: pixels of the object when it is not hidden.
        velocity: x and y in pixels a frame; None until the object has been seen twice.
    """

    number: int
    label: int
    crop: Crop
    frame: int
    seen: int
    area: float
    velocity: np.ndarray | None = None

    def crop_at(self, frame: int) -> Crop:
        """The last mask, moved to where it should be in a frame."""
        bitmap, (x, y) = self.crop
        if self.velocity is None:
            return self.crop
        dx, dy = (self.velocity * (frame - self.frame)).round().astype(int).tolist()
        return bitmap, (x + dx, y + dy)

    def follow(self, crop: Crop, frame: int) -> None:
        """Continues the track with a mask. The visible part of a hidden object says little of its place."""
        area, self.seen = int(crop[0].sum()), frame
        if area < _HIDDEN * self.area:
            self.area *= _FADING
            return
        velocity = (np.array(centroid(crop)) - centroid(self.crop)) / (frame - self.frame)
        self.velocity = velocity if self.velocity is None else (self.velocity + velocity) / 2
        self.crop, self.frame, self.area = crop, frame, area


class Tracker:
    """Gives the objects of frame after frame the numbers of their tracks, from 1."""

    def __init__(self, rules: TrackRules | None = None) -> None:
        self.rules = rules or TrackRules()
        self.begun = 0  # tracks so far
        self._tracks: list[_Track] = []

    def update(self, found: Instances, frame: int) -> np.ndarray:
        """The tracks of the objects of the next frame, (N,) int64; 0 for an object without a track.

        Args:
            frame: number of the frame, larger than the one before.
        """
        rules = self.rules
        self._tracks = [track for track in self._tracks if frame - track.seen <= rules.patience]
        crops = [found.crop(number) for number in range(len(found))]
        filled = np.array([crop[0].any() for crop in crops], dtype=bool)
        certain = filled & (found.scores >= rules.certain)
        uncertain = filled & ~certain & (found.scores >= rules.uncertain)
        numbers = np.zeros(len(found), dtype=np.int64)
        for chosen, closeness, least in (
            (certain, _iou, rules.iou),
            (uncertain, _iou, rules.uncertain_iou),
            (certain, _part, 1 / rules.part),
            (certain, _nearness, 1 / rules.reach),
        ):
            free = [track for track in self._tracks if track.seen < frame]
            left = np.flatnonzero(chosen & (numbers == 0))
            table = _table(free, [crops[i] for i in left], found.labels[left], frame, closeness)
            for row, column in _assigned(table, least):
                free[row].follow(crops[left[column]], frame)
                numbers[left[column]] = free[row].number
        for i in np.flatnonzero(certain & (numbers == 0)).tolist():
            self.begun += 1
            area = int(crops[i][0].sum())
            self._tracks.append(_Track(self.begun, int(found.labels[i]), crops[i], frame, frame, area))
            numbers[i] = self.begun
        return numbers


def _table(
    tracks: list[_Track], crops: list[Crop], labels: np.ndarray, frame: int, closeness: Callable[[Crop, Crop], float]
) -> np.ndarray:
    """(T, N) float64 closeness of each moved track to each object; 0 for another class."""
    table = np.zeros((len(tracks), len(crops)))
    for row, track in enumerate(tracks):
        moved = track.crop_at(frame)
        for column in np.flatnonzero(labels == track.label).tolist():
            table[row, column] = closeness(moved, crops[column])
    return table


def _iou(a: Crop, b: Crop) -> float:
    shared = shared_pixels(a, b)
    return shared / (int(a[0].sum()) + int(b[0].sum()) - shared) if shared else 0.0


def _part(a: Crop, b: Crop) -> float:
    """The diameter of the first mask divided by the distance of the centroids; 0 if the second mask is larger."""
    area = int(a[0].sum())
    return math.sqrt(area) / _distance(a, b) if int(b[0].sum()) < area else 0.0


def _nearness(a: Crop, b: Crop) -> float:
    """The mean diameter divided by the distance of the centroids; 0 if one mask has more than twice as many pixels."""
    areas = sorted((int(a[0].sum()), int(b[0].sum())))
    if areas[1] > 2 * areas[0]:
        return 0.0
    return (math.sqrt(areas[0]) + math.sqrt(areas[1])) / 2 / _distance(a, b)


def _distance(a: Crop, b: Crop) -> float:
    """The distance of the centroids in pixels, not quite 0."""
    return max(math.dist(centroid(a), centroid(b)), 1e-6)


def _assigned(table: np.ndarray, least: float) -> list[tuple[int, int]]:
    """The pairs of rows and columns with the largest sum (Kuhn 1955), without those below `least`."""
    if not (table >= least).any():
        return []
    try:
        from scipy.optimize import linear_sum_assignment
    except ModuleNotFoundError:
        raise MissingPackageError("tracks need SciPy, which is missing: pip install 'maskrcnn[video]'") from None
    rows, columns = linear_sum_assignment(np.where(table >= least, table, 0.0), maximize=True)
    good = table[rows, columns] >= least
    return list(zip(rows[good].tolist(), columns[good].tolist(), strict=True))
