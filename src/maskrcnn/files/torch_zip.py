"""Reads files of `torch.save`, zip archives and the older format, without running any code in them.

`torch.load(weights_only=True)` refuses a training file if its settings or logs hold an object of any other class, as
MMEngine's do. Here, such objects are left out (`pickle_calls.Foreign`), and whole networks become `Module`s.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from reprlib import repr as short_repr  # a value of the file may be long or endlessly nested
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_calls import Builder, Dialect, Foreign, Name
from maskrcnn.files.pickle_reader import DAMAGES, first_line, unpickle

# torch's storage classes and the dtypes of their elements; UntypedStorage counts bytes.
STORAGES = {
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.BoolStorage": torch.bool,
    "torch.ByteStorage": torch.uint8,
    "torch.CharStorage": torch.int8,
    "torch.ComplexDoubleStorage": torch.complex128,
    "torch.ComplexFloatStorage": torch.complex64,
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.IntStorage": torch.int32,
    "torch.LongStorage": torch.int64,
    "torch.ShortStorage": torch.int16,
    "torch.storage.UntypedStorage": torch.uint8,
}
# Dtypes without a storage class.
NEWER_DTYPES = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
DTYPES = {str(dtype): dtype for dtype in [*STORAGES.values(), *(getattr(torch, name) for name in NEWER_DTYPES)]}
TORCH_NAMES = frozenset(
    {*STORAGES, *DTYPES, "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
)

# The first bytes of a file of torch < 1.6: the pickle of a magic number.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
MAX_AXES = 64  # numpy's limit
_LOCAL_HEADER = 30  # bytes of a zip header before the name of the file
_MAX_PICKLE = 1 << 28  # bytes; the pickle of a zip archive holds only names and shapes


@dataclass(frozen=True)
class Storage:
    """The description of a storage in the pickle: its key, and the dtype and number of its elements."""

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize


def read_torch(path: Path | str) -> tuple[Any, tuple[str, ...]]:
    """The content of a file of `torch.save`: tensors on the CPU, numbers, strings, dictionaries and lists.

    Tensors are memory-mapped privately: writing to them does not change the file. Parameters become plain tensors.

    Returns:
        The content, and the names of the classes whose objects were left out.

    Raises:
        WeightsError: the file is truncated, of another kind, or holds more than tensors and plain data.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return read_torch_file(path, file)
    except OSError as error:
        _broken(path, error)


def read_torch_file(path: Path, file: BinaryIO) -> tuple[Any, tuple[str, ...]]:
    """Like `read_torch`, for a file that is already open."""
    try:
        content = mmap(file.fileno(), 0, access=ACCESS_COPY)
        is_legacy = content[: len(LEGACY_MAGIC)] == LEGACY_MAGIC
        return _read_legacy(path, content) if is_legacy else _read_zip(path, file, content)
    except (OSError, zipfile.BadZipFile, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        _broken(path, error)


def _read_zip(path: Path, file: BinaryIO, content: mmap) -> tuple[Any, tuple[str, ...]]:
    entries = _entries(path, file, len(content))
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"{path}: expected a zip archive of torch.save with one data.pkl, found {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")

    def region(name: str) -> tuple[int, int]:
        """Start and end of a file in the archive. Its local header tells, which may be longer than the index says."""
        entry = entries[name]
        header = content[entry.header_offset : entry.header_offset + _LOCAL_HEADER]
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = entry.header_offset + _LOCAL_HEADER + lengths
        if header[:4] != b"PK\x03\x04" or start + entry.file_size > len(content):
            raise ValueError(f"{name} lies outside of the archive")
        return start, start + entry.file_size

    def load(storage: Storage) -> Tensor:
        return _elements(content, *region(f"{folder}data/{storage.key}"), storage)

    start, end = region(pickles[0])
    if end - start > _MAX_PICKLE:
        raise ValueError(
            f"data.pkl has {end - start} bytes, expected only names and shapes, at most {_MAX_PICKLE} bytes"
        )
    order = f"{folder}byteorder"
    if order in entries and content[slice(*region(order))] != b"little":
        raise ValueError("it was written on a big-endian machine")
    found = unpickle(content[start:end], str(path), dialect=Dialect(_calls(load), TORCH_NAMES, _storage))
    return found.content, found.dropped


def _read_legacy(path: Path, content: mmap) -> tuple[Any, tuple[str, ...]]:
    """Reads five pickles (magic number, version, machine, content, keys of the storages), then the storages.

    The content is read twice. The first time gives the size of each storage, from which their positions follow.
    """
    sizes: dict[str, int] = {}
    starts: dict[str, int] = {}

    def note(pid: Any) -> Storage | Foreign:
        storage = _storage(pid)
        if isinstance(storage, Storage):
            sizes[storage.key] = storage.nbytes
        return storage

    def load(storage: Storage) -> Tensor:
        return _elements(content, starts[storage.key], starts[storage.key] + storage.nbytes, storage)

    calls = _calls(load)
    without_tensors = Dialect(dict.fromkeys(calls, lambda args: None), TORCH_NAMES, note)
    version = unpickle(content, str(path), start=len(LEGACY_MAGIC))
    machine = unpickle(content, str(path), start=version.end)
    names = unpickle(content, str(path), start=machine.end, dialect=without_tensors)
    keys = unpickle(content, str(path), start=names.end)
    try:
        if not machine.content["little_endian"]:
            raise ValueError("it was written on a big-endian machine")
        position = keys.end
        for key in keys.content:
            starts[key] = position + 8  # 8 bytes hold the number of elements
            position += 8 + sizes[key]
        if position > len(content):
            raise ValueError("it ends early")
    except DAMAGES as error:
        _broken(path, error)
    found = unpickle(content, str(path), start=machine.end, dialect=Dialect(calls, TORCH_NAMES, _storage))
    return found.content, found.dropped


def _entries(path: Path, file: BinaryIO, size: int) -> dict[str, zipfile.ZipInfo]:
    """The files in a zip archive of torch.save by name; raises WeightsError if one is compressed or encrypted."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:  # bit 0 means encryption
            raise WeightsError(
                f"{path}: {entry.filename} is compressed or encrypted, which torch.save never does; "
                "if you trust the file, read it with torch and save it again"
            )
    if sum(entry.file_size for entry in entries) > size:
        raise WeightsError(f"{path}: the files in it claim more than its {size} bytes; get the file again")
    return {entry.filename: entry for entry in entries}


def _broken(path: Path, error: BaseException) -> NoReturn:
    raise WeightsError(f"{path}: not a whole file of torch.save ({first_line(error)}); get the file again") from None


def _storage(pid: Any) -> Storage | Foreign:
    """A storage from its persistent id ("storage", class, key, device, elements); the older format appends a view.

    The older format also writes the classes of modules so, with their source text: ("module", class, file, text).
    """
    if type(pid) is tuple and pid[:1] == ("module",) and isinstance(pid[1], Foreign):
        return pid[1]
    kind, storage_class, key, _, elements, *view = pid
    name = storage_class.name if isinstance(storage_class, Name | Foreign) else ""
    if kind != "storage" or name not in STORAGES or any(part is not None for part in view):
        raise ValueError(f"a storage of {short_repr(name or kind)}")
    if not isinstance(key, str) or type(elements) is not int or elements < 0:
        raise ValueError(f"storage {short_repr(key)} of {short_repr(elements)} elements")
    return Storage(key, STORAGES[name], elements)


def _elements(content: mmap, start: int, end: int, storage: Storage) -> Tensor:
    """All elements of a storage, (elements,): memory-mapped if aligned to their size, else a copy."""
    if end - start != storage.nbytes:
        raise ValueError(f"storage {storage.key} should have {storage.nbytes} bytes, found {end - start}")
    if storage.nbytes == 0:
        return torch.empty(0, dtype=storage.dtype)
    if start % storage.dtype.itemsize:
        return torch.frombuffer(bytearray(content[start:end]), dtype=storage.dtype)
    return torch.frombuffer(content, dtype=storage.dtype, count=storage.elements, offset=start)


def _calls(load: Callable[[Storage], Tensor]) -> dict[str, Builder]:
    """The builders of the functions that torch's pickles call; `load` gives the elements of a storage."""
    loaded: dict[Storage, Tensor] = {}

    def view(storage: Any, offset: int, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        if storage not in loaded:
            loaded[storage] = load(storage)
        elements = loaded[storage] if dtype is None else loaded[storage].view(dtype)
        numbers = (offset, *shape, *stride)
        are_numbers = all(type(number) is int and number >= 0 for number in numbers)
        if not are_numbers or len(shape) != len(stride) or len(shape) > MAX_AXES:
            raise ValueError(
                f"a tensor of shape {short_repr(shape)} and stride {short_repr(stride)} from {short_repr(offset)}"
            )
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        count = math.prod(shape)
        # With a stride of 0, a tensor of any size would fit into one element.
        if count > len(elements) or (count > 0 and last >= len(elements)):
            raise ValueError(f"a tensor of shape {short_repr(shape)} in a storage of {len(elements)} elements")
        return elements.as_strided(shape, stride, offset) if count else elements.new_empty(shape)

    def tensor(args: tuple[Any, ...]) -> Tensor:
        if len(args) > 6 and args[6]:
            raise ValueError("a tensor with lazy conjugation or negation")
        return view(*args[:4])

    def tensor_of_dtype(args: tuple[Any, ...]) -> Tensor:
        storage, offset, shape, stride, _, _, dtype, *_ = args
        return view(storage, offset, shape, stride, DTYPES[dtype.name])

    def parameter(args: tuple[Any, ...]) -> Tensor:
        if not isinstance(args[0], Tensor):
            raise ValueError("a parameter without a tensor")
        return args[0]

    def subclass(args: tuple[Any, ...]) -> Tensor:
        """A tensor or parameter with attributes, which are ignored."""
        function, _, arguments, _ = args
        is_tensor = function == Name("torch._utils._rebuild_tensor_v2")
        return tensor(arguments) if is_tensor else parameter(arguments)

    def size(args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not isinstance(args[0], tuple):
            raise ValueError("a size that is not a tuple")
        return args[0]

    def device(args: tuple[Any, ...]) -> str:
        if not all(isinstance(part, str | int) for part in args):
            raise ValueError("a device that is not a name and a number")
        return ":".join(str(part) for part in args)

    return {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor_of_dtype,
        "torch._utils._rebuild_parameter": parameter,
        "torch._utils._rebuild_parameter_with_state": parameter,
        "torch._tensor._rebuild_from_type_v2": subclass,
        "torch._dynamo.eval_frame.OptimizedModule": lambda args: args[0],  # the network in torch.compile(network)
        "torch.Size": size,
        "torch.device": device,
    }
