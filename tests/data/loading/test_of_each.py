"""Many files are read by several processes, and nothing else differs."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from threading import get_ident

import numpy as np
import pytest
from PIL import Image

from maskrcnn.data.convert import convert
from maskrcnn.data.formats import read_dataset
from maskrcnn.data.hints import Hints
from maskrcnn.data.loading import of_each as module
from maskrcnn.data.loading.of_each import of_each
from maskrcnn.errors import DataError, TrainingError
from maskrcnn.files import progress
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import as_numpy
from small_formats import write_format

MAIN = os.getpid()


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the first item, two processes do the rest, one item at a time, however fast it is."""
    monkeypatch.setattr(module, "ALONE", 1e-9)
    monkeypatch.setattr(module, "WORTH", 0.0)
    monkeypatch.setattr(module, "_PART", 0.0)
    monkeypatch.setattr(module, "processors", lambda: 2)


def process_of(number: int) -> tuple[int, int]:
    if number == 7:
        raise DataError("seven is broken")
    if number == 9:
        os.kill(os.getpid(), signal.SIGKILL)
    return number, os.getpid()


@pytest.mark.usefixtures("several")
def test_much_work_is_shared_and_its_results_stay_in_order() -> None:
    found = of_each(process_of, range(7), "files")
    assert [number for number, _ in found] == list(range(7))
    assert len({process for _, process in found} - {MAIN}) == 2


def test_little_work_starts_no_process() -> None:
    assert {process for _, process in of_each(process_of, range(7), "files")} == {MAIN}
    assert of_each(process_of, [], "files") == []


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize(
    ("number", "error", "message"),
    [(7, DataError, "^seven is broken$"), (9, TrainingError, "^a process that reads label files is lost: .*SIGKILL")],
)
def test_an_error_in_a_process_ends_the_work(number: int, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        of_each(process_of, [0, 1, number, 2, 3], "label files")


def waits(number: int) -> tuple[int, int, int]:
    time.sleep(0.02)
    return number, os.getpid(), get_ident()


def test_waiting_for_a_disk_is_done_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ALONE", 0.1)
    monkeypatch.setattr(module, "WORTH", 0.0)
    monkeypatch.setattr(module, "processors", lambda: 2)
    found = of_each(waits, range(100), "files")
    assert [number for number, _, _ in found] == list(range(100))
    assert len({(process, thread) for _, process, thread in found}) > 4


def test_what_takes_long_shows_a_bar(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    of_each(waits, range(3), "label files")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr(progress, "SHOWN_AFTER", 0.0)
    monkeypatch.setattr(progress, "_TICK", 0.0)
    of_each(waits, range(3), "label files")
    said = capfd.readouterr()
    assert said.out == ""
    assert all(word in said.err for word in ("label files", "3/3", "/s", "left"))


def picture(folder: Path, name: str, values: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(folder / name)


def squares() -> np.ndarray:
    values = np.zeros((30, 40), dtype=np.uint8)
    values[2:9, 3:12], values[10:20, 20:35], values[22:28, 2:6] = 1, 2, 3
    return values


@pytest.fixture
def original(tmp_path: Path) -> Dataset:
    """Label images, of which the third is broken."""
    for number in range(6):
        picture(tmp_path / "labels" / "images", f"{number}.png", np.full((30, 40, 3), number, dtype=np.uint8))
        picture(tmp_path / "labels" / "masks", f"{number}.png", np.where(squares() > number, squares(), 0))
    (tmp_path / "labels" / "masks" / "2.png").write_bytes(b"no picture")
    return read_dataset(tmp_path / "labels")


def everything(dataset: Dataset) -> object:
    columns = {name: as_numpy(column).tolist() for name, column in sorted(dataset.columns.items())}
    masks = [dataset.segmentations[row].tobytes() for row in dataset.records.rows.tolist()]
    return repr(columns), masks, list(dataset.records), dataset.problems, dataset.notes, dataset.choices


def voc(dataset: Dataset, folder: Path) -> None:
    for record in dataset.records:
        picture(folder / "JPEGImages", record.path.name, np.zeros((30, 40, 3), dtype=np.uint8))
        picture(folder / "SegmentationObject", record.path.name, squares())
        picture(folder / "SegmentationClass", record.path.name, (squares() > 0).astype(np.uint8))


def supervisely(dataset: Dataset, folder: Path) -> None:
    for record in dataset.records:
        picture(folder / "ds" / "img", record.path.name, np.zeros((30, 40, 3), dtype=np.uint8))
        ring = {"exterior": [[2, 3], [20, 3], [20, 14]], "interior": []}
        entries = [{"classTitle": "cell", "geometryType": "polygon", "points": ring}]
        place = folder / "ds" / "ann" / f"{record.path.name}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({"size": {"height": 30, "width": 40}, "objects": entries}))


OTHERS = {"voc": (voc, "SegmentationObject/*.png"), "supervisely": (supervisely, "ds/ann/*.json")}
WRITTEN = {"labelme": "*.json", "yolo": "labels/*.txt", "object-masks": "annotations/*.png"}


@pytest.mark.slow
@pytest.mark.parametrize("key", [*WRITTEN, *OTHERS])
def test_every_format_of_many_files_reads_the_same(
    key: str, original: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = tmp_path / key
    if key in WRITTEN:
        convert(original, folder, key)
    else:
        OTHERS[key][0](original, folder)
    files = sorted(folder.glob(WRITTEN.get(key) or OTHERS[key][1]))
    for file in files[-2:]:
        file.write_bytes(file.read_bytes()[:20] + b"[broken")
    alone = everything(read_dataset(folder))
    request.getfixturevalue("several")
    shared = read_dataset(folder)
    assert everything(shared) == alone
    named = [file.name for text in shared.problems for file in files if file.name in text]
    assert list(dict.fromkeys(named)) == [file.name for file in files[-2:]]
    with pytest.raises(DataError, match=files[-2].name):
        read_dataset(folder, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["darwin", "geojson", "imagej", "vott", "cityscapes", "hasty"])
def test_what_processes_read_can_be_passed_on(key: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    _, folder = write_format(tmp_path, key)
    hints = Hints(format=key)  # type: ignore[arg-type]
    alone = everything(read_dataset(folder, hints=hints))
    request.getfixturevalue("several")
    assert everything(read_dataset(folder, hints=hints)) == alone
