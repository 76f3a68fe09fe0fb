"""Settings from plain types. Model files, checkpoints and YAML files all pass through here."""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from functools import cache
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from maskrcnn.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")


def with_settings(part: T, given: Mapping[str, Any], path: str = "") -> T:
    """`part`, a dataclass of settings, with the changes in `given`: `{"train": {"steps": 5}}` or `{"train.steps": 5}`.

    A part that `part` lacks (a mask head, another kind of backbone) starts from its defaults.

    Args:
        given: plain JSON types. A list may stand for a tuple.
        path: prefix of the names in error messages.

    Raises:
        ConfigError: an unknown name, a value of the wrong type, or settings that cannot work together.
    """
    return replace(part, **_changes(type(part), part, given, path))  # type: ignore[type-var]


def _changes(kind: type, present: Any, given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The fields that `given` changes, by name, each checked against its type."""
    types, given = _types(kind), _nested(given, path)
    for name in given:
        if name not in types:
            near = difflib.get_close_matches(name, types, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(path + other for other in near)}" if near else f"there are: {', '.join(types)}"
            raise ConfigError(f"{path}{name}: there is no such setting; {hint}")
    return {
        name: _value(types[name], getattr(present, name, None), value, f"{path}{name}") for name, value in given.items()
    }


def _nested(given: Mapping[str, Any], path: str) -> dict[str, Any]:
    """The same settings, with `{"rpn": {"convs": 2}}` in place of `{"rpn.convs": 2}`. `path` is for messages.

    Raises:
        ConfigError: a setting is given in both ways.
    """
    result: dict[str, Any] = {}
    for name, value in given.items():
        first, dot, rest = str(name).partition(".")
        added = {rest: value} if dot else value
        known = result.setdefault(first, {} if isinstance(added, Mapping) else added)
        if isinstance(known, Mapping) and isinstance(added, Mapping) and not known.keys() & added.keys():
            result[first] = {**known, **added}
        elif known is not added:
            raise ConfigError(f"{path}{name}: expected each setting once, found this one twice; remove one of the two")
    return result


def _value(kind: Any, present: Any, value: Any, path: str) -> Any:
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    parts: list[Any] = [option for option in options if is_dataclass(option)]
    if not parts:
        return _leaf(kind, value, path)
    if value is None and NoneType in options:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError(f"{path}: expected the settings of this part by name, found {reprlib.repr(value)}")
    # Another kind of backbone is meant if only that one has all the names.
    parts.sort(key=lambda part: part is not type(present))
    given = _nested(value, f"{path}.")
    part = next((part for part in parts if given.keys() <= _types(part).keys()), parts[0])
    if part is type(present):
        return with_settings(present, given, f"{path}.")
    changes = _changes(part, None, given, f"{path}.")
    for field in fields(part):
        if field.name not in changes and field.default is field.default_factory is MISSING:
            raise ConfigError(f"{path}.{field.name}: this setting has no default and must be given")
    return part(**changes)


# The words of pydantic that our messages say otherwise.
_WORDS = {
    "Input should be": "expected",
    "Field required": "expected a value",
    "a valid array": "a list",
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid string": "a text",
    "a valid boolean": "true or false",
}


def _leaf(kind: Any, value: Any, path: str) -> Any:
    from pydantic import ValidationError

    try:
        # Strict validation of JSON turns a list into a tuple and changes no other type.
        return _adapter(kind).validate_json(json.dumps(value, default=str, skipkeys=True), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        expected = first["msg"]
        for theirs, ours in _WORDS.items():
            expected = expected.replace(theirs, ours, 1)
        # A text in the location is the name of a field that is missing, or a member of a union, which is left out.
        named = first["type"] == "missing"
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" * named for part in first["loc"])
        raise ConfigError(f"{path}{place}: {expected}, found {reprlib.repr(first['input'])}") from None


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(kind, config=ConfigDict(allow_inf_nan=False))
