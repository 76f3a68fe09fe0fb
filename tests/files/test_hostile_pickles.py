"""Pickles made to take memory or time: whatever they ask for, reading them takes little of both.

Each is read in a process of its own. Run as a program, this file is the parent of those processes.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow
STATM = Path("/proc/self/statm")  # pages of the address space, and those in memory
MIB = 1 << 20
N = 100_000
FREE, GROWTH = 64 * MIB, 16  # bytes that any file may take, and bytes for each of its own
SECONDS = 10.0


def items(one: bytes, count: int = 2 * N) -> bytes:
    """A list of the same item again and again."""
    return b"(" + one * count + b"l."


def keys(of: list[bytes]) -> bytes:
    return b"}(" + b"".join(key + b"N" for key in of) + b"u."


def integer(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def shared(value: bytes, use: bytes, count: int = N) -> bytes:
    """A value in the memo, and a list of calls that use it as `h\\x00`."""
    return value + b"q\x000" + items(use, count)


def doubled(end: bytes = b"") -> bytes:
    """A tuple that holds one tuple twice, which holds another twice, and so on."""
    return b")" + b"2\x86" * 80 + end


def state(value: bytes, modules: bytes = b"}") -> bytes:
    """The state of a module of torch with one attribute and parts."""
    parts = (b"_parameters", b"}"), (b"_buffers", b"}"), (b"_modules", modules), (b"x", value)
    return b"}(" + b"".join(text(name) + part for name, part in parts) + b"u"


def module(value: bytes, name: bytes = b"a", depth: int = 0) -> bytes:
    """A module of torch with an attribute, in `depth` others, each of which has the name in the one around it."""
    built = b"cm\nC\n)R" + state(value) + b"b"
    for _ in range(depth):
        built = b"cm\nC\n)R" + state(b"N", b"}" + text(name) + built + b"s") + b"b"
    return built + b"."


def doubled_modules(depth: int) -> bytes:
    """A module that has one module under two names, which has another one under two names, and so on."""
    built = b"N"
    for i in range(depth):
        index = bytes([i])
        twice = b"}(X\x01\x00\x00\x00ah" + index + b"X\x01\x00\x00\x00bh" + index + b"u"
        built += b"q" + index + b"0cm\nC\n)R" + state(b"N", twice) + b"b"
    return built + b"."


COLLIDING = [integer(i * ((1 << 61) - 1)) for i in range(N)]  # all have the hash 0
MANY = b"(" + b"K\x01" * N + b"l"
TEXT_ARRAY = pickle.dumps(np.full(N, b"a"), 4)[:-1]
ARRAY = pickle.dumps(np.zeros(1), 4)[:-1]

HOSTILE: dict[str, bytes] = {
    "empty sets": b"\x80\x04" + items(b"\x8f", MIB),
    "sets of one": b"\x80\x04" + items(b"\x8f(K\x01\x90"),
    "frozensets": b"\x80\x04" + items(b"(K\x01\x91"),
    "empty lists": items(b"]"),
    "lists of one": items(b"]Na"),
    "empty dictionaries": items(b"}"),
    "dictionaries of one": items(b"}K\x01Ns", MIB),
    "tuples of one": items(b"N\x85"),
    "lists in lists": b"]" * N + b"a" * (N - 1) + b".",
    "tuples in tuples": b")" + b"\x85" * N + b".",
    "doubled tuples": doubled(b"."),
    "doubled tuples as a key": b"}" + doubled(b"Ns."),
    "doubled tuples as a name": doubled(b"2\x93."),
    "doubled tuples as a shape": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\ntR(I1\n"
    + doubled(b"cnumpy\ndtype\n(Vf4\ntRI00\nV1234\ntb."),
    "doubled tuples as a type": b"cnumpy\ndtype\n(" + doubled(b"tR."),
    "doubled tuples as a class": b"cnumpy.core.multiarray\n_reconstruct\n(" + doubled(b"tR."),
    "doubled tuples as an encoding": b"c_codecs\nencode\n(Va\n" + doubled(b"tR."),
    "a list in itself": b"]q\x00" + b"h\x00a" * N + b".",
    "a dictionary in itself": b"}q\x00K\x01h\x00s.",
    "marks": b"(" * N + b".",
    "copies of the top": b"N" + b"2" * N + b".",
    "memo": b"N" + b"\x94" * MIB + b".",
    "colliding memo": b"N" + b"".join(b"p%d\n" % (i * ((1 << 61) - 1)) for i in range(N)) + b".",
    "large memo": b"Nr\xff\xff\xff\xff" * N + b".",
    "names": items(b"cnumpy\nndarray\n", N),
    "fractions": items(b"G" + bytes(8), N),
    "short texts": items(b"\x8c\x02ab", MIB),
    "wide texts": items(text("a\U0001f600".encode() + b"a" * 1000), 1000),
    "large integers": items(integer(1 << 1000), 10_000),
    "huge integer": b"\x8b" + struct.pack("<i", MIB) + b"\x7f" * MIB + b".",
    "huge decimal": b"L" + b"9" * MIB + b"L\n.",
    "colliding keys": keys(COLLIDING),
    "colliding keys one by one": b"}" + b"".join(key + b"Ns" for key in COLLIDING) + b".",
    "colliding keys in tuples": keys([key + b"\x85" for key in COLLIDING]),
    "colliding keys in many dictionaries": items(keys(COLLIDING[:1000])[:-1], 500),
    "colliding elements of a set": b"\x8f(" + b"".join(COLLIDING) + b"\x90.",
    "colliding elements of a frozenset": b"cbuiltins\nfrozenset\n((" + b"".join(COLLIDING) + b"ltR.",
    "keys that share their last bits": keys([integer(i << 14) for i in range(1024)] * 200),
    "fractions as keys": keys([b"G" + struct.pack(">d", i * 2.0**40) for i in range(N)]),
    "long tuples as keys": b"(" + b"K\x01" * N + b"tq\x000" + b"}h\x00Ns" * N + b".",
    "dictionaries from one dictionary": shared(
        keys([integer(i) for i in range(N)])[:-1], b"ccollections\nCounter\n(h\x00tR", 1000
    ),
    "dictionaries from one list of pairs": shared(b"(" + b"NN\x86" * N + b"l", b"cbuiltins\ndict\n(h\x00tR", 1000),
    "sets from one list": shared(MANY, b"cbuiltins\nset\n(h\x00tR", 1000),
    "encoded texts": shared(text(b"a" * N), b"c_codecs\nencode\n(h\x00Vlatin1\ntR", 3000),
    "byte arrays": shared(b"B" + struct.pack("<I", N) + bytes(N), b"cbuiltins\nbytearray\n(h\x00tR", 3000),
    "empty byte arrays": items(b"cbuiltins\nbytearray\n)R"),
    "empty ordered dictionaries": b"ccollections\nOrderedDict\nq\x000" + items(b"h\x00)R"),
    "objects that are left out": b"cargparse\nNamespace\nq\x000" + items(b"h\x00)R}Vx\n]sb", N),
    "objects with one large state": module(shared(b"cm\nC\n)R" + state(MANY) + b"b", b"h\x00", 1000)[:-1]),
    "modules in modules, each twice": doubled_modules(40),
    "modules with long names": module(b"N", b"a" * MIB, 50),
    "long unknown names again and again": shared(text(b"a" * MIB), b"h\x00h\x00\x93", 1000),
    "arrays": ARRAY[:-1] + b"0" + items(ARRAY[2:], 5000),
    "an array of texts": TEXT_ARRAY + b".",
    "an array of texts again and again": shared(TEXT_ARRAY, b"h\x00"),
    "big-endian arrays": pickle.dumps(np.zeros(N, ">f4"), 4),
    "one array for many bytes": ARRAY.replace(b"K\x01\x85", b"J\xff\xff\xff\x7f\x85") + b".",
    "lines without an end": b"c" + b"a" * MIB,
    "long names": b"c" + b"a" * MIB + b"\nb\n.",
    "escapes": b"S'" + b"\\x00" * N + b"'\n.",
    "frames": b"\x95" + b"\xff" * 7 + b"\x00" + b"N.",
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 1 << 60) + b"abc.",
    "persistent ids": b"Na\n." * N,
}


def limit(data: bytes) -> int:
    return FREE + GROWTH * len(data)


def read_in_a_child(data: bytes, pipe: int) -> None:
    """Reads a pickle with little address space, and writes what came of it."""
    from maskrcnn.errors import WeightsError
    from maskrcnn.files.pickle_reader import unpickle

    size, before = (int(pages) * resource.getpagesize() for pages in STATM.read_text().split()[:2])
    resource.setrlimit(resource.RLIMIT_AS, (size + limit(data), size + limit(data)))
    signal.alarm(60)
    start = time.process_time()
    try:
        unpickle(data, "w.pkl")
        outcome = "a value"
    except WeightsError as error:
        outcome = str(error)
    except BaseException as error:
        outcome = f"foreign: {type(error).__name__}"
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    os.write(pipe, json.dumps([outcome[:1000], time.process_time() - start, memory]).encode())


def main() -> None:
    import maskrcnn.files.pickle_reader  # noqa: F401  # before the children begin, so that none of them pays for it

    found = {}
    for name, data in HOSTILE.items():
        reading, writing = os.pipe()
        if (child := os.fork()) == 0:
            read_in_a_child(data, writing)
            os._exit(0)
        os.close(writing)
        found[name] = json.loads(os.read(reading, 1 << 16) or b'["killed", 60.0, 0]')
        os.close(reading)
        os.waitpid(child, 0)
    print(json.dumps(found))


@pytest.fixture(scope="module")
def outcomes() -> dict[str, tuple[str, float, int]]:
    if not STATM.exists():
        pytest.skip("no /proc")
    done = subprocess.run([sys.executable, __file__], check=True, capture_output=True, text=True)
    found: dict[str, tuple[str, float, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", HOSTILE)
def test_little_memory_and_time(name: str, outcomes: dict[str, tuple[str, float, int]]) -> None:
    outcome, seconds, memory = outcomes[name]
    assert outcome == "a value" or outcome.startswith("w.pkl: ")
    assert "MemoryError" not in outcome
    assert seconds < SECONDS
    assert memory < limit(HOSTILE[name])


if __name__ == "__main__":
    main()
