"""Keeps large COCO JSONs in the form in which memory holds a data set, so that the second opening parses nothing.

Only a format that says the sizes of its images can be kept: other readers ask the image files, which may change. One
safetensors file for each annotation file lies in the cache folder of `files.fetch`, beside the downloads. It counts if
the annotation file, the version of the package, the arguments and the folders in which images are looked for are the
same, if its own content is whole, and if all images are still where they were. In every other case it is ignored and
replaced. A cache folder that cannot be written means no cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
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
from maskrcnn.structures.records import PackedBytes, Records

LEAST_BYTES = 64 << 20  # of an annotation file: a smaller one is read in a second or two
SWITCH = "MASKRCNN_DATA_CACHE"  # environment variable; 0 means no cache

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16  # of the annotation file, which show a change that keeps its size and time
_COLUMN = "column "  # before the names of columns among the tensors


def cached(file: Path, arguments: Sequence[Any], read: Callable[[], Dataset]) -> Dataset:
    """The data set of an annotation file from the cache, or else from `read`, for which the cache is then written.

    Args:
        arguments: all else on which the data set depends.
    """
    if os.environ.get(SWITCH) == "0" or not file.is_file() or file.stat().st_size < LEAST_BYTES:
        return read()
    stamp = _stamp(file, arguments)
    place = cache_folder() / "datasets" / f"{hashlib.sha256(stamp['call'].encode()).hexdigest()[:24]}.safetensors"
    with suppress(OSError, SafetensorError, MaskRCNNError, ValueError, KeyError, TypeError):
        return _load(place, stamp)
    dataset = read()
    if stamp == _stamp(file, arguments):
        with suppress(OSError, SafetensorError):
            _save(dataset, place, stamp)
    return dataset


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
        "call": json.dumps([str(file), os.getcwd(), *map(repr, arguments)]),
        "file": json.dumps([stat.st_size, stat.st_mtime_ns, digest.hexdigest()]),
        "folders": json.dumps(folders),
    }


def _save(dataset: Dataset, place: Path, stamp: Mapping[str, str]) -> None:
    """Writes a cache, unless some image was not found or some id is no number."""
    tensors: dict[str, Any] = {f"{_COLUMN}{name}": column for name, column in dataset.columns.items()}
    tensors |= {**dataset.records.tensors(), **dataset.segmentations.tensors("segmentations")}
    if dataset.records.faults or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        return
    said = {
        "path": str(dataset.path),
        "categories": [asdict(category) for category in dataset.categories],
        **{name: getattr(dataset, name) for name in ("problems", "notes", "choices", "format")},
    }
    text = json.dumps(said)
    with atomic_write(place) as temporary:
        save_file(tensors, temporary, {**stamp, "said": text, "digest": _digest(tensors, text)})


def _load(place: Path, stamp: Mapping[str, str]) -> Dataset:
    """The data set in a cache.

    Raises:
        OSError, SafetensorError, ValueError, KeyError, TypeError: it cannot be used.
    """
    with safe_open(place, framework="pt") as file:
        about = file.metadata() or {}
        if any(about.get(name) != value for name, value in stamp.items()):
            raise ValueError("another file, version, call or folder")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if about["digest"] != _digest(tensors, about["said"]):
        raise ValueError("damaged")
    said = json.loads(about["said"])
    records = Records.of_tensors(tensors)
    _require_images(records.paths)
    return Dataset(
        Path(said["path"]),
        records,
        tuple(_category(given) for given in said["categories"]),
        tuple(said["problems"]),
        {name.removeprefix(_COLUMN): tensor for name, tensor in tensors.items() if name.startswith(_COLUMN)},
        PackedBytes.of_tensors(tensors, "segmentations"),
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
