"""One pickle to the value that it holds, without running anything that is in it."""

from __future__ import annotations

import io
from mmap import mmap
from typing import Any, NamedTuple

import numpy as np

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_calls import Dialect, ElementType, Name, RefusedError, is_left_out
from maskrcnn.files.pickle_machine import OPCODE_PRICE, Machine, Purse

MAX_DEPTH = 100

# What goes wrong on bytes that are no pickle, or a broken one.
DAMAGES = (ValueError, EOFError, LookupError, TypeError, AttributeError, OverflowError, RuntimeError, MemoryError)
_DROPPED = object()
NO_DIALECT = Dialect()


class Unpickled(NamedTuple):
    """What one pickle held.

    Attributes:
        content: dict, list, tuple, str, bytes, numbers, None and arrays of numbers. An OrderedDict is a dict, a set a
            list, a scalar of numpy a number, an array of texts a list, a name that stands by itself its text.
        dropped: the names of the classes whose objects were left out, each once.
        end: where in the data the pickle ended.
    """

    content: Any
    dropped: tuple[str, ...]
    end: int


def unpickle(data: bytes | mmap, source: str, *, start: int = 0, dialect: Dialect = NO_DIALECT) -> Unpickled:
    """Reads one pickle: all protocols, files of Python 2 (their texts as Latin-1), modules of numpy 1 and 2.

    Args:
        source: the file that it comes from, for messages.
        start: where in `data` the pickle begins.

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
            f"{source}: refused, because it asks for {refusal}, which is neither an array nor plain data; nothing of "
            "it was run; where its code is installed, save the weights alone: "
            "torch.save(model.state_dict(), 'weights.pth')"
        ) from None
    except DAMAGES as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise WeightsError(
            f"{source}: the pickle in it cannot be read ({reason}); the file may be truncated or of another kind"
        ) from None


class _Finish:
    """Removes what is left out, in place. Visits a value as often as it occurs, and pays for each visit: values that
    contain themselves, or hold one list many times which holds another many times, end here."""

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
            return value.tolist()  # the rest of the package knows arrays of numbers only
        return value

    def _kept(self, items: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        values = [self.value(item, depth + 1) for item in items]
        return [value for value in values if value is not _DROPPED]
