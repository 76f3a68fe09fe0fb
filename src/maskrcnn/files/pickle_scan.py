"""Pickles of arrays and plain values, read without running anything that is in them.

A pickle is a program. Three steps keep it from being one here:

1. `_scan` goes over the opcodes: the file is whole, no length exceeds the bytes that are there, none leads outside.
2. `_Unpickler` lets Python's unpickler run on them, but every name of a class or function that it looks up becomes a
   class of our own that only notes with what it was called (`Call`); names that are not on a list end it.
3. `_Tree` goes over the notes and makes arrays and plain values by the functions of `pickled_values.py`.

Python's documentation of `pickle` ("Restricting Globals") asks for the second step alone. The others are there because
numpy's and torch's own functions, once they are called, trust their arguments.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NoReturn, TypeGuard

import numpy as np

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_values import (
    BUILDERS,
    DICTIONARIES,
    HARMLESS,
    NAMES,
    OF_A_HARMLESS_CLASS,
    Builder,
    Global,
    RefusedError,
)

MAX_OPCODES = 10_000_000  # some gigabytes of the smallest objects; training files have some 100,000
MAX_DEPTH = 100
MAX_TUPLE = (
    100_000  # elements of a tuple, those of its tuples included: it may become a key, and a hash visits them all
)

# What goes wrong on bytes that are no pickle, or a broken one.
DAMAGES = (
    pickle.UnpicklingError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,  # of torch, and too deep a recursion
    MemoryError,
)
_DROPPED = object()


class Call:
    """One call that the pickle asks for, noted and not made; each name of a class or function is a subclass."""

    __slots__ = ("args", "items", "state")
    name: ClassVar[str]
    args: tuple[Any, ...]
    state: Any
    items: list[tuple[Any, Any]]

    def __new__(cls, *args: Any, **kwargs: Any) -> Call:
        if cls.name in OF_A_HARMLESS_CLASS and not (args and _is_name(args[0]) and args[0].name in HARMLESS):
            raise RefusedError(cls.name)
        call = object.__new__(cls)
        call.args, call.state, call.items = args, None, []
        return call

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def extend(self, values: list[Any]) -> None:
        """A class that inherits from list; all of those are left out."""


def _is_name(node: Any) -> TypeGuard[type[Call]]:
    """Whether it is a class or function itself, without a call."""
    return isinstance(node, type) and issubclass(node, Call)


def unpickle(
    data: bytes,
    source: str,
    *,
    start: int = 0,
    builders: Mapping[str, Builder] | None = None,
    names: frozenset[str] = frozenset(),
    persistent_load: Callable[[Any], Any] | None = None,
) -> tuple[Any, tuple[str, ...]]:
    """What one pickle holds: dict, list, tuple, set, str, bytes, numbers, None, numpy arrays of numbers.

    All protocols, files of Python 2 (their strings as Latin-1), modules of numpy 1 and 2. An OrderedDict becomes a
    dict, a scalar of numpy a number, an array of texts a list. Nothing that the file names is imported or called.

    Args:
        source: of what file, for messages.
        start: where in `data` the pickle begins.
        builders: names that are allowed beside those of `pickled_values.py`, with what makes their values.
        names: names that may stand by themselves; they become `Global`.
        persistent_load: what to put in the place of a persistent id; without it a pickle with those is refused.

    Returns:
        The content, and the names of classes that were left out as harmless.

    Raises:
        WeightsError: the pickle is truncated or damaged, asks for a name that is not allowed, or for more memory
            than the file justifies.
    """
    tree, _ = read_calls(data, source, start=start, builders=builders, names=names, persistent_load=persistent_load)
    return build(tree, source, budget=2 * len(data), builders=builders)


def read_calls(
    data: bytes,
    source: str,
    *,
    start: int = 0,
    builders: Mapping[str, Builder] | None = None,
    names: frozenset[str] = frozenset(),
    persistent_load: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """The first two steps of `unpickle`: a tree in which calls are only noted, for `build`, and where it ends."""
    allowed = BUILDERS.keys() | (builders or {}).keys() | DICTIONARIES | NAMES | names | HARMLESS | OF_A_HARMLESS_CLASS
    try:
        end = _scan(data, start)
        return _Unpickler(io.BytesIO(data[start:end]), allowed, persistent_load).load(), end
    except RefusedError as refusal:
        _refuse(source, refusal)
    except DAMAGES as error:
        _damaged(source, error)


def build(
    tree: Any, source: str, *, budget: int, builders: Mapping[str, Builder] | None = None
) -> tuple[Any, tuple[str, ...]]:
    """The third step of `unpickle`.

    Args:
        budget: bytes that arrays and bytes made from the notes may take together.
    """
    maker = _Tree(BUILDERS | dict(builders or {}), budget)
    try:
        content = maker.value(tree, 0)
    except RefusedError as refusal:
        _refuse(source, refusal)
    except DAMAGES as error:
        _damaged(source, error)
    return (None if content is _DROPPED else content), tuple(maker.dropped)


def _refuse(source: str, refusal: RefusedError) -> NoReturn:
    raise WeightsError(
        f"{source}: refused, because it asks for {refusal}, which is neither an array nor plain data; nothing of it "
        "was run; where its code is installed, save the weights alone: torch.save(model.state_dict(), 'weights.pth')"
    ) from None


def _damaged(source: str, error: BaseException) -> NoReturn:
    reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    raise WeightsError(
        f"{source}: the pickle in it cannot be read ({reason}); the file may be truncated or of another kind"
    ) from None


class _Unpickler(pickle.Unpickler):
    """Python's unpickler with a class of our own in the place of every name."""

    def __init__(self, file: io.BytesIO, allowed: set[str], persistent_load: Callable[[Any], Any] | None) -> None:
        super().__init__(file, encoding="latin1")
        self._allowed = allowed
        self._persistent_load = persistent_load
        self._types: dict[str, type[Call]] = {}

    def find_class(self, module: str, name: str) -> type[Call]:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if full not in self._allowed:
            raise RefusedError(f"{module}.{name}")
        if full not in self._types:
            # A class for each file: even what a file might do to it ends with the file.
            self._types[full] = type(name, (Call,), {"__slots__": (), "name": full})
        return self._types[full]

    def persistent_load(self, pid: Any) -> Any:
        if self._persistent_load is None:
            raise RefusedError("an object outside of the pickle (a persistent id)")
        return self._persistent_load(pid)


class _Tree:
    """Makes values from notes, each once, however often the pickle refers to it."""

    def __init__(self, builders: Mapping[str, Builder], budget: int) -> None:
        self.dropped: dict[str, None] = {}  # in order, once each
        self._builders = builders
        self._budget = budget
        self._done: dict[int, Any] = {}

    def value(self, node: Any, depth: int) -> Any:
        if _is_name(node):
            return self._leave_out(node.name) if node.name in HARMLESS else Global(node.name)
        if not isinstance(node, dict | list | tuple | set | frozenset | Call):
            return node
        if depth > MAX_DEPTH:
            raise ValueError(f"values are nested deeper than {MAX_DEPTH}")
        if id(node) not in self._done:
            self._done[id(node)] = self  # stands for: not finished
            self._done[id(node)] = self._make(node, depth + 1)
        if self._done[id(node)] is self:
            raise ValueError("a value contains itself")
        return self._done[id(node)]

    def _make(self, node: Any, depth: int) -> Any:
        if isinstance(node, Call):
            return self._call(node, depth)
        if isinstance(node, dict):
            return self._dictionary(node.items(), depth)
        values = (self.value(item, depth) for item in node)
        return type(node)(value for value in values if value is not _DROPPED)

    def _call(self, call: Call, depth: int) -> Any:
        if call.name in HARMLESS:
            return self._leave_out(call.name)
        if call.name in OF_A_HARMLESS_CLASS:
            return self._leave_out(call.args[0].name)
        if call.name in DICTIONARIES:
            return self._dictionary(self._pairs(call), depth)
        if call.name not in self._builders:
            raise RefusedError(f"a call of {call.name}")
        args = tuple(self.value(item, depth) for item in call.args)
        if call.items:
            raise ValueError(f"items of {call.name}")
        made = self._builders[call.name](args, self.value(call.state, depth))
        if isinstance(made, np.ndarray | bytes | bytearray):
            self._budget -= memoryview(made).nbytes if isinstance(made, bytes | bytearray) else made.nbytes
            if self._budget < 0:
                raise ValueError("its arrays need more memory than the file has bytes")
        return made

    def _pairs(self, call: Call) -> list[tuple[Any, Any]]:
        given = call.args[-1] if call.args else ()
        if _is_name(given):  # the factory of a defaultdict
            given = ()
        pairs = given.items() if isinstance(given, dict) else [(key, value) for key, value in given]
        return [*pairs, *call.items]

    def _dictionary(self, pairs: Any, depth: int) -> dict[Any, Any]:
        made = {}
        for key, item in pairs:
            new_key, value = self.value(key, depth), self.value(item, depth)
            if new_key is not _DROPPED and value is not _DROPPED:
                made[new_key] = value
        return made

    def _leave_out(self, name: str) -> Any:
        self.dropped[name] = None
        return _DROPPED


_TUPLES = {"EMPTY_TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "TUPLE", "FROZENSET"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_EXTENSIONS = {"EXT1", "EXT2", "EXT4"}  # codes that a program may have registered for classes of its own
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
# The widths of lengths that stand before an argument.
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}


def _scan(data: bytes, start: int) -> int:
    """Where the pickle that begins at `start` ends, once all its opcodes are found harmless to Python's unpickler."""
    position, puts = start, 0
    tuples = _Tuples()
    for _ in range(MAX_OPCODES):
        if position >= len(data):
            raise EOFError("it ends early")
        opcode = _OPCODES.get(data[position])
        if opcode is None:
            raise ValueError(f"byte {data[position]:#04x} at {position} is no opcode")
        size = _argument_size(data, position + 1, opcode)
        argument = position + 1
        position = argument + size
        if position > len(data):
            raise EOFError("it ends early")
        name, index = opcode.name, None
        if name in _EXTENSIONS:
            raise RefusedError("a registered extension")
        if name in _PUTS or name in _GETS:
            raw = data[argument:position]
            index = int(raw) if name in ("PUT", "GET") else int.from_bytes(raw, "little")
        if name in _PUTS:
            puts += 1
            # Pickles number from 0 or 1; Python's unpickler makes a table as long as the largest number.
            if index is None or not 0 <= index <= puts:
                raise ValueError(f"memo entry {index} after {puts - 1}")
        tuples.follow(opcode, index)
        if name == "STOP":
            return position
    raise ValueError(f"more than {MAX_OPCODES} opcodes")


def _argument_size(data: bytes, position: int, opcode: pickletools.OpcodeInfo) -> int:
    if opcode.arg is None:
        return 0
    if opcode.arg.n >= 0:
        return opcode.arg.n
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        end = position
        for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):  # a module and a name
            end = data.find(b"\n", end) + 1
            if end == 0:
                raise EOFError("it ends early")
        return end - position
    width = _LENGTHS[opcode.arg.n]
    return width + int.from_bytes(data[position : position + width], "little")


class _Tuples:
    """Follows the stack of the unpickler for one thing: how many elements a tuple has, and how deep they nest.

    A tuple can be a key, and its hash visits the elements of its elements: ((a, a), (a, a)) and so on takes time
    exponential in the length of the file, and a million of them in each other more stack than there is.
    """

    def __init__(self) -> None:
        self.stack: list[tuple[int, int]] = []  # elements and depth, (1, 0) for what is not a tuple
        self.marks: list[int] = []
        self.memo: dict[int, tuple[int, int]] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, index: int | None) -> None:
        name, stack = opcode.name, self.stack
        if name == "MARK":
            self.marks.append(len(stack))
        elif name in _PUTS or name == "MEMOIZE":
            self.memo[len(self.memo) if index is None else index] = stack[-1]
        elif name in _GETS:
            stack.append(self.memo[index])  # type: ignore[index]
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP" and self.marks and self.marks[-1] == len(stack):
            self.marks.pop()
        else:
            taken = self._take(opcode)
            made = (1, 0)
            if name in _TUPLES:
                made = 1 + sum(n for n, _ in taken), 1 + max((depth for _, depth in taken), default=0)
                if made[0] > MAX_TUPLE or made[1] > MAX_DEPTH:
                    raise ValueError(f"a tuple of {made[0]} elements, {made[1]} deep")
            stack.extend(made for _ in opcode.stack_after)

    def _take(self, opcode: pickletools.OpcodeInfo) -> list[tuple[int, int]]:
        before = opcode.stack_before
        count = len(before)
        taken: list[tuple[int, int]] = []
        if pickletools.markobject in before:
            cut = self.marks.pop()
            taken = self.stack[cut:]
            del self.stack[cut:]
            count = before.index(pickletools.markobject)
        if count > len(self.stack):
            raise ValueError("it takes more values than it gave")
        if count:
            taken = self.stack[-count:] + taken
            del self.stack[-count:]
        return taken
