"""An interpreter for the opcodes of a pickle that never runs code named by the pickle.

Three rules make it safe:

1. It imports nothing. The names of `pickle_calls.py` have functions there, which check their arguments and build the
   values. A `Foreign` stands for any other name and for the value of its calls.
2. Every opcode pays for the memory that it needs, and the budget (`Purse`) is proportional to the size of the file.
   So are memory and time, whatever the file asks for.
3. Only strings, numbers and small tuples of them are hashed, and the number of keys that an attacker could choose to
   collide is limited (`_is_key`). A set becomes a list.

The first rule is stricter than "Restricting Globals" in Python's documentation of `pickle`. The others are needed
because Python's own unpickler trusts sizes and hashes, and the functions of numpy and torch trust their arguments.
"""

from __future__ import annotations

import io
import pickletools
import re
import sys
from collections.abc import Callable
from mmap import mmap
from typing import Any

import numpy as np

from maskrcnn.files.pickle_calls import (
    CALLS,
    DICTIONARIES,
    LONE_NAMES,
    OF_A_CLASS,
    Dialect,
    ElementType,
    Foreign,
    Name,
    RefusedError,
    fill_array,
    is_left_out,
    runs_code,
)

FREE = 40 << 20  # bytes that any file may spend
GROWTH = 12  # more bytes for each byte of the file; a list of floats needs 10, arrays need 2
OPCODE_PRICE = 64  # bytes: an empty list or dictionary and the reference to it
CALL_PRICE = 1000  # bytes: an empty tensor object
FOREIGN_PRICE = 128  # bytes: a `Foreign` without its name
MAX_NAME = 200  # characters of a name that is left out
MAX_BITS = 1024  # of an integer; the states of random generators have 128
MAX_KEY_PARTS = 8  # elements of a tuple as a key
# Python hashes strings with a secret, but numbers by their value. A file could therefore choose n numbers that all
# collide in a dictionary, which takes n * n / 2 steps. Too few integers below SMALL_KEY collide to matter.
SMALL_KEY = 1 << 24
MAX_LARGE_KEYS = 5_000


class Purse:
    """The memory in bytes that a file may still use; proportional to its size, plus `FREE`."""

    def __init__(self, file_bytes: int) -> None:
        self.left = FREE + GROWTH * file_bytes

    def pay(self, size: int) -> None:
        """Takes bytes from the budget; raises ValueError if it is exhausted."""
        self.left -= size
        if self.left < 0:
            raise ValueError("it needs more memory than a file of its size justifies")


class Machine:
    """Interprets the opcodes of one pickle."""

    def __init__(self, file: io.BytesIO | mmap, purse: Purse, dialect: Dialect) -> None:
        self.file, self.purse = file, purse
        self.calls = CALLS | dict(dialect.calls)
        self.names = self.calls.keys() | DICTIONARIES | LONE_NAMES | dialect.names | OF_A_CLASS
        self.persistent_load = dialect.persistent_load
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.large_keys = 0
        self.dropped: dict[str, None] = {}  # names of keys that were left out, in order

    def run(self) -> Any:
        """The value that the pickle leaves on the stack."""
        while (code := self.file.read(1)) != b".":
            if code not in _OPCODES:
                raise ValueError(f"0x{code.hex()} is no opcode" if code else "it ends early")
            read_argument, operation = _OPCODES[code]
            argument = read_argument(self.file)
            self.purse.pay(OPCODE_PRICE + sys.getsizeof(argument))
            if isinstance(argument, int) and argument.bit_length() > MAX_BITS:
                raise ValueError(f"an integer of {argument.bit_length()} bits")  # may be too long to print
            operation(self, argument)
        return self.stack.pop()

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def put(self, index: int) -> None:
        """Stores the value on top of the stack in the memo."""
        if not 0 <= index < SMALL_KEY:
            raise ValueError(f"memo entry {index}")
        self.memo[index] = self.stack[-1]

    def last(self, count: int) -> list[Any]:
        """Pops `count` values, in the order in which they were pushed."""
        if len(self.stack) < count:
            raise ValueError("it pops more values than it pushed")
        popped = self.stack[-count:]
        del self.stack[-count:]
        return popped

    def marked(self) -> list[Any]:
        """Pops all values above the last mark, and the mark."""
        mark = self.marks.pop()
        popped = self.stack[mark:]
        del self.stack[mark:]
        return popped

    def extend(self, values: list[Any]) -> None:
        """Appends to the list on top of the stack."""
        target = self.stack[-1]
        if type(target) is list:
            target += values
        elif not is_left_out(target):
            raise ValueError(f"items for a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        """Fills the dictionary on top of the stack: key, value, key, value, ..."""
        target = self.stack[-1]
        if is_left_out(target):
            return
        if type(target) is not dict or len(items) % 2:
            raise ValueError(f"{len(items)} keys and values for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if self._is_key(key):
                target[key] = value

    def push_dictionary(self, items: list[Any]) -> None:
        self.stack.append({})
        self.set_items(items)

    def _is_key(self, key: Any) -> bool:
        """Whether a key can be hashed safely. Keys that are objects of classes are left out with their values."""
        parts = key if type(key) is tuple and len(key) <= MAX_KEY_PARTS else (key,)
        for part in parts:
            if isinstance(part, list | tuple | dict):
                raise ValueError(f"a key of type {type(part).__name__}")
            if part is not None and not isinstance(part, str | bytes | int | float):
                self.dropped[part.name if isinstance(part, Name | Foreign) else type(part).__name__] = None
                return False
        if not (key is None or isinstance(key, str | bytes) or (isinstance(key, int) and abs(key) < SMALL_KEY)):
            self.large_keys += 1
            if self.large_keys > MAX_LARGE_KEYS:
                raise ValueError(f"more than {MAX_LARGE_KEYS} keys that are large numbers, fractions or tuples")
        return True

    def push_name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name that is not a string")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        full = f"{module}.{name}".replace("numpy._core.", "numpy.core.", 1)
        if full in self.names:
            self.stack.append(Name(full))
        elif runs_code(module, name):
            raise RefusedError(f"{module}.{name}"[:100])
        else:
            self.push_foreign(full[:MAX_NAME] if full.isprintable() else ascii(full[:MAX_NAME]))

    def push_foreign(self, name: str) -> None:
        self.purse.pay(FOREIGN_PRICE + sys.getsizeof(name))
        self.stack.append(Foreign(name))

    def call(self, function: Any, args: Any) -> None:
        """Pushes the value of a call."""
        if not isinstance(function, Name | Foreign) or type(args) is not tuple:
            raise ValueError("a call of something that is not a name")
        if is_left_out(function):
            self.push_foreign(function.name)
        elif function.name in OF_A_CLASS:
            if not args or not is_left_out(args[0]):
                raise RefusedError(function.name)
            self.push_foreign(args[0].name)
        elif function.name in DICTIONARIES:
            # A defaultdict without items has only a factory.
            content = args[-1] if args and not isinstance(args[-1], Name | Foreign) else ()
            pairs = content.items() if isinstance(content, dict) else content
            self.purse.pay(2 * OPCODE_PRICE * len(pairs))
            self.push_dictionary([part for key, value in pairs for part in (key, value)])
        elif function.name in self.calls:
            value = self.calls[function.name](args)
            self.purse.pay(CALL_PRICE + (value.nbytes if isinstance(value, np.ndarray) else sys.getsizeof(value)))
            self.stack.append(value)
        else:
            raise RefusedError(f"a call of {function.name}")

    def set_state(self, state: Any) -> None:
        """Sets the state of the object on top of the stack; dictionaries ignore it (torch's have `_metadata`)."""
        target = self.stack[-1]
        if isinstance(target, ElementType):
            target.set_order(state)
        elif isinstance(target, np.ndarray):
            self.purse.pay(fill_array(target, state))
        elif is_left_out(target):
            target.state = state
        elif type(target) is not dict:
            raise ValueError(f"a state for a {type(target).__name__}")

    def push_persistent(self, pid: Any) -> None:
        if self.persistent_load is None:
            raise RefusedError("an object outside of the pickle (a persistent id)")
        self.purse.pay(CALL_PRICE)
        self.stack.append(self.persistent_load(pid))


Reader = Callable[[Any], Any]
Operation = Callable[[Machine, Any], None]


def _line(file: Any) -> str:
    line: bytes = file.readline()
    if not line.endswith(b"\n"):
        raise EOFError("it ends early")
    return line[:-1].decode("utf-8")


_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


def _text_of_python_2(file: Any) -> str:
    """A string as Python 2 writes its repr: in quotes, with non-ASCII bytes as \\x.."""
    line = _line(file)
    if len(line) < 2 or line[0] not in "'\"" or line[-1] != line[0]:
        raise ValueError("a string without quotes")
    return re.sub(r"\\(?:x([0-9a-f]{2})|(.))", lambda m: chr(int(m[1], 16)) if m[1] else _ESCAPES[m[2]], line[1:-1])


_VALUES = (  # opcodes that push their argument
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
)
# The allowed opcodes. The others are refused: instances of Python 2's old classes, extensions, and external buffers.
_OPERATIONS: dict[str, Operation] = {
    **dict.fromkeys(_VALUES, Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda m, _: None),
    "NONE": lambda m, _: m.push(None),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_SET"), lambda m, _: m.push([])),
    "EMPTY_DICT": lambda m, _: m.push({}),
    "EMPTY_TUPLE": lambda m, _: m.push(()),
    "TUPLE1": lambda m, _: m.push(tuple(m.last(1))),
    "TUPLE2": lambda m, _: m.push(tuple(m.last(2))),
    "TUPLE3": lambda m, _: m.push(tuple(m.last(3))),
    "TUPLE": lambda m, _: m.push(tuple(m.marked())),
    **dict.fromkeys(("LIST", "FROZENSET"), lambda m, _: m.push(m.marked())),
    "DICT": lambda m, _: m.push_dictionary(m.marked()),
    "APPEND": lambda m, _: m.extend(m.last(1)),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.extend(m.marked())),
    "SETITEM": lambda m, _: m.set_items(m.last(2)),
    "SETITEMS": lambda m, _: m.set_items(m.marked()),
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.last(1).clear(),
    "POP_MARK": lambda m, _: m.marked().clear(),
    "DUP": lambda m, _: m.push(m.stack[-1]),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.put),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
    "GLOBAL": lambda m, name: m.push_name(*name),
    "STACK_GLOBAL": lambda m, _: m.push_name(*m.last(2)),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call(*m.last(2))),
    "NEWOBJ_EX": lambda m, _: m.call(*m.last(3)[:2]),
    "BUILD": lambda m, _: m.set_state(m.stack.pop()),
    "PERSID": lambda m, pid: m.push_persistent(pid),
    "BINPERSID": lambda m, _: m.push_persistent(m.stack.pop()),
}
# pickletools reads all other arguments. Its readers of lines warn about escapes and accept only ASCII.
_LINES: dict[str, Reader] = {
    "GLOBAL": lambda file: [_line(file), _line(file)],
    "PERSID": _line,
    "STRING": _text_of_python_2,
}


def _reader(opcode: pickletools.OpcodeInfo) -> Reader:
    return _LINES.get(opcode.name) or (opcode.arg.reader if opcode.arg else lambda file: None)


def _operation(opcode: pickletools.OpcodeInfo) -> Operation:
    def refuse(machine: Machine, argument: Any) -> None:
        raise RefusedError(f"the opcode {opcode.name}")

    return _OPERATIONS.get(opcode.name, refuse)


_OPCODES: dict[bytes, tuple[Reader, Operation]] = {
    opcode.code.encode("latin1"): (_reader(opcode), _operation(opcode)) for opcode in pickletools.opcodes
}
