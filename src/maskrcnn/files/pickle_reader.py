"""Reads the value of a pickle without running any code in it."""

from __future__ import annotations

import io
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_calls import Dialect, ElementType, Foreign, Name, RefusedError, is_left_out
from maskrcnn.files.pickle_machine import CALL_PRICE, MAX_NAME, OPCODE_PRICE, Machine, Purse
from maskrcnn.files.pickle_modules import PARTS, Module, attributes_of, is_module

MAX_DEPTH = 100

# The errors on bytes that are a damaged pickle or none.
DAMAGES = (ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError, MemoryError)
_DROPPED = object()
NO_DIALECT = Dialect()
_INSTEAD = "where its packages are installed, save only the weights: torch.save(model.state_dict(), 'weights.pth')"


class Unpickled(NamedTuple):
    """What one pickle held.

    Attributes:
        content: dict, list, tuple, str, bytes, numbers, None and arrays of numbers. An OrderedDict becomes a dict, a
            set or an array of strings a list, a numpy scalar a number, a name that is not called a str, and a module
            of torch a `Module`.
        dropped: the names of the other classes and functions that were left out with their objects, each once.
        end: the offset in the data after the pickle.
    """

    content: Any
    dropped: tuple[str, ...]
    end: int


def first_line(error: BaseException) -> str:
    """The first line of an error's message, cut to 200 characters, or else the name of its class."""
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def unpickle(
    data: bytes | mmap, source: str, *, start: int = 0, dialect: Dialect = NO_DIALECT, instead: str = _INSTEAD
) -> Unpickled:
    """Reads one pickle of any protocol, from Python 2 (its strings as Latin-1) or 3, and from numpy 1 or 2.

    Args:
        source: the name of the file, for messages.
        start: the offset of the pickle in `data`.
        instead: what to do with a file that is refused.

    Raises:
        WeightsError: the pickle is truncated or damaged, asks for a name that is not allowed, or needs more memory
            than a file of its size justifies.
    """
    file = io.BytesIO(data) if isinstance(data, bytes) else data
    file.seek(start)
    try:
        machine = Machine(file, Purse(len(data)), dialect)
        content = machine.run()
        finish = _Finish(Purse(len(data)), machine.dropped)
        content = finish.value(content)
        return Unpickled(None if content is _DROPPED else content, tuple(finish.dropped), file.tell())
    except RefusedError as refusal:
        raise WeightsError(
            f"{source}: refused, because it asks for {refusal}, which is neither an array nor plain data; no code in "
            f"it was run; {instead}"
        ) from None
    except DAMAGES as error:
        raise WeightsError(
            f"{source}: the pickle in it cannot be read ({first_line(error)}); the file may be truncated or of another "
            "kind"
        ) from None


class _Finish:
    """Removes objects of unknown classes in place, and converts the values of the interpreter to plain ones.

    A value is visited as often as it occurs, and every visit pays, for a text by its length. This stops values that
    contain themselves, and those that would be endless when they are written out, because they repeat their parts.
    """

    def __init__(self, purse: Purse, dropped: dict[str, None]) -> None:
        self.purse = purse
        self.dropped = dropped  # in order, once each
        self.around: list[Foreign] = []  # the objects around a value, the outermost first

    def value(self, value: Any, depth: int = 0) -> Any:
        self.purse.pay(OPCODE_PRICE + (len(value) if isinstance(value, str | bytes) else 0))
        if depth > MAX_DEPTH:
            raise ValueError(f"values are nested deeper than {MAX_DEPTH}, or in themselves")
        if is_left_out(value):
            return self.foreign(value, depth)
        if isinstance(value, list):
            value[:] = self._kept(value, depth)
        elif isinstance(value, tuple):
            return tuple(self._kept(value, depth))
        elif isinstance(value, dict):
            kept = self._kept_items(value, depth)
            value.update(kept)
            for key in value.keys() - kept.keys():
                del value[key]
        elif isinstance(value, Name):
            return value.name
        elif isinstance(value, ElementType):
            return value.dtype.str
        elif isinstance(value, np.ndarray) and value.dtype.kind == "O":
            return self.value(value.tolist(), depth)
        elif isinstance(value, np.ndarray) and value.dtype.kind == "V":
            raise ValueError("an array without its data")
        elif isinstance(value, np.ndarray) and value.dtype.kind in "SU":
            self.purse.pay(OPCODE_PRICE * value.size)
            return value.tolist()  # the rest of the package expects arrays of numbers only
        return value

    def foreign(self, value: Foreign, depth: int) -> Any:
        """A module as a `Module`. Inside of one, the attributes of another object. Otherwise nothing."""
        if value in self.around:  # a part that knows the whole, such as a trainer
            return _DROPPED
        if not self.around and not is_module(value):
            self.dropped[value.name] = None
            return _DROPPED
        self.purse.pay(CALL_PRICE)
        attributes = attributes_of(value)
        self.around.append(value)
        plain = self._kept_items({name: item for name, item in attributes.items() if name not in PARTS}, depth)
        found = self._module(value, plain, depth) if is_module(value) else plain or value.name
        self.around.pop()
        return found

    def _module(self, value: Foreign, plain: dict[str, Any], depth: int) -> Module:
        parameters, buffers, modules = (self._kept_items(value.state[part], depth) for part in PARTS)
        if not all(isinstance(name, str) and len(name) <= MAX_NAME for name in (*parameters, *buffers, *modules)):
            raise ValueError(f"a part of a {value.name} whose name is not a text of at most {MAX_NAME} characters")
        passing = plain.pop("_non_persistent_buffers_set", [])
        passing = {name for name in passing if isinstance(name, str)} if isinstance(passing, list) else ()
        tensors = parameters | {name: item for name, item in buffers.items() if name not in passing}
        self.purse.pay(len(tensors) * MAX_NAME * (1 + len(self.around)))  # the names in the `state_dict()`
        return Module(
            value.name,
            {name: item for name, item in tensors.items() if item is not None},
            plain,
            {name: module for name, module in modules.items() if isinstance(module, Module)},
        )

    def _kept(self, items: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        values = [self.value(item, depth + 1) for item in items]
        return [value for value in values if value is not _DROPPED]

    def _kept_items(self, items: dict[Any, Any], depth: int) -> dict[Any, Any]:
        self.purse.pay(OPCODE_PRICE * len(items))
        values = zip(list(items), [self.value(item, depth + 1) for item in items.values()], strict=True)
        return {key: item for key, item in values if item is not _DROPPED}
