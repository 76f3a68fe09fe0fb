"""Files of `torch.save`, zip archives and the format before them, read without running anything that is in them.

`torch.load(weights_only=True)` refuses a whole training file for one harmless class in its settings or logs, as
MMEngine's are; here objects of such classes are left out (`pickle_calls.HARMLESS`).
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from mmap import ACCESS_COPY, mmap
from pathlib import Path
from reprlib import repr as short_repr  # values of a file may be long, and nested without end
from typing import Any, BinaryIO, NoReturn

import torch
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_calls import Builder, Dialect, Name
from maskrcnn.files.pickle_reader import DAMAGES, unpickle

# torch's classes of storages and the elements that they hold; UntypedStorage counts bytes.
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
# Types without a class of storage of their own.
NEWER_DTYPES = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz")
DTYPES = {str(dtype): dtype for dtype in [*STORAGES.values(), *(getattr(torch, name) for name in NEWER_DTYPES)]}
TORCH_NAMES = frozenset(
    {*STORAGES, *DTYPES, "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
)

# How a file of torch < 1.6 begins: the pickle of a number.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
MAX_AXES = 64  # as numpy has it
_LOCAL_HEADER = 30  # bytes before the name in front of each file of a zip archive
_MAX_PICKLE = 1 << 28  # bytes; the pickle of a zip archive holds names and shapes only


@dataclass(frozen=True)
class Storage:
    """What a pickle says about one storage: its key, the type and number of elements."""

    key: str
    dtype: torch.dtype
    elements: int

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.itemsize


def read_torch(path: Path | str) -> tuple[Any, tuple[str, ...]]:
    """What `torch.save` wrote: tensors on the CPU, numbers, strings, dict, list.

    Tensors lie in the file until they are read (a private memory map: writing to them changes nothing on the disk).
    Parameters become plain tensors.

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
    """As `read_torch`, from a file that is open already."""
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
        """Where a file of the archive starts and ends: zip's own header before it may be longer than in the index."""
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
        raise ValueError(f"data.pkl has {end - start} bytes, expected names and shapes only")
    order = f"{folder}byteorder"
    if order in entries and content[slice(*region(order))] != b"little":
        raise ValueError("it was written on a big-endian machine")
    found = unpickle(content[start:end], str(path), dialect=Dialect(_calls(load), TORCH_NAMES, _storage))
    return found.content, found.dropped


def _read_legacy(path: Path, content: mmap) -> tuple[Any, tuple[str, ...]]:
    """Five pickles (a number, the version, the machine, the content, the keys of storages), then the storages.

    The content is read twice: the storages that it names tell how long each is, and so where each of them lies.
    """
    sizes: dict[str, int] = {}
    starts: dict[str, int] = {}

    def note(pid: Any) -> Storage:
        storage = _storage(pid)
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
            starts[key] = position + 8  # after the number of elements
            position += 8 + sizes[key]
        if position > len(content):
            raise ValueError("it ends early")
    except DAMAGES as error:
        _broken(path, error)
    found = unpickle(content, str(path), start=machine.end, dialect=Dialect(calls, TORCH_NAMES, _storage))
    return found.content, found.dropped


def _entries(path: Path, file: BinaryIO, size: int) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip archive that is not compressed, as torch.save writes it, by name."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:  # the bit of encryption
            raise WeightsError(
                f"{path}: {entry.filename} is compressed or encrypted, which torch.save never does; "
                "read the file with torch where you trust it, and save it again"
            )
    if sum(entry.file_size for entry in entries) > size:
        raise WeightsError(f"{path}: the files in it claim more bytes than the {size} it has; get the file again")
    return {entry.filename: entry for entry in entries}


def _broken(path: Path, error: BaseException) -> NoReturn:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    raise WeightsError(f"{path}: not a whole file of torch.save ({reason}); get the file again") from None


def _storage(pid: Any) -> Storage:
    """A storage from its persistent id: ("storage", class, key, device, elements), and a view in the older format."""
    kind, storage_class, key, _, elements, *view = pid
    name = storage_class.name if isinstance(storage_class, Name) else ""
    if kind != "storage" or name not in STORAGES or any(part is not None for part in view):
        raise ValueError(f"a storage of {short_repr(name or kind)}")
    if not isinstance(key, str) or type(elements) is not int or elements < 0:
        raise ValueError(f"storage {short_repr(key)} of {short_repr(elements)} elements")
    return Storage(key, STORAGES[name], elements)


def _elements(content: mmap, start: int, end: int, storage: Storage) -> Tensor:
    """All elements of a storage, (elements,), over the file where they are aligned."""
    if end - start != storage.nbytes:
        raise ValueError(f"storage {storage.key} should have {storage.nbytes} bytes, found {end - start}")
    if storage.nbytes == 0:
        return torch.empty(0, dtype=storage.dtype)
    if start % storage.dtype.itemsize:
        return torch.frombuffer(bytearray(content[start:end]), dtype=storage.dtype)
    return torch.frombuffer(content, dtype=storage.dtype, count=storage.elements, offset=start)


def _calls(load: Callable[[Storage], Tensor]) -> dict[str, Builder]:
    """The functions that torch's pickles call; `load` finds the elements of a storage."""
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
        # A stride of 0 could make a tensor of any size out of one number.
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
        """A tensor or parameter that carried attributes."""
        function, _, arguments, _ = args
        is_tensor = function == Name("torch._utils._rebuild_tensor_v2")
        return tensor(arguments) if is_tensor else parameter(arguments)

    def size(args: tuple[Any, ...]) -> tuple[Any, ...]:
        if not isinstance(args[0], tuple):
            raise ValueError("a size of something else than a tuple")
        return args[0]

    def device(args: tuple[Any, ...]) -> str:
        if not all(isinstance(part, str | int) for part in args):
            raise ValueError("a device of something else than its name and number")
        return ":".join(str(part) for part in args)

    return {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor_of_dtype,
        "torch._utils._rebuild_parameter": parameter,
        "torch._utils._rebuild_parameter_with_state": parameter,
        "torch._tensor._rebuild_from_type_v2": subclass,
        "torch.Size": size,
        "torch.device": device,
    }
