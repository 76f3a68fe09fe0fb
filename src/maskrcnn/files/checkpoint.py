"""Reads checkpoints of any framework: the kind of file, its tensors by name, and the plain data beside them.

This module does not depend on the framework that wrote the file, nor on what the names mean.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path
from reprlib import repr as short_repr  # a key may be long
from typing import Any, BinaryIO

import torch
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.files.arrays import read_hdf5, read_npz, read_safetensors
from maskrcnn.files.containers import Container, container_of, open_file
from maskrcnn.files.parts import find_weights, is_tensor
from maskrcnn.files.pickle_modules import Module
from maskrcnn.files.pickle_reader import unpickle
from maskrcnn.files.torch_zip import read_torch_file

# Modules that wrap another one: module: DataParallel and AveragedModel; model, net, network, detector: usual in
# LightningModules; ema_model: averages of weights. A number after it is a layer of a network and no wrapped network.
WRAPPER = re.compile(r"(module|model|net|network|detector|ema_model|ema|averaged_model|_model)\.(?!\d)")
# Wrappers that torch.compile, FSDP and activation checkpointing put around any part of a network.
INNER_WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
COUNT = "n_averaged"  # AveragedModel keeps it beside its module


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file of weights.

    Attributes:
        container: the kind of file.
        tensors: name -> tensor on the CPU, with the order and dtypes of the file. The prefixes of wrappers such as
            DataParallel are taken off where all names share them. Tensors may be memory-mapped. Names in HDF5 are
            paths, such as "conv1/conv1/kernel:0".
        extra: the plain data beside the tensors (numbers, strings, lists and dictionaries of them), such as the
            metadata of safetensors.
        dropped: the names of what was left out: entries with other tensors, such as the optimiser's state, and classes
            for settings or logs.
        network: the network without its wrappers, if it was pickled whole. It holds the settings of its modules.
        parts: the names of other weights in the file, such as the averages under `model_ema` beside `model`, unless a
            part was asked for.
    """

    container: Container
    tensors: dict[str, Tensor]
    extra: dict[str, Any]
    dropped: tuple[str, ...]
    network: Module | None = None
    parts: tuple[str, ...] = ()

    def below(self, prefix: str, without: tuple[str, ...] = ()) -> Checkpoint:
        """The part whose names begin with the prefix, without it. The other tensors are left out and named.

        Args:
            without: the beginnings of names that are left out, too.
        """
        kept = {name for name in self.tensors if name.startswith(prefix) and not name.startswith(without)}
        tensors = {name.removeprefix(prefix): value for name, value in self.tensors.items() if name in kept}
        others = tuple(name for name in self.tensors if name not in kept)
        network = None if self.network is None else self.network.find(prefix.removesuffix("."))
        return replace(self, tensors=tensors, dropped=self.dropped + others, network=network)


def read_checkpoint(path: Path | str, part: str | None = None) -> Checkpoint:
    """Reads a file of weights without running any code in it.

    Args:
        part: which weights are read if the file holds several: the name of an entry such as `teacher`, or the beginning
            of tensor names, up to a dot. With None those under the first of `parts.WEIGHTS_KEYS`.

    Raises:
        WeightsError: the file is missing, truncated or of another kind, or it holds code or no named tensors. Or it
            has no such part, or does not tell which of several parts to read.
        MissingPackageError: a Keras file is given, and h5py is not installed.
    """
    path = Path(path)
    with open_file(path) as file:
        container = container_of(path, file)
        content, extra, dropped = _read(path, file, container)
    if not isinstance(content, dict | Module):
        kind = f"{type(content).__name__}; the file holds {dropped[0]}" if dropped else type(content).__name__
        raise WeightsError(f"{path}: expected a dictionary of tensors by name, found {kind}")
    if not content and dropped:
        raise WeightsError(
            f"{path}: expected a dictionary of tensors by name, found only what is not read: {', '.join(dropped[:4])}; "
            "save the state_dict of a network with dense tensors"
        )
    found = find_weights(path, content, part)
    tensors = {name: _tensor(value) for name, value in found.weights.items() if is_tensor(value)}
    beside = found.beside | {name: value for name, value in found.weights.items() if not is_tensor(value)} | extra
    plain = {str(name): value for name, value in beside.items() if _is_plain(value)}
    dropped += tuple(str(name) for name in beside if str(name) not in plain)
    checkpoint = _unwrapped(Checkpoint(container, tensors, plain, dropped, found.network, found.others))
    return checkpoint if part is None or found.is_part else _unwrapped(_named_part(path, checkpoint, part))


def _named_part(path: Path, checkpoint: Checkpoint, part: str) -> Checkpoint:
    """The tensors whose names begin with the part and a dot, without them."""
    prefix = f"{part.removesuffix('.')}."
    if not any(name.startswith(prefix) for name in checkpoint.tensors):
        beginnings = dict.fromkeys(name.partition(".")[0] for name in checkpoint.tensors)
        found = ", ".join(map(short_repr, [*checkpoint.parts, *beginnings][:10]))
        raise WeightsError(f"{path}: expected a part {part!r}, found {found}")
    return checkpoint.below(prefix)


def _unwrapped(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without the names of wrappers around the network and its parts."""
    tensors = {INNER_WRAPPERS.sub("", name): value for name, value in checkpoint.tensors.items()}
    found = replace(checkpoint, tensors=tensors) if len(tensors) == len(checkpoint.tensors) else checkpoint
    while True:
        names = [name for name in found.tensors if name != COUNT]
        wrapper = WRAPPER.match(names[0]) if names else None
        if wrapper is None or not all(name.startswith(wrapper[0]) and WRAPPER.match(name) for name in names):
            return found
        found = found.below(wrapper[0])


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
