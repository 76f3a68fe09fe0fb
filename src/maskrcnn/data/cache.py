"""Keeps what took long to read in the form in which memory holds a data set, so that the second opening parses nothing.

One safetensors file for each data set lies in the cache folder of `files.fetch`, beside the downloads. It counts if the
version of the package and the arguments are the same, if its own content is whole, and if the files have not changed:

- For a large COCO JSON, which says the sizes of its images: the JSON and the folders in which images are looked for are
  the same, and all images are still where they were.
- For everything else: all files below its folder and in the folders of its images have the same names, sizes and times.

In every other case it is ignored and replaced. A cache folder that cannot be written means no cache, and so does an
image that was not found, because it may appear anywhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from maskrcnn import __version__
from maskrcnn.config import Category
from maskrcnn.data.image_places import usual_places
from maskrcnn.errors import MaskRCNNError
from maskrcnn.files.atomic import atomic_write
from maskrcnn.files.fetch import cache_folder
from maskrcnn.structures.dataset import Dataset
from maskrcnn.structures.records import PackedBytes, Records, pack_ids

LEAST_BYTES = 64 << 20  # of a COCO JSON: a smaller one is read in a second or two
LEAST_SECONDS = 2.0  # of reading anything else
SWITCH = "MASKRCNN_DATA_CACHE"  # environment variable; 0 means no cache

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16  # of the annotation file, which show a change that keeps its size and time
_COLUMN, _TEXT = "column ", "text "  # before the names of columns among the tensors, and of ids that are texts
_MOST_FILES = 500_000  # of a data set; more are not looked at
_KEPT_ALONE = "COCO JSON"  # format of a data set whose annotation file `cached_json` keeps
_ABOVE = 5  # folders above a data set, whose JSONs may belong to it
_USELESS = (OSError, SafetensorError, MaskRCNNError, ValueError, KeyError, TypeError)

Stamp = Callable[[Mapping[str, str]], Mapping[str, str]]  # gives, for what a cache file says, what it must say


def cached_json(file: Path, arguments: Sequence[Any], read: Callable[[], Dataset]) -> Dataset:
    """The data set of a COCO JSON from the cache, or else from `read`. Then the cache is written for a large file.

    Args:
        arguments: all else on which the data set depends.
    """
    if os.environ.get(SWITCH) == "0" or not file.is_file() or file.stat().st_size < LEAST_BYTES:
        return read()
    stamp, place = _stamp(file, arguments), _place(file, arguments)
    with suppress(*_USELESS):
        dataset = _load(place, lambda said: stamp)
        _require_images(dataset.records.paths)
        return dataset
    dataset = read()
    if stamp == _stamp(file, arguments):
        with suppress(OSError, SafetensorError):
            _save(dataset, place, stamp)
    return dataset


def cached_folder(path: Path, arguments: Sequence[Any], read: Callable[[], Dataset]) -> Dataset:
    """The data set of a file or folder of any format from the cache, or else from `read`. Then the cache is written if
    reading took long.

    Args:
        arguments: all else on which the data set depends.
    """
    if os.environ.get(SWITCH) == "0":
        return read()
    place = _place(path, arguments)
    with suppress(*_USELESS):
        return _load(place, lambda said: _state(path, json.loads(said["folders"])))
    began = time.time_ns()
    dataset = read()
    if dataset.format != _KEPT_ALONE and time.time_ns() - began >= LEAST_SECONDS * 1e9:
        with suppress(*_USELESS):
            folders = _folders(path, dataset)
            _save(dataset, place, {**_state(path, folders, before=began), "folders": json.dumps(folders)})
    return dataset


def _place(path: Path, arguments: Sequence[Any]) -> Path:
    call = json.dumps([str(path), os.getcwd(), *map(repr, arguments)])
    return cache_folder() / "datasets" / f"{hashlib.sha256(call.encode()).hexdigest()[:24]}.safetensors"


def _state(path: Path, folders: Sequence[str], before: int | None = None) -> dict[str, str]:
    """What must be the same when the cache of a folder is read."""
    return {"version": __version__, "places": json.dumps(_usual(path)), "files": _files(folders, before)}


def _usual(path: Path) -> list[str]:
    """The folders in which the images of a data set are looked for first."""
    home = path if path.is_dir() else path.parent
    return [str(folder) for group in usual_places(home / "labels.json") for folder in group if folder.is_dir()]


def _folders(path: Path, dataset: Dataset) -> list[str]:
    """The folders whose files decide what a data set is: its own, those of its images, and those where YOLO has the
    labels of such images."""
    home = path if path.is_dir() else path.parent
    images = {os.path.dirname(image) for image in dataset.records.paths}
    labels = {
        f"{before}{os.sep}labels"
        for image in images
        for before, found, _ in [image.rpartition(f"{os.sep}images")]
        if found
    }
    found: list[str] = []
    for folder in sorted(map(os.path.abspath, {str(home), *images, *labels, *_usual(path)})):
        if os.path.isdir(folder) and not any(folder == own or folder.startswith(own + os.sep) for own in found):
            found.append(folder)
    return found


def _files(folders: Sequence[str], before: int | None = None) -> str:
    """A digest of the names, sizes and times of all files in folders and below, and of the JSONs above them.

    Raises:
        ValueError: there are too many, or one has been written since `before`, in nanoseconds.
    """
    digest = hashlib.sha256()
    for number, (name, stat) in enumerate(_entries(folders)):
        if number == _MOST_FILES or (before is not None and stat.st_mtime_ns >= before):
            raise ValueError(f"too many files, or one that changes: {name}")
        digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _entries(folders: Iterable[str]) -> Iterator[tuple[str, os.stat_result]]:
    own, visited = os.path.realpath(cache_folder()), set()
    for top in folders:
        for above in list(Path(top).parents)[:_ABOVE]:
            yield from ((str(file), file.stat()) for file in sorted(above.glob("*.json")))
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            if (real := os.path.realpath(folder)) in visited or real == own:
                continue
            visited.add(real)
            with os.scandir(folder) as opened:
                entries = sorted(opened, key=lambda entry: entry.name)
            waiting += [entry.path for entry in entries if entry.is_dir()]
            yield from ((entry.path, entry.stat()) for entry in entries if entry.is_file())


def _stamp(file: Path, arguments: Sequence[Any]) -> dict[str, str]:
    """What must be the same when the cache is read."""
    stat = file.stat()
    digest = hashlib.sha256()
    with file.open("rb") as content:
        for start in np.linspace(0, max(stat.st_size - _SAMPLE_BYTES, 0), _SAMPLES, dtype=np.int64).tolist():
            content.seek(start)
            digest.update(content.read(_SAMPLE_BYTES))
    folders = [str(place) for group in usual_places(file) for place in group if place.is_dir()]
    return {
        "version": __version__,
        "arguments": json.dumps([*map(repr, arguments)]),
        "file": json.dumps([stat.st_size, stat.st_mtime_ns, digest.hexdigest()]),
        "folders": json.dumps(folders),
    }


def _save(dataset: Dataset, place: Path, stamp: Mapping[str, str]) -> None:
    """Writes a cache, unless some image was not found."""
    if dataset.records.faults:
        return
    columns: dict[str, Any] = {f"{_COLUMN}{name}": column for name, column in dataset.columns.items()}
    columns |= {**dataset.records.tensors(), **dataset.segmentations.tensors("segmentations")}
    tensors = dict(_as_tensor(name, column) for name, column in columns.items())
    said = {
        "path": str(dataset.path),
        "categories": [asdict(category) for category in dataset.categories],
        **{name: getattr(dataset, name) for name in ("problems", "notes", "choices", "format")},
    }
    text = json.dumps(said)
    with atomic_write(place) as temporary:
        save_file(tensors, temporary, {**stamp, "said": text, "digest": _digest(tensors, text)})


def _as_tensor(name: str, column: Any) -> tuple[str, Tensor]:
    """A column under its name; one of ids that are not all numbers as JSON, under another name."""
    if isinstance(column, Tensor):
        return name, column
    return _TEXT + name, torch.frombuffer(bytearray(json.dumps(column.tolist()).encode()), dtype=torch.uint8)


def _load(place: Path, stamp: Stamp) -> Dataset:
    """The data set in a cache.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it cannot be used.
    """
    with safe_open(place, framework="pt") as file:
        about = file.metadata() or {}
        if any(about.get(name) != value for name, value in stamp(about).items()):
            raise ValueError("another file, version, argument or folder")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about["digest"] != _digest(tensors, about["said"]):
        raise ValueError("damaged")
    said = json.loads(about["said"])
    columns: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if not name.startswith(_TEXT)}
    for name in tensors.keys() - columns.keys():
        columns[name.removeprefix(_TEXT)] = pack_ids(json.loads(tensors[name].numpy().tobytes()))
    return Dataset(
        Path(said["path"]),
        Records.of_tensors(columns),
        tuple(_category(given) for given in said["categories"]),
        tuple(said["problems"]),
        {name.removeprefix(_COLUMN): column for name, column in columns.items() if name.startswith(_COLUMN)},
        PackedBytes.of_tensors(columns, "segmentations"),
        tuple(said["notes"]),
        tuple(said["choices"]),
        said["format"],
    )


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """A checksum of all content against damage."""
    digest = zlib.crc32(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest = zlib.crc32(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode(), digest)
        digest = zlib.crc32(tensor.numpy().reshape(-1).view(np.uint8).data, digest)
    return f"{digest:08x}"


def _require_images(paths: Sequence[str]) -> None:
    """Raises ValueError if an image is no longer where it was."""
    names: dict[str, set[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition(os.sep)
        if folder not in names:
            names[folder] = set(os.listdir(folder or os.curdir))
        if name not in names[folder]:
            raise ValueError(f"{path} is gone")


def _category(given: Mapping[str, Any]) -> Category:
    skeleton = tuple((start, end) for start, end in given["skeleton"])
    return Category(given["id"], given["name"], tuple(given["keypoints"]), skeleton, tuple(given["sigmas"]))
