"""From the dataclass of a command to its flags, by tyro: one way to declare, to parse and to show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Annotated, Any

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

Flag = tyro.conf.FlagCreatePairsOff[bool]  # `--json`, without a `--no-json`
Flags = tyro.conf.arg(name="")  # the fields of a dataclass as flags without a prefix

Hidden = Callable[[type, StructFieldSpec], bool]


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
        hidden: tells which fields, of which dataclass, are no flags; these keep their default.
        markers: of `tyro.conf`, for all flags.
        options: further arguments of `tyro.cli`.

    Raises:
        SystemExit: 2 for wrong flags and values, 0 after --help.
    """
    return tyro.cli(
        command,
        prog=prog,
        args=argv,
        # `mask_head: MaskHeadConfig | None` gives flags, not a subcommand.
        config=(tyro.conf.AvoidSubcommands, tyro.conf.PositionalMetavarFromFieldName, *markers),
        registry=_registry(hidden),
        **options,
    )


def _registry(hidden: Hidden) -> ConstructorRegistry:
    registry = ConstructorRegistry()
    registry.primitive_rule(_levels)
    inside = False

    @registry.struct_rule
    def fields(info: StructTypeInfo) -> StructConstructorSpec | None:
        """How tyro reads our dataclasses, except for fields that are hidden or shown more plainly."""
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
        build = found.instantiate if len(kept) == len(found.fields) else _like(info.default)
        if not info.type.__module__.startswith("maskrcnn.config"):  # there None is a value that may be typed
            kept = [_plain(field) for field in kept]
        return StructConstructorSpec(build, tuple(kept))

    return registry


def _like(default: Any) -> Callable[..., Any]:
    """Builds a copy of a dataclass with the given fields changed; in the help it has the docstring of the class."""

    @wraps(type(default))
    def build(**given: Any) -> Any:
        return replace(default, **given)

    return build


def _plain(field: StructFieldSpec) -> StructFieldSpec:
    """Without "{None}|" and "(default: None)", which say nothing about a flag that need not be given."""
    if field.default not in (None, ()) and field.default is not False:
        return field
    given: Any = tyro.conf.DisallowNone
    return replace(field, type=Annotated[given[field.type], tyro.conf.arg(help_behavior_hint="")])  # type: ignore[arg-type]


def _levels(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Sizes of each pyramid level: `8 16 32 64 128`, or several a level: `8,12 16,24 32,48 64,96 128,192`."""
    if info.type != tuple[tuple[float, ...], ...]:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="LEVEL ... (a size, or several with commas)",
        instance_from_str=lambda args: tuple(tuple(map(float, level.split(","))) for level in args),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(f"{size:g}" for size in level) for level in value],
    )
