"""Reads checkpoints of any framework: the kind of file, its tensors by name, and the plain data beside them.

This module does not depend on the framework that wrote the file, nor on what the names mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from reprlib import repr as short_repr  # a key may be long
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.files.arrays import read_hdf5, read_npz, read_safetensors
from maskrcnn.files.containers import Container, container_of, open_file
from maskrcnn.files.pickle_reader import unpickle
from maskrcnn.files.torch_zip import read_torch_file

# The keys under which training files keep the weights. The first one that holds tensors is read.
# model: Detectron2, maskrcnn-benchmark, DETR; state_dict: MMDetection, Lightning; blobs: Detectron; model_state:
# PySlowFast; network: ours.
WEIGHTS_KEYS = ("model", "state_dict", "model_state_dict", "model_state", "blobs", "network", "net", "weights", "ema")


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file of weights.

    Attributes:
        container: the kind of file.
        tensors: name -> tensor on the CPU, with the names, order and dtypes of the file. The prefix `module.`
            (DataParallel) is removed if all names have it. Tensors may be memory-mapped. Names in HDF5 are paths, such
            as "conv1/conv1/kernel:0".
        extra: the plain data beside the tensors (numbers, strings, lists and dictionaries of them), such as the
            metadata of safetensors.
        dropped: the names of what was left out: entries with other tensors, such as the optimiser's state, and classes
            for settings or logs.
    """

    container: Container
    tensors: dict[str, Tensor]
    extra: dict[str, Any]
    dropped: tuple[str, ...]


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Reads a file of weights without running any code in it.

    Raises:
        WeightsError: the file is missing, truncated or of another kind, or it holds code or no named tensors.
        MissingPackageError: a Keras file is given, and h5py is not installed.
    """
    path = Path(path)
    with open_file(path) as file:
        container = container_of(path, file)
        content, extra, dropped = _read(path, file, container)
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: expected a dictionary of tensors by name, found {type(content).__name__}")
    weights, beside = _find_weights(path, content)
    tensors = {name: _tensor(value) for name, value in weights.items() if _is_tensor(value)}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    beside |= {name: value for name, value in weights.items() if not _is_tensor(value)} | extra
    plain = {str(name): value for name, value in beside.items() if _is_plain(value)}
    dropped += tuple(str(name) for name in beside if str(name) not in plain)
    return Checkpoint(container, tensors, plain, dropped)


def _read(path: Path, file: BinaryIO, container: Container) -> tuple[Any, dict[str, Any], tuple[str, ...]]:
    """The content of a file, its metadata or attributes, and the names of the classes that were left out."""
    match container:
        case "safetensors":
            return *read_safetensors(path), ()
        case "hdf5":
            return *read_hdf5(path), ()
        case "npz":
            return read_npz(path, file), {}, ()
        case "torch":
            content, dropped = read_torch_file(path, file)
            return content, {}, dropped
        case "pickle":
            with mmap(file.fileno(), 0, access=ACCESS_READ) as data:
                found = unpickle(data, str(path))
            return found.content, {}, found.dropped


def _find_weights(path: Path, content: Mapping[Any, Any]) -> tuple[Mapping[str, Any], dict[Any, Any]]:
    """The dictionary that holds the weights, and all other entries of the dictionaries around it."""
    beside: dict[Any, Any] = {}
    for _ in range(4):
        inner = [key for key in WEIGHTS_KEYS if _holds_tensors(content.get(key))]
        if not inner and not any(_is_tensor(value) for value in content.values()):
            inner = [key for key, value in content.items() if _holds_tensors(value)]
            if len(inner) > 1:
                break
        if not inner:
            break
        beside |= {key: value for key, value in content.items() if key != inner[0]}
        content = content[inner[0]]
    names = [name for name, value in content.items() if _is_tensor(value)]
    if not names:
        held = ", ".join(f"{short_repr(key)}: {type(value).__name__}" for key, value in list(content.items())[:6])
        raise WeightsError(
            f"{path}: expected a dictionary of tensors by name, or one under {', '.join(WEIGHTS_KEYS[:5])}, "
            f"found {{{held or 'nothing'}}}; save model.state_dict()"
        )
    for name in names:
        if not isinstance(name, str):
            raise WeightsError(f"{path}: expected a dictionary of tensors by name, found the name {short_repr(name)}")
    return content, beside


def _holds_tensors(value: Any, depth: int = 2) -> bool:
    """Whether a value is a dictionary that holds tensors, directly or in a dictionary under one of `WEIGHTS_KEYS`."""
    if not isinstance(value, dict):
        return False
    inner = depth > 0 and any(_holds_tensors(value.get(key), depth - 1) for key in WEIGHTS_KEYS)
    return inner or any(_is_tensor(item) for item in value.values())


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _tensor(value: Any) -> Tensor:
    """A tensor that shares the memory of an array, or a byte-swapped copy of a big-endian array."""
    if isinstance(value, Tensor):
        return value
    return torch.from_numpy(value if value.dtype.isnative else value.astype(value.dtype.newbyteorder("=")))


def _is_plain(value: Any) -> bool:
    """Whether a value consists of strings, bytes, numbers and None, in lists, tuples and dictionaries."""
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | bytes | bool | int | float | complex)
