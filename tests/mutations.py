"""Random changes of files, byte by byte and part by part, always the same ones for one seed."""

from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, -(2**63), 2**70, 10**400, 0.5, -0.0, 1e-300, 1e300, math.inf, -math.inf),
    *(
        math.nan,
        "",
        "0",
        "nan",
        "word",
        "a\x00b\x1b[2J\n",
        "\ud800",
        "é" * 300,
        "../../etc/passwd",
        "/",
        b"bytes".hex(),
    ),
    *([], {}, [[]], [None], [0, 0], [-1, -1, -1, -1], [1, 2, 3, 4, 5, 6], {"size": [1, 1], "counts": "1"}, {"a": {}}),
)
DEEP = 60  # levels of a nested value


def mutated_bytes(content: bytes, rng: random.Random) -> bytes:
    """The content with one to three changes: bytes replaced, taken out, put in, copied from elsewhere, or cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        start = int(len(changed) * rng.random() ** rng.choice((1, 4)))  # the head of a file decides most
        match rng.randrange(6):
            case 0:
                changed[start : start + rng.randint(1, 4)] = rng.randbytes(rng.randint(0, 4))
            case 1:
                changed[start : start + 1] = bytes([rng.choice((0, 1, 127, 128, 255))])
            case 2:
                del changed[start : start + rng.randint(1, 64)]
            case 3:
                other = rng.randrange(len(content))
                changed[start:start] = content[other : other + rng.randint(1, 64)]
            case 4:
                changed[start : start + 8] = rng.choice((b"\xff" * 8, bytes(8), b"\x7f" + b"\xff" * 7))
            case 5 if rng.random() < 0.3:
                del changed[start:]
    return bytes(changed)


def mutated(value: Any, rng: random.Random) -> Any:
    """A copy of a value of lists, dictionaries and leaves, with one to three of its parts changed."""
    value = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        value = _mutated_once(value, rng)
    return value


def _mutated_once(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, list | dict) or not value or rng.random() < 0.02:
        return _other(value, rng)
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = rng.choice(keys)
    if isinstance(value[key], list | dict) and value[key] and rng.random() < 0.8:
        value[key] = _mutated_once(value[key], rng)
        return value
    match rng.randrange(8):
        case 0:
            del value[key]
        case 1:
            other = rng.choice(keys)
            value[key], value[other] = value[other], value[key]
        case 2 if isinstance(value, list):
            value.insert(key, copy.deepcopy(rng.choice(value)))
        case 3 if isinstance(value, dict):
            value[rng.choice(("", "id", "x", *map(str, keys)))] = value.pop(key)
        case _:
            value[key] = _other(value[key], rng)
    return value


def _other(value: Any, rng: random.Random) -> Any:
    match rng.randrange(8):
        case 0:
            return [value]
        case 1:
            return {"value": value}
        case 2 if isinstance(value, int | float):
            return rng.choice((-value, value * 1000, float(value % 1000) + 0.5, json.dumps(value), bool(value)))
        case 3 if isinstance(value, str):
            return rng.choice((value[: len(value) // 2], value * 100, value.encode("utf-8", "replace").hex(), [value]))
        case 4:
            for _ in range(DEEP):
                value = [value]
            return value
        case _:
            return copy.deepcopy(rng.choice(ODD_VALUES))


def mutated_json(value: Any, rng: random.Random) -> bytes:
    """The text of a changed value, in which a key may occur twice, a value be nested deeply, and bytes be changed."""
    text = json.dumps(mutated(value, rng) if rng.random() < 0.85 else value)
    places = [i for i, letter in enumerate(text) if letter == "{"]
    if places and rng.random() < 0.1:
        at = rng.choice(places) + 1
        key = json.dumps(rng.choice(("id", "image_id", "images", "score", "size")))
        text = f"{text[:at]}{key}: {json.dumps(rng.choice(ODD_VALUES))}, {text[at:]}"
    if rng.random() < 0.02:
        text = text.replace("1", "[" * 100_000, 1)
    content = text.encode("utf-8", "replace")
    return mutated_bytes(content, rng) if rng.random() < 0.15 else content
