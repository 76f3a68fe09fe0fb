"""Pickles: what is harmless comes back, what is not is refused before anything of it runs."""

from __future__ import annotations

import collections
import copyreg
import datetime
import decimal
import enum
import functools
import itertools
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import time
import tracemalloc
import types
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from maskrcnn.errors import WeightsError
from maskrcnn.files.pickle_reader import MAX_DEPTH, unpickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def refused(data: bytes, expected: str = "w.pkl") -> str:
    with pytest.raises(WeightsError, match=expected) as caught:
        unpickle(data, "w.pkl")
    message = str(caught.value)
    assert message.startswith("w.pkl: ")
    assert "\n" not in message
    return message


# What is harmless comes back.

NUMBERS = [
    "?",
    *(f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "i2", "i8", "u4", "c8")),
    "i1",
    "u1",
]
arrays = st.sampled_from(NUMBERS).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
orders = st.sampled_from(
    [np.ascontiguousarray, np.asfortranarray, np.transpose, lambda a: a[..., ::-1], lambda a: np.moveaxis(a, 0, -1)]
)
laid_out = st.tuples(arrays.filter(lambda array: array.ndim > 0), orders).map(lambda pair: pair[1](pair[0]))
keys = st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.binary(), st.tuples(st.integers(), st.text()))
leaves = st.one_of(keys, st.floats(), st.complex_numbers(), st.binary().map(bytearray), st.frozensets(keys), laid_out)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner, inner),
        st.dictionaries(keys, inner),
        st.dictionaries(keys, inner).map(collections.OrderedDict),
        st.dictionaries(keys, inner).map(lambda items: collections.defaultdict(list, items)),
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=") and np.array_equal(a, b, equal_nan=True)
    if isinstance(a, frozenset):
        return isinstance(b, list) and len(a) == len(b) and a == set(b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float | complex):
        return type(a) is type(b) and repr(a) == repr(b)
    return type(a) is type(b) and bool(a == b)


@pytest.mark.slow
@given(values, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back_at_every_protocol(value: Any, protocol: int) -> None:
    found, dropped, end = unpickle(data := pickle.dumps(value, protocol), "w.pkl")
    assert same(value, found)
    assert end == len(data)
    assert dropped == ()


def survives(data: bytes) -> None:
    with suppress(WeightsError):
        unpickle(data, "w.pkl")


@given(st.binary(max_size=200) | st.integers(0, 5).flatmap(lambda p: st.binary().map(lambda b: bytes([0x80, p]) + b)))
def test_any_bytes_give_a_value_or_one_error(data: bytes) -> None:
    survives(data)


@given(st.sampled_from(PROTOCOLS), st.data())
def test_any_changed_byte_gives_a_value_or_one_error(protocol: int, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps({"w": np.ones((2, 3), ">f4"), "t": (1, ("a", b"b")), "n": 1.5}, protocol))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    survives(bytes(content))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_cut_is_noticed(protocol: int) -> None:
    content = pickle.dumps({"w": np.ones((2, 3)), "s": "text"}, protocol)
    for end in range(len(content)):
        refused(content[:end], "cannot be read")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_modules_of_numpy_1_and_2(protocol: int, module: str) -> None:
    data = pickle.dumps({"w": np.arange(6.0).reshape(2, 3)}, protocol)
    if protocol < 4:  # names with lengths before them cannot be replaced by others of another length
        data = data.replace(b"numpy._core", module.encode())
    assert same(unpickle(data, "w.pkl")[0]["w"], np.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_order_of_axes(protocol: int) -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    for axes in itertools.permutations(range(3)):
        found = unpickle(pickle.dumps(array.transpose(axes), protocol), "w.pkl")[0]
        assert np.array_equal(found, array.transpose(axes))


PYTHON_2 = [
    # pickle.dumps({'w': numpy.array([1, 2], '<f4')}, 0) and with protocol 2, of Python 2.7 and numpy 1.16
    b"(dp0\nS'w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n(I1\n"
    b"(I2\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
    b"S'\\x00\\x00\\x80?\\x00\\x00\\x00@'\np15\ntp16\nbs.",
    b"\x80\x02}q\x01U\x01wq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85q\x05U\x01bq\x06"
    b"\x87q\x07Rq\x08(K\x01K\x02\x85q\tcnumpy\ndtype\nq\nU\x02f4q\x0bK\x00K\x01\x87q\x0cRq\r(K\x03U\x01<q\x0eNNNJ\xff\xff"
    b"\xff\xffJ\xff\xff\xff\xffK\x00tq\x0fb\x89U\x08\x00\x00\x80?\x00\x00\x00@q\x10tq\x11bs.",
]


@pytest.mark.parametrize("data", PYTHON_2)
def test_pickles_of_python_2(data: bytes) -> None:
    found = unpickle(data, "w.pkl")[0]["w"]
    assert found.dtype == np.float32
    assert found.tolist() == [1, 2]


def test_large_arrays_are_not_copied_and_can_be_written() -> None:
    data = pickle.dumps({str(i): np.full(1_000_000, i, np.uint8) for i in range(20)}, 4)
    unpickle(pickle.dumps(np.zeros(3)), "w.pkl")
    tracemalloc.start()
    found = unpickle(data, "w.pkl").content
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 22_000_000
    found["3"] += 1
    assert found["3"].sum() == 4_000_000


def test_scalars_and_texts_of_numpy_are_plain() -> None:
    value = {"f": np.float32(1.5), "big": np.frombuffer(b"\0\0\0\7", ">i4")[0], "s": np.array(["a", "bc"])}
    found = unpickle(pickle.dumps(value), "w.pkl").content
    assert found == {"f": 1.5, "big": 7, "s": ["a", "bc"]}
    assert type(found["f"]) is float


# Classes of the frameworks' training files.


@contextmanager
def known_as(kind: type, full: str) -> Iterator[None]:
    """A class under the name of another, for pickle to find there."""
    module, _, name = full.rpartition(".")
    parents = [".".join(module.split(".")[:end]) for end in range(1, module.count(".") + 2)]
    added = {parent: types.ModuleType(parent) for parent in parents if parent not in sys.modules}
    sys.modules.update(added)
    before, own = getattr(sys.modules[module], name, None), (kind.__module__, kind.__qualname__)
    setattr(sys.modules[module], name, kind)
    kind.__module__, kind.__qualname__ = module, name
    try:
        yield
    finally:
        kind.__module__, kind.__qualname__ = own
        setattr(sys.modules[module], name, before)
        for parent in added:
            del sys.modules[parent]


HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"


class History:
    """MMEngine's class as it pickles itself: with functions of its own among its settings."""

    def __init__(self) -> None:
        self.log_history = np.arange(5.0)

    def mean(self) -> None: ...

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"statistics_methods": {"mean": History.mean}}

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("must not run")


History.mean.__module__, History.mean.__qualname__ = HISTORY.removesuffix(".HistoryBuffer"), "HistoryBuffer.mean"


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_history_is_left_out(protocol: int) -> None:
    """With protocol 2, which torch.save writes, its functions are calls of getattr."""
    with known_as(History, HISTORY):
        data = pickle.dumps({"log": {"loss": History(), "n": 3}, "w": np.ones(2)}, protocol)
    assert b"getattr" in data
    found, dropped, _ = unpickle(data, "w.pkl")
    assert same(found, {"log": {"n": 3}, "w": np.ones(2)})
    assert dropped == (HISTORY,)


class Plain:
    pass


class OfDict(dict[str, int]):
    pass


class OfList(list[int]):
    pass


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_of_any_class_are_left_out(protocol: int) -> None:
    plain = Plain()
    plain.setting = [plain]  # type: ignore[attr-defined] # what is left out may contain itself
    for name in ("argparse.Namespace", "my_project.settings.Settings", "pandas.core.frame.DataFrame"):
        for value in (plain, OfDict(a=1), OfList([1, 2]), Plain):
            with known_as(value if isinstance(value, type) else type(value), name):
                data = pickle.dumps({"w": 1, "x": value, "y": [value, (value, 2)]}, protocol)
            assert unpickle(data, "w.pkl")[:2] == ({"w": 1, "y": [(2,)]}, (name,))


class Keyword:
    """A class whose objects are built from keywords, which needs protocol 4."""

    def __new__(cls, *, size: int) -> Keyword:
        return super().__new__(cls)

    def __getnewargs_ex__(self) -> Any:
        return (), {"size": 3}


class Colour(enum.Enum):
    RED = 1


LEFT_OUT = {
    "enumeration": Colour.RED,
    "function": refused,
    "function with arguments": functools.partial(refused, b""),
    "pattern": re.compile("x"),
    "decimal": decimal.Decimal("1.5"),
    "identifier": uuid.UUID(int=3),
    "random generator": random.Random(0),
    "random generator of numpy": np.random.default_rng(0),
    "date": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "path": Path("a/b"),
    "range": range(3),
    "slice": slice(1, 2),
    "class of Python": str,
    "keywords": Keyword(size=3),
}


@pytest.mark.parametrize(
    ("name", "protocol"),
    [(name, protocol) for name in LEFT_OUT for protocol in PROTOCOLS if name != "keywords" or protocol >= 2],
)
def test_objects_of_other_kinds_are_left_out_and_named(name: str, protocol: int) -> None:
    found, dropped, _ = unpickle(pickle.dumps({"w": 1, "x": {"y": LEFT_OUT[name], "z": 2}}, protocol), "w.pkl")
    assert found == {"w": 1, "x": {"z": 2}}
    assert len(dropped) == 1


def test_keys_that_are_classes_or_objects_are_left_out() -> None:
    data = pickle.dumps({"callbacks": {Plain: {"best": 1}, (Colour.RED, 1): 2, "last": 3}})
    found, dropped, _ = unpickle(data, "w.pkl")
    assert found == {"callbacks": {"last": 3}}
    assert dropped == (f"{__name__}.Plain", f"{__name__}.Colour")


def test_long_names_and_control_codes_are_not_repeated() -> None:
    name = "a\x1b[31m" + "b" * 5000
    named = b"X" + struct.pack("<I", len(name)) + name.encode() + short("c") + b"\x93"
    _, (dropped,), _ = unpickle(b"\x80\x04" + named + b".", "w")
    assert len(dropped) < 250
    assert dropped.isprintable()


def test_names_that_are_allowed_stand_by_themselves_only() -> None:
    assert unpickle(b"cnumpy\nndarray\n.", "w.pkl")[0] == "numpy.ndarray"
    refused(b"cnumpy\nndarray\n((I1000000000\nttR.", "a call of numpy.ndarray")
    refused(b"cbuiltins\nlist\n(]tR.", "a call of builtins.list")


# Attacks. Each would touch a file: the canary.


def command(canary: Path) -> str:
    return f"touch {canary}"


class Reduce:
    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> Any:
        return self.reduced


class Setstate:
    """A class that does harm when its state is set."""

    def __setstate__(self, state: str) -> None:
        os.system(state)


def text(value: str) -> bytes:
    return b"V" + value.encode() + b"\n"


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


ATTACKS: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda c: pickle.dumps(Reduce(os.system, (command(c),))),
    "os.system, protocol 0": lambda c: pickle.dumps(Reduce(os.system, (command(c),)), 0),
    "os.system by its module": lambda c: b"cos\nsystem\n(" + text(command(c)) + b"tR.",
    "in a key": lambda c: b"}cos\nsystem\n(" + text(command(c)) + b"tRNs.",
    "before the weights": lambda c: b"cos\nsystem\n(" + text(command(c)) + b"tR0" + pickle.dumps({}, 0),
    "INST": lambda c: b"(" + text(command(c)) + b"ios\nsystem\n.",
    "OBJ": lambda c: b"(csubprocess\nPopen\n](Vtouch\n" + text(str(c)) + b"eo.",
    "NEWOBJ": lambda c: b"\x80\x04csubprocess\nPopen\n](Vtouch\n" + text(str(c)) + b"e\x85\x81.",
    "NEWOBJ_EX": lambda c: b"\x80\x04csubprocess\nPopen\n](Vtouch\n" + text(str(c)) + b"e\x85}\x92.",
    "eval": lambda c: pickle.dumps(Reduce(eval, (f"open({str(c)!r}, 'w').close()",))),
    "eval by its name in Python 2": lambda c: (
        b"c__builtin__\neval\n(" + text(f"open({str(c)!r}, 'w').close()") + b"tR."
    ),
    "exec": lambda c: pickle.dumps(Reduce(exec, (f"open({str(c)!r}, 'w').close()",))),
    "open": lambda c: b"cio\nopen\n(" + text(str(c)) + b"Vw\ntR.",
    "names with dots": lambda c: (
        b"\x80\x04" + short("os") + short("path.os.system") + b"\x93" + short(command(c)) + b"\x85R."
    ),
    "names with dots from an allowed one": lambda c: (
        b"\x80\x04" + short("collections") + short("abc.sys.modules") + b"\x93" + b"0"
        b"cos\nsystem\n(" + text(command(c)) + b"tR."
    ),
    "getattr": lambda c: b"cbuiltins\ngetattr\n(cos\npath\nVos\ntR0cos\nsystem\n(" + text(command(c)) + b"tR.",
    "functools.partial": lambda c: b"cfunctools\npartial\n(cos\nsystem\n" + text(command(c)) + b"tR)R.",
    "operator.methodcaller": lambda c: (
        b"coperator\nmethodcaller\n(Vtouch\ntR(cpathlib\nPosixPath\n(" + text(str(c)) + b"tRtR."
    ),
    "map": lambda c: b"cbuiltins\nlist\n(cbuiltins\nmap\n(cos\nsystem\n(" + text(command(c)) + b"ltRtR.",
    "copyreg": lambda c: (
        b"ccopyreg\n_reconstructor\n(csubprocess\nPopen\ncbuiltins\nobject\nNtR(](Vtouch\n" + text(str(c)) + b"ed0"
        b"cos\nsystem\n(" + text(command(c)) + b"tR."
    ),
    "a pickle in a pickle": lambda c: (
        b"cpickle\nloads\n(" + pickled_bytes(pickle.dumps(Reduce(os.system, (command(c),)))) + b"tR."
    ),
    "an array of objects": lambda c: pickle.dumps(np.array([Reduce(os.system, (command(c),))], object)),
    "an array of objects, protocol 2": lambda c: pickle.dumps(np.array([Reduce(os.system, (command(c),))], object), 2),
    "the factory of a defaultdict": lambda c: pickle.dumps(collections.defaultdict(os.system, {command(c): 1})),
    "the class of an array": lambda c: (
        b"cnumpy.core.multiarray\n_reconstruct\n(cos\nsystem\n(I0\nt"
        + text("b")
        + b"tR0cos\nsystem\n("
        + text(command(c))
        + b"tR."
    ),
}


# Names of packages that are not Python's own are not told apart, but nothing of them is run.
UNKNOWN_ATTACKS: dict[str, Callable[[Path], bytes]] = {
    "a class with __setstate__": lambda c: b"c" + __name__.encode() + b"\nSetstate\n)R" + text(command(c)) + b"b.",
    "torch.storage": lambda c: (
        b"ctorch.storage\n_load_from_bytes\n(" + pickled_bytes(pickle.dumps(Reduce(os.system, (command(c),)))) + b"tR."
    ),
}


def pickled_bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<i", len(data)) + data


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_are_refused(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    message = refused(ATTACKS[name](canary), "refused, because it asks for ")
    assert "no code in it was run" in message
    assert not canary.exists()


@pytest.mark.parametrize("name", UNKNOWN_ATTACKS)
def test_attacks_by_unknown_names_do_nothing(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    found = unpickle(UNKNOWN_ATTACKS[name](canary), "w.pkl")
    assert found.content is None
    assert len(found.dropped) == 1
    assert not canary.exists()


@pytest.mark.parametrize("name", ["os.system", "INST", "OBJ", "eval", "names with dots", "functools.partial"])
def test_the_attacks_are_real(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = f"import pickle, gc, sys; r = pickle.loads({ATTACKS[name](canary)!r}); getattr(r, 'wait', int)()"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert canary.exists()


DANGEROUS = [
    "builtins.__import__",
    "builtins.compile",
    "builtins.delattr",
    "builtins.globals",
    "builtins.setattr",
    "builtins.vars",
    "builtins.input",
    "builtins.breakpoint",
    "bdb.Bdb",
    "codecs.encode",
    "_codecs.decode",
    "code.interact",
    "ctypes.CDLL",
    "importlib.import_module",
    "io.FileIO",
    "marshal.loads",
    "operator.attrgetter",
    "operator.call",
    "operator.itemgetter",
    "os.execv",
    "os.popen",
    "pickle.Unpickler",
    "pip.main",
    "posix.system",
    "profile.run",
    "pty.spawn",
    "pydoc.pipepager",
    "runpy.run_path",
    "shutil.rmtree",
    "socket.socket",
    "sqlite3.connect",
    "subprocess.Popen",
    "sys.exit",
    "sys.modules",
    "timeit.timeit",
    "venv.create",
    "webbrowser.open",
]
UNKNOWN = [
    "builtins.type",
    "builtins.super",
    "builtins.str",
    "builtins.memoryview",
    "copyreg.add_extension",
    "copyreg.pickle",
    "functools.reduce",
    "itertools.starmap",
    "logging.config.dictConfig",
    "numpy.load",
    "numpy.fromfile",
    "numpy.memmap",
    "numpy.core.multiarray.fromfile",
    "numpy.core.multiarray.frombuffer",
    "numpy.testing._private.utils.runstring",
    "numpy.ctypeslib.load_library",
    "numpy.vectorize",
    "numpy.frompyfunc",
    "numpy.ones",
    "numpy.lib.npyio.load",
    "torch.hub.load",
    "torch.load",
    "torch.jit.load",
    "torch._utils._rebuild_tensor_v2",
    "torch.nn.modules.linear.Linear",
    "types.CodeType",
    "types.FunctionType",
    "uuid._popen",
    "ultralytics.nn.tasks.DetectionModel",
    "models.yolo.Model",
    "mmdet.models.MaskRCNN",
    "copyreg.__newobj_ex__",
]


def named(full: str) -> tuple[bytes, bytes]:
    """Pickles of a name, of protocols 0 and 4."""
    module, _, name = full.rpartition(".")
    return f"c{module}\n{name}\n.".encode(), b"\x80\x04" + short(module) + short(name) + b"\x93."


@pytest.mark.parametrize("full", DANGEROUS)
def test_names_that_run_code_are_refused_before_they_are_looked_up(full: str) -> None:
    known = set(sys.modules)
    for data in named(full):
        assert f"asks for {full}," in refused(data)
    assert set(sys.modules) == known


@pytest.mark.parametrize("full", UNKNOWN)
def test_other_names_are_left_out_and_never_looked_up(full: str) -> None:
    known = set(sys.modules)
    for data in named(full):
        call = data[:-1] + b"(" + text("x") + b"tR}" + text("state") + b"Nsb."
        assert unpickle(data, "w.pkl")[:2] == unpickle(call, "w.pkl")[:2] == (None, (full,))
    assert set(sys.modules) == known


@pytest.mark.parametrize(
    "target", [b"cbuiltins\nobject\n", b"ccollections\nOrderedDict\n", b"V1\n", b"I1\n", b"N", b"]"]
)
@pytest.mark.parametrize("name", ["__class__", "__init__", "__globals__", "mean"])
def test_getattr_of_what_is_not_left_out(target: bytes, name: str) -> None:
    refused(b"cbuiltins\ngetattr\n(" + target + text(name) + b"tR.", r"asks for builtins\.getattr,")


def test_copyreg_of_what_is_not_left_out() -> None:
    for target in (b"ccollections\nOrderedDict\n", b"cbuiltins\nlist\n", b"N"):
        refused(b"ccopyreg\n_reconstructor\n(" + target + b"cbuiltins\nobject\nNtR.", "asks for copyreg._reconstructor")
        refused(b"ccopyreg\n__newobj__\n(" + target + b"tR.", "asks for copyreg.__newobj__")


@pytest.mark.parametrize(
    "state",
    [b"(N}V__setitem__\ncnumpy\ndtype\nst", b"}V__setstate__\ncnumpy\ndtype\ns", b"}V__call__\ncnumpy\ndtype\ns", b"N"],
)
@pytest.mark.parametrize(
    "name", [b"collections\nOrderedDict", b"argparse\nNamespace", b"numpy\ndtype", b"numpy\nndarray"]
)
def test_the_state_of_a_name_cannot_be_set(name: bytes, state: bytes) -> None:
    if name == b"argparse\nNamespace":
        assert unpickle(b"c" + name + b"\n" + state + b"b.", "w.pkl")[:2] == (None, ("argparse.Namespace",))
    else:
        refused(b"c" + name + b"\n" + state + b"b.", "cannot be read")
    assert same(unpickle(pickle.dumps({"w": np.ones(2)}), "w.pkl")[0], {"w": np.ones(2)})


def test_what_a_dictionary_carries_besides_its_items_is_ignored() -> None:
    """torch's state_dict has `_metadata`; a file may put functions there, under the names of methods."""
    data = b"ccollections\nOrderedDict\n)R}Vitems\ncnumpy\ndtype\nsb."
    found = unpickle(data, "w.pkl").content
    assert type(found) is dict
    assert dict(found.items()) == {}


def test_registered_extensions_are_refused(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    copyreg.add_extension("os", "system", 0xF1)
    try:
        refused(b"\x80\x02\x82\xf1(" + text(command(canary)) + b"tR.", "the opcode EXT1")
    finally:
        copyreg.remove_extension("os", "system", 0xF1)
    assert not canary.exists()


@pytest.mark.parametrize("data", [b"Pstorage\n.", b"\x80\x02N\x88\x86Q."])
def test_persistent_ids_are_refused(data: bytes) -> None:
    refused(data, "persistent id")


def test_arrays_of_objects_and_records_are_refused() -> None:
    for protocol in PROTOCOLS:
        refused(pickle.dumps(np.array([None, 1], object), protocol), "an array of Python objects")
        refused(pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "O")]), protocol), "records|not supported|objects")
        refused(pickle.dumps(np.zeros(2, "M8[s]"), protocol), "not supported")
    refused(b"cnumpy\ndtype\n(VO8\nI0\nI1\ntR.", "an array of Python objects")
    refused(b"c_codecs\nencode\n(Vabc\nVrot13\ntR.", "_codecs.encode to 'rot13'")
    refused(b"c_codecs\nencode\n(I5\nVlatin1\ntR.", "_codecs.encode")


def test_calls_with_other_arguments_than_numpys_own() -> None:
    head = b"cnumpy.core.multiarray\n_reconstruct\n("
    for data in (
        head + b"ccollections\nOrderedDict\n(I0\ntVb\ntR(I1\n(I1\ntcnumpy\ndtype\n(Vf4\ntRI00\nV1234\ntb.",
        head + b"cnumpy\nndarray\n(I0\ntVb\ntR.",
        head + b"tR.",
        b"cnumpy\ndtype\n(](Vf4\nVf8\netR.",
        b"cnumpy\ndtype\n(Vf4,f4\ntR.",
        b"cnumpy\ndtype\n(V(1000000,1000000)f8\ntR.",
        b"cnumpy\ndtype\n(VS999999999\ntR.",
        b"cnumpy\ndtype\n(Vf4\nI0\nI1\ntR(I3\nV<\n(cnumpy\ndtype\n(Vf4\ntR(I9\nttNNtb.",
        b"cbuiltins\nbytes\n(I1000000000000\ntR.",
        b"cbuiltins\nbytearray\n(I1000000000000\ntR.",
        b"cbuiltins\ncomplex\n(V1\nV2\ntR.",
        b"cbuiltins\nset\n(I3\ntR.",
        b"ccollections\nOrderedDict\n(I3\ntR.",
    ):
        refused(data, r"cannot be read|refused")


# Files made to take memory or time.


def bomb(data: bytes) -> None:
    """Refused within seconds of processor time and some megabytes; `test_hostile_pickles.py` measures more of them."""
    tracemalloc.start()
    start = time.process_time()
    refused(data, "cannot be read")
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60_000_000
    assert seconds < 5


def swapped_arrays() -> bytes:
    """Big-endian arrays, which numpy copies, over the same bytes again and again."""
    reconstruct, ndarray = np.zeros(1).__reduce__()[0], np.ndarray
    data = bytes(100_000)
    state = (1, (25_000,), np.dtype(">f4"), False, data)
    return pickle.dumps([Reduce(reconstruct, (ndarray, (0,), b"b"), state) for _ in range(1000)], 4)


def encoded_texts() -> bytes:
    return b"(V" + b"a" * 100_000 + b"\np0\n0" + b"c_codecs\nencode\n(g0\nVlatin1\ntR" * 3000 + b"t."


BOMBS = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"abc.",
    "short bytes": b"\x80\x04B" + struct.pack("<I", 1 << 31) + b"abc.",
    "integer": b"\x80\x04\x8b" + struct.pack("<I", 1 << 30) + b"abc.",
    "memo": b"\x80\x02" + b"Nr\x00\x00\x00\x01" + b"0j\x00\x00\x00\x02.",
    "memo as text": b"Np16777216\n0g1\n.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N",
    "shape": pickle.dumps(np.zeros(7), 2).replace(b"K\x07\x85", b"J\xff\xff\xff\x7f\x85"),
    "shape and nothing": PYTHON_2[0]
    .replace(b"(I2\n", b"(I0\nI99999999999\nI99999999999\n")
    .replace(b"S'\\x00\\x00\\x80?\\x00\\x00\\x00@'", b"S''"),
    "deep lists": b"]" * 20_000 + b"a" * 19_999 + b".",
    "deep tuples": b")" + b"\x85" * 100_000 + b".",
    "deep tuples as a key": b"})" + b"\x85" * 100_000 + b"Ns.",
    "endless tuples as a key": b"}N" + b"2\x86" * 80 + b"Ns.",
    "endless frozensets": b"\x80\x04" + b"N" + b"2\x86(2\x91" * 80 + b".",
    "a list in itself": b"]q\x000h\x00h\x00a.",
    "a list in itself by way of others": b"]q\x00](h\x00ea.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str) -> None:
    bomb(BOMBS[name])


@pytest.mark.parametrize("make", [swapped_arrays, encoded_texts])
def test_bombs_of_what_is_shared(make: Callable[[], bytes]) -> None:
    bomb(make())


def test_bombs_are_told_from_damage() -> None:
    keys_of_hash_0 = pickle.dumps({i * ((1 << 61) - 1): None for i in range(1, 5003)})
    refused(BOMBS["shape"], r"an array of shape \(2147483647,\) and type float64 needs 17179869176 bytes, found 56")
    refused(BOMBS["deep lists"], f"nested deeper than {MAX_DEPTH}")
    refused(keys_of_hash_0, "more than 5000 keys that are large numbers")


def test_lists_that_would_grow_without_end_are_refused() -> None:
    """Each list holds the next one ten times: small in the file, and endless to whoever prints or copies it."""
    level: list[Any] = [1]
    for _ in range(50):
        level = [level] * 10
    refused(pickle.dumps(level), "more memory than a file of its size justifies")


def test_values_that_occur_several_times_are_one() -> None:
    level: list[Any] = [1]
    found = unpickle(pickle.dumps([level, level, (level, level)]), "w.pkl").content
    assert found == [[1], [1], ([1], [1])]
    assert found[0] is found[1] is found[2][0] is found[2][1]


def test_keys_of_real_files() -> None:
    """torch before 1.6 named the parameters of an optimiser by their addresses; logs have fractions and pairs."""
    value = {140_234_567_890_123 + 64 * i: i for i in range(4000)} | {0.5: 1, ("loss", 3): 2, None: 3, b"x": 4}
    assert unpickle(pickle.dumps(value), "w.pkl").content == value


@pytest.mark.slow
def test_a_large_file_may_hold_much() -> None:
    rows = [[float(i), i / 2, str(i)] for i in range(60_000)]
    assert unpickle(pickle.dumps({"log": rows}), "w.pkl").content == {"log": rows}


def test_a_long_text_is_not_repeated_without_end() -> None:
    """In a thousand places one text takes no memory, but a message about its place would be a gigabyte long."""
    text = b"X" + (1 << 20).to_bytes(4, "little") + b"a" * (1 << 20)
    with pytest.raises(WeightsError, match="more memory than a file of its size justifies"):
        unpickle(text + b"q\x000(" + b"h\x00" * 1000 + b"l.", "w.pkl")
