"""The names that a pickle may use for arrays and plain Python values, and what stands for all other names.

The functions of this module replace those that a pickle names. Each checks its arguments, which come from the file, and
builds the value. An exception of `pickle_reader.DAMAGES` means that the file is damaged. A name without such a function
becomes a `Foreign`, which is never looked up or called.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from reprlib import repr as short_repr  # a value of the file may be long or endlessly nested
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Builder = Callable[[tuple[Any, ...]], Any]  # builds the value of a call from its arguments


class RefusedError(Exception):
    """The file asks for something that is neither an array nor plain data; the message names it."""


@dataclass(frozen=True)
class Name:
    """A class, function or constant that the pickle names and this package knows, such as `torch.float32`."""

    name: str


class Foreign:
    """Stands for a class or function that this package does not know, and for each object of such a class.

    Attributes:
        name: the name of the class or function.
        state: the state that the pickle gives to the object, which mostly is a dictionary of its attributes.
    """

    __slots__ = ("name", "state")

    def __init__(self, name: str) -> None:
        self.name = name
        self.state: Any = None


@dataclass(frozen=True)
class Dialect:
    """What a pickle may hold besides arrays and plain values.

    Attributes:
        calls: name of a function -> the builder that replaces it.
        names: names that may occur without being called.
        persistent_load: gives the value of a persistent id; None refuses pickles with persistent ids.
    """

    calls: Mapping[str, Builder] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    persistent_load: Callable[[Any], Any] | None = None


# Calls that make a dictionary, from pairs in their arguments or from items that are set afterwards.
DICTIONARIES = frozenset({"builtins.dict", "collections.OrderedDict", "collections.defaultdict", "collections.Counter"})

# Names that occur as arguments, without being called.
LONE_NAMES = frozenset({"numpy.ndarray", "builtins.list", "builtins.int", "builtins.float", "builtins.object"})

# Modules that run code, or read and write files. No training needs their names, so a file that has one is refused.
RUN_CODE = frozenset(
    {
        *("_codecs", "_io", "_operator", "_pickle", "asyncio", "bdb", "cProfile", "code", "codecs", "codeop", "ctypes"),
        *("ensurepip", "imp", "importlib", "io", "marshal", "multiprocessing", "nt", "operator", "os", "pdb", "pickle"),
        *("pip", "posix", "profile", "pty", "pydoc", "runpy", "shelve", "shutil", "signal", "socket", "sqlite3"),
        *("subprocess", "sys", "tempfile", "timeit", "trace", "venv", "webbrowser"),
    }
)
# Functions of Python itself that do the same.
RUN_CODE_BUILTINS = frozenset(
    {
        *("__import__", "breakpoint", "compile", "delattr", "eval", "exec", "globals", "input", "locals", "open"),
        *("setattr", "vars"),
    }
)
# Calls by which pickle writes objects and methods of a class; allowed only for a `Foreign`.
OF_A_CLASS = frozenset({"builtins.getattr", "copyreg._reconstructor", "copyreg.__newobj__"})


def runs_code(module: str, name: str) -> bool:
    """Whether a file with this name is refused, although nothing in it is run."""
    return module.partition(".")[0] in RUN_CODE or (module == "builtins" and name in RUN_CODE_BUILTINS)


def is_left_out(value: Any) -> TypeGuard[Foreign]:
    """Whether a value is a class that this package does not know, or an object of one."""
    return isinstance(value, Foreign)


_NUMBER = r"b1|[iu][1248]|f[248]|c8|c16"
_DTYPE = re.compile(rf"[<>|=]?({_NUMBER}|[SU][1-9]\d{{0,5}})")


class ElementType:
    """A numpy dtype. Pickle creates it first, and sets its byte order afterwards."""

    def __init__(self, spec: Any) -> None:
        if not isinstance(spec, str):
            raise ValueError(f"a dtype given as {short_repr(spec)}")
        if spec.lstrip("<>|=").startswith("O"):
            raise RefusedError("an array of Python objects")
        if not _DTYPE.fullmatch(spec):
            raise ValueError(f"arrays of {spec[:20]!r} are not supported")
        self.dtype = np.dtype(spec)

    def set_order(self, state: Any) -> None:
        """
        Args:
            state: version, byte order, subtype, field names, fields, ...
        """
        if len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise ValueError("arrays of records are not supported")
        self.dtype = self.dtype.newbyteorder(state[1])


class ObjectType(ElementType):
    """The dtype of arrays of Python objects, for a `Dialect` that allows them. Their items are values of the file."""

    def __init__(self) -> None:
        self.dtype = np.dtype(object)


def element_type_or_objects(args: tuple[Any, ...]) -> ElementType:
    """Replaces `numpy.dtype` in a `Dialect` that allows arrays of Python objects."""
    return ObjectType() if args[0] in ("O", "O8", "|O") else ElementType(args[0])


def fill_array(array: Any, state: Any) -> int:
    """Fills an empty array with its content, which pickle sets after creating it; returns its size in bytes.

    numpy copies the data only for few or byte-swapped elements.

    Args:
        state: version, shape, `ElementType`, whether the order is Fortran's, and the data: bytes, or a Latin-1 string
            from Python 2, or a list for `ObjectType`.

    Raises:
        ValueError: the state is malformed, or the size of the data does not match the shape.
    """
    _, shape, element_type, fortran, data = state
    data = data.encode("latin1") if isinstance(data, str) else data
    kind = list if isinstance(element_type, ObjectType) else bytes
    if array.size or not isinstance(element_type, ElementType) or not isinstance(data, kind):
        raise ValueError("an array without its data")
    if type(shape) is not tuple or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        raise ValueError(f"an array of shape {short_repr(shape)}")
    dtype = element_type.dtype
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data) * (dtype.itemsize if kind is list else 1):
        raise ValueError(
            f"an array of shape {short_repr(shape)} and type {dtype} needs {needed} bytes, found {len(data)}"
        )
    text = np.frombuffer(data, f"{dtype.str[0]}u4") if isinstance(data, bytes) and dtype.kind == "U" else np.zeros(0)
    if (text > sys.maxunicode).any():
        raise ValueError("an array of strings with invalid characters")
    array.__setstate__((1, shape, dtype, bool(fortran), data))  # uses the bytes without a copy
    return needed


def array_of(data: Any, element_type: Any, shape: Any, fortran: bool) -> NDArray[Any]:
    """A new array; see `fill_array`."""
    array: NDArray[Any] = np.empty(0)
    fill_array(array, (1, shape, element_type, fortran, bytes(data) if isinstance(data, bytearray) else data))
    return array


def _empty_array(args: tuple[Any, ...]) -> NDArray[Any]:
    if args[0] != Name("numpy.ndarray"):
        raise ValueError(f"an array of class {short_repr(args[0])}")
    return np.empty(0, "V1")  # until `fill_array` gives it another type


def _frombuffer(args: tuple[Any, ...]) -> NDArray[Any]:
    data, dtype, shape, order, *axes = args
    array = array_of(data, dtype, shape, order == "F")
    return array.transpose(axes[0]) if order == "K" else array


def _scalar(args: tuple[Any, ...]) -> Any:
    dtype, data = args
    return array_of(data, dtype, (), False).item()


def _encode(args: tuple[Any, ...]) -> bytes:
    text, encoding = args
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"_codecs.encode to {short_repr(encoding)}")
    return text.encode("latin1")


def _bytes(args: tuple[Any, ...]) -> bytes:
    if args not in ((), (b"",)):
        raise ValueError("a call of bytes with content")
    return b""


def _bytearray(args: tuple[Any, ...]) -> bytearray:
    if not args:
        return bytearray()
    return bytearray(args[0] if isinstance(args[0], bytes) else _encode(args))


def _complex(args: tuple[Any, ...]) -> complex:
    real, imaginary = args
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise ValueError("a complex number whose parts are not numbers")
    return complex(real, imaginary)


def _set(args: tuple[Any, ...]) -> list[Any]:
    (items,) = args or ([],)
    if not isinstance(items, list):
        raise ValueError("a set whose items are not in a list")
    return items


# The names of Python 3 and numpy 1; `pickle_machine.py` translates those of Python 2 and numpy 2.
CALLS: dict[str, Builder] = {
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.frozenset": _set,
    "builtins.set": _set,
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": lambda args: ElementType(args[0]),
}
