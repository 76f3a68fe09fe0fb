"""Reads the value of a pickle without running any code in it."""

from __future__ import annotations

import io
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_calls import Dialect, ElementType, Name, RefusedError, is_left_out
from maskrcnn.files.pickle_machine import OPCODE_PRICE, Machine, Purse

MAX_DEPTH = 100

# The errors on bytes that are a damaged pickle or none.
DAMAGES = (ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError, MemoryError)
_DROPPED = object()
NO_DIALECT = Dialect()


class Unpickled(NamedTuple):
    """What one pickle held.

    Attributes:
        content: dict, list, tuple, str, bytes, numbers, None and arrays of numbers. An OrderedDict becomes a dict, a
            set or an array of strings a list, a numpy scalar a number, and a name that is not called a str.
        dropped: the names of the classes whose objects were left out, each once.
        end: the offset in the data after the pickle.
    """

    content: Any
    dropped: tuple[str, ...]
    end: int


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to 200 characters, or else the name of its class."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def unpickle(data: bytes | mmap, source: str, *, start: int = 0, dialect: Dialect = NO_DIALECT) -> Unpickled:
    """Reads one pickle of any protocol, from Python 2 (its strings as Latin-1) or 3, and from numpy 1 or 2.

    Args:
        source: the name of the file, for messages.
        start: the offset of the pickle in `data`.

    Raises:
        WeightsError: the pickle is truncated or damaged, asks for a name that is not allowed, or needs more memory
            than a file of its size justifies.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    file.seek(start)
    try:
        content = Machine(file, Purse(len(data)), dialect).run()
        finish = _Finish(Purse(len(data)))
        content = finish.value(content)
        return Unpickled(None if content is _DROPPED else content, tuple(finish.dropped), file.tell())
    except RefusedError as refusal:
        raise WeightsError(
            f"{source}: refused, because it asks for {refusal}, which is neither an array nor plain data; no code in "
            "it was run; where its packages are installed, save only the weights: "
            "torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    except DAMAGES as error:
        raise WeightsError(
            f"{source}: the pickle in it cannot be read ({first_line(error)}); the file may be truncated or of another "
            "kind"
        ) from None


class _Finish:
    """Removes harmless objects in place, and converts the values of the interpreter to plain ones.

    A value is visited as often as it occurs, and every visit pays. This stops values that contain themselves, and lists
    that expand exponentially through repeated references.
    """

    def __init__(self, purse: Purse) -> None:
        self.purse = purse
        self.dropped: dict[str, None] = {}  # in order, once each

    def value(self, value: Any, depth: int = 0) -> Any:
        self.purse.pay(OPCODE_PRICE)
        if depth > MAX_DEPTH:
            raise ValueError(f"values are nested deeper than {MAX_DEPTH}, or in themselves")
        if is_left_out(value):
            self.dropped[value.name] = None
            return _DROPPED
        if isinstance(value, list):
            value[:] = self._kept(value, depth)
        elif isinstance(value, tuple):
            return tuple(self._kept(value, depth))
        elif isinstance(value, dict):
            items = zip(list(value), [self.value(item, depth + 1) for item in value.values()], strict=True)
            value.update(kept := {key: item for key, item in items if item is not _DROPPED})
            for key in value.keys() - kept.keys():
                del value[key]
        elif isinstance(value, Name):
            return value.name
        elif isinstance(value, ElementType):
            return value.dtype.str
        elif isinstance(value, np.ndarray) and value.dtype.kind == "V":
            raise ValueError("an array without its data")
        elif isinstance(value, np.ndarray) and value.dtype.kind in "SU":
            self.purse.pay(OPCODE_PRICE * value.size)
            return value.tolist()  # the rest of the package expects arrays of numbers only
        return value

    def _kept(self, items: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        values = [self.value(item, depth + 1) for item in items]
        return [value for value in values if value is not _DROPPED]
