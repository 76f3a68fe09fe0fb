"""Video files, decoded and encoded by FFmpeg through PyAV."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from maskrcnn.errors import ImageError, MissingPackageError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv", ".ogv"}
)
_ENOUGH = 0.95  # share of the frames that a file promises; containers miscount by a few


@dataclass(frozen=True)
class ClipFrame:
    """A decoded frame.

    Attributes:
        number: place in the clip, from 1.
        seconds: when it is shown.
        frame: PyAV's frame, whose pixels are not yet RGB.
    """

    number: int
    seconds: float
    frame: Any

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 RGB, upright."""
        pixels: np.ndarray = self.frame.to_ndarray(format="rgb24")
        turns = round(self.frame.rotation / 90) % 4
        return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


@dataclass(frozen=True)
class Clip:
    """A video file.

    Attributes:
        frames: the number of frames that the file promises; None if it does not say.
        rate: frames a second.
    """

    path: Path
    frames: int | None
    rate: Fraction

    def read(self, every: int = 1) -> Iterator[ClipFrame]:
        """Every `every`th frame from the first one on. FFmpeg decodes some frames ahead in threads of its own.

        Raises:
            ImageError: the file is damaged, or ends before its last frame. It is raised after the whole frames.
        """
        number = 0
        with _opened(self.path) as (_, stream, container):
            stream.thread_type = "AUTO"
            for frame in container.decode(stream):
                number += 1
                if (number - 1) % every == 0:
                    seconds = frame.time if frame.time is not None else float((number - 1) / self.rate)
                    yield ClipFrame(number, seconds, frame)
        if number == 0:
            raise ImageError(f"{self.path}: expected a video, found one without frames")
        if self.frames and number < _ENOUGH * self.frames - 1:
            raise ImageError(f"{self.path}: expected {self.frames} frames, found {number}; the file may be truncated")


def open_clip(path: os.PathLike[str] | str) -> Clip:
    """A video file, of which only the head is read.

    Raises:
        ImageError: the file is missing, damaged, no video, or has no frames.
        MissingPackageError: PyAV is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise ImageError(f"{path}: expected a video, found no such file")
    with _opened(path) as (_, stream, container):
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        frames = stream.frames or None
        if frames is None and container.duration and len(container.streams) == 1:
            frames = int(container.duration / 1_000_000 * rate)  # other streams, such as sound, may be longer
    return Clip(path, frames, rate)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[ModuleType, Any, Any]]:
    """PyAV, the first video stream, and the container. Errors of FFmpeg become an ImageError."""
    av = import_av()
    try:
        # Absolute, because FFmpeg takes what is before the colon in 12:30.mp4 for a protocol.
        with av.open(str(path.absolute())) as container:
            if not container.streams.video:
                raise ImageError(f"{path}: expected a video, found a file without pictures")
            yield av, container.streams.video[0], container
    except av.error.FFmpegError as error:
        raise ImageError(
            f"{path}: the video cannot be decoded ({error.strerror}); it may be damaged or truncated"
        ) from None


def import_av() -> ModuleType:
    """PyAV.

    Raises:
        MissingPackageError: it is not installed.
    """
    try:
        import av
    except ModuleNotFoundError:
        raise MissingPackageError("videos need PyAV, which is missing: pip install 'maskrcnn[video]'") from None
    return av


class ClipWriter:
    """Writes an MP4. The frames keep their times.

    Args:
        path: the file; it is written by `close`.
        rate: frames a second, for players that ask.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        av = import_av()
        self._av, self._rate, self._last = av, rate, -1
        self._container = av.open(str(path.absolute()), "w", format="mp4")
        self._stream: Any = None

    def add(self, image: np.ndarray, seconds: float) -> None:
        """Adds an (H, W, 3) uint8 RGB image of the size of the first one."""
        height, width = image.shape[:2]
        if self._stream is None:
            codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
            self._stream = self._container.add_stream(codec, rate=self._rate)
            self._stream.width, self._stream.height = width + width % 2, height + height % 2  # both must be even
            self._stream.pix_fmt = "yuv420p"
            self._stream.codec_context.time_base = _TICK
        padded = (
            np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if (height | width) % 2 else image
        )
        frame = self._av.VideoFrame.from_ndarray(padded, format="rgb24")
        self._last = max(self._last + 1, round(seconds / _TICK))
        frame.pts, frame.time_base = self._last, _TICK
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Writes what is left."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


_TICK = Fraction(1, 90_000)  # seconds; the clock of MPEG, in which all usual frame rates are whole numbers
