"""Videos in, tracks and a drawn video out."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from coloured_objects import ColourReader
from maskrcnn.errors import ConfigError, ImageError, MissingPackageError
from maskrcnn.files.media.video import ClipWriter, open_clip
from maskrcnn.predict.box_tracking import BoxTracker
from maskrcnn.predict.clips import predict_clip
from maskrcnn.predict.tracking import Tracker
from maskrcnn.structures.instances import Instances


class BrightReader(ColourReader):
    """A detector of the bright pixels of an image, as one object."""

    def _read(self, image: np.ndarray) -> Instances:
        return super()._read((image > 128) * np.array([2, 0, 0]))


def write_clip(path: Path, count: int = 12, *, speed: int = 3, options: dict[str, str] | None = None) -> Path:
    """A bright square that moves to the right, `speed` pixels a frame, at 10 frames a second."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt, stream.bit_rate = 64, 96, "yuv420p", 4_000_000
        for number in range(count):
            image = np.full((64, 96, 3), 20, dtype=np.uint8)
            image[20:40, 5 + speed * number : 25 + speed * number] = 220
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    return [(frame.seconds, frame.rgb()) for frame in open_clip(path).read()]


@pytest.mark.parametrize("every", [1, 4])
def test_a_clip_becomes_tracks_and_a_drawn_clip(tmp_path: Path, every: int) -> None:
    clip = write_clip(tmp_path / "clip.mp4")
    totals: list[int | None] = []
    summary = predict_clip(
        BrightReader(),
        clip,
        tmp_path / "out",
        every=every,
        batch_size=2,
        track=lambda items, total: totals.append(total) or items,  # type: ignore[func-returns-value]
    )
    count = -(-12 // every)
    assert (summary.frames, summary.objects, summary.tracks, summary.fault) == (count, count, 1, None)
    assert totals == [count]
    entries = json.loads(summary.results.read_text())
    assert [entry["image_id"] for entry in entries] == list(range(1, 13, every))
    assert {entry["track_id"] for entry in entries} == {1}
    assert entries[-1]["seconds"] == pytest.approx((entries[-1]["image_id"] - 1) / 10)
    for entry in entries:
        assert entry["bbox"] == pytest.approx([5 + 3 * (entry["image_id"] - 1), 20, 20, 20], abs=2)
    rows = list(csv.DictReader(summary.table.read_text().splitlines()))
    assert [int(row["frame"]) for row in rows] == list(range(1, 13, every))
    assert {row["track"] for row in rows} == {"1"}
    assert float(rows[0]["area"]) == pytest.approx(400, abs=60)
    assert summary.video == tmp_path / "out" / "clip.mp4"
    drawn, source = frames_of(summary.video), frames_of(clip)[::every]
    assert [seconds for seconds, _ in drawn] == pytest.approx([seconds for seconds, _ in source], abs=1e-3)
    assert drawn[0][1].shape == (6 * 64, 6 * 96, 3)  # labels on 96 pixels would not be legible
    assert np.abs(drawn[0][1][3::6, 3::6].astype(int) - source[0][1]).max() > 60


@pytest.mark.parametrize("tracker", [Tracker, BoxTracker])
def test_tracks_outlive_the_frames_between_two_that_are_predicted(tmp_path: Path, tracker: Any) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 125, speed=0)
    summary = predict_clip(BrightReader(), clip, tmp_path / "out", every=40, draw=False, tracker=tracker)
    assert (summary.frames, summary.tracks) == (4, 1)
    found = [entry["track_id"] for entry in json.loads(summary.results.read_text())]
    assert found == ([1, 1, 1, 1] if tracker is Tracker else [None, 1, 1, 1])  # ByteTrack waits for a second frame


def test_an_interrupted_clip_keeps_the_results_of_its_finished_frames(tmp_path: Path) -> None:
    def stopped(items: Iterable[Any], total: int | None) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == 5:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        predict_clip(BrightReader(), write_clip(tmp_path / "clip.mp4"), tmp_path / "out", track=stopped)
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["predictions.json", "tracks.csv"]
    entries = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [(entry["image_id"], entry["track_id"]) for entry in entries] == [(number, 1) for number in range(1, 6)]
    assert len((tmp_path / "out" / "tracks.csv").read_text().splitlines()) == 1 + 5


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = write_clip(tmp_path / "12:30.mp4").relative_to(tmp_path)
    writer = ClipWriter(Path("a:b.mp4"), open_clip(clip).rate)
    for seconds, image in frames_of(clip):
        writer.add(image, seconds)
    writer.close()
    assert len(frames_of(Path("a:b.mp4"))) == 12


def test_sides_of_any_length_are_written(tmp_path: Path) -> None:
    writer = ClipWriter(tmp_path / "odd.mp4", open_clip(write_clip(tmp_path / "a.mp4")).rate)
    for number in range(3):
        writer.add(np.full((33, 45, 3), 90 * number, dtype=np.uint8), number / 10)
    writer.close()
    assert [image.shape for _, image in frames_of(tmp_path / "odd.mp4")] == [(34, 46, 3)] * 3


def test_a_truncated_clip_gives_its_whole_frames(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 40, options={"movflags": "faststart"}).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    matroska = write_clip(tmp_path / "whole.mkv", 40).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(matroska[: len(matroska) // 2])
    for name in ("cut.mp4", "cut.mkv"):
        summary = predict_clip(BrightReader(), tmp_path / name, tmp_path / "out", draw=False)
        assert 5 < summary.frames < 40
        assert summary.objects == summary.frames
        assert summary.fault is not None
        assert "truncated" in summary.fault


def test_what_is_no_clip_is_named(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    write_clip(tmp_path / "none.avi", 0)
    whole = write_clip(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 2])
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    for name in ("text.mp4", "empty.mp4", "none.avi", "headless.mp4", "sound.mp4", "missing.mp4"):
        with pytest.raises(ImageError, match=name):
            predict_clip(BrightReader(), tmp_path / name, tmp_path / "out")
        assert not (tmp_path / "out" / "predictions.json").exists()


def test_wrong_values_and_places_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "clip.mp4", 2)
    before = clip.read_bytes()
    for options, message in (
        ({"every": 0}, "--every: expected 1 or more, found 0"),
        ({"min_score": 2.0}, "min score: expected a score from 0 to 1"),
        ({}, "expected a file to write, found one that is read"),
    ):
        with pytest.raises(ConfigError, match=message):
            predict_clip(BrightReader(), clip, tmp_path, **options)  # type: ignore[arg-type]
    assert clip.read_bytes() == before
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingPackageError, match=r"maskrcnn\[video\]"):
        predict_clip(BrightReader(), clip, tmp_path / "out")
