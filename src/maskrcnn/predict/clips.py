"""A video in; tracked objects and a drawn video out. Decoding, the network and encoding run beside each other."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.errors import ConfigError, ImageError
from maskrcnn.files.atomic import atomic_write, check_file, check_folder
from maskrcnn.files.media.video import Clip, ClipFrame, ClipWriter, open_clip
from maskrcnn.predict.box_tracking import BoxTracker
from maskrcnn.predict.images import to_coco_results
from maskrcnn.predict.pipeline import Detector, stream
from maskrcnn.predict.tracking import Tracker, TrackRules
from maskrcnn.structures.instances import Instances

COLUMNS = ("frame", "seconds", "track", "class", "score", "x1", "y1", "x2", "y2", "area")
_BEHIND = 8  # frames that wait to be drawn


class _Predicted(NamedTuple):
    """A frame (H, W, 3) uint8 RGB, its objects, and their COCO results, which know no tracks yet."""

    image: np.ndarray
    found: Instances
    results: list[dict[str, Any]]


@dataclass(frozen=True)
class ClipSummary:
    """What was found in a video, why it ends early if it does, and the paths that were written."""

    frames: int
    objects: int
    tracks: int
    fault: str | None
    results: Path
    table: Path
    video: Path | None


def predict_clip(
    detector: Detector[Any, Any],
    path: Path,
    out: Path,
    *,
    every: int = 1,
    draw: bool = True,
    min_score: float = 0.5,
    batch_size: int = 1,
    tracker: Callable[[TrackRules], Tracker | BoxTracker] = Tracker,
    track: Callable[[Iterable[Any], int | None], Iterable[Any]] = lambda items, total: items,
) -> ClipSummary:
    """Predicts and tracks the objects of a video.

    `out/predictions.json` holds the COCO results of all frames. Their `image_id` is the number of the frame, from 1.
    Each entry has `file_name`, `seconds` and `track_id`, which is None for an object without a track. `out/tracks.csv`
    has one row for each object of a track. With `draw`, `out/NAME.mp4` is the video with the objects in the colours of
    their tracks. A video that is damaged at its end gives the results of its whole frames. An interrupted run writes
    the results that it has found, but no video.

    Args:
        every: predict every `every`th frame only; the drawn video has no others.
        min_score: objects with a lower score begin no track, and are not drawn without one.
        batch_size: frames that pass through the network together.
        tracker: tracks by masks; `BoxTracker` by boxes.
        track: wraps the frames with their number, None if it is unknown, for a progress bar.

    Raises:
        ImageError: the file is no video, or has no frame that can be decoded.
        ConfigError: `every` or `min_score` is out of range, or a file cannot be written.
        MissingPackageError: PyAV, SciPy, or the package of the tracker is not installed.
    """
    if every < 1:
        raise ConfigError(f"--every: expected 1 or more, found {every}")
    if not 0 <= min_score <= 1:
        raise ConfigError(f"min score: expected a score from 0 to 1, found {min_score}")
    clip = open_clip(path)
    check_folder(out)
    results, table = out / "predictions.json", out / "tracks.csv"
    video = out / f"{path.stem}.mp4" if draw else None
    for target in (results, table, *([video] if video else [])):
        check_file(target, path)
    faults: list[str] = []
    # A track must outlive the frames between two that are predicted, and one of these in which its object is missed.
    tracks = tracker(TrackRules(certain=min_score, patience=max(TrackRules.patience, 2 * every)))
    entries: list[dict[str, Any]] = []
    rows: list[list[Any]] = []
    frames = 0

    def predicted(frame: ClipFrame, image: np.ndarray, found: Instances) -> _Predicted:
        own = {"file_name": str(path), "seconds": round(frame.seconds, 6)}
        return _Predicted(image, found, [{**own, **entry} for entry in to_coco_results(found, frame.number)])

    def read_frames() -> Iterator[ClipFrame]:
        try:
            yield from clip.read(every)
        except ImageError as error:  # the frames before it are whole
            faults.append(str(error))

    try:
        with ExitStack() as stack:
            show = stack.enter_context(_drawn(stack.enter_context(atomic_write(video)), clip)) if video else None
            done = stack.enter_context(
                closing(stream(detector, read_frames(), ClipFrame.rgb, predicted, batch_size=batch_size))
            )
            for frame, answer in track(done, None if clip.frames is None else -(-clip.frames // every)):
                image, found, own = _unbroken(answer)
                numbers = tracks.update(found, frame.number)
                entries += [{**result, "track_id": n or None} for result, n in zip(own, numbers.tolist(), strict=True)]
                rows += _rows(frame, found, numbers)
                frames += 1
                if show is not None:
                    show(image, found, numbers, frame.seconds)
            if frames == 0:
                raise ImageError(faults[0])
    finally:  # what was found stays if the command is interrupted
        if frames:
            _write(results, entries, table, rows)
    return ClipSummary(frames, len(entries), tracks.begun, faults[0] if faults else None, results, table, video)


def _write(results: Path, entries: list[dict[str, Any]], table: Path, rows: list[list[Any]]) -> None:
    with atomic_write(results) as temporary:
        temporary.write_text(json.dumps(entries))
    with atomic_write(table) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


def _unbroken(answer: _Predicted | ImageError) -> _Predicted:
    if isinstance(answer, ImageError):
        raise answer
    return answer


def _rows(frame: ClipFrame, found: Instances, numbers: np.ndarray) -> list[list[Any]]:
    """A row of `COLUMNS` for each object of a track. Areas are pixels of the mask."""
    tracked = found.select(numbers > 0)
    return [
        [frame.number, round(frame.seconds, 6), number, name, score, *box, area]
        for number, name, score, box, area in zip(
            numbers[numbers > 0].tolist(),
            tracked.class_names,
            tracked.scores.tolist(),
            tracked.boxes.astype(np.float64).round(3).tolist(),
            tracked.areas().tolist(),
            strict=True,
        )
    ]


@contextmanager
def _drawn(path: Path, clip: Clip) -> Iterator[Callable[[np.ndarray, Instances, np.ndarray, float], None]]:
    """Yields a function that draws a frame with its tracks into a video. One thread draws and encodes, in order."""
    waiting: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as pool, closing(ClipWriter(path, clip.rate)) as writer:

        def show(image: np.ndarray, found: Instances, numbers: np.ndarray, seconds: float) -> None:
            waiting.append(pool.submit(lambda: writer.add(picture(image, found, numbers), seconds)))
            if len(waiting) > _BEHIND:
                waiting.popleft().result()

        yield show
        for frame in waiting:
            frame.result()


def picture(image: np.ndarray, found: Instances, numbers: np.ndarray) -> np.ndarray:
    """The objects that have tracks, drawn in the colours of their tracks and with their numbers. A small frame is
    enlarged, so that these are legible."""
    from maskrcnn.visualise.objects import Style, draw_objects, enlargement

    tracked = found.select(numbers > 0)
    colours = numbers[numbers > 0]
    names = tuple(f"{name} {number}" for name, number in zip(tracked.class_names, colours.tolist(), strict=True))
    style = Style(enlargement(*image.shape[:2]))
    return np.array(draw_objects(image, replace(tracked, names=names), np.arange(len(tracked)), colours, style))
