"""Tracks objects through the frames of a video, by the overlap of their masks.

Each track moves its last mask by a constant velocity to where the object should be. Tracks and objects of one class
are then paired so that the sum of their IoUs is largest. As in ByteTrack (Zhang et al. 2022), certain objects come
first, and uncertain ones are paired with the tracks that are left. Legend: T tracks, N objects of a frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from maskrcnn.errors import MissingPackageError
from maskrcnn.structures.crops import Crop, centroid, crop_box, shared_pixels
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
        pixels, place: its pixels, and (2,) float64 x and y of its centroid.
        frame: where that mask was seen.
        seen: the last frame with any part of the object.
        area: pixels of the object when it is not hidden.
        velocity: x and y in pixels a frame; None until the object has been seen twice.
    """

    number: int
    label: int
    crop: Crop
    pixels: int
    place: np.ndarray
    frame: int
    seen: int
    area: float
    velocity: np.ndarray | None = None

    def shift(self, frame: int) -> list[int]:
        """Whole pixels x and y by which the last mask should have moved until a frame."""
        if self.velocity is None:
            return [0, 0]
        shift: list[int] = (self.velocity * (frame - self.frame)).round().astype(int).tolist()
        return shift

    def follow(self, objects: _Shapes, i: int, frame: int) -> None:
        """Continues the track with object `i`. The visible part of a hidden object says little of its place."""
        pixels, place, self.seen = int(objects.areas[i]), objects.places[i], frame
        if pixels < _HIDDEN * self.area:
            self.area *= _FADING
            return
        velocity = (place - self.place) / (frame - self.frame)
        self.velocity = velocity if self.velocity is None else (self.velocity + velocity) / 2
        self.crop, self.pixels, self.place, self.frame, self.area = objects.crops[i], pixels, place, frame, pixels


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
        moved = _moved(self._tracks, frame)
        likely = np.flatnonzero(found.scores >= min(rules.uncertain, rules.certain))
        chosen = found.select(likely)
        there = _shapes(chosen.crops(), chosen.labels)
        certain = (there.areas > 0) & (chosen.scores >= rules.certain)
        uncertain = (there.areas > 0) & ~certain
        numbers = np.zeros(len(likely), dtype=np.int64)
        free = np.ones(len(self._tracks), dtype=bool)
        for candidates, closeness, least in (
            (certain, _iou, rules.iou),
            (uncertain, _iou, rules.uncertain_iou),
            (certain, _part, 1 / rules.part),
            (certain, _nearness, 1 / rules.reach),
        ):
            rows, columns = np.flatnonzero(free), np.flatnonzero(candidates & (numbers == 0))
            for row, column in _assigned(closeness(moved.chosen(rows), there.chosen(columns)), least):
                track, i = self._tracks[rows[row]], columns[column]
                track.follow(there, i, frame)
                numbers[i], free[rows[row]] = track.number, False
        for i in np.flatnonzero(certain & (numbers == 0)).tolist():
            self.begun += 1
            label, pixels = int(there.labels[i]), int(there.areas[i])
            self._tracks.append(
                _Track(self.begun, label, there.crops[i], pixels, there.places[i], frame, frame, area=pixels)
            )
            numbers[i] = self.begun
        of_all = np.zeros(len(found), dtype=np.int64)
        of_all[likely] = numbers
        return of_all


class _Shapes(NamedTuple):
    """n masks.

    Attributes:
        labels: (n,) int64.
        boxes: (n, 4) int64 x1 y1 x2 y2 of the crops.
        areas: (n,) int64 pixels.
        places: (n, 2) float64 centroids.
    """

    crops: list[Crop]
    labels: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    places: np.ndarray

    def chosen(self, index: np.ndarray) -> _Shapes:
        """The masks with these numbers."""
        return _Shapes([self.crops[i] for i in index], *(values[index] for values in self[1:]))


def _shapes(crops: list[Crop], labels: np.ndarray) -> _Shapes:
    areas = np.array([np.count_nonzero(bitmap) for bitmap, _ in crops], np.int64)
    places = np.array([centroid(crop) for crop in crops]).reshape(-1, 2)
    return _Shapes(crops, labels, _boxes(crops), areas, places)


def _moved(tracks: Sequence[_Track], frame: int) -> _Shapes:
    """The last masks of the tracks, each where it should be in a frame."""
    shifts = [track.shift(frame) for track in tracks]
    crops: list[Crop] = [
        (track.crop[0], (track.crop[1][0] + dx, track.crop[1][1] + dy))
        for track, (dx, dy) in zip(tracks, shifts, strict=True)
    ]
    labels, areas = (np.array(values, np.int64) for values in ([t.label for t in tracks], [t.pixels for t in tracks]))
    places = np.array([track.place for track in tracks]).reshape(-1, 2) + np.array(shifts).reshape(-1, 2)
    return _Shapes(crops, labels, _boxes(crops), areas, places)


def _boxes(crops: Sequence[Crop]) -> np.ndarray:
    return np.array([crop_box(crop) for crop in crops], np.int64).reshape(-1, 4)


def _iou(tracks: _Shapes, objects: _Shapes) -> np.ndarray:
    """(T, N) float64 IoU; 0 for another class."""
    low = np.maximum(tracks.boxes[:, None, :2], objects.boxes[:, :2])
    high = np.minimum(tracks.boxes[:, None, 2:], objects.boxes[:, 2:])
    table = np.zeros(low.shape[:2])
    for i, j in np.argwhere((low < high).all(axis=-1) & _alike(tracks, objects)).tolist():
        shared = shared_pixels(tracks.crops[i], objects.crops[j])
        table[i, j] = shared / (tracks.areas[i] + objects.areas[j] - shared)
    return table


def _part(tracks: _Shapes, objects: _Shapes) -> np.ndarray:
    """(T, N) float64 diameters of the tracks divided by the distances of the centroids; 0 for a larger object."""
    close = np.sqrt(tracks.areas)[:, None] / _distances(tracks, objects)
    return np.where(_alike(tracks, objects) & (objects.areas < tracks.areas[:, None]), close, 0.0)


def _nearness(tracks: _Shapes, objects: _Shapes) -> np.ndarray:
    """(T, N) float64 mean diameters divided by the distances of the centroids; 0 if one has more than twice as many
    pixels."""
    areas = np.stack(np.broadcast_arrays(tracks.areas[:, None], objects.areas))
    close = np.sqrt(areas).mean(axis=0) / _distances(tracks, objects)
    return np.where(_alike(tracks, objects) & (areas.max(axis=0) <= 2 * areas.min(axis=0)), close, 0.0)


def _alike(tracks: _Shapes, objects: _Shapes) -> np.ndarray:
    """(T, N) bool, whether they are of one class."""
    return np.asarray(tracks.labels[:, None] == objects.labels)


def _distances(tracks: _Shapes, objects: _Shapes) -> np.ndarray:
    """(T, N) float64 distances of the centroids in pixels, not quite 0."""
    return np.maximum(np.linalg.norm(tracks.places[:, None] - objects.places, axis=-1), 1e-6)


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
