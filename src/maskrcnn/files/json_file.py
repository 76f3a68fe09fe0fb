"""Reads JSON files."""

from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from maskrcnn.errors import DataError

GZIP = b"\x1f\x8b"
_MOST_EXPANSION = 200  # times the size of the file; JSON with long lists of run lengths reaches 20


def read_json(path: Path, expected: str) -> Any:
    """The content of a JSON file, which may be compressed with gzip.

    Args:
        expected: what the file should contain, for messages, such as "a COCO JSON".

    Raises:
        DataError: the file cannot be read or is not JSON.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected {expected}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
    return parse_json(content, path, expected)


def parse_json(content: bytes, path: Path, expected: str) -> Any:
    """The values of a JSON text, or of a part of one; arguments and errors as for `read_json`."""
    why, todo = "the file is empty", "write it again"
    try:
        if content.strip():
            return json.loads(expanded(content))
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        why, todo = f"no {error.encoding} text at byte {error.start} in line {line}", "save it as UTF-8"
    except json.JSONDecodeError as error:
        why, todo = str(error), _todo(error)
    except ValueError as error:
        why, todo = str(error), "the file may be truncated"
    except RecursionError:
        why = "its lists or objects are nested too deeply"
    raise DataError(f"{path}: not JSON that can be read ({why}), expected {expected}; {todo}")


def _todo(error: json.JSONDecodeError) -> str:
    """What to do about a fault. A text probably ends too early if what follows the fault does not end as JSON does."""
    if error.pos == 0 and error.msg == "Expecting value":
        return "name a file of this kind"
    is_cut = error.msg != "Extra data" and not error.doc[error.pos :].rstrip().endswith(("}", "]"))
    return "the file may be truncated" if is_cut else "correct it there"


def expanded(content: bytes) -> bytes:
    """The content of a file, or what it was before gzip. Raises ValueError if that is broken or not plausibly JSON."""
    if not content.startswith(GZIP):
        return content
    expander = zlib.decompressobj(wbits=31)
    try:
        found = expander.decompress(content, _MOST_EXPANSION * len(content))
    except zlib.error as error:
        raise ValueError(f"broken gzip: {error}") from None
    if not expander.eof:
        raise ValueError(f"gzip that is cut off, or that expands to more than {_MOST_EXPANSION} times its size")
    return found


class Outline(NamedTuple):
    """The shape of a JSON file.

    Attributes:
        is_list: whether it is a list and not an object.
        keys: the keys of the objects at depth 1, 2 and 3. Lists do not count as depth.
    """

    is_list: bool
    keys: tuple[frozenset[str], frozenset[str], frozenset[str]]


_OUTLINE_BYTES = 1 << 20
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[{}\[\]:]', re.DOTALL)


def json_outline(path: Path) -> Outline | None:
    """The shape of a JSON file by its first megabyte, without parsing it; None if it is neither object nor list."""
    try:
        stat = path.stat()
        return _outline(path, stat.st_mtime_ns, stat.st_size)
    except (OSError, zlib.error):
        return None


@lru_cache(maxsize=64)  # each format asks for the outline of the same files
def _outline(path: Path, changed: int, size: int) -> Outline | None:
    with path.open("rb") as file:
        content = file.read(_OUTLINE_BYTES)
        if content.startswith(GZIP):
            content = zlib.decompressobj(wbits=31).decompress(content, _OUTLINE_BYTES)
        text = content.decode(json.detect_encoding(content), errors="replace").lstrip()
    if not text.startswith(("{", "[")):
        return None
    keys: tuple[set[str], set[str], set[str]] = (set(), set(), set())
    depth, last = 0, ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token == "{":
            depth += 1
        elif token == "}":
            depth -= 1
        elif token == ":" and 1 <= depth <= len(keys):
            keys[depth - 1].add(last[1:-1])
        else:
            last = token
    return Outline(text.startswith("["), (frozenset(keys[0]), frozenset(keys[1]), frozenset(keys[2])))


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[int, Any]]:
    """The values of a file with one JSON in each line, or the entries of a file that is one JSON, with their numbers
    from 1. In the place of a broken line stands the DataError that names it.

    Args:
        expected: what the file should contain, for messages, such as "an export".

    Raises:
        DataError: the file cannot be read, or its only JSON is broken.
    """
    try:
        content = expanded(path.read_bytes())
        # Not `splitlines`, which also divides at characters that JSON allows inside texts, such as U+2028.
        lines = list(io.StringIO(content.decode(json.detect_encoding(content)), newline=None))
        first = json.loads(lines[0]) if lines else None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}), expected {expected}") from None
    except (ValueError, RecursionError):  # not even one line is JSON
        first = None
    if not isinstance(first, dict):
        content = read_json(path, expected)
        yield from enumerate(content if isinstance(content, list) else [content], start=1)
        return
    for number, line in enumerate(lines, start=1):
        try:
            if line.strip():
                yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, DataError(f"expected JSON in each line, found another text ({error})")
