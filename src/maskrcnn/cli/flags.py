"""Turns the dataclass of a command into its flags, with tyro."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import fields, is_dataclass, replace
from functools import wraps
from io import StringIO
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from maskrcnn.config import Channel
from maskrcnn.config.ranges import Positive
from maskrcnn.errors import ConfigError

Flag = tyro.conf.FlagCreatePairsOff[bool]  # `--json`, without a `--no-json`
Flags = tyro.conf.arg(name="")  # the fields of a dataclass as flags without a prefix

# Flags of all commands that open a file of weights.
ConfigFile = Annotated[
    Path | None,
    tyro.conf.arg(
        help="Config file of the framework that wrote the weights (not the settings file of `train`); for torchvision "
        "also one argument of its constructors, such as norm_eps=1e-5."
    ),
]
AllowPartial = Annotated[
    Flag, tyro.conf.arg(help="Continue if tensors are missing (they become random) or unexpected (they are left out).")
]
Part = Annotated[
    str | None,
    tyro.conf.arg(help="Which weights to take if the file holds several, such as `teacher` or `model_ema`."),
]
HelpAll = Annotated[Flag, tyro.conf.arg(help="Show every flag and exit.")]


def changed_fields(flags: Any) -> list[str]:
    """The names of those fields of a dataclass of flags that are not at their defaults, as flags such as `--part`."""
    given = (field.name for field in fields(flags) if getattr(flags, field.name) != field.default)
    return [_flag(name) for name in given]


def flags_of(kind: type) -> list[str]:
    """The flags of a dataclass."""
    return [_flag(field.name) for field in fields(kind)]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


Hidden = Callable[[type, StructFieldSpec], bool]


def asks_short_help(argv: Sequence[str]) -> bool:
    """Whether the help shows only the flags that most people set: after --help, or without arguments."""
    return "--help-all" not in argv and (not argv or not {"-h", "--help"}.isdisjoint(argv))


def short_help(shown: Mapping[type, Sequence[str]], argv: Sequence[str]) -> Hidden:
    """Hides all fields of some dataclasses from the short help, but for those that are named."""
    short = asks_short_help(argv)

    def hidden(kind: type, field: StructFieldSpec) -> bool:
        return short and kind in shown and not is_dataclass(field.default) and field.name not in shown[kind]

    return hidden


def parse_flags(
    command: Any,
    prog: str,
    argv: Sequence[str],
    *,
    hidden: Hidden = lambda kind, field: False,
    markers: Sequence[Any] = (),
    **options: Any,
) -> Any:
    """An instance of a dataclass, or of the one that `argv` chooses from a union, with the flags in `argv` applied.

    Args:
        hidden: whether a field of a dataclass has no flag and keeps its default.
        markers: markers of `tyro.conf` for all flags.
        options: further arguments of `tyro.cli`.

    Raises:
        ConfigError: wrong flags or values.
        SystemExit: 0 after --help or --help-all; 2 if there is nothing in `argv` and something is needed, after the
            help.
    """
    argv = [*argv, "--help"] if "--help-all" in argv else argv
    options["prog"] = prog
    # `mask_head: MaskHeadConfig | None` gives flags, not a subcommand.
    options["config"] = (tyro.conf.AvoidSubcommands, tyro.conf.PositionalMetavarFromFieldName, *markers)
    options["registry"] = _registry(hidden)
    if any(arg in ("-h", "--help") or arg.startswith("--tyro-") for arg in argv):
        return tyro.cli(command, args=argv, **options)
    printed = StringIO()
    try:
        with redirect_stdout(StringIO()), redirect_stderr(printed), _endless_lines():
            return tyro.cli(command, args=argv, **options)
    except SystemExit:
        pass
    chosen = _chosen(command, argv)
    message = None
    if not argv or _NO_VALUE.search(printed.getvalue()):  # the help takes as long as the parsing
        helped = StringIO()
        with redirect_stdout(helped), suppress(SystemExit):
            tyro.cli(command, args=[*chosen, "--help"], **options)
        if not argv:
            print(helped.getvalue(), end="", file=sys.stderr)
            raise SystemExit(2)
        message = _unknown_flag(printed.getvalue(), argv, helped.getvalue())
    message = message or _message(printed.getvalue())
    raise ConfigError(f"{message}; see {' '.join([prog, *chosen])} --help")


def _chosen(command: Any, argv: Sequence[str]) -> list[str]:
    """The subcommand that `argv` names, if it is one of the command's."""
    marked = (marker for kind in get_args(command) for marker in getattr(kind, "__metadata__", ()))
    names = {getattr(marker, "name", None) for marker in marked}
    return [name for name in argv[:1] if name in names]


_NO_VALUE = re.compile(r"Missing value for argument '([^-'][^']*)'")  # of a positional argument, in tyro's words


def _unknown_flag(box: str, argv: Sequence[str], help_text: str) -> str | None:
    """Names the first unknown flag if tyro says that a positional argument has no value. It stops at such a flag."""
    place = _NO_VALUE.search(box)
    flags = re.findall(r"--[a-z][\w.-]*", help_text)
    given = (arg.partition("=")[0].replace("_", "-") for arg in argv if re.match("--?[A-Za-z]", arg))
    unknown = next((flag for flag in given if flag not in flags), None)
    if place is None or unknown is None:
        return None
    if unknown == f"--{place[1]}":
        return f"{unknown}: there is no such flag; give {place[1].upper()} alone, without a flag before it"
    near = difflib.get_close_matches(unknown, flags, n=1)
    return f"{unknown}: there is no such flag{''.join(f'; nearest: {flag}' for flag in near)}"


@contextmanager
def _endless_lines() -> Iterator[None]:
    """Keeps tyro from breaking its messages into the lines of the terminal."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        if before is not None:
            os.environ["COLUMNS"] = before


# What Python and tyro say of a value, and what is said instead.
_PLAINER = (
    (r"^Missing value for argument '(.*)'\. Expected 1 values$", r"\1: expected a value, found none"),
    (r"^Missing value for argument '(.*)'\. Expected (\d+) values$", r"\1: expected \2 values, found fewer"),
    (r": could not convert string to float: '(.*)'$", r": expected a number, found \1"),
    (r": invalid literal for int\(\) with base 10: '(.*)'$", r": expected a whole number, found \1"),
    (r": no type matching INT could be instantiated from \['(.*)'\]$", r": expected a whole number, found \1"),
    (r": no type matching FLOAT could be instantiated from \['(.*)'\]$", r": expected a number, found \1"),
    (r": no type matching (.*) could be instantiated from \['(.*)'\]$", r": expected \1, found \2"),
)


def _message(box: str) -> str:
    """What is wrong, from the box that tyro prints: its first part, and the names in a part with suggestions.

    Rules and empty lines divide the parts. In the first one, help texts are indented by 8 or more.
    """
    _, _, *rows = box.splitlines()  # title and rule
    parts = [list(group) for filled, group in groupby(rows, lambda row: bool(row.strip(" -"))) if filled]
    message = " ".join(row.strip() for row in parts[0] if not row.startswith(" " * 10))
    message = re.sub(r"^Error parsing (settings[\w.]*: )?", "", message).removesuffix(".")
    for pattern, plain in _PLAINER:
        message = re.sub(pattern, plain, message)
    if choice := re.fullmatch(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", message):
        words = ", ".join(re.findall("'([^']*)'", choice[3]))
        message = f"{choice[2]}: expected one of {words}, found {choice[1]}"
    for part in parts[1:]:
        if part[0].strip().startswith("Available"):
            message += f"; {part[0].strip()}"
        if part[0].strip().startswith("Unrecognized options"):
            message += f"; unrecognized: {', '.join(row.strip() for row in part[1:])}"
        if part[0].strip().startswith("Perhaps you meant"):
            message += f"; nearest: {', '.join(re.findall(r'^ +(--[^ ,]+)', ' '.join(part[1:])))}"
    return message


def _registry(hidden: Hidden) -> ConstructorRegistry:
    registry = ConstructorRegistry()
    registry.primitive_rule(_anchor_sizes)
    registry.primitive_rule(_channels)
    registry.primitive_rule(_optional_word)
    inside = False

    @registry.struct_rule
    def fields(info: StructTypeInfo) -> StructConstructorSpec | None:
        """What tyro makes of our dataclasses, without the hidden fields and with a plainer help."""
        nonlocal inside
        if inside or not str(getattr(info.type, "__module__", "")).startswith("maskrcnn."):
            return None
        inside = True
        try:
            found = ConstructorRegistry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(found, StructConstructorSpec):
            return None
        kept = [field for field in found.fields if not hidden(info.type, field)]
        build = found.instantiate if len(kept) == len(found.fields) else _copy_of(info.type, info.default)
        if not info.type.__module__.startswith("maskrcnn.config"):  # there a user may type None
            kept = [_without_none(field) for field in kept]
        return StructConstructorSpec(build, tuple(kept))

    return registry


def _copy_of(kind: type, default: Any) -> Callable[..., Any]:
    """A constructor that copies `default` with some fields changed, with the docstring of its class for the help."""

    @wraps(kind)
    def build(**given: Any) -> Any:
        return replace(default, **given)

    return build


def _without_none(field: StructFieldSpec) -> StructFieldSpec:
    """Removes "{None}|" and "(default: None)" from the help of an optional flag."""
    if field.default not in (None, ()) and field.default is not False:
        return field
    given: Any = tyro.conf.DisallowNone
    return replace(field, type=Annotated[given[field.type], tyro.conf.arg(help_behavior_hint="")])  # type: ignore[arg-type]


def _anchor_sizes(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parses anchor sizes, one (`8 16 32 64 128`) or several (`8,12 16,24 32,48 64,96 128,192`) for each level."""
    if info.type != tuple[tuple[Positive, ...], ...]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="LEVEL ... (a size, or several with commas)",
        instance_from_str=lambda args: tuple(tuple(map(float, level.split(","))) for level in args),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{size:g}" for size in level) for level in value],
    )


def _channels(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parses channels: a name each, and after a colon its stretch (`nir`, `nir:none`, `nir:0:4095`, `nir:2%:98%`)."""
    if info.type != tuple[Channel, ...]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME ... (or NAME:none, NAME:LOW:HIGH, NAME:LOW%:HIGH%)",
        instance_from_str=lambda args: tuple(map(_channel, args)),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [channel.name for channel in value],
    )


def _optional_word(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parses one of some words that nobody must give, and names them in their order. tyro shuffles them with None."""
    words = [word for kind in get_args(info.type) if get_origin(kind) is Literal for word in get_args(kind)]
    if not words or NoneType not in get_args(info.type) or tyro.conf.DisallowNone not in info.markers:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=f"{{{','.join(words)}}}",
        instance_from_str=lambda args: args[0],
        is_instance=lambda value: value is None or value in words,
        str_from_instance=lambda value: [str(value)],
        choices=tuple(words),
    )


def _channel(text: str) -> Channel:
    match text.split(":"):
        case [name]:
            return Channel(name)
        case [name, "none"]:
            return Channel(name, "none")
        case [name, low, high] if low.endswith("%") and high.endswith("%"):
            return Channel(name, percentiles=(float(low[:-1]), float(high[:-1])))
        case [name, low, high]:
            return Channel(name, "range", low=float(low), high=float(high))
    raise ValueError(f"expected NAME, NAME:none, NAME:LOW:HIGH or NAME:LOW%:HIGH%, found {text}")
