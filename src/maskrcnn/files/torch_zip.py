"""Files of `torch.save`, zip archives and the format before them, read without running anything that is in them.

`torch.load(weights_only=True)` refuses a whole training file for one harmless class in its settings or logs, as
MMEngine's are; here such classes are left out (`pickled_values.HARMLESS`), with one reader for all pickles.
"""

from __future__ import annotations

import math
import mmap
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_scan import DAMAGES, build, read_calls, unpickle
from maskrcnn.files.pickle_values import Builder, Global

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
NAMES = frozenset({*STORAGES, *DTYPES, "torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"})

# How a file of torch < 1.6 begins: the pickle of a number.
LEGACY_MAGIC = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\x2e"
_LOCAL_HEADER = 30  # bytes before the name in front of each file of a zip archive
_MAX_PICKLE = 1 << 28  # bytes; the pickle of a zip archive holds names and shapes only


@dataclass(frozen=True)
class Storage:
    """What a pickle says about one storage: its key, the type and number of elements."""

    key: str
    dtype: torch.dtype
    elements: int


def read_torch(path: Path | str) -> tuple[Any, tuple[str, ...]]:
    """What `torch.save` wrote: tensors on the CPU, numbers, strings, dict, list.

    Tensors of a zip archive lie in the file until they are read (a private memory map: writing to them changes
    nothing on the disk). Parameters become plain tensors.

    Returns:
        The content, and the names of classes that were left out as harmless.

    Raises:
        WeightsError: the file is truncated, of another kind, or holds more than tensors and plain data.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            is_legacy = file.read(len(LEGACY_MAGIC)) == LEGACY_MAGIC
        return _read_legacy(path) if is_legacy else _read_zip(path)
    except (OSError, zipfile.BadZipFile) as error:
        _broken(path, error)


def _read_zip(path: Path) -> tuple[Any, tuple[str, ...]]:
    entries = zip_entries(path)
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise WeightsError(f"{path}: expected a zip archive of torch.save with one data.pkl, found {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def region(name: str) -> tuple[int, int]:
        """Where a file of the archive lies: zip's own header before it may be longer than the one in the index."""
        entry = entries[name]
        header = content[entry.header_offset : entry.header_offset + _LOCAL_HEADER]
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        start = entry.header_offset + _LOCAL_HEADER + lengths
        if header[:4] != b"PK\x03\x04" or start + entry.file_size > len(content):
            raise ValueError(f"{name} lies outside of the archive")
        return start, entry.file_size

    def load(storage: Storage) -> Tensor:
        start, size = region(f"{folder}data/{storage.key}")
        return _elements(content, start, size, storage)

    try:
        start, size = region(pickles[0])
        if size > _MAX_PICKLE:
            raise ValueError(f"data.pkl has {size} bytes, expected names and shapes only")
        order = f"{folder}byteorder"
        if order in entries and content[slice(*_ends(region(order)))] != b"little":
            raise ValueError("it was written on a big-endian machine")
    except ValueError as error:
        _broken(path, error)
    return unpickle(
        content[start : start + size], str(path), builders=_builders(load), names=NAMES, persistent_load=_storage
    )


def _read_legacy(path: Path) -> tuple[Any, tuple[str, ...]]:
    """Five pickles (a number, the version, the machine, the content, the keys of storages), then the storages."""
    data = path.read_bytes()
    where: dict[str, int] = {}

    def load(storage: Storage) -> Tensor:
        start = where[storage.key]
        return _elements(bytearray(data[start : start + _bytes(storage)]), 0, _bytes(storage), storage)

    builders = _builders(load)
    sizes: dict[str, int] = {}

    def note(pid: Any) -> Storage:
        storage = _storage(pid)
        sizes[storage.key] = _bytes(storage)
        return storage

    _, position = read_calls(data, str(path))
    _, position = read_calls(data, str(path), start=position)
    machine, position = read_calls(data, str(path), start=position)
    tree, position = read_calls(data, str(path), start=position, builders=builders, names=NAMES, persistent_load=note)
    keys, position = read_calls(data, str(path), start=position)
    try:
        if not machine["little_endian"]:
            raise ValueError("it was written on a big-endian machine")
        for key in keys:
            where[key] = position + 8  # after the number of elements
            position += 8 + sizes[key]
        if position > len(data):
            raise ValueError("it ends early")
    except DAMAGES as error:
        _broken(path, error)
    return build(tree, str(path), budget=2 * len(data), builders=builders)


def zip_entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    """The files of a zip archive that is not compressed, as torch.save writes it, by name.

    Raises:
        zipfile.BadZipFile: truncated or damaged.
        WeightsError: an entry is compressed, or claims more bytes than the archive has.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size = path.stat().st_size
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


def _ends(region: tuple[int, int]) -> tuple[int, int]:
    return region[0], region[0] + region[1]


def _bytes(storage: Storage) -> int:
    return storage.elements * storage.dtype.itemsize


def _storage(pid: Any) -> Storage:
    """A storage from its persistent id: ("storage", class, key, device, elements), and a view in the older format."""
    kind, storage_class, key, _, elements, *view = pid
    name = getattr(storage_class, "name", None)
    if kind != "storage" or name not in STORAGES or any(part is not None for part in view):
        raise ValueError(f"a storage of {name or kind!r}")
    if not isinstance(key, str) or type(elements) is not int or elements < 0:
        raise ValueError(f"storage {key!r} of {elements!r} elements")
    return Storage(key, STORAGES[name], elements)


def _elements(buffer: mmap.mmap | bytearray, start: int, size: int, storage: Storage) -> Tensor:
    """All elements of a storage, (elements,), over the buffer where it is aligned."""
    if size != _bytes(storage):
        raise ValueError(f"storage {storage.key} should have {_bytes(storage)} bytes, found {size}")
    if size == 0:
        return torch.empty(0, dtype=storage.dtype)
    if start % storage.dtype.itemsize:
        buffer, start = bytearray(buffer[start : start + size]), 0
    return torch.frombuffer(buffer, dtype=storage.dtype, count=storage.elements, offset=start)


def _builders(load: Callable[[Storage], Tensor]) -> dict[str, Builder]:
    """What makes the values of the calls in a pickle of torch, with the storages that `load` finds."""
    loaded: dict[Storage, Tensor] = {}

    def view(storage: Any, offset: int, shape: Any, stride: Any, dtype: torch.dtype | None = None) -> Tensor:
        if not isinstance(storage, Storage):
            raise ValueError("a tensor without a storage")
        if storage not in loaded:
            loaded[storage] = load(storage)
        elements = loaded[storage] if dtype is None else loaded[storage].view(dtype)
        numbers = (offset, *shape, *stride)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(stride):
            raise ValueError(f"a tensor of shape {shape!r} and stride {stride!r} from {offset!r}")
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        count = math.prod(shape)
        # A stride of 0 could make a tensor of any size out of one number.
        if count > len(elements) or (count > 0 and last >= len(elements)):
            raise ValueError(f"a tensor of shape {shape} in a storage of {len(elements)} elements")
        return elements.as_strided(shape, stride, offset) if count else elements.new_empty(shape)

    def tensor(args: tuple[Any, ...], state: Any) -> Tensor:
        if len(args) > 6 and args[6]:
            raise ValueError("a tensor with lazy conjugation or negation")
        return view(*args[:4])

    def tensor_of_dtype(args: tuple[Any, ...], state: Any) -> Tensor:
        storage, offset, shape, stride, _, _, dtype, *_ = args
        return view(storage, offset, shape, stride, DTYPES[dtype.name])

    def parameter(args: tuple[Any, ...], state: Any) -> Tensor:
        if not isinstance(args[0], Tensor):
            raise ValueError("a parameter without a tensor")
        return args[0]

    def subclass(args: tuple[Any, ...], state: Any) -> Tensor:
        """A tensor or parameter that carried attributes."""
        function, _, arguments, _ = args
        is_tensor = function == Global("torch._utils._rebuild_tensor_v2")
        return tensor(arguments, None) if is_tensor else parameter(arguments, None)

    def size(args: tuple[Any, ...], state: Any) -> tuple[Any, ...]:
        if not isinstance(args[0], list | tuple):
            raise ValueError("a size of something else than a list")
        return tuple(args[0])

    return {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": tensor_of_dtype,
        "torch._utils._rebuild_parameter": parameter,
        "torch._utils._rebuild_parameter_with_state": parameter,
        "torch._tensor._rebuild_from_type_v2": subclass,
        "torch.Size": size,
        "torch.device": lambda args, state: ":".join(str(part) for part in args),
    }
