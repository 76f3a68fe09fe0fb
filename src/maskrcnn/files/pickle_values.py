"""What the names in a pickle may stand for: arrays, plain Python values, and classes that are left out.

A pickle is a list of calls of functions that it names. Ours are read without calling what is named: each call is
first only written down (`pickle_scan.py`), and then a function of this file, chosen by the name, makes the value from
arguments that it has checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class RefusedError(Exception):
    """The file asks for something that is neither an array nor plain data; the text says for what."""


@dataclass(frozen=True)
class Global:
    """The name of a class or of a constant that stands by itself, such as `torch.float32`: only its name."""

    name: str


# Makes the value of one call from its arguments and from the state that was set afterwards, None without one.
Builder = Callable[[tuple[Any, ...], Any], Any]

# Calls that make a dictionary: arguments that are pairs, and items that are set afterwards.
DICTIONARIES = frozenset({"builtins.dict", "collections.OrderedDict", "collections.defaultdict", "collections.Counter"})

# Names that occur by themselves, as an argument.
NAMES = frozenset({"numpy.ndarray", "builtins.list", "builtins.int", "builtins.float", "builtins.object"})

# Classes in the training files of the frameworks that hold nothing we need: settings, histories, dates and paths.
# They are left out with all that is in them; what Detectron2 and MMEngine keep as text or plain dictionaries stays.
HARMLESS = frozenset(
    {
        "addict.addict.Dict",
        "argparse.Namespace",
        "collections.deque",
        "core.config.AttrDict",
        "datetime.date",
        "datetime.datetime",
        "datetime.timedelta",
        "datetime.timezone",
        "detectron.utils.collections.AttrDict",
        "detectron2.config.config.CfgNode",
        "detectron2.structures.boxes.BoxMode",
        "easydict.EasyDict",
        "fvcore.common.config.CfgNode",
        "mmcv.utils.config.Config",
        "mmcv.utils.config.ConfigDict",
        "mmengine.config.config.Config",
        "mmengine.config.config.ConfigDict",
        "mmengine.config.lazy.LazyAttr",
        "mmengine.config.lazy.LazyObject",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.nodes.AnyNode",
        "pathlib.Path",
        "pathlib.PosixPath",
        "pathlib.PurePosixPath",
        "pathlib.PureWindowsPath",
        "pathlib.WindowsPath",
        "types.SimpleNamespace",
        "typing.Any",
        "utils.collections.AttrDict",
        "yacs.config.CfgNode",
    }
)
# How pickle writes an object, or a method, of a class by a call: allowed for the classes above only.
OF_A_HARMLESS_CLASS = frozenset({"builtins.getattr", "copyreg._reconstructor", "copyreg.__newobj__"})

_NUMBER = r"b1|[iu][1248]|f[248]|c8|c16"
_DTYPE = re.compile(rf"[<>|=]?({_NUMBER}|[SU][1-9]\d{{0,5}})")


def check_dtype(dtype: np.dtype[Any]) -> None:
    """Raises RefusedError for arrays of Python objects, ValueError for records, dates and 16-byte floats."""
    if dtype.hasobject:
        raise RefusedError("an array of Python objects")
    if not _DTYPE.fullmatch(dtype.str):
        raise ValueError(f"arrays of {dtype} are not supported")


def array_of(data: Any, dtype: Any, shape: Any, fortran: bool) -> NDArray[Any]:
    """An array over `data`, copied only where numpy must (few or byte-swapped elements, text of Python 2).

    Args:
        data: bytes, bytearray, or what Python 2 wrote for bytes: text, read as Latin-1.
        dtype, shape: as the file has them, checked here.

    Raises:
        ValueError: the shape is none, or does not need exactly the bytes that are there.
    """
    if isinstance(data, str):
        data = data.encode("latin1")
    if not isinstance(dtype, np.dtype) or not isinstance(data, bytes | bytearray):
        raise ValueError("an array without its data")
    if type(shape) is not tuple or not all(type(n) is int and 0 <= n < 1 << 31 for n in shape):
        raise ValueError(f"an array of shape {shape!r}")
    needed = math.prod(shape) * dtype.itemsize
    if needed != len(data):
        raise ValueError(f"an array of shape {shape} and type {dtype} needs {needed} bytes, found {len(data)}")
    if isinstance(data, bytearray):
        return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
    array: Any = np.empty(0, dtype)
    array.__setstate__((1, shape, dtype, fortran, data))  # numpy's own way to take bytes over without a copy
    return array


def _dtype(args: tuple[Any, ...], state: Any) -> np.dtype[Any]:
    spec = args[0]
    if not isinstance(spec, str):
        raise ValueError(f"a type of elements given as {spec!r}")
    if spec.lstrip("<>|=").startswith("O"):
        raise RefusedError("an array of Python objects")
    if not _DTYPE.fullmatch(spec):
        raise ValueError(f"arrays of {spec[:20]!r} are not supported")
    dtype = np.dtype(spec)
    if state is None:
        return dtype
    # (version, byte order, subtype, field names, fields, ...)
    if len(state) < 5 or state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
        raise ValueError("arrays of records are not supported")
    return dtype.newbyteorder(state[1])


def numbers_or_texts(array: NDArray[Any]) -> Any:
    """An array of texts as a list: the rest of the package knows arrays of numbers only."""
    return array.tolist() if array.dtype.kind in "SU" else array


def _reconstruct(args: tuple[Any, ...], state: Any) -> Any:
    if args[0] != Global("numpy.ndarray"):
        raise ValueError(f"an array of class {args[0]!r}")
    _, shape, dtype, fortran, data = state
    return numbers_or_texts(array_of(data, dtype, shape, bool(fortran)))


def _frombuffer(args: tuple[Any, ...], state: Any) -> Any:
    data, dtype, shape, order, *axes = args
    array = array_of(data, dtype, shape, order == "F")
    return numbers_or_texts(array.transpose(axes[0]) if order == "K" else array)


def _scalar(args: tuple[Any, ...], state: Any) -> Any:
    dtype, data = args
    return array_of(data, dtype, (), False).item()


def _encode(args: tuple[Any, ...], state: Any) -> bytes:
    text, encoding = args
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise RefusedError(f"_codecs.encode to {encoding!r}")
    return text.encode("latin1")


def _bytes(args: tuple[Any, ...], state: Any) -> bytes:
    if args not in ((), (b"",)):
        raise ValueError("bytes of something else than nothing")
    return b""


def _bytearray(args: tuple[Any, ...], state: Any) -> bytearray:
    if not args:
        return bytearray()
    if isinstance(args[0], bytes):
        return bytearray(args[0])
    return bytearray(_encode(args, None))


def _complex(args: tuple[Any, ...], state: Any) -> complex:
    real, imaginary = args
    if not isinstance(real, int | float) or not isinstance(imaginary, int | float):
        raise ValueError("a complex number of something else than numbers")
    return complex(real, imaginary)


def _set(args: tuple[Any, ...], state: Any) -> set[Any]:
    (items,) = args or ([],)
    if not isinstance(items, list | tuple):
        raise ValueError("a set of something else than a list")
    return set(items)


# Names are those of Python 3 and of numpy 1; `pickle_scan.py` translates the others.
BUILDERS: dict[str, Builder] = {
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytearray,
    "builtins.bytes": _bytes,
    "builtins.complex": _complex,
    "builtins.frozenset": lambda args, state: frozenset(_set(args, state)),
    "builtins.set": _set,
    "numpy.core.multiarray._reconstruct": _reconstruct,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _frombuffer,
    "numpy.dtype": _dtype,
}
